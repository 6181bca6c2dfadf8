// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// TestOverdue: the client hears what becomes of its message before it gives up, whatever is slow: the server that has it, one
// that must be asked again, or an engine.
func TestOverdue(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		hangs func(line string) bool // once the envelope is there
		again bool                   // the server is let go before the message is whole
		scan  bool
		want  string
		rule  string
	}{
		{"a server that has the message", func(line string) bool { return line == "." }, false, false,
			"451 4.4.2 The server has not said", ""},
		{"a server that does not take it", func(line string) bool { return line == "DATA" }, false, false,
			"451 4.4.2 No server has taken", "late"},
		{"a server that does not greet again", func(line string) bool { return line == "" }, true, false,
			"451 4.4.2 No server has taken", "late"},
		{"a server that does not answer again", func(line string) bool { return strings.HasPrefix(line, "RCPT") }, true, false,
			"451 4.4.2 No server has taken", "late"},
		{"an engine", func(string) bool { return false }, false, true, "451 4.4.2 No server has taken", "late"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
				b := newBench(t)
				b.final = 200 * time.Millisecond
				if test.rule == "" { // the server must have the message by then
					b.final = time.Second
				}
				if test.again {
					b.hold = time.Nanosecond
				}
				var enveloped atomic.Bool
				end := make(chan struct{})
				defer close(end) // before the edge waits for its engines
				m := servertest.NewMail(t, x.Backend, func(m *servertest.Mail) {
					m.Reply = func(line string) string {
						if enveloped.Load() && test.hangs(line) {
							<-end
						}
						return ""
					}
				})
				e := b.serve(t, "smtp", x.Client, to(m.Addr), func(o *Options) {
					if test.scan {
						o.Scan = &Scan{Clamd: []netip.AddrPort{servertest.TCP(t, x.Backend, func(*net.TCPConn) { <-end })}}
					}
				})
				c := dial(t, e.at)
				c.do("EHLO client.example", "250")
				c.do("MAIL FROM:<a@example>", "250")
				c.do("RCPT TO:<b@example>", "250")
				c.do("DATA", "354")
				enveloped.Store(true)
				if test.again {
					b.waitFor("that the server is let go", func() bool { return b.sum().Active == 0 })
				}
				c.say("hello", ".")
				c.want(test.want)
				want := make(map[string]int64)
				if test.rule != "" {
					want[x.Client.String()+" "+test.rule] = 1
				}
				if diff := cmp.Diff(want, e.refusedBy()); diff != "" {
					t.Errorf("refusals (-want +got):\n%s", diff)
				}
				c.do("RSET", "250")
				c.do("QUIT", "221")
			})
		})
	}
}

// TestTrickle: a message may not take for ever, also if something of it comes all the time, or it comes in chunks.
func TestTrickle(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		m := servertest.NewMail(t, x.Backend, func(m *servertest.Mail) { m.Offers = append(m.Offers, "CHUNKING") })
		for _, say := range []struct{ first, more string }{{"DATA\r\n", "x\r\n"}, {"BDAT 3\r\nx\r\n", "BDAT 3\r\nx\r\n"}} {
			e := b.serve(t, "smtp", x.Client, to(m.Addr), func(o *Options) { o.Timeouts.Message = 250 * time.Millisecond })
			c := dial(t, e.at)
			c.do("EHLO client.example", "250")
			c.do("MAIL FROM:<>", "250")
			c.do("RCPT TO:<a@example>", "250")
			io.WriteString(c.conn, say.first)
			c.hear()
			go func() {
				for { // until the edge has gone
					if _, err := io.WriteString(c.conn, say.more); err != nil {
						return
					}
				}
			}()
			for got := c.hear(); !strings.HasPrefix(got, "421 4.4.2 The message takes too long"); got = c.hear() {
				if !strings.HasPrefix(got, "250") {
					t.Fatalf("got %q", got)
				}
			}
		}
		if n := len(m.Messages()); n != 0 {
			t.Errorf("the server has %d messages", n)
		}
	})
}
