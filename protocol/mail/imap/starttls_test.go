// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package imap_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/protocol/mail/imap"
	"github.com/kyozon/kyozon/protocol/mail/login"
	"github.com/kyozon/kyozon/protocol/mail/login/logintest"
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
		{"agreed", login.Required, []string{"* OK [CAPABILITY IMAP4rev1 STARTTLS LOGINDISABLED] x\r\n", "* NO x\r\nkyozon OK go\r\n",
			"* CAPABILITY IMAP4rev1 SASL-IR\r\nkyozon OK x\r\na1 OK in\r\n"},
			"send \"kyozon STARTTLS\\r\\n\"\nencrypt\nsend \"kyozon CAPABILITY\\r\\n\"\nsend \"a1 LOGIN \\\"tim\\\" \\\"secret\\\"\\r\\n\"\naccepted \"a1 OK in\\r\\n\"\n",
			"IMAP4rev1 SASL-IR"},
		{"asked though nothing was offered yet", login.Required, []string{"* OK x\r\n", "kyozon OK go\r\n"},
			"send \"kyozon STARTTLS\\r\\n\"\nencrypt\nsend \"kyozon CAPABILITY\\r\\n\"\n", ""},
		{"not offered", login.Required, []string{"* OK [CAPABILITY IMAP4rev1] x\r\n"}, "failed (login: no-starttls)\n", "IMAP4rev1"},
		{"not offered, and need not", login.Offered, []string{"* OK [CAPABILITY IMAP4rev1] x\r\n"},
			"send \"a1 LOGIN \\\"tim\\\" \\\"secret\\\"\\r\\n\"\n", "IMAP4rev1"},
		{"refused", login.Required, []string{"* OK x\r\n", "kyozon BAD x\r\n"}, "send \"kyozon STARTTLS\\r\\n\"\nfailed (login: no-starttls)\n", ""},
		{"refused, and need not", login.Offered, []string{"* OK x\r\n", "kyozon NO x\r\n"},
			"send \"kyozon STARTTLS\\r\\n\"\nsend \"kyozon CAPABILITY\\r\\n\"\n", ""},
		{"more in clear", login.Offered, []string{"* OK x\r\n", "kyozon OK go\r\n* CAPABILITY IMAP4rev1\r\nkyozon OK x\r\n"},
			"send \"kyozon STARTTLS\\r\\n\"\nfailed (login: pipelined)\n", ""},
		{"half a line more in clear", login.Required, []string{"* OK x\r\n", "kyozon OK go\r\n*"},
			"send \"kyozon STARTTLS\\r\\n\"\nfailed (login: pipelined)\n", ""},
		{"in before it was asked", login.Required, []string{"* PREAUTH x\r\n"}, "failed (login: preauth)\n", ""},
		{"another's tag", login.Required, []string{"* OK x\r\n", "a1 OK go\r\n"}, "send \"kyozon STARTTLS\\r\\n\"\nfailed (login: bad-reply)\n", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := imap.Client{Privacy: tt.privacy, Login: &login.Login{Tag: []byte("a1"), User: []byte("tim"), Password: []byte("secret")}}
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
		c := imap.Client{Privacy: login.Required, Login: &login.Login{Tag: []byte("a1"), User: []byte("tim"), Password: []byte("secret")}}
		got := logintest.Ask(&c, said, max(step, 0))
		before, _, _ := strings.Cut(got, "encrypt\n")
		if strings.Contains(before, "tim") || strings.Contains(before, "secret") {
			t.Errorf("in clear: %s", before)
		}
	})
}
