// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/metrics"
)

// onLoop calls fn on the only loop.
func onLoop(ls *Loops, fn func()) { ls.Do(func(*Loop) { fn() }) }

// A connection closed in the very callback that brought it must be closed once: its descriptor may be someone else's by
// then.
func TestCloseInDial(t *testing.T) {
	t.Parallel()
	ls := startLoops(t, 1)
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		server := servertest.Echo(t, f)
		for name, end := range map[string]func(*Conn){"close": (*Conn).Close, "abort": (*Conn).Abort} {
			done := make(chan struct{})
			before := ls.loops[0].conns.Load()
			onLoop(ls, func() {
				ls.loops[0].Dial(DialOptions{Remote: server, Timeout: patience}, func(c *Conn, err error) {
					if err != nil {
						t.Errorf("dial: %v", err)
					} else {
						end(c)
					}
					close(done)
				})
			})
			<-done
			onLoop(ls, func() {}) // the rest of the round
			if n := ls.loops[0].conns.Load(); n != before {
				t.Errorf("%s: %d connections counted, want %d", name, n, before)
			}
		}
	})
}

// What a server says before it resets the connection, because it will not take all that it is sent, reaches the client's
// side even if the reset is noticed by a write. It is no end, though: the rest may be missing.
func TestLastWordsBeforeReset(t *testing.T) {
	t.Parallel()
	ls := startLoops(t, 1)
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		server := servertest.TCP(t, f, func(c *net.TCPConn) {
			io.ReadFull(c, make([]byte, 1))
			c.Write([]byte("too large"))
			c.SetLinger(0)
		})
		w := &listener{said: make(chan string, 1)}
		var s *Conn
		done := make(chan struct{})
		onLoop(ls, func() {
			ls.loops[0].Dial(DialOptions{Remote: server, Timeout: patience}, func(c *Conn, err error) {
				if err != nil {
					t.Errorf("dial: %v", err)
					c = nil
				} else {
					c.SetHandler(w)
				}
				s = c
				close(done)
			})
		})
		if <-done; s == nil {
			return
		}
		onLoop(ls, func() {
			s.Write([]byte("x"))
			for wait := time.Now().Add(patience); ; { // until a write fails, with the loop none the wiser
				s.Write([]byte("more"))
				if ls.loops[0].round.send(); s.flags&shut != 0 {
					break
				}
				if time.Now().After(wait) {
					t.Error("writes to a reset connection go on")
					return
				}
			}
		})
		if got := <-w.said; got != "too large" {
			t.Errorf("got %q", got)
		}
	})
}

// listener tells what it has heard when the connection is over.
type listener struct {
	heard []byte
	said  chan string
}

func (l *listener) Data(_ *Conn, p []byte) int {
	l.heard = append(l.heard, p...)
	return len(p)
}

func (l *listener) Event(c *Conn, e Event) {
	if e == Ended {
		c.Close()
		l.said <- string(l.heard) + " and no more"
	}
}

func (l *listener) Closed(*Conn, error) { l.said <- string(l.heard) }

// A peer that reads slowly gets what was written before Close, as long as it goes on reading.
func TestCloseWaitsForSlowReader(t *testing.T) {
	t.Parallel()
	ls := startLoops(t, 1)
	fd, peer := socketPair(t)
	var c *Conn
	const size = 4 << 20
	onLoop(ls, func() {
		var err error
		if c, err = ls.loops[0].newConn(fd, nobody{}); err != nil {
			t.Error(err)
			return
		}
		c.Write(make([]byte, size))
		c.Close()
	})
	got := 0
	chunk := make([]byte, 256<<10)
	for range 8 { // each time the deadline finds that the peer has taken something
		n, err := io.ReadFull(peer, chunk)
		if got += n; err != nil {
			t.Fatalf("after %d bytes: %v", got, err)
		}
		onLoop(ls, c.timedOut)
	}
	onLoop(ls, func() {
		c.timedOut() // it has taken nothing: this is the end
		if c.flags&closed == 0 {
			t.Error("waits for ever for a peer that does not read")
		}
	})
	rest, _ := io.Copy(io.Discard, peer)
	if got+int(rest) >= size {
		t.Errorf("the peer got all %d bytes although the connection was given up", size)
	}
}

