// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package imap_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/protocol/mail/imap"
	"github.com/kyozon/kyozon/protocol/mail/login"
	"github.com/kyozon/kyozon/protocol/mail/login/logintest"
)

// dovecot is what a Dovecot of Debian offers before a login, and some of what others do.
const dovecot = "IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ STARTTLS AUTH=PLAIN AUTH=LOGIN AUTH=CRAM-MD5"

func TestServer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		server   imap.Server
		sent     string
		offers   string
		outcomes []login.Outcome
		want     string
	}{
		{name: "before the login", server: imap.Server{Secure: true}, offers: dovecot,
			sent: "a CAPABILITY\r\nb noop\r\nc ID NIL\r\nd ID (\"name\" \"x\" \"os\" NIL)\r\ne LOGOUT\r\nf NOOP\r\n",
			want: `reply "* CAPABILITY IMAP4rev1 ID ENABLE IDLE LITERAL+ AUTH=PLAIN AUTH=LOGIN SASL-IR\r\na OK Capability completed.\r\n"
reply "b OK NOOP completed.\r\n"
reply "* ID NIL\r\nc OK ID completed.\r\n"
reply "* ID NIL\r\nd OK ID completed.\r\n"
close "* BYE Logging out\r\ne OK Logout completed.\r\n"
`},
		{name: "nothing known of backends", server: imap.Server{Secure: true}, sent: "a CAPABILITY\r\n",
			want: "wanted\nreply \"* CAPABILITY\\r\\na OK Capability completed.\\r\\n\"\n"},
		{name: "backend without logins", server: imap.Server{Clear: true}, offers: "IMAP4rev1 LOGINDISABLED", sent: "a CAPABILITY\r\n",
			want: "reply \"* CAPABILITY IMAP4rev1 LOGINDISABLED\\r\\na OK Capability completed.\\r\\n\"\n"},
		{name: "in clear", server: imap.Server{StartTLS: true}, offers: dovecot,
			sent: "a CAPABILITY\r\nb LOGIN tim secret\r\nc AUTHENTICATE PLAIN\r\nd AUTHENTICATE PLAIN AHRpbQBzZWNyZXQ=\r\n",
			want: `reply "* CAPABILITY IMAP4rev1 ID ENABLE IDLE LITERAL+ STARTTLS LOGINDISABLED\r\na OK Capability completed.\r\n"
reply "b NO [PRIVACYREQUIRED] Not without TLS.\r\n" (login: insecure)
reply "c NO [PRIVACYREQUIRED] Not without TLS.\r\n" (login: insecure)
reply "d NO [PRIVACYREQUIRED] Not without TLS.\r\n" (login: insecure)
`},
		{name: "login", server: imap.Server{Secure: true}, outcomes: []login.Outcome{login.Answered, login.Unavailable, login.TooMany},
			sent: "a LOGIN tim secret\r\nb login \"t\\\"i\\\\m\" \"\"\r\nc LOGIN tim@example.jp \"p w\"\r\nd LOGIN tim x\r\n",
			want: `attempt a user="tim" password="secret"
attempt b user="t\"i\\m" password=""
reply "b NO [UNAVAILABLE] Mailboxes cannot be reached now.\r\n"
attempt c user="tim@example.jp" password="p w"
reply "c NO [UNAVAILABLE] Too many failed logins, try again later.\r\n"
attempt d user="tim" password="x"
`},
		{name: "literals", server: imap.Server{Clear: true}, outcomes: []login.Outcome{login.Answered, login.Answered, login.Answered},
			sent: "a LOGIN {3}\r\ntim {6}\r\nsecret\r\nb LOGIN {3+}\r\nt\rm {4+}\r\n\r\n\xff{\r\nc LOGIN tim {0}\r\n\r\n",
			want: `reply "+ OK\r\n"
reply "+ OK\r\n"
attempt a user="tim" password="secret"
attempt b user="t\rm" password="\r\n\xff{"
reply "+ OK\r\n"
attempt c user="tim" password=""
`},
		{name: "exchange", server: imap.Server{Secure: true}, outcomes: []login.Outcome{login.Challenged, login.Challenged, login.Answered},
			sent: "a AUTHENTICATE LOGIN\r\ndGlt\r\nc2VjcmV0\r\n*\r\nb NOOP\r\n",
			want: `reply "+ VXNlcm5hbWU6\r\n"
attempt a user="tim" LOGIN "dGlt"
line "c2VjcmV0\r\n"
line "*\r\n"
reply "b OK NOOP completed.\r\n"
`},
		{name: "first message", server: imap.Server{Secure: true}, outcomes: []login.Outcome{login.Answered, login.Answered},
			sent: "a AUTHENTICATE plain\r\nAHRpbQBzZWNyZXQ=\r\nb AUTHENTICATE PLAIN AHRpbQBzZWNyZXQ=\r\nc AUTHENTICATE PLAIN\r\n*\r\n" +
				"d AUTHENTICATE PLAIN =\r\ne AUTHENTICATE CRAM-MD5\r\nf AUTHENTICATE EXTERNAL =\r\ng AUTHENTICATE PLAIN AHRp bQ==\r\n",
			want: `reply "+ \r\n"
attempt a user="tim" PLAIN "AHRpbQBzZWNyZXQ="
attempt b user="tim" PLAIN "AHRpbQBzZWNyZXQ="
reply "+ \r\n"
reply "c BAD Cancelled.\r\n" (login: cancelled)
reply "d NO [AUTHENTICATIONFAILED] No user is named.\r\n" (login: nobody)
reply "e NO Mechanism not supported.\r\n" (login: mechanism)
reply "f NO Mechanism not supported.\r\n" (login: mechanism)
reply "g NO [AUTHENTICATIONFAILED] No user is named.\r\n" (login: nobody)
`},
		{name: "not before login", server: imap.Server{Secure: true, Limits: login.Limits{Errors: 99}},
			sent: "a ENABLE UTF8=ACCEPT\r\nb SELECT INBOX\r\nc IDLE\r\nd STARTTLS\r\ne XCLIENT ADDR=::1\r\nf\r\n + x\r\ng NOOP x\r\n" +
				"h+ NOOP\r\ni APPEND x {3}\r\nabc\r\n",
			want: `reply "a BAD Not a command before login.\r\n" (login: unknown-command)
reply "b BAD Not a command before login.\r\n" (login: unknown-command)
reply "c BAD Not a command before login.\r\n" (login: unknown-command)
reply "d BAD Not a command before login.\r\n" (login: unknown-command)
reply "e BAD Not a command before login.\r\n" (login: unknown-command)
reply "* BAD Syntax error.\r\n" (login: syntax)
reply "* BAD Syntax error.\r\n" (login: syntax)
reply "g BAD Syntax error.\r\n" (login: syntax)
reply "* BAD Syntax error.\r\n" (login: syntax)
reply "+ OK\r\n"
reply "i BAD Not a command before login.\r\n" (login: unknown-command)
`},
		{name: "bad logins", server: imap.Server{Secure: true, Limits: login.Limits{Errors: 99}},
			sent: "k LOGIN\r\nl LOGIN a\r\nm LOGIN a b c\r\nn LOGIN \"a\r\no LOGIN a(b c\r\n" +
				"p LOGIN \"a\\b\" c\r\nr AUTHENTICATE\r\ns ID (\"a\")\r\nt ID (\"a\" \"b\"\r\n" + strings.Repeat("u", 65) + " NOOP\r\nv LOGIN \"\" x\r\nw LOGIN a{1}\r\nb\r\n",
			want: `reply "k BAD Syntax error.\r\n" (login: syntax)
reply "l BAD Syntax error.\r\n" (login: syntax)
reply "m BAD Syntax error.\r\n" (login: syntax)
reply "n BAD Syntax error.\r\n" (login: syntax)
reply "o BAD Syntax error.\r\n" (login: syntax)
reply "p BAD Syntax error.\r\n" (login: syntax)
reply "r BAD Syntax error.\r\n" (login: syntax)
reply "s BAD Syntax error.\r\n" (login: syntax)
reply "t BAD Syntax error.\r\n" (login: syntax)
reply "* BAD Syntax error.\r\n" (login: syntax)
reply "v NO [AUTHENTICATIONFAILED] No user is named.\r\n" (login: nobody)
reply "+ OK\r\n"
reply "w BAD Syntax error.\r\n" (login: syntax)
`},
		{name: "literal too large that was not sent", server: imap.Server{Secure: true}, sent: "a LOGIN tim {4097}\r\n",
			want: "reply \"a BAD Syntax error.\\r\\n\" (login: syntax)\n"},
		{name: "literal too large that comes", server: imap.Server{Secure: true}, sent: "a LOGIN tim {4097+}\r\nb NOOP\r\n",
			want: "close \"* BYE Command too long.\\r\\n\" (login: line-too-long)\n"},
		{name: "too many literals", server: imap.Server{Secure: true, Limits: login.Limits{Command: 64}},
			sent: strings.Repeat("a LOGIN {20+}\r\n01234567890123456789 ", 3),
			want: "close \"* BYE Command too long.\\r\\n\" (login: line-too-long)\n"},
		{name: "command too long", server: imap.Server{Secure: true}, sent: "a LOGIN " + strings.Repeat("x", 20<<10),
			want: "close \"* BYE Command too long.\\r\\n\" (login: line-too-long)\n"},
		{name: "line of an exchange too long", server: imap.Server{Secure: true}, outcomes: []login.Outcome{login.Challenged},
			sent: "a AUTHENTICATE LOGIN\r\ndGlt\r\n" + strings.Repeat("x", 20<<10),
			want: "reply \"+ VXNlcm5hbWU6\\r\\n\"\nattempt a user=\"tim\" LOGIN \"dGlt\"\nclose \"* BYE Command too long.\\r\\n\" (login: line-too-long)\n"},
		{name: "bare LF", server: imap.Server{Secure: true}, sent: "a NOOP\nb NOOP\r\n",
			want: "close \"* BYE Only CRLF ends a line.\\r\\n\" (login: bare-line-end)\n"},
		{name: "NUL", server: imap.Server{Secure: true}, sent: "a NO\x00OP\r\n",
			want: "close \"* BYE Only CRLF ends a line.\\r\\n\" (login: bare-line-end)\n"},
		{name: "NUL in a literal", server: imap.Server{Secure: true}, sent: "a LOGIN {1+}\r\n\x00 x\r\n",
			want: "reply \"a BAD Syntax error.\\r\\n\" (login: syntax)\n"},
		{name: "too many errors", server: imap.Server{Secure: true, Limits: login.Limits{Errors: 2}}, sent: "a X\r\nb X\r\nc X\r\n",
			want: "reply \"a BAD Not a command before login.\\r\\n\" (login: unknown-command)\nclose \"* BYE Too many errors.\\r\\n\" (login: too-many-errors)\n"},
		{name: "too many wrong passwords", server: imap.Server{Secure: true, Limits: login.Limits{Errors: 2}},
			sent: "a LOGIN a b\r\nb LOGIN a c\r\nc NOOP\r\n", outcomes: []login.Outcome{login.Answered, login.Answered},
			want: "attempt a user=\"a\" password=\"b\"\nattempt b user=\"a\" password=\"c\"\nclose \"* BYE Too many errors.\\r\\n\" (login: too-many-errors)\n"},
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

// TestStartTLS: what comes behind the command, in the same piece or before the handshake, is never taken for a command.
func TestStartTLS(t *testing.T) {
	t.Parallel()
	s := imap.Server{StartTLS: true}
	got := logintest.Serve(&s, "a STARTTLS\r\nb NOOP\r\n", 0, nil)
	if want := "close \"* BYE Sent before its time.\\r\\n\" (login: pipelined)\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	s = imap.Server{StartTLS: true}
	if e, n := s.Next([]byte("a STARTTLS\r\n")); e.Kind != login.Upgrade || n != 12 || string(e.Text) != "a OK Begin TLS negotiation now.\r\n" {
		t.Fatalf("got %v, %d", e, n)
	}
	if e, _ := s.Next([]byte("b LOGIN tim secret\r\n")); e.Kind != login.Close || e.Refusal != login.Pipelined {
		t.Errorf("in clear behind STARTTLS: got %v", e)
	}
	s = imap.Server{StartTLS: true}
	got = logintest.Serve(&s, "a STARTTLS\r\nb STARTTLS\r\nc LOGIN tim secret\r\n", 12, nil)
	want := `upgrade "a OK Begin TLS negotiation now.\r\n"
reply "b BAD Not a command before login.\r\n" (login: unknown-command)
attempt c user="tim" password="secret"
`
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestGreeting(t *testing.T) {
	t.Parallel()
	s := imap.Server{StartTLS: true}
	if got, want := string(s.Greeting(nil)), "* OK Ready.\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	s.Know([]byte(dovecot))
	if got, want := string(s.Greeting(nil)), "* OK [CAPABILITY IMAP4rev1 ID ENABLE IDLE LITERAL+ STARTTLS LOGINDISABLED] Ready.\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
