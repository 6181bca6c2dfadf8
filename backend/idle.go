// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

// Hot path: no allocation per packet.

import (
	"crypto/tls"
	"slices"
	"sync/atomic"
	"time"

	"github.com/kyozon/kyozon/relay"
)

const (
	// maxIdle bounds the unused connections to one backend on one loop.
	maxIdle = 256

	// idleFor is how long an unused connection is kept: less than the 60 to 75 s after which servers close theirs.
	idleFor = 30 * time.Second
)

// idle is the unused connections to one backend that any client's flow may take, a stack for each loop. It outlives
// the generations. What a backend closes or says out of turn takes its connection off the stack.
type idle struct {
	loops []idleLoop
	count atomic.Int64
}

type idleLoop struct {
	conns  []idleConn
	shared []idleConn // in use, but they can carry more: see Lend
	_      [16]byte   // stacks are touched by different cores
}

// idleConn is an unused connection, and what its TLS is made of: nil in clear.
type idleConn struct {
	*relay.Conn
	tls *tls.Config
}

// put keeps c, or closes it if there are many already.
func (i *idle) put(c *relay.Conn, tls *tls.Config) {
	l := &i.loops[c.Loop().ID()]
	if len(l.conns) >= maxIdle || c.IsClosed() || c.HasEnded() {
		c.Close()
		return
	}
	l.conns = append(l.conns, idleConn{c, tls})
	i.count.Add(1)
	c.SetHandler(i)
	c.SetTimeout(idleFor)
}

// take returns a connection that carries flows of others and can carry more, or the one that was used last, or nil. The
// handler of the latter is for the taker to set, and it has no timeout.
// A connection from before a reload that has changed the pool's TLS is closed.
func (i *idle) take(l *relay.Loop, tls *tls.Config) *relay.Conn {
	s := &i.loops[l.ID()]
	for _, c := range s.shared {
		if c.tls == tls {
			return c.Conn
		}
	}
	for n := len(s.conns) - 1; n >= 0; n-- {
		c := s.conns[n]
		s.conns[n] = idleConn{}
		s.conns = s.conns[:n]
		i.count.Add(-1)
		if c.tls == tls {
			c.SetTimeout(0)
			return c.Conn
		}
		c.Close()
	}
	return nil
}

// Lend lets flows of others have c, a connection of the backend's whose protocol carries several at once, beside those
// that have it, until it is withdrawn: what Dial returns for one is c as it is, with its handler. Call it on c's loop; the
// pool must be Shared.
func (b *Backend) Lend(c *relay.Conn) {
	l := &b.tally.idle.loops[c.Loop().ID()]
	l.shared = append(l.shared, idleConn{c, b.secure})
}

// Withdraw takes back Lend.
func (b *Backend) Withdraw(c *relay.Conn) {
	l := &b.tally.idle.loops[c.Loop().ID()]
	l.shared = slices.DeleteFunc(l.shared, func(s idleConn) bool { return s.Conn == c })
}

func (i *idle) drop(c *relay.Conn) {
	l := &i.loops[c.Loop().ID()]
	for k, other := range l.conns {
		if other.Conn == c {
			l.conns = append(l.conns[:k], l.conns[k+1:]...)
			i.count.Add(-1)
			return
		}
	}
}

// Data implements relay.Handler: bytes that nobody asked for.
func (i *idle) Data(c *relay.Conn, p []byte) int {
	i.drop(c)
	c.Abort()
	return len(p)
}

// Event implements relay.Handler.
func (i *idle) Event(c *relay.Conn, e relay.Event) {
	i.drop(c)
	c.Close()
}

// Closed implements relay.Handler.
func (i *idle) Closed(c *relay.Conn, _ error) { i.drop(c) }
