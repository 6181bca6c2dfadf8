// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"crypto/tls"
	"errors"
	"net"
	"runtime"
	"sync"
	"time"
)

// maxHandshake bounds the bytes that are taken from a peer before its handshake is done.
const maxHandshake = 64 << 10

// maxHandshakes bounds the handshakes under way, each of which holds a goroutine.
const maxHandshakes = 8192

// refusedTime is how long a client has to read why its handshake has failed.
const refusedTime = time.Second

// ErrBusy means that as many TLS handshakes are under way as may be.
var ErrBusy = errors.New("relay: too many TLS handshakes under way")

// handshakes bounds how many handshakes compute at once. One that waits for its peer gives its place to another.
type handshakes struct {
	gate chan struct{}
	wg   sync.WaitGroup
	mu   sync.Mutex
	all  int
}

func (h *handshakes) init(loops int) {
	h.gate = make(chan struct{}, max(loops, runtime.NumCPU())) // one for each core: more would only share the cores
}

func (h *handshakes) wait() { h.wg.Wait() }

// start runs fn on a goroutine of its own, unless there are too many.
func (h *handshakes) start(fn func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.all >= maxHandshakes {
		return false
	}
	h.all++
	h.wg.Go(func() {
		fn()
		h.mu.Lock()
		h.all--
		h.mu.Unlock()
	})
	return true
}

// greeting handles a connection until its handshake as a client is done.
type greeting struct {
	ready func(tls.ConnectionState, error)
}

func (g greeting) Data(_ *Conn, p []byte) int { return 0 }
func (g greeting) Closed(_ *Conn, err error)  { g.ready(tls.ConnectionState{}, err) }
func (g greeting) Event(c *Conn, e Event) {
	if e == Timeout {
		c.fail(ErrTimeout)
	}
}

// handshake runs on a goroutine.
func (s *tlsState) handshake(ready func(tls.ConnectionState)) {
	s.gate <- struct{}{}
	err := s.conn.Handshake()
	<-s.gate
	c := s.owner
	c.loop.Post(func() {
		s.shaking = false
		switch {
		case s.lost != nil:
			s.tell(err)
		case c.IsClosed():
		case err != nil:
			s.refuse(err)
		default:
			s.finish(ready)
		}
	})
}

// lose takes note that the connection breaks during the handshake. A client that refuses us says why and goes, perhaps
// with bytes of ours unread, for which the kernel resets the connection: what it said is still to be looked at.
func (s *tlsState) lose(err error) {
	c := s.owner
	s.lost, s.told = err, c.handler
	c.release()
}

// tell tells the handler why the connection broke, or, if the client has said it, why the handshake did.
func (s *tlsState) tell(err error) {
	if e, ok := errors.AsType[*net.OpError](err); !ok || e.Op != "remote error" {
		err = s.lost
	}
	s.told.Closed(s.owner, err)
}

// refuse closes the connection, whose handshake has failed. A client of ours may not have read yet why it has: in TLS 1.3
// it is done before us, and what it goes on to send would have the kernel reset the connection.
func (s *tlsState) refuse(err error) {
	s.mu.Lock()
	unsent, ended := s.unsent, s.ended
	s.unsent = nil
	s.mu.Unlock()
	c := s.owner
	if len(unsent) > 0 {
		c.transmit(unsent)
	}
	if !s.server || ended {
		c.fail(err)
		return
	}
	h := c.handler
	c.tls = nil // what comes now is thrown away as it is
	c.Linger(refusedTime)
	h.Closed(c, err)
}

// finish gives the connection to the loop.
func (s *tlsState) finish(ready func(tls.ConnectionState)) {
	s.mu.Lock()
	s.done = true
	unsent := s.unsent
	s.unsent = nil
	s.mu.Unlock()
	c := s.owner
	if len(unsent) > 0 {
		c.transmit(unsent)
	}
	s.pending = true
	ready(s.conn.ConnectionState())
	c.Resume()
}

// flush has the loop send what the socket did not take during the handshake.
func (s *tlsState) flush() {
	if s.owner.flags&closed != 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.unsent) > 0 {
		s.owner.transmit(s.unsent)
		s.unsent = nil
	}
	s.behind = s.owner.Buffered() > 0
}
