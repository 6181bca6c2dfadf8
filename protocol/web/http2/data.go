// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

// Hot path: no allocation per packet.

// dataFrame is the DATA frame that is being read.
type dataFrame struct {
	stream  uint32 // 0 if it is dropped
	left    int    // bytes of data that are still to come
	padding int    // and of padding after them
	end     bool   // the stream's half ends with it
}

// beginData reads the header of a DATA frame and as much of the rest as p has. RFC 9113 §6.1.
func (c *Conn) beginData(p []byte, f *frame) (n int, err *Error) {
	start, padding := headerSize, 0
	if f.has(flagPadded) {
		start++
		if f.length == 0 {
			return 0, errFrameSize
		}
		if len(p) < start {
			return 0, nil
		}
		if padding = int(p[headerSize]); padding >= f.length {
			return 0, errPadding
		}
	}
	switch {
	case f.stream == 0:
		return 0, errStreamID
	case c.isIdle(f.stream):
		return 0, errIdle
	case int64(f.length) > c.room:
		return 0, errConnWindow
	}
	c.room -= int64(f.length)
	size := headerSize + f.length - start - padding
	c.data = dataFrame{left: size, padding: padding}
	taken, err := c.takeData(f, size)
	switch {
	case err != nil:
		return 0, err
	case taken:
		c.data.stream, c.data.end = f.stream, f.has(flagEnd)
	default:
		c.owed += int64(f.length)
		c.openWindow()
	}
	return start + c.readData(p[start:]), nil
}

// takeData says whether the stream of a DATA frame with size bytes of data takes it.
func (c *Conn) takeData(f *frame, size int) (ok bool, err *Error) {
	s := c.find(f.stream)
	if s == nil {
		if known, late := c.closed.has(f.stream); known && !late {
			return false, errGone
		}
		if size >= worthwhile { // what was under way; the window of the connection bounds it
			return false, nil
		}
		return false, c.spendLate()
	}
	switch {
	case s.peerEnded:
		return false, c.streamError(s, errClosed)
	case c.client && !s.answered:
		return false, c.streamError(s, errNoResponse)
	case int64(f.length) > s.room:
		return false, c.streamError(s, errWindow)
	case s.want >= 0 && (int64(size) > s.want || f.has(flagEnd) && int64(size) < s.want):
		return false, c.streamError(s, errBody)
	}
	if s.want > 0 {
		s.want -= int64(size)
	}
	s.room -= int64(f.length)
	s.held += int64(f.length)
	if extra := f.length - size; extra > 0 {
		c.Consumed(s, extra)
	}
	switch {
	case size >= worthwhile:
		c.idle.earn(dataEarns(size), idleCredit)
	case size == 0 && !f.has(flagEnd):
		return true, c.spend(1)
	}
	return true, nil
}

// readData reads more of the DATA frame.
func (c *Conn) readData(p []byte) (n int) {
	d := &c.data
	if n = min(len(p), d.left); n > 0 {
		d.left -= n
		if s := c.find(d.stream); s != nil && s.Owner != nil {
			s.Owner.Data(s, p[:n])
		} else if s != nil {
			c.Consumed(s, n)
		}
	}
	if d.left > 0 {
		return n
	}
	k := min(len(p)-n, d.padding)
	d.padding -= k
	if d.padding == 0 && d.end {
		d.end = false
		if s := c.find(d.stream); s != nil {
			c.peerEnd(s, nil)
		}
	}
	return n + k
}
