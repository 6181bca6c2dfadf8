// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sip

// Hot path: no allocation per packet.

import "bytes"

// field is one logical line: its own bytes go up to the next one's.
type field struct {
	kind           Kind
	line, name     uint16 // where the line begins, and its name ends
	value, valueTo uint16
}

// Message is an index over the bytes of one message, which it borrows. It may be used again for the next.
type Message struct {
	data   []byte
	method []byte
	target []byte
	reason []byte
	status int

	fields [MaxFields]field
	count  int
	first  [kinds]uint8 // the first field of each kind, and one more; 0 if there is none
	many   [kinds]bool  // a second one came

	startTo   int // where the fields begin
	bodyAt    int // 0 if the head does not end
	length    int
	hasLength bool

	// What many ask for, which is read when the first does.
	parties  [3]party
	top      top
	uri      requestURI
	sequence sequence
}

// Request says whether the message is a request.
func (m *Message) Request() bool { return m.status == 0 }

// Method returns the method of a request.
func (m *Message) Method() []byte { return m.method }

// Target returns the Request-URI as it came.
func (m *Message) Target() []byte { return m.target }

// Status returns the code of a response.
func (m *Message) Status() int { return m.status }

// Phrase returns the reason of a response, for people.
func (m *Message) Phrase() []byte { return m.reason }

// Head returns the bytes up to the body, as they came.
func (m *Message) Head() []byte { return m.data[:m.bodyAt] }

// Text returns the bytes of the head and the body, as they came; of the head alone if the body is too short.
func (m *Message) Text() []byte {
	body, _ := m.Body()
	return m.data[:m.bodyAt+len(body)]
}

// Is says whether the message is a request with the given method. Methods have a case. RFC 3261 §7.1.
func (m *Message) Is(method string) bool { return m.status == 0 && string(m.method) == method }

// Get returns the value of the first field of kind k, as it came, or nil if there is none. A folded value holds its
// line ends.
func (m *Message) Get(k Kind) []byte {
	if m.first[k] == 0 {
		return nil
	}
	return m.value(int(m.first[k]) - 1)
}

// Has says whether there is a field of kind k.
func (m *Message) Has(k Kind) bool { return m.first[k] > 0 }

// Field returns the value of the first field of kind k from the i-th on, as it came, and the i to go on with; value is
// nil after the last.
func (m *Message) Field(k Kind, i int) (value []byte, next int) {
	if i == 0 {
		i = max(int(m.first[k])-1, 0)
	}
	for ; i < m.count; i++ {
		if m.fields[i].kind == k {
			return m.value(i), i + 1
		}
	}
	return nil, m.count
}

// Fields returns how many fields there are.
func (m *Message) Fields() int { return m.count }

// At returns the kind, the name and the value of the i-th field.
func (m *Message) At(i int) (k Kind, name, value []byte) {
	f := &m.fields[i]
	return f.kind, m.data[f.line:f.name:f.name], m.value(i)
}

func (m *Message) value(i int) []byte {
	f := &m.fields[i]
	return m.data[f.value:f.valueTo:f.valueTo]
}

// lineTo returns where the i-th field ends, with its line end.
func (m *Message) lineTo(i int) int {
	if i+1 < m.count {
		return int(m.fields[i+1].line)
	}
	return m.bodyAt - 2
}

// Parse indexes the message at the start of data. After an error what could be indexed can be read nevertheless, for the
// answer; Answerable says whether that is enough.
func (m *Message) Parse(data []byte, l *Limits) *Error {
	m.data, m.method, m.target, m.reason, m.status = data, nil, nil, nil, 0
	m.count, m.startTo, m.bodyAt, m.length, m.hasLength = 0, 0, 0, 0, false
	m.first, m.many = [kinds]uint8{}, [kinds]bool{}
	m.top.read, m.uri.read, m.sequence.read = false, false, false
	for i := range m.parties {
		m.parties[i].read = false
	}
	limit := l.head()
	line, at, err := m.line(0, limit)
	if err != nil {
		return err
	}
	worst := m.startLine(line)
	if worst == ErrStartLine && m.method == nil {
		return worst
	}
	m.startTo = at
	for {
		from := at
		if line, at, err = m.line(from, limit); line == nil {
			return cmpErr(worst, err)
		}
		worst = cmpErr(worst, err)
		if len(line) == 0 {
			m.bodyAt = at
			return worst
		}
		if m.count == l.fields() {
			return cmpErr(worst, ErrFields)
		}
		worst = cmpErr(worst, m.addField(line, from))
	}
}

