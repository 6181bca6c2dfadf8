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
	var u URI
	rest, err = parseAddress(b, &a, &u)
	return a, rest, err
}

// parseAddress is ParseAddress, and reads the URI too.
func parseAddress(b []byte, a *Address, u *URI) (rest []byte, err *Error) {
	if uri, params, ok := plainAddress(b); ok {
		if *u, err = ParseURI(uri); err == nil {
			*a = Address{URI: uri, Params: params}
			return nil, nil
		}
	}
	return parseAnyAddress(b, a, u)
}

// plainAddress reads a value as most are: a URI in brackets, perhaps with parameters of which all are tokens, and nothing else. ok
// is false for all others.
func plainAddress(b []byte) (uri, params []byte, ok bool) {
	end := bytes.IndexByte(b, '>')
	if end < 0 || b[0] != '<' {
		return nil, nil, false
	}
	uri, tail := b[1:end], b[end+1:]
	if len(tail) == 0 {
		return uri, nil, true
	}
	return uri, tail[1:], tail[0] == ';' && plainParams(tail[1:])
}

// plainParams says whether b is a list of parameters of which all are tokens.
func plainParams(b []byte) bool {
	for {
		n := tokenLength(b)
		if n == 0 {
			return false
		}
		if b = b[n:]; len(b) > 0 && b[0] == '=' {
			if n = tokenLength(b[1:]); n == 0 {
				return false
			}
			b = b[1+n:]
		}
		if len(b) == 0 {
			return true
		}
		if b[0] != ';' {
			return false
		}
		b = b[1:]
	}
}

// tokenLength returns the length of the token at the start of b, or 0.
func tokenLength(b []byte) int {
	s := tokens
	for i, c := range b {
		if !in(&s, c) {
			return i
		}
	}
	return len(b)
}

// parseAnyAddress is parseAddress for all values.
func parseAnyAddress(b []byte, a *Address, u *URI) (rest []byte, err *Error) {
	*a, *u = Address{}, URI{}
	value, rest, ok := cut(b, ',')
	if !ok {
		return rest, ErrAddress
	}
	head, tail, _ := cut(value, ';')
	head = trim(head)
	if tail != nil && !params(tail) {
		return rest, ErrAddress
	}
	if len(head) == 1 && head[0] == '*' {
		a.Star, a.Params = true, tail
		return rest, nil
	}
	if err = a.head(head); err != nil {
		return rest, err
	}
	if *u, err = ParseURI(a.URI); err != nil {
		*a, *u = Address{}, URI{}
		return rest, ErrAddress
	}
	a.Params = tail
	return rest, nil
}

// head reads what stands before the parameters.
func (a *Address) head(head []byte) *Error {
	open := bracket(head)
	if open < 0 {
		// RFC 3261 §20.10: what has a comma, a semicolon or a question mark must stand in brackets.
		if bytes.IndexByte(head, '?') >= 0 {
			return ErrAddress
		}
		a.URI = head
		return nil
	}
	if head[len(head)-1] != '>' || !isDisplay(trim(head[:open])) {
		return ErrAddress
	}
	if a.URI = head[open+1 : len(head)-1]; open > 0 {
		a.Display = trim(head[:open])
	}
	return nil
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
	if p := a.Params; len(p) > len("tag=") && equalFold(p[:len("tag=")], "tag=") { // as mostly
		if p = p[len("tag="):]; tokenLength(p) == len(p) {
			return p
		}
	}
	tag, _ := Param(a.Params, "tag")
	return tag
}

// Address returns the first value of the fields of kind k, which is From, To or Contact, and its URI. Both are the message's,
// and good until another is parsed. The error is that of ParseAddress, or ErrMissing.
func (m *Message) Address(k Kind) (a *Address, u *URI, err *Error) {
	f := m.party(k)
	return &f.address, &f.uri, f.err
}

// party is the first value of a field that many ask for. It is read once.
type party struct {
	read    bool
	address Address
	uri     URI
	rest    []byte
	err     *Error
}

// party returns the first value of the first field of kind k, or nil if the message keeps none of that kind.
func (m *Message) party(k Kind) *party {
	var p *party
	switch k {
	case From:
		p = &m.parties[0]
	case To:
		p = &m.parties[1]
	case Contact:
		p = &m.parties[2]
	default:
		return nil
	}
	if !p.read {
		p.read = true
		if p.rest, p.err = parseAddress(m.Get(k), &p.address, &p.uri); !m.Has(k) {
			p.err = ErrMissing
		}
	}
	return p
}

// Values calls yield for each value of the fields of kind k, in order, until it returns false. It returns the first
// error, and goes no further.
func (m *Message) Values(k Kind, yield func(a *Address) bool) *Error {
	w := m.Walk(k)
	for w.Next() {
		a := w.Address
		if !yield(&a) {
			return nil
		}
	}
	return w.Err
}

// Walk is a way through the values of the fields of a kind, which allocates nothing.
type Walk struct {
	Address Address
	Err     *Error // the first, after which there is no Next

	message *Message
	kind    Kind
	next    int
	rest    []byte
}

// Walk begins before the first value.
func (m *Message) Walk(k Kind) Walk { return Walk{message: m, kind: k} }

// Next reads the next value, if there is one.
func (w *Walk) Next() bool {
	m := w.message
	if w.rest == nil {
		if w.rest, w.next = m.Field(w.kind, w.next); w.rest == nil {
			return false
		}
		if p := m.party(w.kind); p != nil && w.next == int(m.first[w.kind]) {
			w.Address, w.rest, w.Err = p.address, p.rest, p.err
			return w.Err == nil
		}
	}
	w.Address, w.rest, w.Err = ParseAddress(w.rest)
	return w.Err == nil
}
