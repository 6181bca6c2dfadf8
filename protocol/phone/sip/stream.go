// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sip

// Hot path: no allocation per packet.

import "bytes"

// Piece is what stands at the start of what came.
type Piece uint8

// The pieces.
const (
	Part  Piece = iota // of something that has not come whole
	Whole              // a message
	Ping               // the second of two line ends, which are answered with one. RFC 5626 §4.4.1
	Pong               // a line end: the answer to that, the first of two, or before a message. RFC 3261 §7.5
	STUN               // in a datagram only. RFC 5626 §4.4.2
)

// Demux says what a datagram is: Whole, Ping, Pong, STUN, or Part of nothing, if it is empty. By its first two bits a
// STUN message is told from one of SIP, which begins with a letter or a sign. RFC 8489 §5.
func Demux(p []byte) Piece {
	switch {
	case len(p) == 0:
		return Part
	case p[0] < 4 && len(p) >= 20:
		return STUN
	case len(p) <= 4 && len(bytes.Trim(p, "\r\n")) == 0:
		if len(p) == 4 {
			return Ping
		}
		return Pong
	}
	return Whole
}

// Stream finds the messages in what comes over a connection. The zero value is ready.
type Stream struct {
	scan int  // up to here no head ends
	need int  // the length of the message, when its head is known
	line bool // a line end came last, and was no ping
}

// Next says what stands at the start of p, which is all that has come and was not taken, and how many bytes of it that
// takes. With Whole, m holds the message as Parse leaves it, whatever is wrong within: whoever cares parses it again. With
// Part, more must come: call it again with the same bytes and what follows them. After an error nothing that follows can
// be understood; m holds what could be read, for the answer. RFC 3261 §18.3.
func (s *Stream) Next(p []byte, m *Message, l *Limits) (n int, what Piece, err *Error) {
	if len(p) > 0 && (p[0] == '\r' || p[0] == '\n') {
		return s.lineEnd(p)
	}
	s.line = s.line && len(p) == 0
	if s.need == 0 {
		limit := l.head()
		window := p[:min(len(p), limit)]
		end := bytes.Index(window[min(s.scan, len(window)):], []byte("\r\n\r\n"))
		if end < 0 {
			s.scan = max(0, len(window)-3)
			if len(p) < limit {
				return 0, Part, nil
			}
			s.reset()
			_ = m.Parse(p, l)
			return 0, Part, ErrLongHead
		}
		end += s.scan + 4
		if err := s.measure(p[:end], m, l); err != nil {
			s.reset()
			return 0, Part, err
		}
	}
	if len(p) < s.need {
		return 0, Part, nil
	}
	n = s.need
	s.reset()
	_ = m.Parse(p[:n], l)
	return n, Whole, nil
}

func (s *Stream) reset() { s.scan, s.need = 0, 0 }

// measure reads a head for the length of the message. Other mistakes than those of the length are for who looks at it
// whole: the connection can go on.
func (s *Stream) measure(head []byte, m *Message, l *Limits) *Error {
	err := m.Parse(head, l)
	switch {
	case m.bodyAt == 0 || m.method == nil && m.status == 0:
		return cmpErr(err, ErrStartLine)
	case m.many[ContentLength] || m.Has(ContentLength) && !m.hasLength:
		return ErrLength
	case !m.hasLength:
		return ErrNoLength
	case m.length > l.body():
		return ErrLongBody
	}
	s.need = m.bodyAt + m.length
	return nil
}

// lineEnd takes one. Two in a row are a ping, however they were cut.
func (s *Stream) lineEnd(p []byte) (n int, what Piece, err *Error) {
	switch {
	case p[0] != '\r' || len(p) > 1 && p[1] != '\n':
		return 0, Part, ErrControl
	case len(p) < 2:
		return 0, Part, nil
	}
	if s.line = !s.line; s.line {
		return 2, Pong, nil
	}
	return 2, Ping, nil
}
