// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http1

// Hot path: no allocation per packet.

import (
	"iter"
	"math"
	"strconv"
)

// head is what requests and responses have in common: lines that come in pieces, fields, and what they say about
// the connection and the body. While a head comes in pieces only offsets are kept, because the buffer may move.
type head struct {
	buf   []byte // all of it, once it is there
	next  int    // where the line begins that has not come whole yet
	scan  int    // up to here no control byte ends that line
	busy  bool   // a part of it has been read
	first int    // where the fields begin; 0 until the start line has been read

	minor       uint8
	seen, twice kindSet      // kinds that came at least once, and more than once
	at          [kinds]uint8 // the last field of each kind
	options     connectionOptions
	framing     Framing
	length      int64 // with Framing Length; -1 if there is no Content-Length

	count  int
	fields [MaxFields]field
}

// connectionOptions is what the Connection fields say. RFC 9110 §7.6.1.
type connectionOptions struct {
	close, keepAlive, upgrade bool
	names                     int // of fields
}

// maxOptions is how many fields Connection may name: each is looked for among all.
const maxOptions = 16

// begin makes h ready for a new head.
func (h *head) begin() {
	h.buf, h.next, h.scan, h.busy, h.first = nil, 0, 0, true, 0
	h.minor, h.seen, h.twice, h.options = 0, 0, 0, connectionOptions{}
	h.framing, h.length, h.count = NoBody, -1, 0
}

// Reset forgets a head that has come in part: the next Parse begins anew. Needed only where a connection ends in the
// middle of a head and what read it is used again.
func (h *head) Reset() { h.busy = false }

// line returns where the line at h.next ends (at its CR), or -1 if the end is not in p.
func (h *head) line(p []byte) (end int, err *Error) {
	end = control(p, h.scan)
	switch {
	case end+1 < len(p) && p[end] == '\r' && p[end+1] == '\n':
		h.scan = end + 2
		return end, nil
	case end >= len(p), end+1 == len(p) && p[end] == '\r':
		h.scan = end
		return -1, nil
	case p[end] == '\r':
		return -1, ErrBareCR
	case p[end] == '\n':
		return -1, ErrBareLF
	}
	return -1, ErrControl
}

// lines reads fields from h.next on up to the empty line. It returns the length of the head, or 0 if its end has
// not come.
func (h *head) lines(p []byte, l *Limits, underscores bool) (n int, err *Error) {
	limit, many := l.head(), l.fields()
	if len(p) > limit {
		p = p[:limit] // so that what is refused, and why, does not depend on how the bytes were cut
	}
	for {
		end, err := h.line(p)
		if err != nil {
			return 0, err
		}
		if end < 0 {
			if len(p) == limit {
				return 0, ErrLongHead
			}
			return 0, nil
		}
		start := h.next
		h.next = end + 2
		if end == start {
			h.buf = p[:end+2]
			return end + 2, nil
		}
		if h.count == many {
			return 0, ErrManyFields
		}
		f := &h.fields[h.count]
		if err = f.parse(p, start, end); err != nil {
			return 0, err
		}
		if f.under && !underscores {
			return 0, ErrUnderscore
		}
		if f.kind != endToEnd {
			h.note(f.kind)
		}
		h.count++
	}
}

// note remembers that the field h.count is of kind k.
func (h *head) note(k kind) {
	bit := kindSet(1) << k
	h.twice |= h.seen & bit
	h.seen |= bit
	h.at[k] = uint8(h.count)
}

// last returns the last field of kind k, which has been seen.
func (h *head) last(k kind) *field { return &h.fields[h.at[k]] }

func (h *head) name(f *field) []byte { return h.buf[f.start:f.colon] }

func (h *head) text(f *field) []byte { return h.buf[f.value:f.end] }

// Get returns the value of the first field called name, which must be in lower case, or nil. Valid as long as the
// bytes parsed.
func (h *head) Get(name string) []byte {
	for i := range h.fields[:h.count] {
		if f := &h.fields[i]; fold(h.name(f), name) {
			return h.text(f)
		}
	}
	return nil
}

// Lines returns the lines of all fields as they came, each with its CRLF, and the empty one that ends the head. Valid as
// long as the bytes parsed.
func (h *head) Lines() []byte { return h.buf[h.first:] }

// Fields returns names and values in the order they came. Valid as long as the bytes parsed.
func (h *head) Fields() iter.Seq2[[]byte, []byte] {
	return func(yield func(name, value []byte) bool) {
		for i := range h.fields[:h.count] {
			if f := &h.fields[i]; !yield(h.name(f), h.text(f)) {
				return
			}
		}
	}
}

// connection reads the Connection fields and marks the fields that they name.
func (h *head) connection() *Error {
	if !h.seen.has(kindConnection) {
		return nil
	}
	for i := range h.fields[:h.count] {
		if f := &h.fields[i]; f.kind == kindConnection {
			for name, rest := element(h.text(f)); ; name, rest = element(rest) {
				if err := h.option(name); err != nil {
					return err
				}
				if rest == nil {
					break
				}
			}
		}
	}
	return nil
}

