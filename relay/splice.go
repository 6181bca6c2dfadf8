// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

// Hot path: no allocation per packet.

import (
	"errors"
	"time"

	"github.com/kyozon/kyozon/metrics"
)

// bulk is how many reads in a row must have been large until a stream is taken to flow in bulk.
const (
	bulkReads = 2
	bulkSize  = 64 << 10
)

// Pair is two connections whose bytes are handed to each other.
type Pair struct {
	client, server side
	idle           time.Duration
	active         int64 // the loop's clock when the last byte moved
	done           func(metrics.Counts, metrics.Reason)
}

// side is one connection of a pair, and what flows from it.
type side struct {
	conn   *Conn
	moved  uint64
	unsent int  // what its peer had not acknowledged when the idle deadline last looked
	large  int  // large reads in a row
	ended  bool // its half has ended
}

// Splice hands the rest of both connections to each other, each half for itself, until both halves have ended, one
// side breaks, or neither has sent or taken a byte for the time idle (0 means for ever). Then both are closed and done
// is called with the bytes of this pair. Bytes that wait in either connection are carried. A half that has ended
// already stays so.
func Splice(client, server *Conn, idle time.Duration, done func(metrics.Counts, metrics.Reason)) *Pair {
	p := &Pair{client: side{conn: client}, server: side{conn: server}, idle: idle, done: done,
		active: client.loop.now}
	client.SetHandler(p)
	server.SetHandler(p)
	client.SetTimeout(idle)
	server.SetTimeout(0)
	client.Resume()
	server.Resume()
	for _, c := range [2]*Conn{client, server} {
		if c.HasEnded() {
			p.Event(c, Ended)
		}
	}
	return p
}

// Counts returns the bytes that have been moved so far. Call it on the loop.
func (p *Pair) Counts() metrics.Counts {
	return metrics.Counts{ToServer: p.client.moved, ToClient: p.server.moved}
}

// Cut ends both connections now.
func (p *Pair) Cut(r metrics.Reason) {
	p.client.conn.Abort()
	p.server.conn.Abort()
	p.finish(r)
}

func (p *Pair) sides(c *Conn) (from, to *side) {
	if c == p.client.conn {
		return &p.client, &p.server
	}
	return &p.server, &p.client
}

// Data implements Handler.
func (p *Pair) Data(c *Conn, b []byte) int {
	from, to := p.sides(c)
	p.active = c.loop.now
	from.moved += uint64(len(b))
	to.conn.Write(b)
	switch {
	case to.conn.Full():
		c.Pause()
		from.large = 0
	case len(b) < bulkSize:
		from.large = 0
	default:
		if from.large++; from.large >= bulkReads {
			c.startPump(to.conn, &from.moved, func() {
				from.large = 0
				p.active = c.loop.now
			})
		}
	}
	return len(b)
}

// Event implements Handler.
func (p *Pair) Event(c *Conn, e Event) {
	from, to := p.sides(c)
	switch e {
	case Ended:
		from.ended = true
		if !to.ended {
			to.conn.CloseWrite()
			return
		}
		p.client.conn.Close()
		p.server.conn.Close()
		p.finish(metrics.Fine)
	case Drained:
		to.conn.Resume()
	case Timeout:
		p.timeout()
	}
}

// timeout looks whether the pair was idle for long enough. A pump moves bytes without telling, so the counts are
// compared too; and a peer may still be reading what it was sent long ago.
func (p *Pair) timeout() {
	for _, s := range [2]*side{&p.client, &p.server} {
		if s.conn.pump != nil && s.conn.pump.seen != s.moved {
			s.conn.pump.seen = s.moved
			p.active = p.client.conn.loop.now
		}
		if unsent := s.conn.Unsent(); unsent != s.unsent {
			s.unsent = unsent
			p.active = p.client.conn.loop.now
		}
	}
	if rest := p.idle - time.Duration(p.client.conn.loop.now-p.active); rest > 0 {
		p.client.conn.SetTimeout(rest)
		return
	}
	p.Cut(metrics.ClientTimeout)
}

// Closed implements Handler.
func (p *Pair) Closed(c *Conn, err error) {
	_, to := p.sides(c)
	to.conn.Abort()
	switch {
	case errors.Is(err, ErrStopped):
		p.finish(metrics.Drained)
	case c == p.client.conn:
		p.finish(metrics.ClientReset)
	default:
		p.finish(metrics.ServerReset)
	}
}

func (p *Pair) finish(r metrics.Reason) {
	if done := p.done; done != nil {
		p.done = nil
		done(p.Counts(), r)
	}
}
