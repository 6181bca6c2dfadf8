// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package pop3_test

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/protocol/mail/login"
	"github.com/kyozon/kyozon/protocol/mail/login/logintest"
	"github.com/kyozon/kyozon/protocol/mail/pop3"
	"github.com/kyozon/kyozon/protocol/mail/sasl"
)

// dovecot is what a Dovecot of Debian can do, and some of what others can.
const dovecot = "CAPA\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nPIPELINING\r\nAUTH-RESP-CODE\r\nSTLS\r\nUSER\r\nSASL PLAIN CRAM-MD5 LOGIN\r\nUTF8 USER\r\nLANG\r\n"

func TestServer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		server   pop3.Server
		sent     string
		offers   string
		outcomes []login.Outcome
		want     string
	}{
		{name: "before the login", server: pop3.Server{Secure: true}, offers: dovecot, sent: "CAPA\r\nquit\r\nCAPA\r\n",
			want: `reply "+OK Capability list follows\r\nCAPA\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nPIPELINING\r\nAUTH-RESP-CODE\r\nUSER\r\nSASL PLAIN LOGIN\r\n.\r\n"
close "+OK Logging out.\r\n"
`},
		{name: "nothing known of backends", server: pop3.Server{Secure: true}, sent: "CAPA\r\n",
			want: "wanted\nreply \"+OK Capability list follows\\r\\n.\\r\\n\"\n"},
		{name: "no mechanism that can be carried", server: pop3.Server{Clear: true}, offers: "SASL CRAM-MD5\r\n", sent: "CAPA\r\n",
			want: "reply \"+OK Capability list follows\\r\\n.\\r\\n\"\n"},
		{name: "in clear", server: pop3.Server{StartTLS: true}, offers: dovecot,
			sent: "CAPA\r\nUSER tim\r\nPASS x\r\nAUTH PLAIN\r\nAUTH PLAIN AHRpbQBzZWNyZXQ=\r\n",
			want: `reply "+OK Capability list follows\r\nCAPA\r\nTOP\r\nUIDL\r\nRESP-CODES\r\nPIPELINING\r\nAUTH-RESP-CODE\r\nSTLS\r\n.\r\n"
reply "-ERR Not without TLS.\r\n" (login: insecure)
reply "-ERR Not without TLS.\r\n" (login: insecure)
reply "-ERR Not without TLS.\r\n" (login: insecure)
reply "-ERR Not without TLS.\r\n" (login: insecure)
`},
		{name: "login", server: pop3.Server{Secure: true}, outcomes: []login.Outcome{login.Answered, login.Unavailable, login.TooMany},
			sent: "USER tim\r\nPASS  two  words \r\nUSER a b\r\nPASS \r\nuser tim\r\npass x\r\nPASS x\r\nUSER tim\r\nUSER tom\r\nPASS x\r\n",
			want: `reply "+OK Send your password.\r\n"
attempt  user="tim" password=" two  words "
reply "+OK Send your password.\r\n"
attempt  user="a b" password=""
reply "-ERR [SYS/TEMP] Mailboxes cannot be reached now.\r\n"
reply "+OK Send your password.\r\n"
attempt  user="tim" password="x"
reply "-ERR [SYS/TEMP] Too many failed logins, try again later.\r\n"
reply "-ERR Syntax error.\r\n" (login: syntax)
reply "+OK Send your password.\r\n"
reply "+OK Send your password.\r\n"
attempt  user="tom" password="x"
`},
		{name: "exchange", server: pop3.Server{Secure: true}, outcomes: []login.Outcome{login.Challenged, login.Challenged, login.Answered},
			sent: "AUTH LOGIN\r\ndGlt\r\nc2VjcmV0\r\n*\r\nQUIT\r\n",
			want: `reply "+ VXNlcm5hbWU6\r\n"
attempt  user="tim" LOGIN "dGlt"
line "c2VjcmV0\r\n"
line "*\r\n"
close "+OK Logging out.\r\n"
`},
		{name: "first message", server: pop3.Server{Secure: true}, outcomes: []login.Outcome{login.Answered, login.Answered},
			sent: "auth plain\r\nAHRpbQBzZWNyZXQ=\r\nAUTH PLAIN AHRpbQBzZWNyZXQ=\r\nAUTH PLAIN\r\n*\r\nAUTH PLAIN =\r\nAUTH CRAM-MD5\r\nAUTH\r\n" +
				"AUTH PLAIN AHRp bQ==\r\nAUTH PLAIN\r\nQUIT\r\n",
			want: `reply "+ \r\n"
attempt  user="tim" PLAIN "AHRpbQBzZWNyZXQ="
attempt  user="tim" PLAIN "AHRpbQBzZWNyZXQ="
reply "+ \r\n"
reply "-ERR Cancelled.\r\n" (login: cancelled)
reply "-ERR [AUTH] No user is named.\r\n" (login: nobody)
reply "-ERR Mechanism not supported.\r\n" (login: mechanism)
reply "-ERR Syntax error.\r\n" (login: syntax)
reply "-ERR [AUTH] No user is named.\r\n" (login: nobody)
reply "+ \r\n"
reply "-ERR [AUTH] No user is named.\r\n" (login: nobody)
`},
		{name: "not before login", server: pop3.Server{Secure: true, Limits: login.Limits{Errors: 99}},
			sent: "STAT\r\nNOOP\r\nAPOP tim c4c9334bac560ecc979e58001b3e22fb\r\nXCLIENT ADDR=::1\r\nxclient\r\nSTLS\r\nCAPA x\r\nQUIT now\r\nUTF8\r\n\r\nUSER\r\nPASS x\r\n",
			want: `reply "-ERR Not a command before login.\r\n" (login: unknown-command)
reply "-ERR Not a command before login.\r\n" (login: unknown-command)
reply "-ERR Not a command before login.\r\n" (login: unknown-command)
reply "-ERR Not for clients.\r\n" (login: untrusted)
reply "-ERR Not for clients.\r\n" (login: untrusted)
reply "-ERR Not a command before login.\r\n" (login: unknown-command)
reply "-ERR Syntax error.\r\n" (login: syntax)
reply "-ERR Syntax error.\r\n" (login: syntax)
reply "-ERR Not a command before login.\r\n" (login: unknown-command)
reply "-ERR Not a command before login.\r\n" (login: unknown-command)
reply "-ERR [AUTH] No user is named.\r\n" (login: nobody)
reply "-ERR Syntax error.\r\n" (login: syntax)
`},
		{name: "line too long", server: pop3.Server{Secure: true}, sent: "USER " + strings.Repeat("x", 20<<10),
			want: "close \"-ERR Line too long.\\r\\n\" (login: line-too-long)\n"},
		{name: "user too long", server: pop3.Server{Secure: true}, sent: "USER " + strings.Repeat("x", 513) + "\r\n",
			want: "reply \"-ERR [AUTH] No user is named.\\r\\n\" (login: nobody)\n"},
		{name: "bare LF", server: pop3.Server{Secure: true}, sent: "CAPA\nQUIT\r\n",
			want: "close \"-ERR Only CRLF ends a line.\\r\\n\" (login: bare-line-end)\n"},
		{name: "too many errors", server: pop3.Server{Secure: true, Limits: login.Limits{Errors: 2}}, sent: "X\r\nX\r\nX\r\n",
			want: "reply \"-ERR Not a command before login.\\r\\n\" (login: unknown-command)\nclose \"-ERR Too many errors.\\r\\n\" (login: too-many-errors)\n"},
		{name: "too many wrong passwords", server: pop3.Server{Secure: true, Limits: login.Limits{Errors: 2}},
			sent: "USER a\r\nPASS b\r\nUSER a\r\nPASS c\r\nQUIT\r\n", outcomes: []login.Outcome{login.Answered, login.Answered},
			want: "reply \"+OK Send your password.\\r\\n\"\nattempt  user=\"a\" password=\"b\"\nreply \"+OK Send your password.\\r\\n\"\n" +
				"attempt  user=\"a\" password=\"c\"\nclose (login: too-many-errors)\n"},
	} {
		for _, step := range []int{0, 1, 7} {
			t.Run(tt.name+"/"+strconv.Itoa(step), func(t *testing.T) {
				t.Parallel()
				var offers []byte
				if tt.offers != "" {
					offers = []byte(tt.offers)
				}
				s := tt.server
				if diff := cmp.Diff(tt.want, logintest.Serve(&s, tt.sent, step, offers, tt.outcomes...)); diff != "" {
					t.Errorf("-want +got:\n%s", diff)
				}
			})
		}
	}
}