// option does what one option of Connection asks for. One that names a field by which a message is understood is an
// attack on whoever believes it; one that names a field about the client has no effect, since those are ours alone.
func (h *head) option(name []byte) *Error {
	o := &h.options
	switch {
	case len(name) == 0: // RFC 9110 §5.6.1: empty elements are ignored
		return nil
	case !isToken(name):
		return ErrOption
	case fold(name, "close"):
		o.close = true
		return nil
	case fold(name, "keep-alive"):
		o.keepAlive = true
		return nil
	case fold(name, "upgrade"):
		o.upgrade = true
		return nil
	case fold(name, "early-data"): // RFC 8470 §5.1: no intermediary may lose it, so nobody may ask for that
		return ErrOption
	}
	switch kindOf(name) {
	case kindHost, kindLength, kindCoding, kindTrailer, kindExpect, kindConnection:
		return ErrOption
	case endToEnd:
	default:
		return nil
	}
	if o.names++; o.names > maxOptions {
		return ErrManyOptions
	}
	for i := range h.fields[:h.count] {
		if f := &h.fields[i]; f.kind == endToEnd && same(h.name(f), name) {
			f.kind = kindHop
		}
	}
	return nil
}

// frame finds the framing that the fields declare. Both framing fields must be written plainly, without optional
// whitespace: RFC 9110 §5.5 allows it, but nobody who means well uses it, and servers differ in what they trim.
func (h *head) frame() *Error {
	length, coding := h.seen.has(kindLength), h.seen.has(kindCoding)
	switch {
	case h.twice.has(kindLength):
		return ErrTwoLengths // also if they are equal: RFC 9112 §6.3 lets us choose
	case h.twice.has(kindCoding):
		return ErrTwoCodings
	case length && coding:
		return ErrTwoFramings
	case length:
		n, ok := number(h.text(h.last(kindLength)))
		if !ok || !h.last(kindLength).bare(h.buf) {
			return ErrLength
		}
		h.framing, h.length = Length, n
	case coding:
		switch f := h.last(kindCoding); {
		case !fold(h.text(f), "chunked") || !f.bare(h.buf):
			return ErrCoding // RFC 9112 §6.1 suggests 501 for other codings; who sends them does not expect service
		case h.minor == 0:
			return ErrOldCoding
		}
		h.framing = Chunked
	}
	return nil
}

// bare says whether a value has no optional whitespace around it but the usual space.
func (f *field) bare(p []byte) bool {
	return f.plain || f.value == f.colon+1 && p[f.end] == '\r'
}

// number reads a Content-Length. RFC 9110 §8.6.
func number(p []byte) (n int64, ok bool) {
	for _, c := range p {
		d := int64(c) - '0'
		if d < 0 || d > 9 || n > (math.MaxInt64-d)/10 {
			return 0, false
		}
		n = n*10 + d
	}
	return n, len(p) > 0
}

// keepAlive says whether the peer lets the connection live on. RFC 9112 §9.3.
func (h *head) keepAlive() bool {
	return !h.options.close && (h.minor == 1 || h.options.keepAlive)
}

// settled returns the kinds whose lines, though they belong to the next hop, are what we would write for framing f.
func (h *head) settled(f Framing) (keep kindSet) {
	switch {
	case f == Length:
		if n := h.last(kindLength); n.plain && (h.buf[n.value] != '0' || n.end == n.value+1) {
			keep = 1 << kindLength
		}
	case f == Chunked:
		if c := h.last(kindCoding); c.plain && string(h.text(c)) == "chunked" {
			keep = 1 << kindCoding
		}
		if h.announcesTrailers() {
			keep |= 1 << kindTrailer
		}
	}
	return keep
}

// announcesTrailers says whether there is one Trailer field and it names nothing that Body would refuse or that a
// server might.
func (h *head) announcesTrailers() bool {
	if !h.seen.has(kindTrailer) || h.twice.has(kindTrailer) {
		return false
	}
	for name, rest := element(h.text(h.last(kindTrailer))); ; name, rest = element(rest) {
		if !isToken(name) || kindOf(name) != endToEnd {
			return false
		}
		if rest == nil {
			return true
		}
	}
}

// appendFields writes the bytes before the fields that go on as they are, from on, and then all fields but those of
// the kinds in drop. Lines that are as we would write them are copied together.
func (h *head) appendFields(dst []byte, from int, drop kindSet) []byte {
	to := h.first
	for i := range h.fields[:h.count] {
		f := &h.fields[i]
		if f.plain && !drop.has(f.kind) {
			to = int(f.end) + 2
			continue
		}
		dst = append(dst, h.buf[from:to]...)
		if !drop.has(f.kind) {
			dst = append(dst, h.name(f)...)
			dst = append(dst, ": "...)
			dst = append(dst, h.text(f)...)
			dst = append(dst, "\r\n"...)
		}
		from = len(h.buf) - 2
		if i+1 < h.count {
			from = int(h.fields[i+1].start)
		}
		to = from
	}
	return append(dst, h.buf[from:to]...)
}

// appendFraming writes the field that declares framing f, unless its line has been kept.
func (h *head) appendFraming(dst []byte, f Framing, keep kindSet) []byte {
	switch {
	case f == Length && !keep.has(kindLength):
		dst = append(dst, "Content-Length: "...)
		dst = strconv.AppendInt(dst, h.length, 10)
		dst = append(dst, "\r\n"...)
	case f == Chunked && !keep.has(kindCoding):
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	}
	return dst
}
