// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lmtp

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/protocol/mail/smtp"
)

// talk shows a client what a server says, and returns the dialogue: "S:" what the server said, "C:" what we did. Lines of
// the server are given as they come; one is shown when the client waits.
func talk(c *Client, m Message, server string) string {
	var b strings.Builder
	c.Open(m)
	return follow(c, &b, server)
}

func follow(c *Client, b *strings.Builder, server string) string {
	var shown []byte
	for _, line := range strings.SplitAfter(server, "\n") {
		if line == "" {
			continue
		}
		line = strings.TrimSuffix(line, "\n") + "\r\n"
		fmt.Fprintf(b, "S: %s", line)
		shown = append(shown, line...)
		for {
			step, lines, used := c.Next(shown)
			shown = shown[used:]
			switch step {
			case Write:
				say(b, lines)
				continue
			case Content:
				say(b, []byte("(content)\r\n"))
				say(b, c.End(true))
				continue
			case Shake:
				say(b, []byte("(TLS)\r\n"))
				say(b, c.Secured())
				continue
			case Done:
				fmt.Fprintf(b, "done %v\r\n", c.OK())
			}
			break
		}
	}
	return strings.ReplaceAll(b.String(), "\r\n", "\n")
}

func say(b *strings.Builder, lines []byte) {
	for line := range strings.Lines(string(lines)) {
		fmt.Fprintf(b, "C: %s", line)
	}
}

func message(recipients ...string) Message {
	m := Message{Sender: []byte("a@x"), EightBit: true}
	for _, r := range recipients {
		m.Recipients = append(m.Recipients, []byte(r))
	}
	return m
}

// codes are those of the results.
func codes(c *Client) (all []int) {
	for _, r := range c.Results() {
		all = append(all, r.Code)
	}
	return all
}

// TestDialogues: what is said, and what becomes of each recipient, whatever the server says.
func TestDialogues(t *testing.T) {
	t.Parallel()
	const hello = "220 spool LMTP\n250-spool\n250-PIPELINING\n250 8BITMIME\n"
	for _, test := range []struct {
		name       string
		smtp       bool
		recipients string
		server     string
		said       string // by us, without LHLO and MAIL
		codes      []int
		ok         bool
	}{
		{"each has its answer", false, "b@x no@x c@x b@x", hello +
			"250 Ok\n250 Ok\n550-5.1.1 No\n550 5.1.1 no\n250 Ok\n250 Ok\n354 Go on\n250 One\n452 Full\n250 Two\n",
			"RCPT TO:<b@x> RCPT TO:<no@x> RCPT TO:<c@x> RCPT TO:<b@x> DATA (content) .", []int{250, 550, 452, 250}, true},
		{"one after the other", false, "b@x c@x", "220 spool\n250 spool\n250 Ok\n250 Ok\n450 Later\n354 Go on\n250 One\n",
			"RCPT TO:<b@x> RCPT TO:<c@x> DATA (content) .", []int{250, 450}, true},
		{"one answer for all", true, "b@x no@x c@x", hello + "250 Ok\n250 Ok\n550 No\n250 Ok\n354 Go on\n451 Later\n",
			"RCPT TO:<b@x> RCPT TO:<no@x> RCPT TO:<c@x> DATA (content) .", []int{451, 550, 451}, true},
		{"nobody is accepted", false, "b@x c@x", hello + "250 Ok\n550 No\n450 Later\n", "RCPT TO:<b@x> RCPT TO:<c@x>", []int{550, 450}, true},
		{"no service", false, "b@x", "554 No\n", "", []int{0}, false},
		{"not greeted back", false, "b@x", "220 spool\n500 What\n", "", []int{0}, false},
		{"the sender is refused", false, "b@x c@x", hello + "550 No\n", "", []int{550, 550}, true},
		{"it goes before it says more", false, "b@x c@x", hello + "250 Ok\n", "RCPT TO:<b@x> RCPT TO:<c@x>", []int{0, 0}, false},
		{"no message is wanted", false, "b@x c@x", hello + "250 Ok\n250 Ok\n250 Ok\n451 Later\n",
			"RCPT TO:<b@x> RCPT TO:<c@x> DATA", []int{451, 451}, true},
		{"the message is taken before it is sent", false, "b@x", hello + "250 Ok\n250 Ok\n250 Ok\n", "RCPT TO:<b@x> DATA", []int{0}, false},
		{"it goes within the message", false, "b@x c@x", hello + "250 Ok\n250 Ok\n250 Ok\n354 Go on\n250 One\n421 Bye\n",
			"RCPT TO:<b@x> RCPT TO:<c@x> DATA (content) .", []int{250, 421}, false},
		{"it asks for more", false, "b@x", hello + "250 Ok\n250 Ok\n354 Go on\n354 More\n", "RCPT TO:<b@x> DATA (content) .", []int{0}, false},
		{"a second question to a recipient", false, "b@x", hello + "250 Ok\n354 What\n", "RCPT TO:<b@x>", []int{354}, true},
		{"no answer", false, "b@x c@x", hello + "250 Ok\n250 Ok\nwhat\n", "RCPT TO:<b@x> RCPT TO:<c@x>", []int{0, 0}, false},
		{"an answer that nobody has asked for", false, "b@x", "220 spool\n250 spool\n250 Ok\n550 No\n250 What\n", "RCPT TO:<b@x>", []int{550}, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			c := &Client{Host: "mx.example", SMTP: test.smtp}
			got := talk(c, message(strings.Fields(test.recipients)...), test.server)
			var said []string
			for line := range strings.Lines(got) {
				if line, ok := strings.CutPrefix(line, "C: "); ok && !strings.HasPrefix(line, "MAIL ") && !strings.Contains(line, "LHLO") &&
					!strings.Contains(line, "EHLO") {
					said = append(said, strings.TrimSpace(line))
				}
			}
			if diff := cmp.Diff(test.said, strings.Join(said, " ")); diff != "" {
				t.Errorf("%s\n%s", diff, got)
			}
			if !c.OK() {
				c.Lost("it is gone")
			}
			if diff := cmp.Diff(test.codes, codes(c)); diff != "" || c.OK() != test.ok {
				t.Errorf("%s, OK is %v\n%s", diff, c.OK(), got)
			}
			for i, r := range c.Results() {
				if r.Reply == "" {
					t.Errorf("recipient %d has no reason", i)
				}
			}
		})
	}
}

