// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// A message goes to the server as it is, of every size and over every crossing, by DATA and by BDAT.
func TestMessages(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		for _, chunking := range []bool{false, true} {
			m := servertest.NewMail(t, x.Backend, func(m *servertest.Mail) {
				if chunking {
					m.Offers = append(m.Offers, "CHUNKING")
				}
			})
			c := dial(t, b.serve(t, "smtp", x.Client, to(m.Addr), nil).at)
			if got := c.do("EHLO client.example", "250"); strings.Contains(got, "CHUNKING") != chunking || !strings.Contains(got, "SIZE 10000000") {
				t.Errorf("got %q", got)
			}
			var want []string
			for _, size := range []int{0, 1, 4000, 300_000, 5_000_000} {
				text := message(size)
				c.do("MAIL FROM:<a@example> SIZE=1 BODY=8BITMIME", "250")
				c.do("RCPT TO:<b@example>", "250")
				if chunking && size > 0 {
					half := len(text) / 2
					fmt.Fprintf(c.conn, "BDAT %d\r\n%sBDAT %d LAST\r\n%s", half, text[:half], len(text)-half, text[half:])
					c.want("250")
				} else {
					c.do("DATA", "354")
					io.WriteString(c.conn, stuffed(text)+".\r\n")
				}
				c.want("250 2.0.0 Ok: queued as 1")
				want = append(want, text)
			}
			c.do("QUIT", "221")
			c.ends()
			for i, got := range m.Messages() {
				if got.Text != want[i] || got.Helo != "client.example" || got.Mail != "MAIL FROM:<a@example> SIZE=1 BODY=8BITMIME" ||
					!slices.Equal(got.Rcpt, []string{"RCPT TO:<b@example>"}) {
					t.Errorf("message %d: got %d bytes, %.200q, want %d", i, len(got.Text), got, len(want[i]))
				}
			}
			if len(m.Messages()) != len(want) {
				t.Errorf("got %d messages, want %d", len(m.Messages()), len(want))
			}
		}
	})
	if n := b.sum().Requests; n != 40 {
		t.Errorf("counted %d messages, want 40", n)
	}
}

// message returns text of lines, some of which begin with a dot.
func message(size int) string {
	var s strings.Builder
	for i := 0; s.Len() < size; i++ {
		fmt.Fprintf(&s, "%.*s%d %s\r\n", i%3, "..", i, strings.Repeat("x", i*7%70))
	}
	return s.String()
}

// stuffed is as it goes behind DATA.
func stuffed(text string) string {
	if strings.HasPrefix(text, ".") {
		text = "." + text
	}
	return strings.ReplaceAll(text, "\r\n.", "\r\n..")
}

// Each recipient gets the server's own answer, in order, also if all is said at once.
func TestPipelining(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		m := servertest.NewMail(t, x.Backend, func(m *servertest.Mail) {
			m.Reply = func(line string) string {
				if strings.Contains(line, "<unknown@") {
					return "550-5.1.1 No such\r\n550 5.1.1 user"
				}
				return ""
			}
		})
		c := dial(t, b.serve(t, "smtp", x.Client, to(m.Addr), nil).at)
		c.do("EHLO client.example", "250")
		c.say("MAIL FROM:<>", "RCPT TO:<a@example>", "RCPT TO:<unknown@example>", "RCPT TO:<b@example>", "DATA")
		c.want("250 2.1.0 Ok")
		c.want("250 2.1.5 Ok")
		c.want("550-5.1.1 No such 550 5.1.1 user")
		c.want("250 2.1.5 Ok")
		c.want("354")
		c.say("hello", ".", "MAIL FROM:<second@example>", "RSET", "NOOP", "QUIT")
		for _, want := range []string{"250 2.0.0 Ok: queued", "250 2.1.0", "250", "250", "221"} {
			c.want(want)
		}
		c.ends()
		if got := m.Messages(); len(got) != 1 || got[0].Text != "hello\r\n" || len(got[0].Rcpt) != 3 {
			t.Errorf("got %q", got)
		}
	})
}

// The client hears 250 when the server has said so, and what the server says instead, if it does.
func TestSynchronous(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, test := range []struct{ name, reply, want string }{
		{"refused", "554 5.7.1 Spam", "554 5.7.1 Spam"},
		{"refused for now", "451 4.7.1 Later", "451 4.7.1 Later"},
		{"gone without an answer", "close", "451 4.4.2"},
		{"taken without an answer", "keep and close", "451 4.4.2"},
		{"an answer that is none", "250 2.0.0\x00", "451 4.4.2"},
		{"a second question", "354 Go on", "451 4.4.2"},
		{"taken", "250 2.0.0 Taken", "250 2.0.0 Taken"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			gate := make(chan struct{})
			m := servertest.NewMail(t, ip.V4, func(m *servertest.Mail) {
				m.Reply = func(line string) string {
					if line != "." {
						return ""
					}
					<-gate
					return test.reply
				}
			})
			c := dial(t, b.serve(t, "smtp", ip.V6, to(m.Addr), nil).at)
			c.do("EHLO client.example", "250")
			c.say("MAIL FROM:<>", "RCPT TO:<a@example>", "DATA")
			c.want("250")
			c.want("250")
			c.want("354")
			c.say("hello", ".")
			heard := make(chan string, 1)
			go func() { heard <- c.hear() }()
			select {
			case got := <-heard:
				t.Errorf("heard %q before the server has answered", got)
			default:
			}
			close(gate)
			if got := <-heard; !strings.HasPrefix(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
			c.do("NOOP", "250")
		})
	}
}

