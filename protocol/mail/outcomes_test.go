// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/protocol/mail/outcome"
	"github.com/kyozon/kyozon/service"
)

// fronts are what outlives the generations of a bench's edge.
func (b *bench) fronts() *fronts {
	return service.Keep(service.NewEnv(service.Env{}, b.kept), "fronts", func() *fronts { return new(fronts) })
}

// outcomesOf are the counts of a bench's edge.
func (b *bench) outcomesOf() outcome.Counts { return b.fronts().outcomes.book.Load().Counts() }

// submit says a message as far as its end.
func (c *client) submit(text string) {
	c.t.Helper()
	c.do("EHLO client.example", "250")
	c.do("MAIL FROM:<a@example>", "250")
	c.do("RCPT TO:<b@example>", "250")
	c.do("RCPT TO:<c@example>", "250")
	c.do("DATA", "354")
	c.say(text, ".")
}

// reset ends the connection as a client does that is gone: what it was sent is not taken.
func (c *client) reset() {
	c.t.Helper()
	if err := c.conn.(*net.TCPConn).SetLinger(0); err != nil {
		c.t.Fatal(err)
	}
	c.conn.Close()
}

// TestRetried: a client that has not heard what became of a message, and sends it again, is told. The server has it once.
func TestRetried(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b := newBench(t)
		reached, gate := make(chan struct{}, 1), make(chan struct{})
		m := servertest.NewMail(t, x.Backend, func(m *servertest.Mail) {
			m.Reply = func(line string) string {
				if line != "." {
					return ""
				}
				reached <- struct{}{}
				<-gate
				return "250 2.0.0 Taken as 4711"
			}
		})
		e := b.serve(t, "smtp", x.Client, to(m.Addr), nil)
		c := dial(t, e.at)
		c.submit("hello")
		<-reached
		c.reset() // the server has the message, and is about to say so
		gate <- struct{}{}
		b.waitFor("the outcome", func() bool { return b.outcomesOf().Kept == 1 })
		c = dial(t, e.at)
		c.submit("hello, world")
		<-reached
		gate <- struct{}{}
		c.want("250 2.0.0 Taken as 4711")
		c.do("NOOP", "250")
		if n := len(m.Messages()); n != 2 {
			t.Errorf("the server has %d messages, want 2", n)
		}
		c.submit("hello")
		c.want("250 2.0.0 Taken as 4711")
		if n := len(m.Messages()); n != 2 {
			t.Errorf("the server has %d messages after it was said again, want 2", n)
		}
		c.submit("hello") // which is another one: it has been heard
		<-reached
		gate <- struct{}{}
		c.want("250 2.0.0 Taken as 4711")
		c.do("QUIT", "221")
		c.ends()
		b.waitFor("that nothing is remembered", func() bool { return b.outcomesOf() == outcome.Counts{Answered: 1} })
		if n := len(m.Messages()); n != 3 {
			t.Errorf("the server has %d messages in the end, want 3", n)
		}
	})
}

// TestRefusedUnheard: what a server has refused is not remembered; it is asked again.
func TestRefusedUnheard(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	reached, gate := make(chan struct{}, 1), make(chan string)
	m := servertest.NewMail(t, ip.V4, func(m *servertest.Mail) {
		m.Reply = func(line string) string {
			if line != "." {
				return ""
			}
			reached <- struct{}{}
			return <-gate
		}
	})
	e := b.serve(t, "smtp", ip.V6, to(m.Addr), nil)
	for i, reply := range []string{"554 5.7.1 Spam", "close", "421 4.3.2 Later"} {
		c := dial(t, e.at)
		c.submit("hello")
		<-reached
		c.reset()
		b.waitFor("that the client is gone", func() bool { return b.gone() })
		gate <- reply
		b.waitFor("the end of the flow", func() bool { return b.sum().Active == 0 })
		if got := b.outcomesOf(); got != (outcome.Counts{Lost: int64(i)}) {
			t.Errorf("%q: counted %+v, want %d lost", reply, got, i)
		}
	}
}

// gone says whether no session is within a transaction.
func (b *bench) gone() bool { return b.fronts().busy.Load() == 0 }