// TestWords: LMTP is greeted as such, SMTP as such; eight bits are said where they are taken; and another message goes
// over the same connection.
func TestWords(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		smtp        bool
		offers      string
		hello, mail string
	}{
		{false, "250-spool\n250 8BITMIME\n", "C: LHLO mx.example\n", "C: MAIL FROM:<a@x> BODY=8BITMIME\n"},
		{true, "250 relay\n", "C: EHLO mx.example\n", "C: MAIL FROM:<a@x>\n"},
	} {
		c := &Client{Host: "mx.example", SMTP: test.smtp}
		got := talk(c, message("b@x"), "220 it\n"+test.offers+"250 Ok\n250 Ok\n354 Go on\n250 One\n")
		if !strings.Contains(got, test.hello) || !strings.Contains(got, test.mail) || !c.OK() {
			t.Errorf("got %s", got)
		}
		var b strings.Builder
		say(&b, c.Again(message("z@x")))
		got = follow(c, &b, "250 Ok\n250 Ok\n354 Go on\n250 Two\n")
		if !strings.HasPrefix(got, test.mail) || !c.OK() || c.Results()[0] != (Result{250, "250 Two\r\n"}) {
			t.Errorf("got %s: %v", got, c.Results())
		}
	}
}

// TestWhose: a server is told whose a message is before it hears anything of it, or gets nothing.
func TestWhose(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, server, said string
		code               int
		begun              bool
	}{
		{"told", "220 it.example LMTP\n250-it\n250 XCLIENT ADDR HELO\n220 Again\n250 it\n250 Ok\n250 Ok\n354 Go on\n250 One\n",
			"LHLO mx.example|XCLIENT ADDR=IPV6:2001:db8::1 HELO=client.example|LHLO mx.example|MAIL FROM:<a@x>|RCPT TO:<b@x>|DATA|(content)|.", 250, true},
		{"not offered", "220 it.example LMTP\n250 it\n", "LHLO mx.example", 0, false},
		{"refused", "220 it.example LMTP\n250 XCLIENT ADDR\n250 XCLIENT ADDR\n", "LHLO mx.example", 0, false},
		{"refused in words", "220 it.example LMTP\n250-it\n250 XCLIENT ADDR\n550 No\n", "LHLO mx.example|XCLIENT ADDR=IPV6:2001:db8::1", 0, false},
		{"no MAIL", "220 it.example LMTP\n250-it\n250 XCLIENT ADDR\n220 Again\n250 it\n421 Busy\n",
			"LHLO mx.example|XCLIENT ADDR=IPV6:2001:db8::1|LHLO mx.example|MAIL FROM:<a@x>", 421, false},
	} {
		c := &Client{Host: "mx.example", Whose: &smtp.Identity{Client: netip.MustParseAddrPort("[2001:db8::1]:1"), Helo: []byte("client.example")}}
		var said []string
		for line := range strings.Lines(talk(c, message("b@x"), test.server)) {
			if line, ok := strings.CutPrefix(line, "C: "); ok {
				said = append(said, strings.TrimSpace(line))
			}
		}
		c.Lost("gone")
		if got := strings.Join(said, "|"); got != test.said || c.Results()[0].Code != test.code || c.Begun() != test.begun || c.Name() != "it.example" {
			t.Errorf("%s: %s said %q, %+v, begun: %v", test.name, c.Name(), got, c.Results(), c.Begun())
		}
	}
}

