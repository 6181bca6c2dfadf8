// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

// Hot path: no allocation per packet.

import (
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// lingerTime is how long a connection that closes waits for the peer to take more of the last bytes: when it has passed
// twice without, the peer is given up.
const lingerTime = 15 * time.Second

// CloseWrite ends our half when everything written has been sent.
func (c *Conn) CloseWrite() {
	if c.flags&(closed|closing|shut) != 0 {
		return
	}
	if c.tls != nil {
		c.tls.end(c)
	}
	c.flags |= shut
	if c.Buffered() == 0 && c.flags&connecting == 0 {
		c.shutdown()
	}
}

func (c *Conn) shutdown() {
	c.flags |= shutDone
	unix.Shutdown(int(c.fd), unix.SHUT_WR) // an error means that the peer is gone, which the read side tells
}

// Close sends what was written and closes. The handler is told nothing more.
func (c *Conn) Close() {
	if c.flags&(closed|closing) != 0 {
		return
	}
	if c.tls != nil && c.flags&shut == 0 {
		c.tls.end(c)
	}
	c.flags |= closing
	c.handler = nobody{}
	if c.Buffered() == 0 || c.flags&connecting != 0 {
		c.release()
		return
	}
	c.unsent = math.MaxInt // what it is, is looked at only if it takes time
	c.SetTimeout(lingerTime)
}

// Linger closes like Close, but first ends our half and lets the peer finish: bytes that the peer has under way would
// otherwise make the kernel reset the connection, and the peer might lose what we sent last. RFC 9112 §9.6.
func (c *Conn) Linger(d time.Duration) {
	if c.flags&(closed|closing) != 0 {
		return
	}
	if c.flags&eofTold != 0 {
		c.Close()
		return
	}
	c.handler = lingerer{}
	c.CloseWrite()
	c.SetTimeout(d)
	c.Resume()
}

// Abort closes at once and throws away what was not sent; the peer sees a reset.
func (c *Conn) Abort() {
	if c.flags&closed == 0 {
		unix.SetsockoptLinger(int(c.fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
		c.release()
	}
}

// SetTimeout has the handler told Timeout after d. Each call replaces the one before; 0 means never. Giving a later
// time is almost free, so it may be done with every byte.
func (c *Conn) SetTimeout(d time.Duration) {
	switch {
	case c.flags&closed != 0:
	case d == 0:
		c.loop.wheel.stop(&c.timer)
	default:
		if c.timer.Func == nil {
			c.timer.Func = c.timedOut
		}
		c.loop.wheel.set(&c.timer, c.loop.now+int64(d))
	}
}

func (c *Conn) timedOut() {
	switch {
	case c.flags&closed != 0:
	case c.flags&closing != 0:
		c.lingered()
	case c.flags&connecting != 0:
		c.dialled(ErrTimeout)
	default:
		c.handler.Event(c, Timeout)
	}
}

// lingered closes for good if the peer has taken nothing of what it was sent for a while.
func (c *Conn) lingered() {
	if left := c.Unsent(); left < c.unsent {
		c.unsent = left
		c.SetTimeout(lingerTime)
		return
	}
	c.release()
}

// fail closes c and tells the handler why.
func (c *Conn) fail(err error) {
	if c.flags&closed != 0 {
		return
	}
	if c.flags&connecting != 0 {
		c.dialled(err)
		return
	}
	if c.tls != nil && c.tls.server && c.tls.shaking {
		c.tls.lose(err)
		return
	}
	h := c.handler
	c.release()
	h.Closed(c, err)
}

// failLater fails c in its next turn: a handler that has just written must not be called back in the middle. What the
// peer said before it went away, perhaps why, is delivered first. That nothing follows is not the end of its half: the
// kernel tells of a reset once, and here a write has heard of it.
func (c *Conn) failLater(err error) {
	c.out.clear(&c.loop.all.buffers)
	c.flags |= shut | shutDone | broken // takes nothing more
	if c.flags&closing != 0 {
		c.release()
		return
	}
	c.loop.Post(func() {
		c.flags |= readable | hangup
		c.work()
		c.fail(err)
	})
}

// release closes the socket and gives back everything that c holds.
func (c *Conn) release() {
	if c.tls != nil {
		c.tls.close()
	}
	c.flags |= closed
	c.loop.wheel.stop(&c.timer)
	c.loop.forget(int(c.fd))
	c.loop.chores.close(c.fd)
	c.loop.conns.Add(-1)
	c.out.clear(&c.loop.all.buffers)
	c.in.clear(&c.loop.all.buffers)
	if c.pump != nil {
		c.pump.close(c)
	}
	if c.feeder != nil {
		c.feeder.pump.close(c.feeder)
	}
	if c.onClose != nil {
		c.onClose(c)
	}
}

// nobody handles a connection whose owner has closed it.
type nobody struct{}

func (nobody) Data(_ *Conn, p []byte) int { return len(p) }
func (nobody) Event(*Conn, Event)         {}
func (nobody) Closed(*Conn, error)        {}

// lingerer throws away what comes until the peer ends its half or the time is up.
type lingerer struct{}

func (lingerer) Data(_ *Conn, p []byte) int { return len(p) }
func (lingerer) Closed(*Conn, error)        {}
func (lingerer) Event(c *Conn, e Event) {
	if e != Drained {
		c.Close()
	}
}
