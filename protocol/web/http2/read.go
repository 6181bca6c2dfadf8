// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

// Hot path: no allocation per packet.

import "encoding/binary"

// Read takes frames at the start of p, tells h and the owners of streams what they mean and returns how many bytes it
// has taken. The rest, less than 16 KiB + 9, is shown again with more bytes after it. now is in nanoseconds from any
// moment. An error, always an *Error, is the connection's: send AppendOutput, which then ends with GOAWAY, and close.
// The owners of its streams are not told.
func (c *Conn) Read(p []byte, h Handler, now int64) (n int, err error) {
	if c.err != nil {
		return len(p), c.err
	}
	c.now = now
	for n < len(p) {
		k, err := c.step(p[n:], h)
		if err != nil {
			c.fail(err)
			return len(p), err
		}
		if k == 0 {
			break
		}
		n += k
	}
	return n, nil
}

// step takes the next piece: a frame, or a part of one. It takes nothing if more bytes are needed.
func (c *Conn) step(p []byte, h Handler) (n int, err *Error) {
	switch {
	case c.greets > 0:
		return c.readPreface(p)
	case c.data.left > 0 || c.data.padding > 0:
		return c.readData(p), nil
	case c.skip > 0:
		n = min(len(p), c.skip)
		c.skip -= n
		return n, nil
	case len(p) < headerSize:
		return 0, nil
	}
	f := parseHeader(p)
	switch {
	case f.length > maxFrame:
		return 0, errFrameSize
	case !c.acked && (f.kind != frameSettings || f.has(flagAck)):
		return 0, errFirst
	case c.head.open != (f.kind == frameContinuation) || c.head.open && f.stream != c.head.stream:
		return 0, errContinuation
	case f.kind == frameData:
		return c.beginData(p, &f)
	case f.kind > frameContinuation: // RFC 9113 §5.5: ignored
		c.skip = f.length
		return headerSize, c.spend(1)
	case len(p) < headerSize+f.length:
		return 0, nil
	}
	f.payload = p[headerSize : headerSize+f.length]
	return headerSize + f.length, c.readFrame(&f, h)
}

func (c *Conn) readPreface(p []byte) (n int, err *Error) {
	n = min(len(p), c.greets)
	if string(p[:n]) != Preface[len(Preface)-c.greets:][:n] {
		return 0, errPreface
	}
	c.greets -= n
	return n, nil
}

// readFrame reads a frame that has come whole.
func (c *Conn) readFrame(f *frame, h Handler) *Error {
	switch f.kind {
	case frameHeaders:
		return c.readHeaders(f, h)
	case frameContinuation:
		return c.readContinuation(f, h)
	case framePriority:
		return c.readPriority(f)
	case frameReset:
		return c.readReset(f)
	case frameSettings:
		return c.readSettings(f)
	case framePing:
		return c.readPing(f)
	case frameGoAway:
		return c.readGoAway(f, h)
	case frameWindow:
		return c.readWindow(f)
	}
	return errPush // clients must not, and servers may not since we forbid it. RFC 9113 §8.4
}

// spend counts n idle frames.
func (c *Conn) spend(n int32) *Error {
	if !c.idle.spend(n, mostIdle, idleRefill, c.now) {
		return errFlood
	}
	return nil
}

// spendLate counts an idle frame for a stream that has gone. That a server sends some is our doing: we have reset the
// stream, because the client whose request it was has gone.
func (c *Conn) spendLate() *Error {
	if c.client {
		return nil
	}
	return c.spend(1)
}

// spendReset counts a stream that has not come to its end by the peer's doing. A server may end as many as it is asked
// for: the connection carries requests of others too, which must not end because those of one client do.
func (c *Conn) spendReset() *Error {
	if c.client {
		return nil
	}
	if !c.resets.spend(1, mostResets, resetRefill, c.now) {
		return errResets
	}
	return nil
}

// isIdle says whether a stream has not been opened yet. RFC 9113 §5.1.1: clients open the odd ones.
func (c *Conn) isIdle(id uint32) bool {
	if c.client {
		return id&1 == 0 || id >= c.nextOwn
	}
	return id&1 == 0 || id > c.lastPeer
}

// streamError closes s because the peer broke a rule.
func (c *Conn) streamError(s *Stream, e *Error) *Error {
	c.out = appendReset(c.out, s.ID, e.Code)
	c.lose(s, e.Code, true)
	return c.spendReset()
}

