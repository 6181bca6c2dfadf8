// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/protocol/mail/policy"
	"github.com/kyozon/kyozon/service"
)

// fakeClamd finds a virus in what has the word in it, and shows what it was given.
func fakeClamd(t *testing.T, f ip.Family, shown func(string)) netip.AddrPort {
	t.Helper()
	return servertest.TCP(t, f, func(c *net.TCPConn) {
		io.CopyN(io.Discard, c, int64(len("zINSTREAM\x00")))
		var text bytes.Buffer
		for {
			var n uint32
			if binary.Read(c, binary.BigEndian, &n) != nil || n == 0 {
				break
			}
			io.CopyN(&text, c, int64(n))
		}
		shown(text.String())
		if strings.Contains(text.String(), "virus") {
			io.WriteString(c, "stream: Test FOUND\x00")
			return
		}
		io.WriteString(c, "stream: OK\x00")
	})
}

// send sends a message and wants an answer to its end.
func (c *client) send(text, want string) {
	c.t.Helper()
	c.do("MAIL FROM:<a@example.com> BODY=8BITMIME", "250")
	c.do("RCPT TO:<@x:b@example.jp>", "250")
	c.do("RCPT TO:<c@example.jp>", "250")
	c.do("DATA", "354")
	c.say(stuffed(text) + ".")
	c.want(want)
}

// TestScan: engines see a message as it is, of every size; a server does not hear the end of one that is refused; and what an
// engine wants added stands on top.
func TestScan(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		for _, chunking := range []bool{false, true} {
			mta := servertest.NewMail(t, x.Backend, func(m *servertest.Mail) {
				if chunking {
					m.Offers = append(m.Offers, "CHUNKING")
				}
			})
			var shown atomic.Pointer[string]
			clamd := fakeClamd(t, x.Backend, func(text string) { shown.Store(&text) })
			rspamd := servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				text, err := io.ReadAll(r.Body)
				want := []string{iptest.Loopback(x.Client).String(), "mx.example.com", "a@example.com", "b@example.jp", "c@example.jp"}
				got := append([]string{r.Header.Get("IP"), r.Header.Get("Helo"), r.Header.Get("From")}, r.Header.Values("Rcpt")...)
				if diff := cmp.Diff(want, got); diff != "" || err != nil {
					t.Errorf("told (-want +got):\n%s %v", diff, err)
				}
				switch {
				case bytes.Contains(text, []byte("spam")):
					io.WriteString(w, `{"action":"reject"}`)
				case bytes.Contains(text, []byte("forged")):
					io.WriteString(w, `{"action":"no action","symbols":{"R_SPF_FAIL":{},"R_DKIM_NA":{}}}`)
				default:
					io.WriteString(w, `{"action":"add header","milter":{"add_headers":{"X-Seen":"yes"}}}`)
				}
			}))
			b := newBench(t)
			e := b.serve(t, "smtp", x.Client, to(mta.Addr), func(o *Options) {
				o.Scan = &Scan{Clamd: []netip.AddrPort{clamd}, Rspamd: []netip.AddrPort{rspamd}, Authentication: policy.Enforce}
			})
			c := dial(t, e.at)
			c.do("EHLO mx.example.com", "250")
			var want []string
			for _, size := range []int{10, 4000, 300_000, 2_000_000} { // beyond 128 KiB it is in a file
				text := message(size)
				c.send(text, "250")
				if got := *shown.Load(); got != text {
					t.Errorf("clamd was shown %d bytes, want %d", len(got), len(text))
				}
				want = append(want, "X-Spam: Yes\r\nX-Seen: yes\r\n"+text)
			}
			c.send("virus\r\n", "554 5.7.1 The message has a virus: Test")
			c.send(message(300_000)+"virus\r\n", "554 5.7.1 The message has a virus: Test")
			c.send("spam\r\n", "554 5.7.1 ")
			if x.Client == ip.V6 {
				c.send("forged\r\n", "450 4.7.26 ")
			} else {
				c.send("forged\r\n", "250")
				want = append(want, "forged\r\n")
			}
			c.do("QUIT", "221")
			var got []string
			for _, m := range mta.Messages() {
				got = append(got, m.Text)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("messages (-want +got):\n%.2000s", diff)
			}
			refusals := []service.Refusal{{Service: "x", Family: x.Client, Rule: "virus", Refused: true, Count: 2}, {Service: "x", Family: x.Client, Rule: "reject", Refused: true, Count: 1}}
			if x.Client == ip.V6 {
				refusals = append(refusals, service.Refusal{Service: "x", Family: x.Client, Rule: "authentication", Refused: true, Count: 1})
			}
			if diff := cmp.Diff(refusals, e.server.Refusals()); diff != "" {
				t.Errorf("refusals (-want +got):\n%s", diff)
			}
		}
	})
}

