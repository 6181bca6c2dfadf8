// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package smtp

import (
	"fmt"
	"strings"
	"testing"
)

// play shows in to a server in pieces of size bytes and answers all that is asked with 250, or as SMTP has it. It
// returns what happened, one word for each thing.
func play(s *Server, in string, size int) string {
	var out []string
	var text strings.Builder
	p := []byte(in)
	for shown := 0; ; {
		e, n := s.Next(p[:shown])
		p, shown = p[n:], shown-n
		switch e.Kind {
		case More:
			if n > 0 {
				continue
			}
			if shown == len(p) {
				return strings.Join(out, " ")
			}
			shown = min(shown+size, len(p))
		case Asked:
			out = append(out, verbs[e.Command.Verb])
			if e.Command.Verb != Bdat {
				s.Answer(codeFor(e.Command.Verb))
			}
		case Secret:
			out = append(out, "secret")
			s.Answer(235)
		case Text:
			text.Write(e.Text)
		case Whole:
			out = append(out, fmt.Sprintf("%q", text.String()))
			text.Reset()
			s.Answer(250)
		case Refused:
			out = append(out, e.Refusal.Error())
			if e.Refusal.Fatal() {
				return strings.Join(out, " ")
			}
		}
	}
}

func codeFor(v Verb) int {
	switch v {
	case Data:
		return 354
	case Auth:
		return 334
	case StartTLS:
		return 220
	default:
		return 250
	}
}

const envelope = "EHLO a\r\nMAIL FROM:<>\r\nRCPT TO:<b@c>\r\n"

func offers() Keywords {
	return Keywords{Chunking: true, Binary: true, EightBit: true, HasAuth: true, StartTLS: true}
}

