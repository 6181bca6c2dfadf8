// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sip

// Hot path: no allocation per packet.

import "bytes"

// Address is one value of From, To, Contact, Route or the like.
type Address struct {
	Display []byte // as it came, with its quotes; nil if there is none
	URI     []byte // without brackets
	Params  []byte // of the field, after the first ';'
	Star    bool   // it is "*", which has no URI
}

// ParseAddress reads the first value of a field and returns what follows its comma, nil after the last. It checks the
// form of the URI. RFC 3261 §20.10, §25.1.
func ParseAddress(b []byte) (a Address, rest []byte, err *Error) {
	value, rest, ok := cut(b, ',')
	if !ok {
		return Address{}, rest, ErrAddress
	}
	head, tail, _ := cut(value, ';')
	head = trim(head)
	if tail != nil && !params(tail) {
		return Address{}, rest, ErrAddress
	}
	a.Params = tail
	if len(head) == 1 && head[0] == '*' {
		a.Star = true
		return a, rest, nil
	}
	open := bracket(head)
	if open < 0 {
		// RFC 3261 §20.10: what has a comma, a semicolon or a question mark must stand in brackets.
		if a.URI = head; bytes.IndexByte(head, '?') >= 0 {
			return Address{}, rest, ErrAddress
		}
	} else {
		if head[len(head)-1] != '>' || !isDisplay(trim(head[:open])) {
			return Address{}, rest, ErrAddress
		}
		if a.URI = head[open+1 : len(head)-1]; open > 0 {
			a.Display = trim(head[:open])
		}
	}
	if _, err = ParseURI(a.URI); err != nil {
		return Address{}, rest, ErrAddress
	}
	return a, rest, nil
}

// bracket returns where the '<' stands that is not within quotes, or -1.
func bracket(b []byte) int {
	at := 0
	if len(b) > 0 && b[0] == '"' {
		at = quoted(b)
	}
	if i := bytes.IndexByte(b[at:], '<'); i >= 0 {
		return at + i
	}
	return -1
}

// isDisplay says whether b is a quoted string, or tokens. Space is not asked for before the '<': RFC 4475 §3.1.1.6.
func isDisplay(b []byte) bool {
	if len(b) > 0 && b[0] == '"' {
		return quoted(b) == len(b)
	}
	for len(b) > 0 {
		n := 0
		for n < len(b) && !isSpace(b[n]) {
			n++
		}
		if !isToken(b[:n]) {
			return false
		}
		b = trim(b[n:])
	}
	return true
}

// Parse reads the URI.
func (a *Address) Parse() (URI, *Error) { return ParseURI(a.URI) }

// Tag returns the tag, or nil.
func (a *Address) Tag() []byte {
	tag, _ := Param(a.Params, "tag")
	return tag
}

// Values calls yield for each value of the fields of kind k, in order, until it returns false. It returns the first
// error, and goes no further.
func (m *Message) Values(k Kind, yield func(a *Address) bool) *Error {
	for value, i := m.Field(k, 0); value != nil; value, i = m.Field(k, i) {
		for rest := value; rest != nil; {
			var a Address
			var err *Error
			if a, rest, err = ParseAddress(rest); err != nil {
				return err
			}
			if !yield(&a) {
				return nil
			}
		}
	}
	return nil
}
