// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

// Hot path: no allocation per packet.

const (
	tableSize = 4096 // of the dynamic table, which is what everybody begins with. RFC 9113 §6.5.2
	perField  = 32   // that each field counts beside its bytes. RFC 7541 §4.1
	tableText = 2 * tableSize
)

// table is the dynamic table of a decoder. RFC 7541 §2.3.2. Its fields are lines as they stand in a head of HTTP/1.1,
// one behind the other in text, the oldest first. When text is full, those that are still in use move to its front.
type table struct {
	limit int // that the encoder has set, at most tableSize
	used  int // as RFC 7541 §4.1 counts

	text []byte
	base uint32 // where text begins, as entries count: from the first byte there ever was

	ring  []entry // of a size that is a power of two
	first int     // the oldest
	count int
}

// entry is a field: its line is what text has from at on.
type entry struct {
	at   uint32
	size uint16 // of the line: name, ": ", value, CRLF
	name uint16 // of the name
	kind kind
}

// get returns the i-th field from the newest, which is 0, or nil.
func (t *table) get(i uint32) *entry {
	if i >= uint32(t.count) {
		return nil
	}
	return &t.ring[(t.first+t.count-1-int(i))&(len(t.ring)-1)]
}

// line returns the line of e. It is valid until add.
func (t *table) line(e *entry) []byte {
	at := e.at - t.base
	return t.text[at : at+uint32(e.size)]
}

// add adds a line whose name has the given size. RFC 7541 §4.4: one that is larger than the table empties it.
func (t *table) add(line []byte, name int, k kind) {
	size := len(line) - len(": \r\n") + perField
	t.shrink(t.limit - size)
	if size > t.limit {
		return
	}
	if len(t.text)+len(line) > tableText {
		t.compact()
	}
	if t.count == len(t.ring) {
		t.grow()
	}
	t.ring[(t.first+t.count)&(len(t.ring)-1)] = entry{t.base + uint32(len(t.text)), uint16(len(line)), uint16(name), k}
	t.count++
	t.used += size
	t.text = append(t.text, line...)
}

// shrink removes the oldest fields until not more than n bytes are in use. RFC 7541 §4.3.
func (t *table) shrink(n int) {
	for t.count > 0 && t.used > n {
		e := &t.ring[t.first]
		t.used -= int(e.size) - len(": \r\n") + perField
		t.first = (t.first + 1) & (len(t.ring) - 1)
		t.count--
	}
}

func (t *table) compact() {
	gone := uint32(len(t.text))
	if t.count > 0 {
		gone = t.ring[t.first].at - t.base
	}
	t.text = t.text[:copy(t.text, t.text[gone:])]
	t.base += gone
}

func (t *table) grow() {
	ring := make([]entry, max(16, 2*len(t.ring)))
	for i := range t.count {
		ring[i] = t.ring[(t.first+i)&(len(t.ring)-1)]
	}
	t.ring, t.first = ring, 0
}
