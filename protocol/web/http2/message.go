// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

// Hot path: no allocation per packet.

import (
	"bytes"

	"github.com/kyozon/kyozon/protocol/web/http1"
)

// role is what a header block is.
type role uint8

const (
	request role = iota
	response
	trailers
)

// message is a head, or trailers, being made: the decoder writes each field as a line behind text and calls take, which
// lets it stand or takes it away. The first rule that is broken is err; after it no line stands.
type message struct {
	role  role
	limit int // bytes
	many  int // fields

	text    []byte
	pseudo  []byte // values of pseudo-header fields, one behind the other
	parts   [unknown - method]part
	cookies []byte
	count   int
	begun   bool // the start line stands
	err     *Error

	length int64 // Content-Length, or -1
	verb   http1.Verb
	status int
}

// part is where a pseudo-header field has its value.
type part struct {
	from, to int
	seen     bool
}

func (m *message) begin(r role, l *http1.Limits) {
	m.role, m.limit, m.many = r, l.Head, l.Fields
	m.text, m.pseudo, m.cookies = m.text[:0], m.pseudo[:0], m.cookies[:0]
	m.parts = [unknown - method]part{}
	m.count, m.begun, m.err = 0, false, nil
	m.length, m.verb, m.status = -1, http1.Other, 0
}

// take decides about the line text[start:], a field whose name has the given size.
func (m *message) take(k kind, start, name int) {
	if !k.pseudo() && k != cookie { // a browser sends a cookie in many crumbs
		m.count++
	}
	if m.err == nil && (len(m.text)+len(m.pseudo)+len(m.cookies) > m.limit || m.count > m.many) {
		m.err = errLongHead
	}
	if m.err != nil {
		m.text = m.text[:start]
		return
	}
	value := m.text[start+name+len(": ") : len(m.text)-len("\r\n")]
	if k.pseudo() {
		m.err = m.takePseudo(k, value)
		m.text = m.text[:start]
		return
	}
	stays, err := true, (*Error)(nil)
	switch {
	case m.role == trailers:
		stays, err = takeTrailer(k, m.text[start:start+name])
	case k != regular:
		stays, err = m.takeSpecial(k, value)
	}
	if err == nil && !m.begun && m.role != trailers {
		err = m.startLine(start) // last, because it moves the line
	}
	if m.err = err; err != nil || !stays {
		m.text = m.text[:len(m.text)-name-len(": ")-len(value)-len("\r\n")]
	}
}

// takePseudo keeps the value of a pseudo-header field. RFC 9113 §8.3.
func (m *message) takePseudo(k kind, value []byte) *Error {
	switch {
	case m.begun && m.role != trailers:
		return errLatePseudo
	case k == unknown || m.role == trailers || (k == status) != (m.role == response):
		return errPseudo
	}
	p := &m.parts[k-method]
	if p.seen {
		return errTwicePseudo
	}
	p.from, p.seen = len(m.pseudo), true
	m.pseudo = append(m.pseudo, value...)
	p.to = len(m.pseudo)
	return nil
}

func (m *message) part(k kind) []byte {
	p := m.parts[k-method]
	return m.pseudo[p.from:p.to]
}

// takeSpecial decides about a field that is not like any other.
func (m *message) takeSpecial(k kind, value []byte) (stays bool, err *Error) {
	switch k {
	case badName:
		return false, errName
	case badValue:
		return false, errValue
	case ofConnection:
		return false, errHop
	case length:
		n, ok := number(value)
		if !ok || m.length >= 0 {
			return false, errLength
		}
		m.length = n
		return true, nil
	}
	if m.role == response {
		return true, nil
	}
	switch k {
	case te:
		if string(value) != "trailers" {
			return false, errTE
		}
	case host:
		if m.parts[authority-method].seen {
			if !bytes.EqualFold(value, m.part(authority)) {
				return false, errHost
			}
			return false, nil
		}
	case cookie: // RFC 9113 §8.2.3: crumbs are put together
		if len(m.cookies) > 0 {
			m.cookies = append(m.cookies, "; "...)
		}
		m.cookies = append(m.cookies, value...)
		return false, nil
	}
	return true, nil
}