// TestTwice: who sends a message twice and has heard that it was taken means it, however he goes.
func TestTwice(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		goes func(c *client)
	}{
		{"says goodbye", func(c *client) { c.want("250"); c.do("QUIT", "221"); c.ends() }},
		{"says something and is gone", func(c *client) { c.want("250"); c.do("RSET", "250"); c.reset() }},
		{"closes", func(c *client) { c.want("250"); c.conn.Close() }},
		{"has said goodbye before", func(c *client) { c.say("QUIT"); c.want("250"); c.want("221"); c.ends() }},
		{"says no more", func(c *client) {
			c.conn.(*net.TCPConn).CloseWrite()
			c.want("250")
			c.ends()
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			state := t.TempDir()
			t.Run("thrice", func(t *testing.T) {
				b := newBench(t)
				b.state = state
				m := servertest.NewMail(t, ip.V4, nil)
				e := b.serve(t, "smtp", ip.V6, to(m.Addr), nil)
				for n := range 3 {
					c := dial(t, e.at)
					c.submit("hello")
					test.goes(c)
					b.waitFor("that it is known that he has heard", b.gone)
					if got := len(m.Messages()); got != n+1 {
						t.Errorf("the server has %d messages, want %d", got, n+1)
					}
				}
				b.waitFor("that nothing is remembered", func() bool { return b.outcomesOf() == outcome.Counts{} })
			})
			left, err := os.ReadDir(filepath.Join(state, "mail", "outcomes"))
			if err != nil || len(left) > 0 {
				t.Errorf("left for the next process: %v, %v", left, err)
			}
		})
	}
}

// TestBeside: the same message from two connections of a client at the same time is two.
func TestBeside(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m := servertest.NewMail(t, ip.V4, nil)
	e := b.serve(t, "smtp", ip.V6, to(m.Addr), nil)
	var both [2]*client
	for i := range both {
		both[i] = dial(t, e.at)
		both[i].submit("hello")
		both[i].want("250")
	}
	if n := len(m.Messages()); n != 2 {
		t.Errorf("the server has %d messages, want 2", n)
	}
	for _, c := range both {
		c.do("QUIT", "221")
		c.ends()
	}
}

// TestKept: another edge with the same state knows what the one before has left, and only what is of the same service.
func TestKept(t *testing.T) {
	t.Parallel()
	m := servertest.NewMail(t, ip.V4, nil)
	state := t.TempDir()
	sent := func(t *testing.T, end func(*client)) {
		b := newBench(t)
		b.state = state
		c := dial(t, b.serve(t, "smtp", ip.V6, to(m.Addr), nil).at)
		c.submit("hello")
		end(c)
	}
	heard := func(c *client) { c.want("250"); c.do("QUIT", "221"); c.ends() }
	t.Run("heard", func(t *testing.T) { sent(t, heard) })
	t.Run("heard again", func(t *testing.T) { sent(t, heard) })
	if n := len(m.Messages()); n != 2 {
		t.Errorf("the server has %d messages, want 2", n)
	}
	t.Run("left", func(t *testing.T) {
		b := newBench(t)
		b.state = state
		b.serve(t, "smtp", ip.V6, to(m.Addr), nil)
		book := b.fronts().outcomes.book.Load()
		var d outcome.Delivery
		var digest outcome.Digest
		digest.Add([]byte("hello\r\n"))
		key := digest.Key(outcome.Envelope{Service: "x", Client: netip.MustParseAddr("::1"), Sender: []byte("a@example"),
			Recipients: [][]byte{[]byte("c@example"), []byte("b@example")}})
		book.Begin(&d, key, time.Now())
		d.Taken([]byte("250 2.0.0 Before\r\n"), time.Now())
	})
	t.Run("known", func(t *testing.T) {
		sent(t, func(c *client) { c.want("250 2.0.0 Before"); c.do("QUIT", "221"); c.ends() })
	})
	if n := len(m.Messages()); n != 2 {
		t.Errorf("the server has %d messages, want 2", n)
	}
	t.Run("forgotten", func(t *testing.T) { sent(t, heard) })
	if got := m.Messages(); len(got) != 3 || !strings.HasPrefix(got[2].Text, "hello") {
		t.Errorf("the server has %d messages, want 3", len(got))
	}
}