// Urgent data cuts reads short although more has come. What follows it must arrive all the same.
func TestUrgentData(t *testing.T) {
	t.Parallel()
	ls := startLoops(t, 1)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		addr, _ := proxy(t, ls, x.Client, servertest.Echo(t, x.Backend), time.Minute)
		c := dial(t, addr)
		raw, err := c.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		c.Write([]byte("."))
		io.ReadFull(c, make([]byte, 1))
		whileBlocked(ls, func() {
			c.Write([]byte("before"))
			raw.Write(func(fd uintptr) bool {
				err = unix.Sendto(int(fd), []byte("!"), unix.MSG_OOB, nil)
				return true
			})
			c.Write([]byte("after"))
		})
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len("beforeafter"))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "beforeafter" {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// A half that has ended before the two are joined ends the other's too.
func TestSpliceEndedHalf(t *testing.T) {
	t.Parallel()
	ls := startLoops(t, 1)
	client, clientPeer := socketPair(t)
	server, serverPeer := socketPair(t)
	ended := make(chan *Conn, 1)
	outcomes := make(chan outcome, 1)
	onLoop(ls, func() {
		if _, err := ls.loops[0].newConn(client, &deaf{ended}); err != nil {
			t.Error(err)
		}
	})
	if err := unix.Shutdown(int(clientPeer.Fd()), unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	c := <-ended
	onLoop(ls, func() {
		s, err := ls.loops[0].newConn(server, nobody{})
		if err != nil {
			t.Error(err)
			return
		}
		Splice(c, s, time.Minute, func(n metrics.Counts, r metrics.Reason) { outcomes <- outcome{n, r} })
	})
	unix.SetNonblock(int(serverPeer.Fd()), true)
	if got, err := io.ReadAll(serverPeer); err != nil || len(got) > 0 {
		t.Errorf("the server does not see the end: %q, %v", got, err)
	}
	serverPeer.Write([]byte("bye"))
	serverPeer.Close()
	if got, _ := io.ReadAll(clientPeer); string(got) != "bye" {
		t.Errorf("got %q", got)
	}
	if o := <-outcomes; o != (outcome{metrics.Counts{ToClient: 3}, metrics.Fine}) {
		t.Errorf("got %+v", o)
	}
}

// Neither a client that reads slowly nor one that is fed by a pump is idle; one that does not read at all is.
func TestSpliceSlowReaderIsNotIdle(t *testing.T) {
	t.Parallel()
	ls := startLoops(t, 1)
	client, clientPeer := socketPair(t)
	server, serverPeer := socketPair(t)
	var cut atomic.Bool
	var p *Pair
	onLoop(ls, func() {
		c, errC := ls.loops[0].newConn(client, nobody{})
		s, errS := ls.loops[0].newConn(server, nobody{})
		if errC != nil || errS != nil {
			t.Error(errC, errS)
			return
		}
		p = Splice(c, s, time.Hour, func(_ metrics.Counts, r metrics.Reason) { cut.Store(r == metrics.ClientTimeout) })
	})
	var wg sync.WaitGroup
	wg.Go(func() { io.Copy(serverPeer, bytes.NewReader(make([]byte, 64<<20))) }) // until it is cut off
	defer wg.Wait()
	waitFor(t, func() (stuck bool) {
		onLoop(ls, func() { stuck = p.server.conn.flags&paused != 0 })
		return stuck
	})
	look := func() {
		onLoop(ls, func() {
			p.active = p.client.conn.loop.now - int64(2*time.Hour)
			p.timeout()
		})
	}
	look()
	for range 3 {
		if io.ReadFull(clientPeer, make([]byte, 200<<10)); cut.Load() {
			t.Fatal("a client that reads was cut off")
		}
		look()
	}
	look()
	if look(); !cut.Load() {
		t.Error("a client that does not read goes on for ever")
		serverPeer.Close()
	}
}