func takeTrailer(k kind, name []byte) (stays bool, err *Error) {
	switch k {
	case badName:
		return false, errName
	case badValue:
		return false, errValue
	case ofConnection:
		return false, errHop
	}
	stays, e := http1.TrailerPasses(name)
	if e != nil {
		return false, errTrailer
	}
	return stays, nil
}

// startLine puts the start line before what text has from start on, which is its beginning.
func (m *message) startLine(start int) *Error {
	m.begun = true
	line := len(m.pseudo)
	if m.role == response {
		if err := m.statusLine(); err != nil {
			return err
		}
	} else if err := m.requestLine(); err != nil {
		return err
	}
	p := m.pseudo[line:]
	n := len(m.text)
	m.text = append(m.text, p...)
	copy(m.text[start+len(p):], m.text[start:n])
	copy(m.text[start:], p)
	m.pseudo = m.pseudo[:line]
	return nil
}

// requestLine writes the request line, and with :authority the Host, behind pseudo. RFC 9113 §8.3.1.
func (m *message) requestLine() *Error {
	verb, target := m.part(method), m.part(path)
	switch {
	case string(verb) == "CONNECT":
		return errConnect
	case !m.parts[0].seen || !m.parts[scheme-method].seen || !m.parts[path-method].seen:
		return errNoPseudo
	case !isToken(verb):
		return errMethod
	case !isHTTP(m.part(scheme)):
		return errScheme
	case len(target) == 0 || target[0] != '/' && (string(target) != "*" || string(verb) != "OPTIONS"),
		bytes.IndexByte(target, ' ') >= 0 || bytes.IndexByte(target, '\t') >= 0:
		return errPath
	}
	if string(verb) == "HEAD" {
		m.verb = http1.Head
	}
	p := append(m.pseudo, verb...)
	p = append(p, ' ')
	p = append(p, target...)
	p = append(p, " HTTP/1.1\r\n"...)
	if m.parts[authority-method].seen {
		if len(m.part(authority)) == 0 {
			return errAuthority
		}
		p = append(p, "host: "...)
		p = append(p, m.part(authority)...)
		p = append(p, "\r\n"...)
	}
	m.pseudo = p
	return nil
}

func isHTTP(s []byte) bool { return string(s) == "https" || string(s) == "http" }

// statusLine writes the status line behind pseudo. RFC 9113 §8.3.2: there is no reason.
func (m *message) statusLine() *Error {
	s := m.part(status)
	if len(s) != 3 || s[0] < '1' {
		return errStatus
	}
	for _, c := range s {
		if c < '0' || c > '9' {
			return errStatus
		}
		m.status = m.status*10 + int(c-'0')
	}
	if m.status == 101 {
		return errSwitch
	}
	m.pseudo = append(m.pseudo, "HTTP/1.1 "...)
	m.pseudo = append(m.pseudo, s...)
	m.pseudo = append(m.pseudo, " \r\n"...)
	return nil
}

// finish ends the text of a head; with end there is no body. to is the verb that a response answers.
func (m *message) finish(end bool, to http1.Verb) *Error {
	if m.err == nil && !m.begun {
		m.err = m.startLine(0)
	}
	if m.err != nil {
		return m.err
	}
	bodiless := m.role == response && (m.status < 200 || m.status == 204 || m.status == 304 || to == http1.Head)
	switch {
	case m.role == response && m.status < 200 && end:
		return errInterim
	case end && m.length > 0 && !bodiless:
		return errBody
	case bodiless:
	case !end && m.length < 0:
		m.text = append(m.text, "transfer-encoding: chunked\r\n"...)
	case end && m.length < 0 && m.role == response:
		m.text = append(m.text, "content-length: 0\r\n"...)
	}
	if bodiless {
		m.length = 0 // of what is to come
	}
	if len(m.cookies) > 0 {
		m.text = append(m.text, "cookie: "...)
		m.text = append(m.text, m.cookies...)
		m.text = append(m.text, "\r\n"...)
	}
	m.text = append(m.text, "\r\n"...)
	return nil
}

// number reads a Content-Length. RFC 9110 §8.6.
func number(p []byte) (n int64, ok bool) {
	for _, c := range p {
		d := int64(c) - '0'
		if d < 0 || d > 9 || n >= 1<<59 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, len(p) > 0
}
