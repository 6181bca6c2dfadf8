// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

// Hot path: no allocation per packet.

import "github.com/kyozon/kyozon/protocol/web/http1"

// headerBlock is one that is being read: HEADERS, and CONTINUATION as long as it is open. RFC 9113 §4.3.
type headerBlock struct {
	stream uint32
	end    bool // the stream's half ends with it
	open   bool // more of it will come
	block  []byte
}

func (c *Conn) readHeaders(f *frame, h Handler) *Error {
	if f.stream == 0 {
		return errStreamID
	}
	p, padding := f.payload, 0
	if f.has(flagPadded) {
		if len(p) == 0 {
			return errFrameSize
		}
		padding, p = int(p[0]), p[1:]
	}
	if f.has(flagPriority) { // RFC 9113 §5.3.2: ignored
		if len(p) < 5 {
			return errFrameSize
		}
		p = p[5:]
	}
	if padding > len(p) {
		return errPadding
	}
	p = p[:len(p)-padding]
	c.head.stream, c.head.end = f.stream, f.has(flagEnd)
	if f.has(flagEndHeaders) {
		return c.readBlock(p, h)
	}
	c.head.open = true
	return c.collect(p)
}

func (c *Conn) readContinuation(f *frame, h Handler) *Error {
	if err := c.collect(f.payload); err != nil || !f.has(flagEndHeaders) {
		return err
	}
	block := c.head.block
	c.head.block, c.head.open = nil, false
	return c.readBlock(block, h)
}

// collect keeps a part of a header block, not more in all than a head that we would take can need (CVE-2023-45288), and
// not in many little pieces.
func (c *Conn) collect(p []byte) *Error {
	if len(c.head.block)+len(p) > 2*c.limits.Head.Head {
		return errLongBlock
	}
	c.head.block = append(c.head.block, p...)
	if len(p) < worthwhile {
		return c.spend(1)
	}
	return nil
}

// readBlock reads a header block that is whole.
func (c *Conn) readBlock(block []byte, h Handler) *Error {
	id := c.head.stream
	s := c.find(id)
	switch {
	case s != nil && c.client && !s.answered:
		return c.readResponse(s, block)
	case s != nil:
		return c.readTrailers(s, block)
	case !c.isIdle(id):
		known, late := c.closed.has(id)
		if !known && !c.client { // a client has opened all of them, and may have forgotten one
			return errStreamID
		}
		if known && !late {
			return errGone
		}
		return c.discard(block)
	case c.client || id&1 == 0:
		return errStreamID
	}
	return c.readRequest(id, block, h)
}

// decode reads a header block as a head or trailers into the message of all, which it returns.
func (c *Conn) decode(r role, block []byte) (*message, *Error) {
	m := &c.shared.message
	m.begin(r, &c.limits.Head)
	return m, c.decoder.decode(c.shared.huffman, block, m)
}

// discard reads a header block only for what the encoder will refer to.
func (c *Conn) discard(block []byte) *Error {
	if _, err := c.decode(trailers, block); err != nil {
		return err
	}
	return c.spendLate()
}

func (c *Conn) readRequest(id uint32, block []byte, h Handler) *Error {
	c.lastPeer = id
	if c.away == left { // RFC 9113 §6.8
		c.closed.add(id, true)
		return c.discard(block)
	}
	m, err := c.decode(request, block)
	if err != nil {
		return err
	}
	broken := m.finish(c.head.end, http1.Other)
	if c.count >= c.limits.Streams {
		broken = errConcurrent
	}
	s := c.open()
	c.name(s, id)
	s.peerEnded, s.want, s.verb = c.head.end, m.length, m.verb
	if broken != nil {
		return c.refuse(s, broken, h)
	}
	c.idle.earn(idlePerFrame, idleCredit)
	h.Opened(s, m.text, c.head.end)
	return nil
}

// refuse answers or resets a request that nobody has been told of.
func (c *Conn) refuse(s *Stream, e *Error, h Handler) *Error {
	switch e {
	case errLongHead:
		c.out = c.appendError(c.out, s, 431, s.verb)
		c.end(s)
	case errConnect:
		c.out = c.appendError(c.out, s, 501, s.verb)
		c.end(s)
	default:
		c.out = appendReset(c.out, s.ID, e.Code)
		c.lose(s, e.Code, true)
	}
	h.Refused(e)
	return c.spendReset()
}

func (c *Conn) readResponse(s *Stream, block []byte) *Error {
	m, err := c.decode(response, block)
	if err != nil {
		return err
	}
	end := c.head.end
	if e := m.finish(end, s.verb); e != nil {
		return c.streamError(s, e)
	}
	if m.status < 200 {
		s.tellAnswered(m.text, false)
		return c.spend(1)
	}
	s.answered, s.peerEnded, s.want = true, end, m.length
	c.idle.earn(idlePerFrame, idleCredit)
	id := s.ID
	s.tellAnswered(m.text, end)
	if end {
		c.endIfDone(s, id)
	}
	return nil
}

func (s *Stream) tellAnswered(head []byte, end bool) {
	if s.Owner != nil {
		s.Owner.Answered(s, head, end)
	}
}

func (c *Conn) readTrailers(s *Stream, block []byte) *Error {
	m, err := c.decode(trailers, block)
	if err != nil {
		return err
	}
	switch {
	case s.peerEnded:
		return c.streamError(s, errClosed)
	case !c.head.end:
		return c.streamError(s, errUnended)
	case m.err != nil:
		return c.streamError(s, m.err)
	case s.want > 0:
		return c.streamError(s, errBody)
	}
	c.peerEnd(s, m.text)
	return nil
}

// peerEnd closes the peer's half of s.
func (c *Conn) peerEnd(s *Stream, trailers []byte) {
	id := s.ID
	s.peerEnded = true
	if s.Owner != nil {
		s.Owner.Ended(s, trailers)
	}
	c.endIfDone(s, id)
}

// endIfDone closes the stream id, which was s, if it is still there and both halves are over.
func (c *Conn) endIfDone(s *Stream, id uint32) {
	if c.find(id) == s && s.ended {
		c.resets.earn(1, 0)
		c.release(s, false)
		c.free(s)
	}
}
