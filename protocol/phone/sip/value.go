// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sip

// Hot path: no allocation per packet.

import "bytes"

// Sequence is the value of a CSeq.
type Sequence struct {
	Number uint32
	Method []byte
}

// ParseCSeq reads the value of a CSeq. A number may have zeros before it: RFC 4475 §3.1.1.1. RFC 3261 §20.16.
func ParseCSeq(b []byte) (Sequence, *Error) {
	i := 0
	for i < len(b) && !isSpace(b[i]) {
		i++
	}
	n, ok := number(b[:i], 1<<32-1)
	method := trim(b[i:])
	if !ok || !isToken(method) {
		return Sequence{}, ErrCSeq
	}
	return Sequence{uint32(n), method}, nil
}

// Sequence reads the CSeq.
func (m *Message) Sequence() (Sequence, *Error) {
	if s := &m.sequence; !s.read {
		s.read = true
		if value := m.Get(CSeq); value == nil {
			s.value, s.err = Sequence{}, ErrMissing
		} else {
			s.value, s.err = ParseCSeq(value)
		}
	}
	return m.sequence.value, m.sequence.err
}

// sequence is the CSeq of a message.
type sequence struct {
	read  bool
	value Sequence
	err   *Error
}

// defaultHops is what a request has that says nothing. RFC 3261 §8.1.1.6.
const defaultHops = 70

// Hops returns Max-Forwards. One that is absent, or greater than can be, is as if it were 70: RFC 4475 §3.1.2.4.
func (m *Message) Hops() (int, *Error) {
	value := m.Get(MaxForwards)
	if value == nil {
		return defaultHops, nil
	}
	for _, c := range value {
		if c < '0' || c > '9' {
			return 0, ErrHops
		}
	}
	n, ok := number(value, 255)
	switch {
	case len(value) == 0:
		return 0, ErrHops
	case !ok:
		return defaultHops, nil
	}
	return int(n), nil
}

// Seconds reads a delta-seconds, up to 2^32-1; what is greater, or no number, is otherwise. RFC 3261 §20.19,
// RFC 4475 §3.1.2.4. A comment and parameters may follow it: RFC 3261 §20.33.
func Seconds(b []byte, otherwise uint32) uint32 {
	if end := bytes.IndexAny(b, ";("); end >= 0 {
		b = b[:end]
	}
	if n, ok := number(trim(b), 1<<32-1); ok {
		return uint32(n)
	}
	return otherwise
}

// element cuts the first element from a list without quotes, such as option tags; rest is nil after the last.
func element(b []byte) (first, rest []byte) {
	first, rest, ok := bytes.Cut(b, []byte{','})
	if ok && rest == nil {
		rest = []byte{}
	}
	return trim(first), rest
}

// Lists says whether one of the fields of kind k has the element, which must be in lower case.
func (m *Message) Lists(k Kind, tag string) bool {
	for value, i := m.Field(k, 0); value != nil; value, i = m.Field(k, i) {
		for rest := value; rest != nil; {
			var e []byte
			if e, rest = element(rest); equalFold(e, tag) {
				return true
			}
		}
	}
	return false
}

// Credentials returns the first value of the fields of kind k, Authorization or Proxy-Authorization, that has the given
// scheme, in lower case, and what follows it; nil if there is none. Other schemes are as if they were not there.
// RFC 3261 §22, RFC 4475 §3.3.7.
func (m *Message) Credentials(k Kind, scheme string) []byte {
	for value, i := m.Field(k, 0); value != nil; value, i = m.Field(k, i) {
		n := 0
		for n < len(value) && !isSpace(value[n]) {
			n++
		}
		if n < len(value) && equalFold(value[:n], scheme) {
			return trim(value[n:])
		}
	}
	return nil
}
