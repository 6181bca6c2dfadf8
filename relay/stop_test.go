// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/metrics"
)

// stubborn dials anew when its connection breaks.
type stubborn struct {
	options DialOptions
	ends    chan error
}

func (s *stubborn) Data(_ *Conn, p []byte) int { return len(p) }
func (s *stubborn) Event(*Conn, Event)         {}
func (s *stubborn) Closed(c *Conn, err error) {
	s.ends <- err
	c.Loop().Dial(s.options, func(_ *Conn, err error) { s.ends <- err })
}

// When the loops stop, those who want to open something else instead are told that they cannot, at once or where they
// had to wait, and nothing is left open.
func TestStop(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		ls, err := Open(1)
		if err != nil {
			t.Fatal(err)
		}
		defer ls.Close()
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { ls.Run(ctx) })
		s := &stubborn{DialOptions{Remote: servertest.Echo(t, f), Timeout: time.Minute}, make(chan error, 100)}
		l := ls.loops[0]
		const many = 10
		up := make(chan struct{}, many)
		for range many {
			onLoop(ls, func() {
				l.Dial(s.options, func(c *Conn, err error) {
					if err != nil {
						t.Errorf("dial: %v", err)
					} else {
						c.SetHandler(s)
					}
					up <- struct{}{}
				})
			})
			<-up
		}
		late := make(chan error, 1)
		whileBlocked(ls, func() {
			cancel()
			waitFor(t, func() bool { return posted(l) == 1 }) // the stop
			l.Post(func() { l.Dial(s.options, func(_ *Conn, err error) { late <- err }) })
		})
		wg.Wait()
		for range 2 * many {
			if err := <-s.ends; !errors.Is(err, ErrStopped) {
				t.Errorf("got %v, want ErrStopped", err)
			}
		}
		if err := <-late; !errors.Is(err, ErrStopped) {
			t.Errorf("dial after the end: got %v, want ErrStopped", err)
		}
		if n := l.conns.Load(); n != 0 {
			t.Errorf("%d connections left", n)
		}
	})
}

func posted(l *Loop) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.posted)
}

// When Close returns, the caller may close the socket, and its descriptor may become another's: no answer may leave
// later in the round.
func TestPacketsCloseSendsAnswers(t *testing.T) {
	t.Parallel()
	ls := startLoops(t, 1)
	fd, at := listenUDP(t, iptest.Loopback(ip.V6))
	p, err := ls.OpenPackets(fd, (*PacketFlow).Refuse)
	if err != nil {
		t.Fatal(err)
	}
	c := dialUDP(t, at)
	left := make(chan int, 1)
	var wg sync.WaitGroup
	whileBlocked(ls, func() {
		p.loop.Post(func() {
			out := p.answers()
			out.add(copy(out.room(), "answer"), c.LocalAddr().(*net.UDPAddr).AddrPort(), at.Addr())
		})
		wg.Go(func() { p.Close(metrics.Drained) })
		waitFor(t, func() bool { return posted(p.loop) == 2 })
		p.loop.Post(func() { left <- p.out.n })
	})
	if n := <-left; n != 0 {
		t.Errorf("%d answers leave after Close", n)
	}
	wg.Wait()
	got := make([]byte, 100)
	if n, err := c.Read(got); string(got[:n]) != "answer" {
		t.Errorf("got %q, %v", got[:n], err)
	}
}
