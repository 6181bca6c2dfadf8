// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package pop3_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/protocol/mail/login"
	"github.com/kyozon/kyozon/protocol/mail/login/logintest"
	"github.com/kyozon/kyozon/protocol/mail/pop3"
)

// TestClientTLS: nothing that a backend has said in clear is believed in TLS, and no login goes in clear where that must not be.
func TestClientTLS(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		privacy login.Privacy
		said    []string // piece by piece
		want    string
		offers  string
	}{
		{"agreed", login.Required, []string{"+OK x\r\n", "+OK go\r\n", "+OK\r\n+OK in\r\n"},
			"send \"STLS\\r\\n\"\nencrypt\nsend \"USER tim\\r\\n\"\nsend \"PASS secret\\r\\n\"\naccepted \"+OK in\\r\\n\"\n", ""},
		{"refused", login.Required, []string{"+OK x\r\n", "-ERR no\r\n"}, "send \"STLS\\r\\n\"\nfailed (login: no-starttls)\n", ""},
		{"refused, and need not", login.Offered, []string{"+OK x\r\n", "-ERR no\r\n"}, "send \"STLS\\r\\n\"\nsend \"USER tim\\r\\n\"\n", ""},
		{"more in clear", login.Offered, []string{"+OK x\r\n", "+OK go\r\n+OK\r\n"}, "send \"STLS\\r\\n\"\nfailed (login: pipelined)\n", ""},
		{"half a line more in clear", login.Required, []string{"+OK x\r\n", "+OK go\r\n+"}, "send \"STLS\\r\\n\"\nfailed (login: pipelined)\n", ""},
		{"a challenge instead", login.Required, []string{"+OK x\r\n", "+ x\r\n"}, "send \"STLS\\r\\n\"\nfailed (login: bad-reply)\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := pop3.Client{Privacy: tt.privacy, Login: &login.Login{User: []byte("tim"), Password: []byte("secret")}}
			if diff := cmp.Diff(tt.want, logintest.Show(&c, tt.said...)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			if got := string(c.Offers()); got != tt.offers {
				t.Errorf("it offers %q, want %q", got, tt.offers)
			}
		})
	}
}

// FuzzClientTLS holds that a backend with which TLS must be spoken gets no login before that, whatever it says.
func FuzzClientTLS(f *testing.F) {
	for _, s := range []string{"* OK x\r\nkyozon OK x\r\n", "+OK\r\n+OK\r\n", "* OK [CAPABILITY X] x\r\nkyozon NO\r\n", "+OK\r\n-ERR\r\n"} {
		f.Add(s, 1)
	}
	f.Fuzz(func(t *testing.T, said string, step int) {
		c := pop3.Client{Privacy: login.Required, Login: &login.Login{User: []byte("tim"), Password: []byte("secret")}}
		got := logintest.Ask(&c, said, max(step, 0))
		before, _, _ := strings.Cut(got, "encrypt\n")
		if strings.Contains(before, "tim") || strings.Contains(before, "secret") {
			t.Errorf("in clear: %s", before)
		}
	})
}
