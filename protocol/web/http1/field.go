// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http1

// Hot path: no allocation per packet.

// kind is what a field means to a proxy.
type kind uint8

// The kinds. What is endToEnd goes on; what happens to the others depends on the direction.
const (
	endToEnd kind = iota
	kindHost
	kindLength
	kindCoding
	kindConnection
	kindUpgrade
	kindTE
	kindTrailer
	kindExpect
	kindClient // says who the client is, or how it came: only we may say so
	kindHop    // for the next hop only. RFC 9110 §7.6.1
	kinds
)

// kindSet is a set of kinds: bit 1<<kind.
type kindSet uint16

func (s kindSet) has(k kind) bool { return s>>k&1 != 0 }

// kindOf returns the kind of the field called name, which is a token.
func kindOf(name []byte) kind {
	switch len(name) {
	case 2:
		if fold(name, "te") {
			return kindTE
		}
	case 4:
		if fold(name, "host") {
			return kindHost
		}
	case 5:
		if fold(name, "proxy") { // becomes HTTP_PROXY in a CGI program (CVE-2016-5385)
			return kindHop
		}
	case 6:
		if fold(name, "expect") {
			return kindExpect
		}
	case 7:
		if fold(name, "upgrade") {
			return kindUpgrade
		}
		if fold(name, "trailer") {
			return kindTrailer
		}
	case 9:
		if fold(name, "forwarded") || fold(name, "x-real-ip") || fold(name, "client-ip") {
			return kindClient
		}
	case 10:
		if fold(name, "connection") {
			return kindConnection
		}
		if fold(name, "keep-alive") {
			return kindHop
		}
	default:
		if len(name) > 10 {
			return kindOfLong(name)
		}
	}
	return endToEnd
}

func kindOfLong(name []byte) kind {
	const family = "x-forwarded"
	switch c := name[0] | 0x20; {
	case c == 'c' && fold(name, "content-length"):
		return kindLength
	case c == 'c' && (fold(name, "client-cert") || fold(name, "client-cert-chain")): // RFC 9440 §4
		return kindClient
	case c == 't' && fold(name, "transfer-encoding"):
		return kindCoding
	case c == 'x' && fold(name[:len(family)], family),
		c == 'x' && (fold(name, "x-client-ip") || fold(name, "x-cluster-client-ip")),
		c == 't' && fold(name, "true-client-ip"):
		return kindClient
	case c == 'h' && fold(name, "http2-settings"),
		c == 'p' && (fold(name, "proxy-connection") || fold(name, "proxy-authorization") ||
			fold(name, "proxy-authenticate") || fold(name, "proxy-authentication-info")):
		return kindHop
	}
	return endToEnd
}

// field is one field line: name p[start:colon], value p[value:end].
type field struct {
	start, colon, value, end uint16

	kind  kind
	plain bool // the line is what we would write: the bytes to end, and CRLF
	under bool // the name has an underscore
}

// parse reads the field line p[start:end], which holds no control byte but HTAB. It writes f part by part: a field
// returned as a value costs more in copying than in reading.
func (f *field) parse(p []byte, start, end int) *Error {
	i, seen := start, byte(0)
	line := p[:end]
	for i < len(line) {
		c := class[line[i]]
		if c&token == 0 {
			break
		}
		seen |= c
		i++
	}
	if i == end || p[i] != ':' || i == start {
		return badName(p[start:end], i-start)
	}
	v, e := i+1, end
	for v < e && (p[v] == ' ' || p[v] == '\t') {
		v++
	}
	for e > v && (p[e-1] == ' ' || p[e-1] == '\t') {
		e--
	}
	f.start, f.colon, f.value, f.end = uint16(start), uint16(i), uint16(v), uint16(e)
	f.kind = kindOf(p[start:i])
	f.plain = v == i+2 && e == end && p[i+1] == ' '
	f.under = seen&underscore != 0
	return nil
}

// badName says what is wrong with a field line whose first i bytes are a token and end in no colon, or that has no
// name.
func badName(line []byte, i int) *Error {
	switch {
	case i == len(line):
		return ErrNoColon
	case line[i] == ':':
		return ErrNoName
	case line[i] != ' ' && line[i] != '\t':
		return ErrName
	case i == 0:
		return ErrFold
	}
	return ErrColonSpace
}