func TestServer(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, in, want string }{
		{"chunks", envelope + "BDAT 4\r\n.\r\n.BDAT 0 LAST\r\nQUIT\r\n", `EHLO MAIL RCPT BDAT ".\r\n." BDAT "" QUIT`},
		{"bare line ends in chunks", envelope + "BDAT 3\r\na\n\rBDAT 0 LAST\r\nQUIT\r\n", "EHLO MAIL RCPT BDAT bare-line-end"},
		{"a line end in two chunks", envelope + "BDAT 2\r\na\rBDAT 1 LAST\r\n\nQUIT\r\n", `EHLO MAIL RCPT BDAT "a" BDAT "\r\n" QUIT`},
		{"a bare CR at the end", envelope + "BDAT 2\r\na\rBDAT 0 LAST\r\nQUIT\r\n", `EHLO MAIL RCPT BDAT "a" BDAT bare-line-end`},
		{"binary chunks", "EHLO a\r\nMAIL FROM:<> BODY=BINARYMIME\r\nRCPT TO:<b@c>\r\nBDAT 3 LAST\r\na\n\rQUIT\r\n",
			`EHLO MAIL RCPT BDAT "a\n\r" QUIT`},
		{"commands in a chunk", envelope + "BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n", `EHLO MAIL RCPT BDAT "QUIT\r\n" NOOP`},
		{"refused chunk is taken", "EHLO a\r\nBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n", "EHLO sequence NOOP"},
		{"refused empty chunk", "EHLO a\r\nBDAT 0 LAST\r\nNOOP\r\n", "EHLO sequence NOOP"},
		{"chunk of no size", envelope + "BDAT x\r\nQUIT\r\n", "EHLO MAIL RCPT pipelined"},
		{"no RCPT among chunks", envelope + "BDAT 1\r\naRCPT TO:<d@e>\r\n", `EHLO MAIL RCPT BDAT "a" sequence`},
		{"no DATA among chunks", envelope + "BDAT 1\r\naDATA\r\n", `EHLO MAIL RCPT BDAT "a" sequence`},
		{"MAIL first", "MAIL FROM:<>\r\n", "sequence"},
		{"DATA without RCPT", "EHLO a\r\nMAIL FROM:<>\r\nDATA\r\n", "EHLO MAIL sequence"},
		{"nested MAIL", envelope + "MAIL FROM:<>\r\n", "EHLO MAIL RCPT sequence"},
		{"RSET", envelope + "RSET\r\nRCPT TO:<b@c>\r\n", "EHLO MAIL RCPT RSET sequence"},
		{"EHLO gives up", envelope + "EHLO a\r\nRCPT TO:<b@c>\r\n", "EHLO MAIL RCPT EHLO sequence"},
		{"not offered", "EHLO a\r\nMAIL FROM:<> SMTPUTF8\r\n", "EHLO parameter"},
		{"offered", "EHLO a\r\nMAIL FROM:<> BODY=8BITMIME\r\n", "EHLO MAIL"},
		{"binary by DATA", "EHLO a\r\nMAIL FROM:<> BODY=BINARYMIME\r\nRCPT TO:<b@c>\r\nDATA\r\n", "EHLO MAIL RCPT sequence"},
		{"bytes above ASCII", "EHLO a\r\nMAIL FROM:<\xc3\xa9@b>\r\n", "EHLO syntax"},
		{"AUTH", "EHLO a\r\nAUTH LOGIN\r\nMAIL FROM:<>\r\nAUTH LOGIN\r\n", "EHLO AUTH secret sequence"},
		{"STARTTLS with more behind", "EHLO a\r\nSTARTTLS\r\nMAIL FROM:<>\r\n", "EHLO pipelined"},
		{"DATA with more behind", envelope + "DATA\r\nhello\r\n.\r\nQUIT\r\n", `EHLO MAIL RCPT DATA "hello\r\n" QUIT`},
		{"DATA that cannot be, with more behind", "EHLO a\r\nDATA\r\nRSET\r\n.\r\n", "EHLO pipelined"},
		{"commands for nothing", "EHLO a\r\nNOOP\r\nRSET\r\nNOOP\r\n", "EHLO NOOP RSET too-many-errors"},
		{"XCLIENT", "EHLO a\r\nXCLIENT ADDR=192.0.2.1\r\n", "EHLO untrusted"},
		{"bare LF", "EHLO a\nMAIL FROM:<>\r\n", "bare-line-end"},
		{"bare CR", "EHLO a\rMAIL FROM:<>\r\n", "bare-line-end"},
		{"endless line", "NOOP " + strings.Repeat("a", 5000), "line-too-long"},
		{"nothing right", strings.Repeat("X\r\n", 5), "unrecognized unrecognized too-many-errors"},
	} {
		s := &Server{Offers: offers(), Limits: Limits{Errors: 3, Idle: 3}}
		if got := play(s, test.in, len(test.in)); got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}

// TestInjected shows bytes that arrive after STARTTLS was read and before it was answered.
func TestInjected(t *testing.T) {
	t.Parallel()
	s := &Server{Offers: offers()}
	if got, want := play(s, "EHLO a\r\nSTARTTLS\r\n", 100), "EHLO STARTTLS"; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	if e, _ := s.Next([]byte("RSET\r\n")); e.Refusal != Pipelined {
		t.Errorf("got %v, want %v", e.Refusal, Pipelined)
	}
	s.Secured()
	s.Offers = offers()
	if got, want := play(s, "MAIL FROM:<>\r\nEHLO a\r\nSTARTTLS\r\n", 100), "sequence EHLO sequence"; got != want {
		t.Errorf("what was said in clear is believed: got %s, want %s", got, want)
	}
}

func TestRecipients(t *testing.T) {
	t.Parallel()
	s := &Server{Limits: Limits{Recipients: 2}}
	got := play(s, envelope+"RCPT TO:<d@e>\r\nRCPT TO:<f@g>\r\nDATA\r\n", 1000)
	if want := "EHLO MAIL RCPT RCPT too-many-recipients DATA"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := s.Recipients(); got != 2 {
		t.Errorf("got %d recipients, want 2", got)
	}
}

