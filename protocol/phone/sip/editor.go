// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sip

// Hot path: no allocation per packet.

import "strconv"

// maxEdits bounds what one Editor changes.
const maxEdits = 64

// edit is a piece of the head that is left out, and what is written there instead.
type edit struct {
	from, to int
	kind     Kind
	text     []byte
	how      how
}

type how uint8

const (
	asIs  how = iota // text, in place of the piece
	line             // a line of kind
	start            // the Request-URI
)

// Editor writes a message again with some of its fields changed: all others keep their bytes, their form and their
// order. What it is given must stay as it is until Append.
type Editor struct {
	m     *Message
	edits [maxEdits]edit
	count int
	body  []byte
	typ   string
	has   bool // body is set
	over  bool
}

// Edit begins with m, which has been parsed without an error. The Editor may have been used before.
func (e *Editor) Edit(m *Message) {
	e.m, e.count, e.body, e.typ, e.has, e.over = m, 0, nil, "", false, false
}

// Target puts another Request-URI into a request.
func (e *Editor) Target(uri []byte) {
	from := len(e.m.method) + 1
	e.add(edit{from, from + len(e.m.target), Other, uri, start})
}

// Set puts another value into the i-th field, whose line keeps its name as it was written.
func (e *Editor) Set(i int, value []byte) {
	f := &e.m.fields[i]
	if f.value == f.valueTo { // an empty one, which may have no space after its colon
		e.add(edit{int(f.line), e.m.lineTo(i), f.kind, value, line})
		return
	}
	e.add(edit{int(f.value), int(f.valueTo), f.kind, value, asIs})
}

// Remove leaves the i-th field out.
func (e *Editor) Remove(i int) {
	e.add(edit{int(e.m.fields[i].line), e.m.lineTo(i), Other, nil, asIs})
}

// RemoveAll leaves all fields of kind k out.
func (e *Editor) RemoveAll(k Kind) {
	for i := range e.m.count {
		if e.m.fields[i].kind == k {
			e.Remove(i)
		}
	}
}

// Replace puts value into the first field of kind k and leaves out the others, or adds one at the end.
func (e *Editor) Replace(k Kind, value []byte) {
	if !e.m.Has(k) {
		e.Add(k, value)
		return
	}
	first := int(e.m.first[k]) - 1
	e.Set(first, value)
	for i := first + 1; i < e.m.count; i++ {
		if e.m.fields[i].kind == k {
			e.Remove(i)
		}
	}
}

// Prepend puts a field before the first of its kind, or before all fields. RFC 3261 §16.6 wants that of Via, Route and
// Record-Route.
func (e *Editor) Prepend(k Kind, value []byte) {
	at := e.m.startTo
	if e.m.Has(k) {
		at = int(e.m.fields[e.m.first[k]-1].line)
	}
	e.add(edit{at, at, k, value, line})
}

// Add puts a field at the end.
func (e *Editor) Add(k Kind, value []byte) {
	at := e.m.bodyAt - 2
	e.add(edit{at, at, k, value, line})
}

// AddLines puts fields at the end that are written already, each with its CRLF.
func (e *Editor) AddLines(lines []byte) {
	at := e.m.bodyAt - 2
	e.add(edit{at, at, Other, lines, asIs})
}

// Body puts another body into the message, with its type and its length.
func (e *Editor) Body(typ string, body []byte) { e.typ, e.body, e.has = typ, body, true }

// add keeps the edits in the order of the head; of two at one place the first given comes first.
func (e *Editor) add(n edit) {
	if e.count == maxEdits {
		e.over = true
		return
	}
	i := e.count
	for ; i > 0 && e.edits[i-1].from > n.from; i-- {
		e.edits[i] = e.edits[i-1]
	}
	e.edits[i] = n
	e.count++
}

// Append writes the message. It fails if there were too many edits, or two of the same bytes.
func (e *Editor) Append(dst []byte) ([]byte, bool) {
	m := e.m
	body, err := m.Body()
	if err != nil {
		return dst, false
	}
	if e.has {
		e.settle()
		body = e.body
	}
	if e.over {
		return dst, false
	}
	at := 0
	for i := range e.count {
		d := &e.edits[i]
		if d.from < at {
			return dst, false
		}
		dst = append(dst, m.data[at:d.from]...)
		if at = d.to; d.how == line {
			dst = AppendField(dst, d.kind, d.text)
		} else {
			dst = append(dst, d.text...)
		}
	}
	dst = append(dst, m.data[at:m.bodyAt-2]...)
	if e.has {
		dst = e.appendLength(dst)
	}
	dst = append(dst, "\r\n"...)
	return append(dst, body...), true
}

// settle leaves out what described the old body.
func (e *Editor) settle() {
	for _, k := range [...]Kind{ContentLength, ContentType, ContentEncoding} {
		e.RemoveAll(k)
	}
}

func (e *Editor) appendLength(dst []byte) []byte {
	if len(e.body) > 0 {
		dst = append(dst, "Content-Type: "...)
		dst = append(dst, e.typ...)
		dst = append(dst, "\r\n"...)
	}
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(e.body)), 10)
	return append(dst, "\r\n"...)
}
