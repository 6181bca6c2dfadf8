// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sip

// Hot path: no allocation per packet.

import "bytes"

// Scheme is what kind of URI one is.
type Scheme uint8

// The schemes. Foreign is any other.
const (
	Foreign Scheme = iota
	SIP
	SIPS
	TEL
)

// URI is a URI in pieces of the bytes it was read from.
type URI struct {
	Scheme   Scheme
	User     []byte // escaped, without the password; nil if there is none. The number of a TEL
	Password []byte
	Host     Host   // of SIP and SIPS
	Params   []byte // after the first ';'
	Headers  []byte // after '?'; nil if there are none
	Rest     []byte // all that follows the scheme, of Foreign
}

// ParseURI reads a URI without angle brackets. RFC 3261 §19.1.1, RFC 3966 §3.
func ParseURI(b []byte) (URI, *Error) {
	for _, c := range b {
		if c <= ' ' || c == '<' || c == '>' || c == '"' || c == 0x7f {
			return URI{}, ErrURI
		}
	}
	scheme, rest, ok := bytes.Cut(b, []byte{':'})
	if !ok || !isScheme(scheme) || len(rest) == 0 {
		return URI{}, ErrURI
	}
	switch {
	case equalFold(scheme, "sip"):
		return parseSIP(SIP, rest)
	case equalFold(scheme, "sips"):
		return parseSIP(SIPS, rest)
	case equalFold(scheme, "tel"):
		return parseTel(rest)
	}
	return URI{Rest: rest}, nil
}

// requestURI is the Request-URI of a message.
type requestURI struct {
	read bool
	uri  URI
	err  *Error
}

// TargetURI reads the Request-URI. It is the message's, and good until another is parsed.
func (m *Message) TargetURI() (*URI, *Error) {
	if u := &m.uri; !u.read {
		u.read = true
		u.uri, u.err = ParseURI(m.target)
	}
	return &m.uri.uri, m.uri.err
}

