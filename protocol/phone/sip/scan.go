// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sip

// Hot path: no allocation per packet.

import "bytes"

// equalFold says whether b is s, which is in lower case, in ASCII.
func equalFold(b []byte, s string) bool {
	if len(b) != len(s) {
		return false
	}
	for i, c := range b {
		if lower(c) != s[i] {
			return false
		}
	}
	return true
}

// sameFold says whether a is b, in ASCII and whatever the case.
func sameFold(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// isSpace says whether c is part of linear white space, which may hold line ends where a field is folded.
// RFC 3261 §25.1.
func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

func trim(b []byte) []byte {
	for len(b) > 0 && isSpace(b[0]) {
		b = b[1:]
	}
	for len(b) > 0 && isSpace(b[len(b)-1]) {
		b = b[:len(b)-1]
	}
	return b
}

// set is a set of bytes, a bit for each.
type set = [4]uint64

const (
	digits  = 0x3ff << '0'
	letters = 0x3ffffff<<('A'-64) | 0x3ffffff<<('a'-64)

	token0 = digits | 1<<'-' | 1<<'.' | 1<<'!' | 1<<'%' | 1<<'*' | 1<<'+' | 1<<'\''
	token1 = letters | 1<<('_'-64) | 1<<('`'-64) | 1<<('~'-64)
)

// tokens and words are those of RFC 3261 §25.1, words with the '@' of a Call-ID. A name of a host may have an underscore:
// that is in none of the grammars, and in many names.
var (
	tokens = [4]uint64{token0, token1}
	words  = [4]uint64{
		token0 | 1<<'(' | 1<<')' | 1<<'<' | 1<<'>' | 1<<':' | 1<<'"' | 1<<'/' | 1<<'?',
		token1 | 1<<('\\'-64) | 1<<('['-64) | 1<<(']'-64) | 1<<('{'-64) | 1<<('}'-64) | 1<<('@'-64),
	}
	hostnames = [4]uint64{digits | 1<<'-' | 1<<'.', letters | 1<<('_'-64)}
)

func in(s *set, c byte) bool { return s[c>>6]>>(c&63)&1 > 0 }

func all(b []byte, s set) bool {
	for _, c := range b {
		if !in(&s, c) {
			return false
		}
	}
	return len(b) > 0
}

// isToken says whether b is a token. RFC 3261 §25.1.
func isToken(b []byte) bool { return all(b, tokens) }

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}

// number reads digits alone, of any length, up to most.
func number(b []byte, most uint64) (n uint64, ok bool) {
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		if n = n*10 + uint64(c-'0'); n > most {
			return 0, false
		}
	}
	return n, len(b) > 0
}

// cut cuts b at the first sep that is neither within quotes nor within angle brackets; after is nil if there is none.
// It fails if a quote or a bracket does not end.
func cut(b []byte, sep byte) (before, after []byte, ok bool) {
	at := bytes.IndexByte(b, sep)
	head := b
	if at >= 0 {
		head = b[:at]
	}
	switch open := bytes.IndexByte(head, '<'); { // most values have no quotes, and no sep within brackets: that is seen at a glance
	case bytes.IndexByte(head, '"') >= 0:
	case open < 0 || bytes.LastIndexByte(head, '>') > bytes.LastIndexByte(head, '<'):
		if at < 0 {
			return b, nil, true
		}
		return head, b[at+1:], true
	case at < 0:
		return b, nil, false
	}
	return cutSlowly(b, sep)
}

// cutSlowly is cut, byte by byte.
func cutSlowly(b []byte, sep byte) (before, after []byte, ok bool) {
	bracketed := false
	for i := 0; i < len(b); i++ {
		switch c := b[i]; {
		case c == '"' && !bracketed:
			n := quoted(b[i:])
			if n == 0 {
				return b, nil, false
			}
			i += n - 1
		case c == '<':
			bracketed = true
		case c == '>':
			bracketed = false
		case c == sep && !bracketed:
			return b[:i], b[i+1:], true
		}
	}
	return b, nil, !bracketed
}

// quoted returns the length of the quoted string at the start of b, or 0 if it does not end. RFC 3261 §25.1.
func quoted(b []byte) int {
	for i := 1; i < len(b); i++ {
		switch b[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return 0
}

// Param returns the value of the parameter called name, which must be in lower case. The value of one without is empty,
// that of a quoted string keeps its quotes.
func Param(params []byte, name string) (value []byte, ok bool) {
	for len(params) > 0 {
		var p []byte
		p, params, _ = cut(params, ';')
		key, value, _ := bytes.Cut(p, []byte{'='})
		if equalFold(trim(key), name) {
			return trim(value), true
		}
	}
	return nil, false
}

// params says whether b is a list of parameters, each with a name and, after '=', a value. RFC 3261 §25.1.
func params(b []byte) bool {
	for more := b != nil; more; {
		p, rest, ok := cut(b, ';')
		key, value, has := bytes.Cut(p, []byte{'='})
		if value = trim(value); !ok || !isToken(trim(key)) || has && !isValue(value) {
			return false
		}
		b, more = rest, rest != nil
	}
	return true
}

// isValue says whether b is a token, a host or a quoted string. Other characters that separate nothing here are let
// through: of addresses without brackets, and of those UTF-8 that RFC 4475 §3.1.1.2 has within quotes.
func isValue(b []byte) bool {
	if len(b) > 0 && b[0] == '"' {
		return quoted(b) == len(b)
	}
	for _, c := range b {
		if isSpace(c) || c == '"' || c == '<' || c == '>' || c == ',' {
			return false
		}
	}
	return len(b) > 0
}

// Unescape appends b to dst with each %HH read once, as RFC 4475 §3.1.1.3 has it. What is no escape stays.
func Unescape(dst, b []byte) []byte {
	for i := 0; i < len(b); i++ {
		if b[i] == '%' && i+2 < len(b) {
			high, ok1 := hex(b[i+1])
			low, ok2 := hex(b[i+2])
			if ok1 && ok2 {
				dst = append(dst, high<<4|low)
				i += 2
				continue
			}
		}
		dst = append(dst, b[i])
	}
	return dst
}

func hex(c byte) (byte, bool) {
	switch {
	case '0' <= c && c <= '9':
		return c - '0', true
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return (c | 0x20) - 'a' + 10, true
	}
	return 0, false
}
