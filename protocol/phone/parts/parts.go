// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package parts finds the description of a session in a body of several parts, as gateways send it beside ISUP, and puts
// another in its place. All other bytes stay as they are.
//
//	Content-Type, body ─▶ Find ─▶ None · Hidden · Found: Place ─▶ Place.Of, Place.Put
//
// What two readers could read in two ways is Hidden: a description that we do not see would show an end the addresses of the
// other one.
//
// RFC 2046 §5.1 (multipart), RFC 5621 (bodies in SIP).
package parts

import (
	"bytes"
	"strconv"
)

// Verdict is what a body has.
type Verdict uint8

// The verdicts.
const (
	None   Verdict = iota // no description
	Found                 // one
	Hidden                // perhaps one, or several: it cannot be told
	Sealed                // it is encrypted
)

// Place is where a description is in a body.
type Place struct {
	from, to int
	size     span // of the value of the part's Content-Length, if it has one
}

type span struct{ from, to int }

// Of returns the description.
func (p *Place) Of(body []byte) []byte { return body[p.from:p.to] }

// Put returns the body with another description.
func (p *Place) Put(body, text []byte) []byte {
	if p.from == 0 && p.to == len(body) {
		return text
	}
	out := make([]byte, 0, len(body)-(p.to-p.from)+len(text)+4)
	at := 0
	if p.size.to > 0 {
		out = strconv.AppendInt(append(out, body[:p.size.from]...), int64(len(text)), 10)
		at = p.size.to
	}
	return append(append(append(out, body[at:p.from]...), text...), body[p.to:]...)
}

// Bounds of what is looked at. What is beyond is Hidden.
const (
	maxDepth    = 4
	maxParts    = 32
	maxBoundary = 70 // RFC 2046 §5.1.1
)

// Find looks for the description in a body of a type, which has the value of a Content-Type.
func Find(kind, body []byte) (Place, Verdict) {
	s := search{body: body}
	v := s.look(kind, span{0, len(body)}, 0)
	if v == None && s.found {
		v = Found
	}
	return s.place, v
}

// search is one run of Find.
type search struct {
	body  []byte
	place Place
	found bool
	parts int
}

// look looks at a part, or the whole. It returns None if it has been looked at.
func (s *search) look(kind []byte, at span, depth int) Verdict {
	name, params, _ := bytes.Cut(kind, []byte{';'})
	name = bytes.TrimSpace(name)
	main, sub, _ := bytes.Cut(name, []byte{'/'})
	switch {
	case bytes.EqualFold(name, []byte("application/sdp")):
		if s.found {
			return Hidden // which of them holds?
		}
		s.place.from, s.place.to, s.found = at.from, at.to, true
		return None
	case bytes.EqualFold(name, []byte("application/pkcs7-mime")), bytes.EqualFold(name, []byte("multipart/encrypted")):
		return Sealed
	case bytes.EqualFold(name, []byte("multipart/signed")), bytes.EqualFold(name, []byte("message/sip")):
		return Hidden // what is changed would not be what was signed
	case !bytes.EqualFold(main, []byte("multipart")) || len(sub) == 0:
		return None
	}
	mark, ok := boundary(params)
	if !ok || depth == maxDepth {
		return Hidden
	}
	return s.split(mark, at, depth)
}

// boundary returns that of the parameters of a type.
func boundary(params []byte) (mark []byte, ok bool) {
	for len(params) > 0 {
		name, rest, _ := bytes.Cut(params, []byte{'='})
		rest = bytes.TrimLeft(rest, " \t")
		var value []byte
		if len(rest) > 0 && rest[0] == '"' {
			end := bytes.IndexByte(rest[1:], '"')
			if end < 0 || bytes.IndexByte(rest[1:1+end], '\\') >= 0 {
				return nil, false
			}
			value, rest = rest[1:1+end], rest[2+end:]
			_, params, _ = bytes.Cut(rest, []byte{';'})
		} else {
			value, params, _ = bytes.Cut(rest, []byte{';'})
			value = bytes.TrimSpace(value)
		}
		if !bytes.EqualFold(bytes.TrimSpace(name), []byte("boundary")) {
			continue
		}
		if mark != nil || len(value) == 0 || len(value) > maxBoundary || bytes.ContainsAny(value, "\r\n") || value[len(value)-1] == ' ' {
			return nil, false
		}
		mark = append([]byte("--"), value...)
	}
	return mark, mark != nil
}