// A message whose DATA was refused must not be read as commands, and who is refused again and again must go.
func TestRefused(t *testing.T) {
	t.Parallel()
	s := &Server{Limits: Limits{Refusals: 2}}
	play(s, envelope, 1000)
	in := []byte("DATA\r\nRSET\r\n.\r\n")
	_, n := s.Next(in)
	s.Answer(451)
	if e, _ := s.Next(in[n:]); e.Refusal != Pipelined {
		t.Errorf("behind a refused DATA: got %v, want %v", e.Refusal, Pipelined)
	}
	s = &Server{Limits: Limits{Refusals: 2}}
	play(s, envelope, 1000)
	for range 2 {
		s.Next([]byte("RCPT TO:<d@e>\r\n"))
		s.Answer(550)
	}
	if e, _ := s.Next([]byte("RCPT TO:<d@e>\r\n")); e.Refusal != TooManyErrors {
		t.Errorf("after refusals: got %v, want %v", e.Refusal, TooManyErrors)
	}
}

// Repaired, none of the ends of TestSmuggling ends a message: what goes on has whole lines only.
func TestRepair(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"a\nb\r\n.\r\n":           "a\r\nb\r\n",
		"a\rb\r\n.\r\n":           "a b\r\n",
		"a\n.\nb\r\n.\r\n":        "a\r\n.\r\nb\r\n",
		"a\n.\r\nb\r\n.\r\n":      "a\r\n.\r\nb\r\n",
		"a\r\n.\nb\r\n.\r\n":      "a\r\n\r\nb\r\n",
		"a\r\n.\rb\r\n.\r\n":      "a\r\n b\r\n",
		"a\r\n..\r\r\n.\r\n":      "a\r\n. \r\n",
		"a\r.\r\n.\r\n":           "a .\r\n",
		"\n\r\n.\r\n":             "\r\n\r\n",
		"a\r\n.\r\r\n.\r\n":       "a\r\n \r\n",
		"a\r\n.\r.\r\nb\r\n.\r\n": "a\r\n .\r\nb\r\n",
	} {
		for _, size := range []int{1, 2, 1000} {
			s := &Server{Repair: true}
			play(s, envelope+"DATA\r\n", 1000)
			if got := play(s, in, size); got != fmt.Sprintf("%q", want) {
				t.Errorf("%q in pieces of %d: got %s, want %q", in, size, got, want)
			}
		}
	}
}

// TestSmuggling shows each end of a message that some server has taken for one, in one piece and byte by byte.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	const second = "MAIL FROM:<evil@a>\r\nRCPT TO:<b@c>\r\n"
	for _, end := range []string{
		"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\r\n.\r", "\r.\n", "\n.\r", "\r\r\n.\r\n", "\r\n.\r\r\n",
		"\r\n\n.\r\n", "\n\n.\r\n", "\r\n.\n\r\n", "\r\n\r.\r\n", "\r\n.\r.\r\n",
	} {
		for _, size := range []int{1, 2, 3, 1000} {
			s := &Server{}
			play(s, envelope+"DATA\r\n", 1000)
			if got, want := play(s, "a"+end+second+"\r\n.\r\n", size), "bare-line-end"; got != want {
				t.Errorf("%q in pieces of %d: got %s, want %s", end, size, got, want)
			}
		}
	}
	for _, end := range []string{"\r\n.\x00\r\n", "\r\n..\r\n", "\r\n. \r\n", "\r\n .\r\n"} {
		s := &Server{}
		play(s, envelope+"DATA\r\n", 1000)
		got := play(s, "a"+end+second+".\r\n", 1)
		if want := fmt.Sprintf("%q", "a"+strings.Replace(end, "\n.", "\n", 1)+second); got != want {
			t.Errorf("%q: got %s, want %s", end, got, want)
		}
	}
}
