// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package imap

import (
	"bytes"

	"github.com/kyozon/kyozon/protocol/mail/login"
)

const (
	// maxTag bounds the bytes of a tag, which is repeated in answers.
	maxTag = 64

	// maxLiteral bounds a literal: as much as may come without being asked for. RFC 7888 §5.
	maxLiteral = 4096
)

// literal returns the size that a line ends with if a literal follows it, and whether the client waits until it is asked
// for. RFC 9051 §4.3, RFC 7888 §8.
func literal(line []byte) (size int, waits, ok bool) {
	text, ok := bytes.CutSuffix(line, []byte("}"))
	if !ok {
		return 0, false, false
	}
	text, now := bytes.CutSuffix(text, []byte("+"))
	i := bytes.LastIndexByte(text, '{')
	if i < 0 || len(text)-i-1 == 0 || len(text)-i-1 > 10 {
		return 0, false, false
	}
	for _, c := range text[i+1:] {
		if c < '0' || c > '9' {
			return 0, false, false
		}
		size = size*10 + int(c-'0')
	}
	return size, !now, true
}

// isAstring says whether c may stand in a string that is neither quoted nor a literal. RFC 9051 §9, ASTRING-CHAR.
func isAstring(c byte) bool {
	return c > ' ' && c < 0x7f && bytes.IndexByte([]byte(`(){%*"\`), c) < 0
}

// parser reads the parts of a command, which is whole.
type parser struct{ p []byte }

func (r *parser) space() bool {
	if len(r.p) == 0 || r.p[0] != ' ' {
		return false
	}
	r.p = r.p[1:]
	return true
}

func (r *parser) end() bool { return len(r.p) == 2 && r.p[0] == '\r' && r.p[1] == '\n' }

// atom reads a word; it may be empty.
func (r *parser) atom() []byte {
	i := 0
	for i < len(r.p) && isAstring(r.p[i]) {
		i++
	}
	word := r.p[:i]
	r.p = r.p[i:]
	return word
}

// tag reads a tag, or returns nil. RFC 9051 §9.
func (r *parser) tag() []byte {
	tag := r.atom()
	if len(tag) == 0 || len(tag) > maxTag || bytes.IndexByte(tag, '+') >= 0 {
		return nil
	}
	return tag
}

// str appends a string in any of its three forms to dst. RFC 9051 §4.3.
func (r *parser) str(dst []byte) ([]byte, bool) {
	switch {
	case len(r.p) > 0 && r.p[0] == '"':
		return r.quoted(dst)
	case len(r.p) > 0 && r.p[0] == '{':
		return r.counted(dst)
	}
	word := r.atom()
	return append(dst, word...), len(word) > 0
}

// quoted reads a quoted string; RFC 9051 §9 has UTF-8 in it.
func (r *parser) quoted(dst []byte) ([]byte, bool) {
	for i := 1; i < len(r.p); i++ {
		switch c := r.p[i]; c {
		case '"':
			r.p = r.p[i+1:]
			return dst, true
		case '\\':
			i++
			if i == len(r.p) || r.p[i] != '"' && r.p[i] != '\\' {
				return dst, false
			}
			dst = append(dst, r.p[i])
		case '\r', '\n', 0:
			return dst, false
		default:
			dst = append(dst, c)
		}
	}
	return dst, false
}

// counted reads a literal, which Server.frame has found to be there.
func (r *parser) counted(dst []byte) ([]byte, bool) {
	line, n, refusal := login.NextLine(r.p, len(r.p))
	if refusal != 0 || n == 0 {
		return dst, false
	}
	size, _, ok := literal(line)
	if !ok || line[0] != '{' || bytes.LastIndexByte(line, '{') != 0 || size > len(r.p)-n {
		return dst, false
	}
	text := r.p[n : n+size]
	r.p = r.p[n+size:]
	return append(dst, text...), bytes.IndexByte(text, 0) < 0 // RFC 9051 §9: CHAR8 is not NUL
}

// params reads what follows ID: NIL, or pairs of strings in parentheses, at most 30 of them. RFC 2971 §3.3. They are not
// kept: what a client says of itself is for the backend that it logs in to, and some of it only a proxy may say.
func (r *parser) params() bool {
	if len(r.p) == 0 || r.p[0] != '(' {
		return bytes.EqualFold(r.atom(), []byte("NIL"))
	}
	r.p = r.p[1:]
	for n := 0; n <= 60; n++ {
		if len(r.p) > 0 && r.p[0] == ')' {
			r.p = r.p[1:]
			return n%2 == 0
		}
		if n > 0 && !r.space() {
			return false
		}
		if _, ok := r.str(nil); !ok { // NIL is read as a word
			return false
		}
	}
	return false
}
