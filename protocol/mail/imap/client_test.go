// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package imap_test

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/protocol/mail/imap"
	"github.com/kyozon/kyozon/protocol/mail/login"
	"github.com/kyozon/kyozon/protocol/mail/login/logintest"
	"github.com/kyozon/kyozon/protocol/mail/sasl"
)

func told(client, dialled string) login.Identity {
	return login.Identity{Told: true, Client: netip.MustParseAddrPort(client), Dialled: netip.MustParseAddrPort(dialled)}
}

func TestClient(t *testing.T) {
	t.Parallel()
	plain := &login.Login{Tag: []byte("a1"), User: []byte("tim"), Password: []byte(`se"cr\et`)}
	octets := &login.Login{Tag: []byte("a1"), User: []byte("t\xffm"), Password: []byte("\r\nx")}
	message := &login.Login{Tag: []byte("a1"), User: []byte("tim"), Mechanism: []byte("PLAIN"),
		Kind: sasl.Lookup([]byte("PLAIN")), Message: []byte("AHRpbQBzZWNyZXQ=")}
	prompted := &login.Login{Tag: []byte("a1"), User: []byte("tim"), Mechanism: []byte("LOGIN"),
		Kind: sasl.Lookup([]byte("LOGIN")), Message: []byte("dGlt")}
	const greeting = "* OK [CAPABILITY IMAP4rev1 ID] hello\r\n"
	for _, tt := range []struct {
		name   string
		client imap.Client
		said   string
		want   string
		offers string
	}{
		{name: "only ask", client: imap.Client{}, said: "* OK hello\r\n* CAPABILITY IMAP4rev1 IDLE\r\nkyozon OK done\r\n",
			want: "send \"kyozon CAPABILITY\\r\\n\"\nlearned\n", offers: "IMAP4rev1 IDLE"},
		{name: "told in the greeting", client: imap.Client{}, said: greeting, want: "learned\n", offers: "IMAP4rev1 ID"},
		{name: "login", client: imap.Client{Login: plain}, offers: "IMAP4rev1 ID",
			said: greeting + "* CAPABILITY IMAP4rev1 IDLE MOVE\r\na1 OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n* BYE",
			want: `send "a1 LOGIN \"tim\" \"se\\\"cr\\\\et\"\r\n"
inform "* CAPABILITY IMAP4rev1 IDLE MOVE\r\n"
accepted "a1 OK [CAPABILITY IMAP4rev1 IDLE] Logged in\r\n"
left "* BYE"
`},
		{name: "wrong password", client: imap.Client{Login: plain}, offers: "IMAP4rev1 ID",
			said: greeting + "a1 NO [AUTHENTICATIONFAILED] no\r\n",
			want: "send \"a1 LOGIN \\\"tim\\\" \\\"se\\\\\\\"cr\\\\\\\\et\\\"\\r\\n\"\ndenied \"a1 NO [AUTHENTICATIONFAILED] no\\r\\n\"\n"},
		{name: "told who", client: imap.Client{Login: plain, Identity: told("[2001:db8::1]:4711", "[2001:db8::25]:143")}, offers: "IMAP4rev1 ID",
			said: greeting + "* ID (\"name\" {7}\r\nDovecot)\r\nkyozon OK ID completed.\r\n",
			want: `send "kyozon ID (\"x-originating-ip\" \"2001:db8::1\" \"x-originating-port\" \"4711\" \"x-connected-ip\" \"2001:db8::25\" \"x-connected-port\" \"143\")\r\n"
send "a1 LOGIN \"tim\" \"se\\\"cr\\\\et\"\r\n"
`},
		{name: "told a stand-in", client: imap.Client{Login: plain, Identity: told("100.64.0.7:4711", "[2001:db8::25]:143")}, offers: "IMAP4rev1 ID",
			said: greeting, want: "send \"kyozon ID (\\\"x-originating-ip\\\" \\\"100.64.0.7\\\" \\\"x-originating-port\\\" \\\"4711\\\")\\r\\n\"\n"},
		{name: "cannot be told who", client: imap.Client{Login: plain, Identity: told("[::1]:1", "[::2]:2")}, offers: "IMAP4rev1",
			said: "* OK [CAPABILITY IMAP4rev1] hello\r\n", want: "failed (login: handover-refused)\n"},
		{name: "will not be told who", client: imap.Client{Login: plain, Identity: told("[::1]:1", "[::2]:2")}, offers: "IMAP4rev1 ID",
			said: greeting + "kyozon NO no\r\n",
			want: "send \"kyozon ID (\\\"x-originating-ip\\\" \\\"::1\\\" \\\"x-originating-port\\\" \\\"1\\\" \\\"x-connected-ip\\\" \\\"::2\\\" \\\"x-connected-port\\\" \\\"2\\\")\\r\\n\"\nfailed (login: handover-refused)\n"},
		{name: "literals that wait", client: imap.Client{Login: octets}, offers: "IMAP4rev1 ID", said: greeting + "+ go\r\n+ \r\na1 OK in\r\n",
			want: `send "a1 LOGIN {3}\r\n"
send "t\xffm {3}\r\n"
send "\r\nx\r\n"
accepted "a1 OK in\r\n"
`},
		{name: "literals that do not", client: imap.Client{Login: octets}, offers: "IMAP4rev1 LITERAL-", said: "* OK [CAPABILITY IMAP4rev1 LITERAL-] x\r\n",
			want: "send \"a1 LOGIN {3+}\\r\\nt\\xffm {3+}\\r\\n\\r\\nx\\r\\n\"\n"},
		{name: "in before all was said", client: imap.Client{Login: octets}, offers: "IMAP4rev1 ID", said: greeting + "a1 OK in\r\n",
			want: "send \"a1 LOGIN {3}\\r\\n\"\nfailed (login: bad-reply)\n"},
		{name: "asks for more than there is", client: imap.Client{Login: plain}, offers: "IMAP4rev1 ID", said: greeting + "+ more\r\n",
			want: "send \"a1 LOGIN \\\"tim\\\" \\\"se\\\\\\\"cr\\\\\\\\et\\\"\\r\\n\"\nfailed (login: bad-reply)\n"},
		{name: "initial response", client: imap.Client{Login: message}, offers: "IMAP4rev1 SASL-IR", said: "* OK [CAPABILITY IMAP4rev1 SASL-IR] x\r\n",
			want: "send \"a1 AUTHENTICATE PLAIN AHRpbQBzZWNyZXQ=\\r\\n\"\n"},
		{name: "first message", client: imap.Client{Login: message}, offers: "IMAP4rev1 ID", said: greeting + "+ \r\na1 OK in\r\n",
			want: "send \"a1 AUTHENTICATE PLAIN\\r\\n\"\nsend \"AHRpbQBzZWNyZXQ=\\r\\n\"\naccepted \"a1 OK in\\r\\n\"\n"},
		{name: "prompted", client: imap.Client{Login: prompted}, offers: "IMAP4rev1 SASL-IR",
			said: "* OK [CAPABILITY IMAP4rev1 SASL-IR] x\r\n+ VXNlcm5hbWU6\r\n+ UGFzc3dvcmQ6\r\na1 OK in\r\n",
			want: `send "a1 AUTHENTICATE LOGIN\r\n"
send "dGlt\r\n"
asked "+ UGFzc3dvcmQ6\r\n"
accepted "a1 OK in\r\n"
`},
		{name: "referral", client: imap.Client{Login: message}, offers: "IMAP4rev1 ID", said: greeting + "a1 NO [REFERRAL imap://10.0.0.7/] there\r\n",
			want: "send \"a1 AUTHENTICATE PLAIN\\r\\n\"\nfailed (login: referral)\n"},
		{name: "preauth", client: imap.Client{Login: plain}, said: "* PREAUTH you are root\r\n", want: "failed (login: preauth)\n"},
		{name: "bye", client: imap.Client{Login: plain}, said: "* BYE full\r\n", want: "failed (login: bye)\n"},
		{name: "bye later", client: imap.Client{Login: message}, offers: "IMAP4rev1 ID", said: greeting + "* BYE full\r\n",
			want: "send \"a1 AUTHENTICATE PLAIN\\r\\n\"\nfailed (login: bye)\n"},
		{name: "not IMAP", client: imap.Client{Login: plain}, said: "220 mx ESMTP\r\n", want: "failed (login: bad-reply)\n"},
		{name: "no greeting", client: imap.Client{Login: plain}, said: "* CAPABILITY IMAP4rev1\r\n", offers: "IMAP4rev1", want: "failed (login: bad-reply)\n"},
		{name: "another's tag", client: imap.Client{Login: message}, offers: "IMAP4rev1 ID", said: greeting + "a2 OK in\r\n",
			want: "send \"a1 AUTHENTICATE PLAIN\\r\\n\"\nfailed (login: bad-reply)\n"},
		{name: "no capabilities", client: imap.Client{Login: plain}, said: "* OK x\r\nkyozon OK x\r\n", want: "send \"kyozon CAPABILITY\\r\\n\"\nfailed (login: bad-reply)\n"},
		{name: "too long", client: imap.Client{Login: plain}, said: "* OK " + strings.Repeat("x", 20<<10), want: "failed (login: bad-reply)\n"},
		{name: "literal too long", client: imap.Client{Login: plain}, said: "* OK {99999}\r\n", want: "failed (login: bad-reply)\n"},
		{name: "bare LF", client: imap.Client{Login: plain}, said: "* OK x\n", want: "failed (login: bad-reply)\n"},
	} {
		for _, step := range []int{0, 1, 5} {
			t.Run(tt.name+"/"+strconv.Itoa(step), func(t *testing.T) {
				t.Parallel()
				c := tt.client
				if diff := cmp.Diff(tt.want, logintest.Ask(&c, tt.said, step)); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
				if got := string(c.Offers()); got != tt.offers {
					t.Errorf("it offers %q, want %q", got, tt.offers)
				}
			})
		}
	}
}
