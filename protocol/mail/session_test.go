// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"crypto/tls"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/service"
)

// certificate writes a certificate for mx.example and returns the options that name it, and what trusts it.
func certificate(t *testing.T) (*TLS, *tls.Config) {
	t.Helper()
	server, client := servertest.TLS(t, "mx.example")
	chain, key := servertest.Files(t, t.TempDir(), server)
	o := &TLS{Certificate: service.Path(chain), Key: service.Path(key)}
	return o, client
}

// secure goes on in TLS.
func (c *client) secure(config *tls.Config) *client {
	c.t.Helper()
	conn := tls.Client(c.conn, config)
	if err := conn.Handshake(); err != nil {
		c.t.Fatal(err)
	}
	return newClient(c.t, conn)
}

// Who logs in, does so at the server, in TLS, and keeps that server.
func TestSubmission(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	o, trust := certificate(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		for _, name := range []string{"submission", "submissions"} {
			m := servertest.NewMail(t, x.Backend, func(m *servertest.Mail) {
				m.Offers = append(m.Offers, "AUTH PLAIN LOGIN", "STARTTLS")
				m.Reply = func(line string) string {
					switch line {
					case "AUTH LOGIN":
						return "334 VXNlcm5hbWU6"
					case "dXNlcg==":
						return "334 UGFzc3dvcmQ6"
					case "c2VjcmV0":
						return "235 2.7.0 Welcome"
					}
					return ""
				}
			})
			e := b.serve(t, name, x.Client, to(m.Addr), func(all *Options) { all.TLS = o })
			var c *client
			if name == "submission" {
				c = dial(t, e.at)
				if got := c.do("EHLO client.example", "250"); strings.Contains(got, "AUTH") || !strings.Contains(got, "STARTTLS") {
					t.Errorf("in clear clients are offered %q", got)
				}
				c.do("AUTH LOGIN", "503")
				c.do("STARTTLS", "220")
				c = c.secure(trust)
				c.do("MAIL FROM:<>", "503") // RFC 3207 §4.2
			} else {
				c = newClient(t, tls.Client(dialPlain(t, e.at), trust))
				c.want("220")
			}
			if got := c.do("EHLO client.example", "250"); !strings.Contains(got, "AUTH PLAIN LOGIN") || strings.Contains(got, "STARTTLS") {
				t.Errorf("in TLS clients are offered %q", got)
			}
			c.do("AUTH LOGIN", "334 VXNlcm5hbWU6")
			c.do("dXNlcg==", "334 UGFzc3dvcmQ6")
			c.do("c2VjcmV0", "235 2.7.0 Welcome")
			c.do("MAIL FROM:<a@example>", "250")
			c.do("RCPT TO:<b@example>", "250")
			c.do("DATA", "354")
			c.say("hello", ".")
			c.want("250 2.0.0 Ok: queued")
			c.do("QUIT", "221")
			if got := m.Messages(); len(got) != 1 || got[0].Text != "hello\r\n" {
				t.Errorf("got %q", got)
			}
		}
	})
}

// What is said in clear behind STARTTLS is not believed, whether it comes with it, behind it or in the handshake's place.
func TestInjection(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	o, trust := certificate(t)
	m := servertest.NewMail(t, ip.V4, nil)
	e := b.serve(t, "smtp", ip.V6, to(m.Addr), func(all *Options) { all.TLS = o })
	c := dial(t, e.at)
	c.do("EHLO client.example", "250")
	c.say("STARTTLS", "MAIL FROM:<evil@example>")
	c.want("521 5.5.0")
	c.ends()
	c = dial(t, e.at)
	c.do("EHLO client.example", "250")
	c.do("STARTTLS", "220")
	c.say("MAIL FROM:<evil@example>")
	if got, err := io.ReadAll(c.conn); err == nil && strings.HasPrefix(string(got), "2") {
		t.Errorf("got %q", got)
	}
	c = dial(t, e.at)
	c.do("EHLO client.example", "250")
	c.do("STARTTLS", "220")
	c = c.secure(trust)
	c.do("EHLO client.example", "250")
	c.do("MAIL FROM:<good@example>", "250")
	if got := m.Commands(); slices.Index(got, "MAIL") != len(got)-1 {
		t.Errorf("the server heard %q", got)
	}
}

// A client who has logged in, and whose server goes, is told to come again; another server does not know him.
func TestLoggedInServerGone(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m := servertest.NewMail(t, ip.V4, func(m *servertest.Mail) {
		m.Offers = append(m.Offers, "AUTH PLAIN")
		m.Reply = func(line string) string {
			switch {
			case strings.HasPrefix(line, "AUTH"):
				return "235 2.7.0 Welcome"
			case strings.HasPrefix(line, "MAIL"):
				return "close"
			}
			return ""
		}
	})
	c := dial(t, b.serve(t, "submission", ip.V6, to(m.Addr), func(o *Options) { o.AuthInClear = true }).at)
	c.do("EHLO client.example", "250")
	c.do("AUTH PLAIN AHUAcA==", "235")
	c.do("MAIL FROM:<>", "421 4.3.0")
	c.ends()
}