// isScheme says whether b is the name of a scheme. RFC 3986 §3.1.
func isScheme(b []byte) bool {
	if len(b) == 0 || !isAlnum(b[0]) || b[0] <= '9' {
		return false
	}
	for _, c := range b {
		if !isAlnum(c) && c != '+' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

func parseSIP(s Scheme, rest []byte) (URI, *Error) {
	u := URI{Scheme: s}
	// A user may hold ';' and '?', but no '@', and nothing that follows the user does. RFC 3261 §25.1.
	if at := bytes.IndexByte(rest, '@'); at >= 0 {
		if at == 0 {
			return URI{}, ErrURI
		}
		u.User, rest = rest[:at], rest[at+1:]
		if user, password, ok := bytes.Cut(u.User, []byte{':'}); ok {
			u.User, u.Password = user, password
		}
		if len(u.User) == 0 {
			return URI{}, ErrURI
		}
	}
	before, headers, ok := bytes.Cut(rest, []byte{'?'})
	if ok {
		u.Headers = headers
	}
	host, params, ok := bytes.Cut(before, []byte{';'})
	if ok && len(params) == 0 {
		return URI{}, ErrURI
	}
	u.Params = params
	var err *Error
	u.Host, err = ParseHost(host)
	return u, err
}

// parseTel reads a number of any kind. RFC 3966 §3.
func parseTel(rest []byte) (URI, *Error) {
	u := URI{Scheme: TEL}
	u.User, u.Params, _ = bytes.Cut(rest, []byte{';'})
	digits := 0
	for i, c := range u.User {
		switch {
		case '0' <= c && c <= '9', c == '*', c == '#', 'a' <= c|0x20 && c|0x20 <= 'f':
			digits++
		case c == '-', c == '.', c == '(', c == ')', c == '+' && i == 0:
		default:
			return URI{}, ErrURI
		}
	}
	if digits == 0 {
		return URI{}, ErrURI
	}
	return u, nil
}

// Param returns the value of a parameter of the URI. The name must be in lower case.
func (u *URI) Param(name string) (value []byte, ok bool) {
	for rest := u.Params; len(rest) > 0; {
		var p []byte
		p, rest, _ = bytes.Cut(rest, []byte{';'})
		key, value, _ := bytes.Cut(p, []byte{'='})
		if escapedFold(key, name) {
			return value, true
		}
	}
	return nil, false
}

// Digits appends the number of a TEL, or of the user of a SIP URI, without the characters that only make it easier to
// read. RFC 3966 §5.1.1.
func (u *URI) Digits(dst []byte) []byte {
	for _, c := range u.User {
		if c != '-' && c != '.' && c != '(' && c != ')' {
			dst = append(dst, c)
		}
	}
	return dst
}

// Same says whether two URIs are the same, by RFC 3261 §19.1.4. It is not transitive: most parameters count only where
// both have them.
func (u *URI) Same(o *URI) bool {
	if u.Scheme != o.Scheme {
		return false
	}
	switch u.Scheme {
	case Foreign:
		return bytes.Equal(u.Rest, o.Rest)
	case TEL: // RFC 3966 §4
		return sameNumber(u.User, o.User) && sameParams(u, o, true) && sameParams(o, u, true)
	}
	return u.Host.Same(&o.Host) && sameEscaped(u.User, o.User, false) && sameEscaped(u.Password, o.Password, false) &&
		sameParams(u, o, false) && sameParams(o, u, false) && sameHeaders(u.Headers, o.Headers)
}

// sameParams says whether no parameter of u speaks against o: one that both have must be equal, and some must be in
// both or in none.
func sameParams(u, o *URI, all bool) bool {
	for rest := u.Params; len(rest) > 0; {
		var p []byte
		p, rest, _ = bytes.Cut(rest, []byte{';'})
		key, value, _ := bytes.Cut(p, []byte{'='})
		other, ok := o.param(key)
		if ok && !sameEscaped(value, other, true) {
			return false
		}
		if !ok && (all || needed(key)) {
			return false
		}
	}
	return true
}

// needed says whether a parameter may not be in one of two equal URIs alone. RFC 3261 §19.1.4.
func needed(key []byte) bool {
	return equalFold(key, "user") || equalFold(key, "ttl") || equalFold(key, "method") || equalFold(key, "maddr") ||
		equalFold(key, "transport")
}

func (u *URI) param(name []byte) (value []byte, ok bool) {
	for rest := u.Params; len(rest) > 0; {
		var p []byte
		p, rest, _ = bytes.Cut(rest, []byte{';'})
		key, value, _ := bytes.Cut(p, []byte{'='})
		if sameEscaped(key, name, true) {
			return value, true
		}
	}
	return nil, false
}

// sameHeaders compares the headers of URIs, which may stand in any order.
func sameHeaders(a, b []byte) bool {
	if bytes.Count(a, []byte{'&'}) != bytes.Count(b, []byte{'&'}) {
		return false
	}
	for rest := a; len(rest) > 0; {
		var h []byte
		h, rest, _ = bytes.Cut(rest, []byte{'&'})
		found := false
		for others := b; len(others) > 0 && !found; {
			var o []byte
			o, others, _ = bytes.Cut(others, []byte{'&'})
			found = sameEscaped(h, o, true)
		}
		if !found {
			return false
		}
	}
	return len(a) > 0 == (len(b) > 0)
}

// sameEscaped compares two texts in which %HH stands for a character.
func sameEscaped(a, b []byte, fold bool) bool {
	for len(a) > 0 && len(b) > 0 {
		var c, d byte
		c, a = escaped(a)
		d, b = escaped(b)
		if c != d && (!fold || lower(c) != lower(d)) {
			return false
		}
	}
	return len(a) == 0 && len(b) == 0
}

func escapedFold(b []byte, s string) bool {
	for i := range len(s) {
		if len(b) == 0 {
			return false
		}
		var c byte
		if c, b = escaped(b); lower(c) != s[i] {
			return false
		}
	}
	return len(b) == 0
}

// escaped reads one character.
func escaped(b []byte) (c byte, rest []byte) {
	if b[0] == '%' && len(b) > 2 {
		high, ok1 := hex(b[1])
		low, ok2 := hex(b[2])
		if ok1 && ok2 {
			return high<<4 | low, b[3:]
		}
	}
	return b[0], b[1:]
}

func sameNumber(a, b []byte) bool {
	visual := func(c byte) bool { return c == '-' || c == '.' || c == '(' || c == ')' }
	for {
		for len(a) > 0 && visual(a[0]) {
			a = a[1:]
		}
		for len(b) > 0 && visual(b[0]) {
			b = b[1:]
		}
		if len(a) == 0 || len(b) == 0 {
			return len(a) == len(b)
		}
		if lower(a[0]) != lower(b[0]) {
			return false
		}
		a, b = a[1:], b[1:]
	}
}
