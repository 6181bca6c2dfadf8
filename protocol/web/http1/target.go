// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http1

// Hot path: no allocation per packet.

import "bytes"

// requestLine is where the parts of a request line are: each p[part[0]:part[1]].
type requestLine struct {
	method, target, authority [2]uint16 // authority only of the absolute-form; there it is never empty

	verb  Verb
	minor uint8
	star  bool   // the target is "*", the server as a whole
	port  uint16 // that the scheme of an absolute-form means
}

const maxMethod = 32

// parse reads the request line p[start:end]: method SP target SP version, with exactly those spaces. RFC 9112 §3.
func (s *requestLine) parse(p []byte, start, end int) *Error {
	line := p[start:end]
	space := bytes.IndexByte(line, ' ')
	version := len(line) - len("HTTP/1.1")
	if space <= 0 || version < space+3 || line[version-1] != ' ' {
		return ErrStartLine
	}
	if err := s.setMethod(line[:space]); err != nil {
		return err
	}
	target := line[space+1 : version-1]
	if i := odd(target); i < len(target) {
		switch target[i] {
		case ' ':
			return ErrStartLine
		case '#':
			return ErrFragment
		}
		return ErrTargetByte
	}
	var err *Error
	if s.minor, err = parseVersion(line[version:], ErrStartLine); err != nil {
		return err
	}
	s.method = [2]uint16{uint16(start), uint16(start + space)}
	return s.setTarget(target, start+space+1)
}

// parseVersion returns the minor version of "HTTP/1.1" or "HTTP/1.0"; malformed is the error for what is no version.
func parseVersion(p []byte, malformed *Error) (minor uint8, err *Error) {
	switch string(p) {
	case "HTTP/1.1":
		return 1, nil
	case "HTTP/1.0":
		return 0, nil
	}
	if len(p) == 8 && string(p[:5]) == "HTTP/" && p[5]-'0' < 10 && p[6] == '.' && p[7]-'0' < 10 {
		return 0, ErrVersion
	}
	return 0, malformed
}

// setMethod reads the method. CONNECT would make a tunnel to wherever the client likes; TRACE would show a stranger
// what we tell the backend about it, and it is the only reason why one would care for Max-Forwards.
func (s *requestLine) setMethod(m []byte) *Error {
	s.verb = Other
	switch string(m) {
	case "GET":
		s.verb = Get
	case "HEAD":
		s.verb = Head
	case "POST":
		s.verb = Post
	case "PUT":
		s.verb = Put
	case "DELETE":
		s.verb = Delete
	case "OPTIONS":
		s.verb = Options
	case "CONNECT", "TRACE":
		return ErrRefused
	default:
		if !isToken(m) {
			return ErrMethod
		}
		if len(m) > maxMethod {
			return ErrLongMethod
		}
	}
	return nil
}

// setTarget reads the target t, which is at offset at. RFC 9112 §3.2.
func (s *requestLine) setTarget(t []byte, at int) *Error {
	s.authority, s.star = [2]uint16{}, false
	switch {
	case t[0] == '/':
		s.target = [2]uint16{uint16(at), uint16(at + len(t))}
	case string(t) == "*":
		if s.verb != Options {
			return ErrTarget
		}
		s.star = true
		return nil
	default:
		n, err := s.setAbsolute(t, at)
		if err != nil {
			return err
		}
		t = t[n:]
	}
	return checkPath(t)
}

// setAbsolute reads an absolute-form and returns where its path begins.
func (s *requestLine) setAbsolute(t []byte, at int) (n int, err *Error) {
	switch {
	case len(t) > 7 && string(t[4:7]) == "://" && foldText(t[:4], "http"):
		n, s.port = 7, 80
	case len(t) > 8 && string(t[5:8]) == "://" && foldText(t[:5], "https"):
		n, s.port = 8, 443
	default:
		return 0, ErrTarget
	}
	first, slash := n, n-1
	for n < len(t) && t[n] != '/' && t[n] != '?' {
		if t[n] == '@' {
			return 0, ErrUserinfo
		}
		n++
	}
	if n == first {
		return 0, ErrHost
	}
	s.authority = [2]uint16{uint16(at + first), uint16(at + n)}
	s.target = [2]uint16{uint16(at + n), uint16(at + len(t))}
	if n == len(t) {
		s.star = s.verb == Options                                       // RFC 9112 §3.2.4
		s.target = [2]uint16{uint16(at + slash), uint16(at + slash + 1)} // the path is "/": the scheme has one
	}
	return n, nil
}

// checkPath refuses escapes in the path that servers understand differently or not at all: those that are not two
// hexadecimal digits, and NUL. In a query they are common and nobody resolves them.
func checkPath(t []byte) *Error {
	for i := bytes.IndexByte(t, '%'); i >= 0; {
		if bytes.IndexByte(t[:i], '?') >= 0 {
			return nil
		}
		if i+2 >= len(t) || hex(t[i+1]) > 15 || hex(t[i+2]) > 15 || hex(t[i+1])|hex(t[i+2]) == 0 {
			return ErrEscape
		}
		t = t[i+3:]
		i = bytes.IndexByte(t, '%')
	}
	return nil
}

// hex returns the value of a hexadecimal digit, or something above 15.
func hex(c byte) byte {
	switch {
	case c-'0' < 10:
		return c - '0'
	case (c|0x20)-'a' < 6:
		return (c | 0x20) - 'a' + 10
	}
	return 255
}