// TestEngineDown: the message comes again, or passes, as the file says, and that is counted.
func TestEngineDown(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		mta := servertest.NewMail(t, x.Backend, nil)
		gone := []netip.AddrPort{netip.AddrPortFrom(iptest.Loopback(x.Backend), 1)}
		b := newBench(t)
		for _, test := range []struct {
			down    Down
			want    string
			refusal service.Refusal
		}{
			{DownRefuse, "451 4.3.0 ", service.Refusal{Service: "x", Family: x.Client, Rule: "engine-down", Refused: true, Count: 1}},
			{DownPass, "250", service.Refusal{Service: "x", Family: x.Client, Rule: "engine-down", Count: 1}},
		} {
			e := b.serve(t, "smtp", x.Client, to(mta.Addr), func(o *Options) { o.Scan = &Scan{Clamd: gone, Down: test.down} })
			c := dial(t, e.at)
			c.do("EHLO mx.example.com", "250")
			c.send("hello\r\n", test.want)
			if all := e.server.Refusals(); len(all) == 0 || all[len(all)-1] != test.refusal {
				t.Errorf("%+v, want %+v", all, test.refusal)
			}
		}
		if n := len(mta.Messages()); n != 1 {
			t.Errorf("%d messages, want 1", n)
		}
	})
}

// TestGoneWhileShown: a client that leaves while engines look is not missed, and its message is forgotten.
func TestGoneWhileShown(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		mta := servertest.NewMail(t, f, nil)
		looking, release := make(chan struct{}), make(chan struct{})
		clamd := fakeClamd(t, f, func(string) { close(looking); <-release })
		b := newBench(t)
		e := b.serve(t, "smtp", f, to(mta.Addr), func(o *Options) { o.Scan = &Scan{Clamd: []netip.AddrPort{clamd}} })
		c := dial(t, e.at)
		c.do("EHLO mx.example.com", "250")
		c.do("MAIL FROM:<a@example.com>", "250")
		c.do("RCPT TO:<b@example.jp>", "250")
		c.do("DATA", "354")
		c.say(stuffed(message(500_000)) + ".")
		<-looking
		c.conn.(*net.TCPConn).SetLinger(0) // so that the edge hears of it
		c.conn.Close()
		b.waitFor("the end of the session", func() bool { return b.sum().Active == 0 })
		close(release)
	})
}

// TestServerGoneWhileShown: a server that leaves while engines look is no reason to give the message to another before they
// have looked.
func TestServerGoneWhileShown(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		looking, gone := make(chan struct{}), make(chan struct{})
		mta := servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
			io.WriteString(c, "220 mta\r\n")
			for lines := bufio.NewScanner(c); lines.Scan(); {
				if strings.HasPrefix(lines.Text(), "DATA") || strings.HasPrefix(lines.Text(), "BDAT") {
					t.Errorf("the server has heard %s", lines.Text())
				}
				io.WriteString(c, "250 Ok\r\n")
				if strings.HasPrefix(lines.Text(), "RCPT") {
					<-looking
					close(gone)
					return
				}
			}
		})
		b := newBench(t)
		clamd := fakeClamd(t, x.Backend, func(string) {
			close(looking)
			<-gone
			b.waitFor("the end of the flow", func() bool { return b.sum().Active == 0 })
		})
		e := b.serve(t, "smtp", x.Client, to(mta), func(o *Options) { o.Scan = &Scan{Clamd: []netip.AddrPort{clamd}} })
		c := dial(t, e.at)
		c.do("EHLO mx.example.com", "250")
		c.do("MAIL FROM:<a@example.com>", "250")
		c.do("RCPT TO:<b@example.jp>", "250")
		c.do("DATA", "354")
		c.say("virus", ".")
		c.want("554 5.7.1 ")
	})
}
