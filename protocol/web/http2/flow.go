// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

// Hot path: no allocation per packet.

import "slices"

// Flow control: RFC 9113 §5.2. What the peer may send is its room, what we may is our window, each for the connection
// and for each stream.

// Consumed tells that n bytes which Owner.Data was told of are no longer held, so that the peer may send as many more.
func (c *Conn) Consumed(s *Stream, n int) {
	if !s.open {
		return // all that it held was given back when it was closed
	}
	k := min(int64(n), s.held)
	s.held -= k
	s.owed += k
	if s.owed >= int64(c.limits.Window)/2 && !s.peerEnded {
		c.out = appendWindow(c.out, s.ID, uint32(s.owed))
		s.room += s.owed
		s.owed = 0
	}
	c.owed += k
	c.openWindow()
}

// openWindow tells the peer how much has been consumed, if that is worth a frame.
func (c *Conn) openWindow() {
	if c.owed >= int64(c.limits.ConnWindow)/2 {
		c.out = appendWindow(c.out, 0, uint32(c.owed))
		c.room += c.owed
		c.owed = 0
	}
}

// setWindow sets the window that streams begin with, and moves those of the streams there are, perhaps below 0.
// RFC 9113 §6.9.2.
func (c *Conn) setWindow(v uint32) *Error {
	if v > maxWindow {
		return errInitialWindow
	}
	delta := int64(v) - c.peer.window
	c.peer.window = int64(v)
	for s := c.first; s != nil; s = s.next {
		if s.window += delta; s.window > maxWindow {
			return errConnWindow
		}
	}
	return nil
}

// await puts s at the end of those that wait for a window.
func (c *Conn) await(s *Stream) {
	if !s.waiting {
		s.waiting = true
		c.queue = append(c.queue, s)
	}
}

func (c *Conn) leaveQueue(s *Stream) {
	if s.waiting {
		s.waiting = false
		i := slices.Index(c.queue, s)
		c.queue = slices.Delete(c.queue, i, i+1)
	}
}

// wake lets those write that wait and now can, a frame each, in turn, until nobody waits who can. When the window of the
// connection is used up before, those who have written stand behind those who have not.
func (c *Conn) wake() {
	for c.window > 0 {
		i := slices.IndexFunc(c.queue, func(s *Stream) bool { return s.window > 0 })
		if i < 0 {
			break
		}
		s := c.queue[i]
		c.leaveQueue(s)
		if len(c.queue) > 0 {
			c.turn = maxFrame
		}
		if s.Owner != nil {
			s.Owner.Writable(s)
		}
		c.turn = maxWindow
	}
}