// lose closes s and tells its owner.
func (c *Conn) lose(s *Stream, code Code, late bool) {
	c.release(s, late)
	if s.Owner != nil {
		s.Owner.Reset(s, code)
	}
	c.free(s)
}

// readPriority does nothing: RFC 9113 §5.3.2.
func (c *Conn) readPriority(f *frame) *Error {
	switch {
	case f.stream == 0:
		return errStreamID
	case f.length == 5:
		return c.spend(1)
	}
	if s := c.find(f.stream); s != nil {
		return c.streamError(s, errPriority)
	}
	return errPriority
}

func (c *Conn) readReset(f *frame) *Error {
	switch {
	case f.stream == 0:
		return errStreamID
	case f.length != 4:
		return errFrameSize
	case c.isIdle(f.stream):
		return errIdle
	}
	s := c.find(f.stream)
	if s == nil {
		return c.spendLate()
	}
	c.lose(s, Code(binary.BigEndian.Uint32(f.payload)), false)
	return c.spendReset()
}

// readSettings takes settings one by one, in their order. RFC 9113 §6.5.3.
func (c *Conn) readSettings(f *frame) *Error {
	const size = 6
	switch {
	case f.stream != 0:
		return errStreamID
	case f.has(flagAck) && f.length != 0 || f.length%size != 0:
		return errFrameSize
	}
	if err := c.spend(1 + int32(f.length/size)); err != nil || f.has(flagAck) {
		return err
	}
	c.acked = true
	before := c.peer.window
	for p := f.payload; len(p) > 0; p = p[size:] {
		if err := c.set(binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])); err != nil {
			return err
		}
	}
	c.out = appendHeader(c.out, 0, frameSettings, flagAck, 0)
	if c.peer.window > before {
		c.wake()
	}
	return nil
}

func (c *Conn) set(id uint16, v uint32) *Error {
	switch id {
	case settingTable:
		c.resize = true
	case settingPush:
		if v > 1 || c.client && v == 1 {
			return errSetting
		}
	case settingStreams:
		c.peer.streams = v
	case settingWindow:
		return c.setWindow(v)
	case settingFrame: // ours are never longer than all allow
		if v < maxFrame || v >= 1<<24 {
			return errSetting
		}
	}
	return nil
}

func (c *Conn) readPing(f *frame) *Error {
	switch {
	case f.stream != 0:
		return errStreamID
	case f.length != 8:
		return errFrameSize
	case !f.has(flagAck):
		c.out = append(appendHeader(c.out, 8, framePing, flagAck, 0), f.payload...)
	case c.away == announced && string(f.payload) == farewell:
		c.Leave()
		return nil
	}
	return c.spend(1)
}

func (c *Conn) readGoAway(f *frame, h Handler) *Error {
	switch {
	case f.stream != 0:
		return errStreamID
	case f.length < 8:
		return errFrameSize
	}
	last, code := binary.BigEndian.Uint32(f.payload)&maxStream, Code(binary.BigEndian.Uint32(f.payload[4:]))
	c.gone = true
	for s := c.after(last); c.client && s != nil; s = c.after(last) {
		c.lose(s, RefusedStream, true)
	}
	h.GoingAway(last, code)
	return c.spend(1)
}

// after returns the first stream that is above last, or not even sent.
func (c *Conn) after(last uint32) *Stream {
	s := c.first
	for s != nil && s.ID != 0 && s.ID <= last {
		s = s.next
	}
	return s
}

func (c *Conn) readWindow(f *frame) *Error {
	if f.length != 4 {
		return errFrameSize
	}
	n := int64(binary.BigEndian.Uint32(f.payload) & maxWindow)
	if f.stream == 0 {
		switch c.window += n; {
		case n == 0:
			return errNoRoom
		case c.window > maxWindow:
			return errConnWindow
		}
		c.wake()
		return c.spend(1)
	}
	if c.isIdle(f.stream) {
		return errIdle
	}
	s := c.find(f.stream)
	if s == nil {
		return c.spendLate()
	}
	switch s.window += n; {
	case n == 0:
		return c.streamError(s, errNoIncrement)
	case s.window > maxWindow:
		return c.streamError(s, errWindow)
	}
	if s.waiting {
		c.wake()
	}
	return c.spend(1)
}