// cmpErr returns the first error: what comes after it may come of it.
func cmpErr(first, second *Error) *Error {
	if first != nil {
		return first
	}
	return second
}

// line returns the logical line at from, with the lines that are folded into it, and where the next begins. It is nil
// if there is no end. RFC 3261 §7.3.1.
func (m *Message) line(from, limit int) (line []byte, next int, err *Error) {
	for at := from; ; {
		window := m.data[at:min(len(m.data), max(limit, at))]
		n := bytes.IndexByte(window, '\n')
		if n < 0 && len(m.data) >= limit {
			return nil, 0, ErrLongHead
		}
		if n < 0 {
			return nil, 0, ErrShort
		}
		if n == 0 || window[n-1] != '\r' {
			return nil, 0, ErrControl
		}
		if !clean(window[:n-1]) {
			err = ErrControl
		}
		end := at + n - 1
		at += n + 1
		folded := end > from && from > 0 && at < len(m.data) && (m.data[at] == ' ' || m.data[at] == '\t')
		if !folded {
			return m.data[from:end], at, err
		}
	}
}

// clean says whether a line has no CR, and NUL only after a backslash, where RFC 3261 §25.1 lets it be quoted: other
// servers end lines and strings at them.
func clean(line []byte) bool {
	if bytes.IndexByte(line, '\r') >= 0 {
		return false
	}
	for rest := line; ; {
		i := bytes.IndexByte(rest, 0)
		if i < 0 {
			return true
		}
		if i == 0 || rest[i-1] != '\\' {
			return false
		}
		rest = rest[i+1:]
	}
}

func (m *Message) startLine(line []byte) *Error {
	first, rest, ok := bytes.Cut(line, []byte{' '})
	if !ok {
		return ErrStartLine
	}
	if len(first) > 4 && equalFold(first[:4], "sip/") {
		return m.statusLine(first, rest)
	}
	// RFC 3261 §25.1: single spaces. What stands between the first and the last is the target.
	end := bytes.LastIndexByte(rest, ' ')
	if !isToken(first) || end < 1 {
		return ErrStartLine
	}
	m.method, m.target = first, rest[:end]
	version := rest[end+1:]
	if equalFold(version, "sip/2.0") {
		if bytes.IndexByte(m.target, ' ') >= 0 || bytes.IndexByte(m.target, '\t') >= 0 {
			return ErrStartLine
		}
		return nil
	}
	if len(version) > 4 && equalFold(version[:4], "sip/") {
		return ErrVersion
	}
	if len(version) > 0 {
		m.method = nil
	}
	return ErrStartLine
}

func (m *Message) statusLine(version, rest []byte) *Error {
	code, reason, _ := bytes.Cut(rest, []byte{' '})
	n, ok := number(code, 699)
	if !ok || len(code) != 3 || n < 100 {
		return ErrStartLine
	}
	m.status, m.reason = int(n), reason
	if !equalFold(version, "sip/2.0") {
		return ErrVersion
	}
	return nil
}

func (m *Message) addField(line []byte, from int) *Error {
	colon := bytes.IndexByte(line, ':')
	if colon < 1 {
		return ErrField
	}
	name := trim(line[:colon]) // RFC 3261 §25.1: HCOLON takes space before the colon
	if !isToken(name) || isSpace(line[0]) {
		return ErrField
	}
	text := line[colon+1:]
	at := from + colon + 1
	for len(text) > 0 && isSpace(text[0]) {
		text, at = text[1:], at+1
	}
	text = trim(text)
	f := field{kindOf(name), uint16(from), uint16(from + len(name)), uint16(at), uint16(at + len(text))}
	m.fields[m.count] = f
	m.count++
	if m.first[f.kind] > 0 {
		m.many[f.kind] = true
	} else {
		m.first[f.kind] = uint8(m.count)
	}
	if f.kind != ContentLength {
		return nil
	}
	n, ok := number(text, 1<<31-1)
	if !ok || m.hasLength {
		return ErrLength
	}
	m.length, m.hasLength = int(n), true
	return nil
}

// Body returns the body of a message that came in a datagram: what follows Content-Length is dropped, and without one
// it is all that there is. RFC 3261 §18.3.
func (m *Message) Body() ([]byte, *Error) {
	body := m.data[m.bodyAt:]
	if !m.hasLength {
		return body, nil
	}
	if m.length > len(body) {
		return nil, ErrBody
	}
	return body[:m.length], nil
}