// split looks at each part between the lines of a mark.
func (s *search) split(mark []byte, at span, depth int) Verdict {
	begin, ended := -1, false // of the part that is read
	for next := at.from; next < at.to; {
		line, after := s.line(next, at.to)
		what := markOf(line, mark)
		switch {
		case what == broken, what != other && ended:
			return Hidden
		case what != other && begin >= 0:
			if v := s.part(span{begin, next}, depth); v != None {
				return v
			}
		}
		if what == delimiter {
			begin = after
		}
		if what == last {
			begin, ended = -1, true
		}
		next = after
	}
	if !ended {
		return Hidden // cut off: others may see another part
	}
	return None
}

// line returns the line that begins at a place, and where the next one begins.
func (s *search) line(from, to int) (line []byte, next int) {
	next = to
	if end := bytes.IndexByte(s.body[from:to], '\n'); end >= 0 {
		next = from + end + 1
	}
	return s.body[from:next], next
}

// mark is what a line is.
type mark uint8

const (
	other mark = iota
	delimiter
	last
	broken // it begins like a delimiter
)

func markOf(line, with []byte) mark {
	rest, ok := bytes.CutPrefix(line, with)
	if !ok {
		return other
	}
	what := delimiter
	if closed, ok := bytes.CutPrefix(rest, []byte("--")); ok {
		what, rest = last, closed
	}
	if len(bytes.TrimRight(rest, " \t\r\n")) > 0 {
		return broken
	}
	return what
}

// part looks at a part: its fields, an empty line, and what it holds, with the line end that belongs to the delimiter.
func (s *search) part(at span, depth int) Verdict {
	if s.parts++; s.parts > maxParts {
		return Hidden
	}
	var kind, encoding []byte
	var size span
	kinds, next := 0, at.from
	for {
		if next >= at.to {
			return Hidden // it has no end of its fields
		}
		from := next
		var line []byte
		line, next = s.line(next, at.to)
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			break
		}
		for next < at.to && (s.body[next] == ' ' || s.body[next] == '\t') { // folded
			_, next = s.line(next, at.to)
		}
		name, value, ok := bytes.Cut(s.body[from:next], []byte{':'})
		if !ok {
			return Hidden
		}
		switch trimmed := bytes.TrimSpace(value); string(bytes.ToLower(bytes.TrimSpace(name))) {
		case "content-type", "c":
			kind = bytes.ReplaceAll(bytes.ReplaceAll(trimmed, []byte("\r"), []byte(" ")), []byte("\n"), []byte(" "))
			kinds++
		case "content-transfer-encoding":
			encoding = trimmed
		case "content-encoding", "e":
			return Hidden
		case "content-length", "l":
			size.from = next - len(value) + bytes.Index(value, trimmed)
			size.to = size.from + len(trimmed)
		}
	}
	before, held := s.found, span{next, s.end(next, at.to)}
	v := s.look(kind, held, depth+1)
	if found := s.found && !before; v == None && found {
		if kinds != 1 || !plain(encoding) {
			return Hidden
		}
		if s.place.from == held.from {
			s.place.size = size
		} else if size.to > 0 {
			return Hidden // of what is around it
		}
	}
	if v == None && kinds > 1 {
		return Hidden
	}
	return v
}

// end is where a part ends: a description has a line end of its own, and if it has none, that of the delimiter is taken for
// it.
func (s *search) end(from, to int) int {
	cut := func(to int) int {
		switch {
		case bytes.HasSuffix(s.body[from:to], []byte("\r\n")):
			return to - 2
		case bytes.HasSuffix(s.body[from:to], []byte("\n")):
			return to - 1
		}
		return to
	}
	if once := cut(to); cut(once) < once {
		return once
	}
	return to
}

// plain says whether a part is as it is written. RFC 2045 §6.2.
func plain(encoding []byte) bool {
	switch string(bytes.ToLower(encoding)) {
	case "", "7bit", "8bit", "binary":
		return true
	}
	return false
}