// A server that goes before the message is sent whole is replaced: the client notices nothing.
func TestAnotherServer(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, at := range []string{"", "EHLO", "MAIL", "RCPT", "DATA"} {
		t.Run("gone at "+at, func(t *testing.T) {
			t.Parallel()
			var once sync.Once
			reply := func(line string) (r string) {
				if strings.HasPrefix(line, at) && (at != "" || line == "") {
					once.Do(func() { r = "close" })
				}
				return r
			}
			var all []*servertest.Mail
			for range 2 {
				all = append(all, servertest.NewMail(t, ip.V4, func(m *servertest.Mail) { m.Reply = reply }))
			}
			c := dial(t, b.serve(t, "smtp", ip.V6, to(all[0].Addr, all[1].Addr), nil).at)
			c.do("EHLO client.example", "250")
			c.do("MAIL FROM:<>", "250")
			c.do("RCPT TO:<a@example>", "250")
			c.do("DATA", "354")
			c.say("hello", ".")
			c.want("250 2.0.0 Ok: queued")
			if n := len(all[0].Messages()) + len(all[1].Messages()); n != 1 {
				t.Errorf("got %d messages, want 1", n)
			}
		})
	}
}

// A server that is told the envelope again and answers otherwise makes the client come again.
func TestChangedMind(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var mu sync.Mutex
	asked := 0
	m := servertest.NewMail(t, ip.V4, func(m *servertest.Mail) {
		m.Reply = func(line string) string {
			mu.Lock()
			defer mu.Unlock()
			switch {
			case strings.HasPrefix(line, "RCPT"):
				if asked++; asked > 1 {
					return "550 5.1.1 Moved away"
				}
			case line == "DATA" && asked == 1:
				return "close"
			}
			return ""
		}
	})
	c := dial(t, b.serve(t, "smtp", ip.V6, to(m.Addr), nil).at)
	c.do("EHLO client.example", "250")
	c.do("MAIL FROM:<>", "250")
	c.do("RCPT TO:<a@example>", "250")
	c.do("DATA", "354")
	c.say("hello", ".")
	c.want("451 4.3.0")
	c.do("RCPT TO:<a@example>", "503")
	if n := len(m.Messages()); n != 0 {
		t.Errorf("got %d messages, want none", n)
	}
}

// A server learns by XCLIENT who the client is, in the attributes that it takes, before it hears anything else.
func TestXclient(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		m := servertest.NewMail(t, x.Backend, func(m *servertest.Mail) { m.Offers = append(m.Offers, "XCLIENT NAME ADDR PORT HELO LOGIN") })
		spec := to(m.Addr)
		spec.Handover = backend.HandoverXclient
		c := dial(t, b.serve(t, "smtp", x.Client, spec, nil).at)
		if got := c.do("EHLO client+1.example", "250"); strings.Contains(got, "XCLIENT") {
			t.Errorf("clients are offered XCLIENT: %q", got)
		}
		c.do("XCLIENT ADDR=192.0.2.1", "550")
		c.do("MAIL FROM:<>", "250")
		c.do("RCPT TO:<a@example>", "250")
		c.do("DATA", "354")
		c.say("hello", ".")
		c.want("250")
		a := iptest.Loopback(x.Client).String()
		if x.Client == ip.V6 {
			a = "IPV6:" + a
		}
		port := c.conn.LocalAddr().String()
		port = port[strings.LastIndexByte(port, ':')+1:]
		want := "NAME=[UNAVAILABLE] ADDR=" + a + " PORT=" + port + " HELO=client+2B1.example"
		if got := m.Messages(); len(got) != 1 || got[0].Xclient != want || got[0].Helo != "client+1.example" {
			t.Errorf("got %q, want %s", got, want)
		}
	})
}

// A server that cannot be told who the client is gets nothing of him.
func TestXclientRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	for _, offers := range []string{"HELP", "XCLIENT ADDR PORT"} {
		m := servertest.NewMail(t, ip.V4, func(m *servertest.Mail) {
			m.Offers = append(m.Offers, offers)
			m.Reply = func(line string) string {
				if strings.HasPrefix(line, "XCLIENT") {
					return "501 5.5.4 Bad ADDR syntax"
				}
				return ""
			}
		})
		spec := to(m.Addr)
		spec.Handover = backend.HandoverXclient
		c := dial(t, b.serve(t, "smtp", ip.V6, spec, nil).at)
		c.do("HELO client.example", "250")
		c.do("MAIL FROM:<>", "451 4.3.0")
		c.do("RCPT TO:<a@example>", "503")
		if got := m.Commands(); slices.Contains(got, "MAIL") {
			t.Errorf("%s: the server heard %q", offers, got)
		}
	}
}

// What some servers take for the end of a message ends none of theirs.
func TestSmuggling(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const second = "MAIL FROM:<evil@example>\r\nRCPT TO:<b@example>\r\nDATA\r\nevil"
	for _, end := range []string{"\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r.\r\n", "\n.\r"} {
		for _, repair := range []bool{false, true} {
			m := servertest.NewMail(t, ip.V4, nil)
			c := dial(t, b.serve(t, "smtp", ip.V6, to(m.Addr), func(o *Options) { o.LineEnds = LineEnds(repair) }).at)
			c.do("EHLO client.example", "250")
			c.do("MAIL FROM:<>", "250")
			c.do("RCPT TO:<a@example>", "250")
			c.do("DATA", "354")
			io.WriteString(c.conn, "hello"+end+second+"\r\n.\r\n")
			got, want := c.hear(), "521"
			if repair {
				want = "250"
			}
			if !strings.HasPrefix(got, want) {
				t.Errorf("%q: got %q, want %s", end, got, want)
			}
			all := m.Messages()
			if repair != (len(all) == 1) || repair && !strings.HasSuffix(all[0].Text, second+"\r\n") {
				t.Errorf("%q: got %q", end, all)
			}
		}
	}
}
