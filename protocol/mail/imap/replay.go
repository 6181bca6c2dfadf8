// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package imap

import (
	"strconv"

	"github.com/kyozon/kyozon/protocol/mail/login"
)

// replay is a login as it is said to a backend: pieces, each but the first of which waits until the backend asks for it.
type replay struct{ pieces [][]byte }

func (r *replay) next() ([]byte, bool) {
	if len(r.pieces) == 0 {
		return nil, false
	}
	p := r.pieces[0]
	r.pieces = r.pieces[1:]
	return p, true
}

// newReplay returns the login for a backend that offers these capabilities.
func newReplay(l *login.Login, offers []byte) replay {
	var r replay
	p := append([]byte(nil), l.Tag...)
	if l.Mechanism == nil {
		waits := !has(offers, "LITERAL+") && !has(offers, "LITERAL-")
		p = r.appendString(append(p, " LOGIN "...), l.User, waits)
		p = r.appendString(append(p, ' '), l.Password, waits)
		r.pieces = append(r.pieces, append(p, "\r\n"...))
		return r
	}
	p = append(append(p, " AUTHENTICATE "...), l.Mechanism...)
	if l.Kind.Prompt() == "" && has(offers, "SASL-IR") { // RFC 4959 §3
		p = append(p, ' ')
		if len(l.Message) == 0 {
			p = append(p, '=')
		}
		p = append(p, l.Message...)
		r.pieces = append(r.pieces, append(p, "\r\n"...))
		return r
	}
	r.pieces = append(r.pieces, append(p, "\r\n"...), append(append([]byte(nil), l.Message...), "\r\n"...))
	return r
}

// appendString appends a string, quoted if it can be, else as a literal, which begins a new piece if the backend wants to
// be waited for. RFC 9051 §4.3, RFC 7888 §3.
func (r *replay) appendString(p, text []byte, waits bool) []byte {
	if quotable(text) {
		p = append(p, '"')
		for _, c := range text {
			if c == '"' || c == '\\' {
				p = append(p, '\\')
			}
			p = append(p, c)
		}
		return append(p, '"')
	}
	p = strconv.AppendInt(append(p, '{'), int64(len(text)), 10)
	if !waits {
		return append(append(p, "+}\r\n"...), text...)
	}
	r.pieces = append(r.pieces, append(p, "}\r\n"...))
	return append([]byte(nil), text...)
}

// quotable says whether text can be quoted for every server: RFC 3501 §9 has only ASCII there.
func quotable(text []byte) bool {
	for _, c := range text {
		if c < ' ' || c >= 0x7f {
			return false
		}
	}
	return len(text) <= 1024
}
