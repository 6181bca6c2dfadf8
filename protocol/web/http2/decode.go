// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

// Hot path: no allocation per packet.

// decode reads a whole header block into m. An error is the connection's: nothing can be read after it. What is wrong
// with the fields is in m.err; the table is kept right nevertheless. RFC 7541 §3.
func (t *table) decode(h *huffman, block []byte, m *message) *Error {
	for p, first := block, true; len(p) > 0; {
		var ok bool
		switch b := p[0]; {
		case b >= 0x80: // indexed. RFC 7541 §6.1
			var i uint32
			i, p, ok = integer(p, 7)
			ok = ok && t.indexed(i, m)
		case b >= 0x40: // literal, and added. RFC 7541 §6.2.1
			p, ok = t.literal(h, p, 6, m)
		case b >= 0x20: // size of the table. RFC 7541 §6.3
			var n uint32
			n, p, ok = integer(p, 5)
			if ok = ok && first && n <= tableSize; ok { // RFC 7541 §4.2: at the beginning only
				t.limit = int(n)
				t.shrink(t.limit)
			}
			if !ok {
				return errCompression
			}
			continue
		default: // literal. RFC 7541 §6.2.2 and §6.2.3
			p, ok = t.literal(h, p, 4, m)
		}
		if !ok {
			return errCompression
		}
		first = false
	}
	return nil
}

// indexed takes the field at index i. Where none stands any more it is not copied either: ten kilobytes that refer to one
// long field again and again would have us copy thirty megabytes.
func (t *table) indexed(i uint32, m *message) bool {
	var e *entry
	if i > staticLast {
		e = t.get(i - staticLast - 1)
	}
	if i == 0 || i > staticLast && e == nil {
		return false
	}
	if m.err != nil {
		return true
	}
	start := len(m.text)
	if e != nil {
		m.text = append(m.text, t.line(e)...)
		m.take(e.kind, start, int(e.name))
		return true
	}
	f := static[i]
	m.text = append(m.text, f.name...)
	m.text = append(m.text, ": "...)
	m.text = append(m.text, f.value...)
	m.text = append(m.text, "\r\n"...)
	m.take(f.kind, start, len(f.name))
	return true
}

// literal takes a field whose name is at an index of the given size in bits, or comes with it.
func (t *table) literal(h *huffman, p []byte, bits int, m *message) (rest []byte, ok bool) {
	add := bits == 6
	i, p, ok := integer(p, bits)
	if !ok {
		return nil, false
	}
	start := len(m.text)
	var k kind
	switch {
	case i == 0:
		if m.text, p, ok = text(h, m.text, p); !ok {
			return nil, false
		}
		k = kindOf(m.text[start:])
	case i <= staticLast:
		m.text = append(m.text, static[i].name...)
		k = static[i].kind
	default:
		e := t.get(i - staticLast - 1)
		if e == nil {
			return nil, false
		}
		if add || m.err == nil { // as in indexed
			m.text = append(m.text, t.line(e)[:e.name]...)
		}
		if k = e.kind; k == badValue {
			k = kindOf(m.text[start:])
		}
	}
	name := len(m.text) - start
	m.text = append(m.text, ": "...)
	value := len(m.text)
	if m.text, p, ok = text(h, m.text, p); !ok {
		return nil, false
	}
	if k != badName && !isValue(m.text[value:]) {
		k = badValue
	}
	m.text = append(m.text, "\r\n"...)
	if add {
		t.add(m.text[start:], name, k)
	}
	m.take(k, start, name)
	return p, true
}

// text appends a string. RFC 7541 §5.2.
func text(h *huffman, dst, p []byte) (out, rest []byte, ok bool) {
	if len(p) == 0 {
		return dst, nil, false
	}
	coded := p[0] >= 0x80
	n, p, ok := integer(p, 7)
	if !ok || uint64(n) > uint64(len(p)) {
		return dst, nil, false
	}
	if !coded {
		return append(dst, p[:n]...), p[n:], true
	}
	dst, ok = h.append(dst, p[:n])
	return dst, p[n:], ok
}

// integer reads a number that begins in the low bits of the first byte. RFC 7541 §5.1. None that means anything has
// more than 28 bits after the first byte.
func integer(p []byte, bits int) (n uint32, rest []byte, ok bool) {
	n = uint32(p[0]) & (1<<bits - 1)
	if n < 1<<bits-1 {
		return n, p[1:], true
	}
	for i := 1; i <= 4 && i < len(p); i++ {
		n += uint32(p[i]&0x7f) << (7 * (i - 1))
		if p[i] < 0x80 {
			return n, p[i+1:], true
		}
	}
	return 0, nil, false
}