// TestTLS: TLS is asked for where it is to be, everything begins anew behind it, and a server that must speak it and does
// not gets nothing.
func TestTLS(t *testing.T) {
	t.Parallel()
	const hello, offers, rest = "220 it\n", "250-it\n250 STARTTLS\n", "250 Ok\n250 Ok\n354 Go on\n250 One\n"
	const ours = "MAIL FROM:<a@x>|RCPT TO:<b@x>|DATA|(content)|."
	for _, test := range []struct {
		name, server, said string
		tls                TLS
		code               int
	}{
		{"in clear", hello + offers + rest, "LHLO mx.example|" + ours, Clear, 250},
		{"asked", hello + offers + "220 Go on\n250-it\n250 STARTTLS\n" + rest, "LHLO mx.example|STARTTLS|(TLS)|LHLO mx.example|" + ours, Needed, 250},
		{"not offered", hello + "250 it\n" + rest, "LHLO mx.example|" + ours, Offered, 250},
		{"refused", hello + offers + "454 No\n" + rest, "LHLO mx.example|STARTTLS|" + ours, Offered, 250},
		{"not offered, and needed", hello + "250 it\n", "LHLO mx.example", Needed, 0},
		{"refused, and needed", hello + offers + "454 No\n", "LHLO mx.example|STARTTLS", Needed, 0},
	} {
		c := &Client{Host: "mx.example", TLS: test.tls}
		var said []string
		for line := range strings.Lines(talk(c, message("b@x"), test.server)) {
			if line, ok := strings.CutPrefix(line, "C: "); ok {
				said = append(said, strings.TrimSpace(line))
			}
		}
		c.Lost("gone")
		if got := strings.Join(said, "|"); got != test.said || c.Results()[0].Code != test.code {
			t.Errorf("%s: said %q, %+v", test.name, got, c.Results())
		}
	}
}

// TestReset: a transaction that has come to nothing is given up before another one.
func TestReset(t *testing.T) {
	t.Parallel()
	const hello = "220 it\n250 it\n"
	for name, first := range map[string]string{"nobody": "250 Ok\n550 No\n", "no message": "250 Ok\n250 Ok\n451 Later\n"} {
		c := &Client{Host: "mx.example"}
		talk(c, message("b@x"), hello+first)
		var b strings.Builder
		say(&b, c.Again(message("c@x")))
		got := follow(c, &b, "250 Ok\n250 Ok\n250 Ok\n354 Go on\n250 One\n")
		if !strings.HasPrefix(got, "C: RSET\nS: 250 Ok\nC: MAIL FROM:<a@x>\nS: 250 Ok\nC: RCPT TO:<c@x>") || !c.OK() || c.Results()[0].Code != 250 {
			t.Errorf("%s: got %s", name, got)
		}
	}
	c := &Client{Host: "mx.example"}
	talk(c, message("b@x"), hello+"250 Ok\n550 No\n")
	var b strings.Builder
	say(&b, c.Again(message("c@x")))
	if got := follow(c, &b, "451 No\n"); c.OK() || c.Begun() || c.Results()[0].Code != 0 {
		t.Errorf("got %s: %+v", got, c.Results())
	}
}

// FuzzNext shows a client anything: in the end each recipient has a code or a reason, and none has a good code that the
// server has not said behind the message.
func FuzzNext(f *testing.F) {
	f.Add("220 s\r\n250 s\r\n250 Ok\r\n250 Ok\r\n250 Ok\r\n354 Go\r\n250 One\r\n250 Two\r\n", 3, false)
	f.Add("220 s\r\n250-s\r\n250 PIPELINING\r\n250 Ok\r\n550 No\r\n250 Ok\r\n354 Go\r\n451 Later\r\n", 100, true)
	f.Fuzz(func(t *testing.T, server string, piece int, whole bool) {
		c := &Client{Host: "mx", SMTP: whole}
		if piece%2 == 0 {
			c.Whose, c.TLS = new(smtp.Identity), TLS(piece%3)
		}
		c.Open(message("b@x", "c@x"))
		var shown []byte
		sent := false
		for over := false; !over; {
			step, _, used := c.Next(shown)
			shown = shown[used:]
			switch step {
			case Content:
				c.End(true)
				sent = true
			case Shake:
				c.Secured()
			case Done:
				over = true
			case More:
				n := min(len(server), max(1, piece))
				shown, server = append(shown, server[:n]...), server[n:]
				over = n == 0
			case Write:
			}
		}
		c.Lost("the end")
		for i, r := range c.Results() {
			if r.Code == 0 && r.Reply == "" || r.Code/100 == 2 && !sent {
				t.Errorf("recipient %d has %+v, the message was sent: %v", i, r, sent)
			}
		}
	})
}