// TestSTLS: what comes behind the command, in the same piece or before the handshake, is never taken for a command, and
// a user who was named before it is forgotten.
func TestSTLS(t *testing.T) {
	t.Parallel()
	s := pop3.Server{StartTLS: true}
	got := logintest.Serve(&s, "STLS\r\nCAPA\r\n", 0, nil)
	if want := "close \"-ERR Sent before its time.\\r\\n\" (login: pipelined)\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	s = pop3.Server{StartTLS: true, Clear: true}
	s.Next([]byte("USER mallory\r\n"))
	if e, n := s.Next([]byte("STLS\r\n")); e.Kind != login.Upgrade || n != 6 {
		t.Fatalf("got %v, %d", e, n)
	}
	forgotten := s
	if e, _ := s.Next([]byte("PASS x\r\n")); e.Kind != login.Close || e.Refusal != login.Pipelined {
		t.Errorf("in clear behind STLS: got %v", e)
	}
	forgotten.Tell(login.Secured)
	if e, _ := forgotten.Next([]byte("PASS x\r\n")); e.Refusal != login.Syntax {
		t.Errorf("a password for who was named in clear: got %v", e)
	}
	if e, _ := forgotten.Next([]byte("STLS\r\n")); e.Refusal != login.Unknown {
		t.Errorf("STLS again: got %v", e)
	}
}