// A server is let go while a client is slow, and told the envelope again when the message is whole. One that must be
// kept is reminded.
func TestSlowClient(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.hold = 50 * time.Millisecond
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		for _, login := range []bool{false, true} {
			left := make(chan string, 100)
			m := servertest.NewMail(t, x.Backend, func(m *servertest.Mail) {
				m.Offers = append(m.Offers, "AUTH PLAIN")
				m.Reply = func(line string) string {
					if line == "QUIT" || line == "NOOP" {
						left <- line
					}
					if strings.HasPrefix(line, "AUTH") {
						return "235 2.7.0 Welcome"
					}
					return ""
				}
			})
			c := dial(t, b.serve(t, "submission", x.Client, to(m.Addr), func(o *Options) { o.AuthInClear = true }).at)
			c.do("EHLO client.example", "250")
			wait := "QUIT"
			if login {
				c.do("AUTH PLAIN AHUAcA==", "235")
				wait = "NOOP"
			}
			c.do("MAIL FROM:<a@example>", "250")
			c.do("RCPT TO:<b@example>", "250")
			c.do("RCPT TO:<c@example>", "250")
			c.do("DATA", "354")
			io.WriteString(c.conn, "hello")
			if got := <-left; got != wait {
				t.Errorf("logged in %v: the server heard %s, want %s", login, got, wait)
			}
			c.say("", ".")
			c.want("250 2.0.0 Ok: queued")
			if got := m.Messages(); len(got) != 1 || got[0].Text != "hello\r\n" || len(got[0].Rcpt) != 2 {
				t.Errorf("got %q", got)
			}
		}
	})
}

// When nobody follows, a client in a transaction ends it, and one between two is told to come again at once. When
// somebody does, the client notices nothing.
func TestDrain(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		m := servertest.NewMail(t, x.Backend, nil)
		e := b.serve(t, "smtp", x.Client, to(m.Addr), nil)
		idle, sends := dial(t, e.at), dial(t, e.at)
		idle.do("EHLO client.example", "250")
		sends.do("EHLO client.example", "250")
		sends.do("MAIL FROM:<a@example>", "250")
		sends.do("RCPT TO:<b@example>", "250")
		next := b.build(t, service.Listen{Name: "smtp", Addr: tcpAddr(e.at)}, to(m.Addr), nil)
		e.server.Drain(false)
		idle.do("NOOP", "250")
		sends.do("DATA", "354")
		if n := next.server.Busy(); n != 1 {
			t.Errorf("%d transactions under way, want 1", n)
		}
		next.server.Drain(true)
		idle.want("421 4.3.2")
		idle.ends()
		sends.say("hello", ".")
		sends.want("250 2.0.0 Ok: queued")
		sends.want("421 4.3.2")
		sends.ends()
		b.waitFor("that it is known that the client has heard", func() bool { return next.server.Busy() == 0 })
		if got := m.Messages(); len(got) != 1 {
			t.Errorf("got %q", got)
		}
	})
}

// A reload sends the next transaction to the new servers.
func TestReload(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	first, second := servertest.NewMail(t, ip.V4, nil), servertest.NewMail(t, ip.V6, nil)
	e := b.serve(t, "smtp", ip.V6, to(first.Addr), nil)
	c := dial(t, e.at)
	c.do("EHLO client.example", "250")
	send := func() {
		c.do("MAIL FROM:<a@example>", "250")
		c.do("RCPT TO:<b@example>", "250")
		c.do("DATA", "354")
		c.say("hello", ".")
		c.want("250 2.0.0 Ok: queued")
	}
	send()
	b.build(t, service.Listen{Name: "smtp", Addr: tcpAddr(e.at)}, to(second.Addr), nil)
	e.server.Drain(false)
	send()
	if a, b := len(first.Messages()), len(second.Messages()); a != 1 || b != 1 {
		t.Errorf("got %d and %d messages, want one each", a, b)
	}
}

// Without a server the client is told to come again, and finds one when there is one.
func TestNoServer(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var mu sync.Mutex
	shut := true
	m := servertest.NewMail(t, ip.V4, func(m *servertest.Mail) {
		m.Reply = func(line string) string {
			mu.Lock()
			defer mu.Unlock()
			if line == "" && shut {
				return "421 4.3.2 Not now"
			}
			return ""
		}
	})
	e := b.serve(t, "smtp", ip.V6, to(m.Addr), nil)
	c := dial(t, e.at)
	c.do("EHLO client.example", "421 4.4.1")
	c.ends()
	c = dial(t, e.at)
	c.do("HELO client.example", "250")
	c.do("MAIL FROM:<>", "451 4.4.1")
	mu.Lock()
	shut = false
	mu.Unlock()
	c.do("MAIL FROM:<>", "250")
}

// What is too large is refused, whether it is announced or not, and what comes next is a command.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	m := servertest.NewMail(t, ip.V4, nil)
	c := dial(t, b.serve(t, "smtp", ip.V6, to(m.Addr), func(o *Options) { o.MessageSize = 200_000 }).at)
	if got := c.do("EHLO client.example", "250"); !strings.Contains(got, "SIZE 200000") {
		t.Errorf("got %q", got)
	}
	c.do("MAIL FROM:<> SIZE=200001", "552 5.3.4")
	c.do("MAIL FROM:<>", "250")
	c.do("RCPT TO:<b@example>", "250")
	c.do("DATA", "354")
	io.WriteString(c.conn, stuffed(message(1_000_000))+".\r\n")
	c.want("552 5.3.4")
	c.do("NOOP", "250")
	c.do("RCPT TO:<b@example>", "503")
	if n := len(m.Messages()); n != 0 {
		t.Errorf("got %d messages", n)
	}
}
