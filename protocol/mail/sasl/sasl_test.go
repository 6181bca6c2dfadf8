// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sasl_test

import (
	"bytes"
	"encoding/base64"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/protocol/mail/sasl"
)

func TestUser(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, mechanism, message string
		want                     string // "" means that it is refused
	}{
		{"plain", "PLAIN", "\x00tim\x00tanstaaftanstaaf", "tim"},
		{"plain in another's name", "plain", "Ursel\x00Kurt\x00xipj3plmq", "Ursel"},
		{"plain without a password", "PLAIN", "\x00tim\x00", ""},
		{"plain without a user", "PLAIN", "\x00\x00secret", ""},
		{"plain with a part too many", "PLAIN", "\x00tim\x00se\x00cret", ""},
		{"plain with parts missing", "PLAIN", "tim", ""},
		{"login", "LOGIN", "tim@example.jp", "tim@example.jp"},
		{"login of nobody", "LOGIN", "", ""},
		{"login with NUL", "LOGIN", "tim\x00x", ""},
		{"name too long", "LOGIN", strings.Repeat("x", sasl.MaxUser+1), ""},
		{"longest name", "LOGIN", strings.Repeat("x", sasl.MaxUser), strings.Repeat("x", sasl.MaxUser)},
		{"scram", "SCRAM-SHA-256", "n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "user"},
		{"scram of who would bind if we could", "SCRAM-SHA-1", "y,,n=user,r=x", "user"},
		{"scram in another's name", "SCRAM-SHA-1", "n,a=boss,n=user,r=x", "boss"},
		{"scram with quoted signs", "SCRAM-SHA-1", "n,,n=a=2Cb=3Dc,r=x", "a,b=c"},
		{"scram with another quoted sign", "SCRAM-SHA-1", "n,,n=a=2Db,r=x", ""},
		{"scram bound to a channel", "SCRAM-SHA-1", "p=tls-exporter,,n=user,r=x", ""},
		{"scram with an extension", "SCRAM-SHA-1", "n,,m=x,n=user,r=x", ""},
		{"scram cut", "SCRAM-SHA-1", "n,,n=user", ""},
		{"oauthbearer", "OAUTHBEARER", "n,a=user@example.com,\x01host=server\x01auth=Bearer vF9dft\x01\x01", "user@example.com"},
		{"oauthbearer of nobody", "OAUTHBEARER", "n,,\x01auth=Bearer vF9dft\x01\x01", ""},
		{"xoauth2", "XOAUTH2", "user=tim@example.jp\x01auth=Bearer vF9dft\x01\x01", "tim@example.jp"},
		{"xoauth2 without the user", "XOAUTH2", "auth=Bearer vF9dft\x01\x01", ""},
		{"xoauth2 cut", "XOAUTH2", "user=tim", ""},
		{"server first", "CRAM-MD5", "tim", ""},
		{"bound to a channel", "SCRAM-SHA-256-PLUS", "p=tls-exporter,,n=user,r=x", ""},
		{"of the certificate", "EXTERNAL", "tim", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			message := base64.StdEncoding.EncodeToString([]byte(tt.message))
			got, ok := sasl.Lookup([]byte(tt.mechanism)).User([]byte("> "), []byte(message))
			if string(got) != "> "+tt.want || ok != (tt.want != "") {
				t.Errorf("got %q, %v, want %q", got, ok, tt.want)
			}
		})
	}
}

// TestBase64: what one program skips and another does not is refused.
func TestBase64(t *testing.T) {
	t.Parallel()
	for _, message := range []string{"dGlt\r\n", "dG\nlt", "dGlt=", "dGltYg", "dGltYh==", "dG lt", "=", "*"} {
		if got, ok := sasl.Lookup([]byte("LOGIN")).User(nil, []byte(message)); ok {
			t.Errorf("%q names %q", message, got)
		}
	}
}

func TestPrompt(t *testing.T) {
	t.Parallel()
	for mechanism, want := range map[string]string{"LOGIN": "Username:", "PLAIN": "", "SCRAM-SHA-1": ""} {
		got, err := base64.StdEncoding.DecodeString(sasl.Lookup([]byte(mechanism)).Prompt())
		if err != nil || string(got) != want {
			t.Errorf("%s prompts with %q, %v, want %q", mechanism, got, err, want)
		}
	}
}

// FuzzUser holds that a name is what can be a name, and stands in the message unless signs in it were quoted.
func FuzzUser(f *testing.F) {
	for _, s := range []string{"\x00tim\x00secret", "n,,n=user,r=x", "n,a=b=2C,\x01auth=Bearer x\x01\x01", "user=x\x01auth=y\x01\x01"} {
		for _, m := range []string{"PLAIN", "LOGIN", "SCRAM-SHA-1", "OAUTHBEARER", "XOAUTH2"} {
			f.Add(m, []byte(s))
		}
	}
	f.Fuzz(func(t *testing.T, mechanism string, message []byte) {
		k := sasl.Lookup([]byte(mechanism))
		user, ok := k.User(nil, []byte(base64.StdEncoding.EncodeToString(message)))
		k.User(nil, message)
		switch {
		case !ok:
		case len(user) == 0 || len(user) > sasl.MaxUser || bytes.IndexByte(user, 0) >= 0:
			t.Errorf("%q is no name", user)
		case !bytes.ContainsAny(user, ",=") && !bytes.Contains(message, user):
			t.Errorf("%q is not in %q", user, message)
		}
	})
}