func TestClient(t *testing.T) {
	t.Parallel()
	plain := &login.Login{User: []byte("tim"), Password: []byte(" two  words ")}
	message := &login.Login{User: []byte("tim"), Mechanism: []byte("LOGIN"), Kind: sasl.Lookup([]byte("LOGIN")), Message: []byte("dGlt")}
	who := login.Identity{Told: true, Client: netip.MustParseAddrPort("[2001:db8::1]:4711"), Dialled: netip.MustParseAddrPort("[2001:db8::25]:110")}
	for _, tt := range []struct {
		name   string
		client pop3.Client
		said   string
		want   string
		offers string
	}{
		{name: "only ask", said: "+OK hello\r\n+OK\r\nTOP\r\nSASL PLAIN\r\n.\r\n", want: "send \"CAPA\\r\\n\"\nlearned\n", offers: "TOP\r\nSASL PLAIN\r\n"},
		{name: "only ask an old one", said: "+OK hello\r\n-ERR what\r\n", want: "send \"CAPA\\r\\n\"\nlearned\n", offers: "USER\r\n"},
		{name: "login", client: pop3.Client{Login: plain}, said: "+OK hello\r\n+OK\r\n+OK Logged in.\r\n-ERR",
			want: `send "USER tim\r\n"
send "PASS  two  words \r\n"
accepted "+OK Logged in.\r\n"
left "-ERR"
`},
		{name: "wrong password", client: pop3.Client{Login: plain}, said: "+OK hello\r\n+OK\r\n-ERR [AUTH] no\r\n",
			want: "send \"USER tim\\r\\n\"\nsend \"PASS  two  words \\r\\n\"\ndenied \"-ERR [AUTH] no\\r\\n\"\n"},
		{name: "wrong user", client: pop3.Client{Login: plain}, said: "+OK hello\r\n-ERR [AUTH] no\r\n",
			want: "send \"USER tim\\r\\n\"\ndenied \"-ERR [AUTH] no\\r\\n\"\n"},
		{name: "exchange", client: pop3.Client{Login: message}, said: "+OK hello\r\n+ VXNlcm5hbWU6\r\n+ UGFzc3dvcmQ6\r\n+OK in\r\n",
			want: `send "AUTH LOGIN\r\n"
send "dGlt\r\n"
asked "+ UGFzc3dvcmQ6\r\n"
accepted "+OK in\r\n"
`},
		{name: "in before all was said", client: pop3.Client{Login: message}, said: "+OK hello\r\n+OK in\r\n",
			want: "send \"AUTH LOGIN\\r\\n\"\nfailed (login: bad-reply)\n"},
		{name: "told who", client: pop3.Client{Login: plain, Identity: who}, said: "+OK [XCLIENT] Dovecot ready.\r\n+OK Updated\r\n",
			want: "send \"XCLIENT ADDR=2001:db8::1 PORT=4711\\r\\n\"\nsend \"USER tim\\r\\n\"\n"},
		{name: "cannot be told who", client: pop3.Client{Login: plain, Identity: who}, said: "+OK Dovecot ready.\r\n", want: "failed (login: handover-refused)\n"},
		{name: "will not be told who", client: pop3.Client{Login: plain, Identity: who}, said: "+OK [XCLIENT] x\r\n-ERR no\r\n",
			want: "send \"XCLIENT ADDR=2001:db8::1 PORT=4711\\r\\n\"\nfailed (login: handover-refused)\n"},
		{name: "will have no one", client: pop3.Client{Login: plain}, said: "-ERR full\r\n", want: "failed (login: bye)\n"},
		{name: "asks a password for more", client: pop3.Client{Login: plain}, said: "+OK hello\r\n+ more\r\n", want: "send \"USER tim\\r\\n\"\nfailed (login: bad-reply)\n"},
		{name: "asks first", client: pop3.Client{Login: message}, said: "+ more\r\n", want: "failed (login: bad-reply)\n"},
		{name: "not POP3", client: pop3.Client{Login: plain}, said: "* OK IMAP\r\n", want: "failed (login: bad-reply)\n"},
		{name: "too long", client: pop3.Client{Login: plain}, said: "+OK " + strings.Repeat("x", 20<<10), want: "failed (login: bad-reply)\n"},
		{name: "list too long", said: "+OK hello\r\n+OK\r\n" + strings.Repeat("X\r\n", 8<<10), want: "send \"CAPA\\r\\n\"\nfailed (login: bad-reply)\n",
			offers: strings.Repeat("X\r\n", 5462)},
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
