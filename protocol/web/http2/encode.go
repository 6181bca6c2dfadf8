// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

// Hot path: no allocation per packet.

import "strconv"

// Heads are written with the static table only, and without the Huffman code: both the dynamic table and the code cost
// more than the bytes that they save (see BenchmarkEncode), and without a table nothing that a head has can be guessed
// from how long another one is (RFC 7541 §7.1). Fields are written as never to be added to a table, because whether one
// of them came so is not known here (RFC 7541 §6.2.3).

// names finds names in the static table. It is a table of indices with open addressing.
type names [256]uint8

func newNames() (t names) {
	for i := uint8(1); i <= staticLast; i++ {
		name := static[i].name
		if name[0] == ':' {
			continue
		}
		at := slotOf(name)
		for t[at] != 0 {
			at++
		}
		t[at] = i
	}
	return t
}

// slotOf returns where a name is looked for first. No two of the static table have the same.
func slotOf[T string | []byte](name T) uint8 {
	n := len(name)
	return uint8(n)*17 + lower[name[0]]*5 + lower[name[n-1]]*73 + lower[name[n/2]]*149
}

// find returns the index of a name, a token in any case, or 0.
func (t *names) find(name []byte) uint8 {
	for at := slotOf(name); ; at++ {
		i := t[at]
		if i == 0 || isSame(name, static[i].name) {
			return i
		}
	}
}

// isSame says whether name is want, which is in lower case, but for the case of letters.
func isSame(name []byte, want string) bool {
	if len(name) != len(want) {
		return false
	}
	for i, c := range name {
		if lower[c] != want[i] {
			return false
		}
	}
	return true
}

const neverIndexed = 0x10

// appendField writes a field whose name is a token in any case.
func (t *names) appendField(dst, name, value []byte) []byte {
	if i := t.find(name); i != 0 {
		return appendText(appendInteger(dst, neverIndexed, 4, int(i)), value)
	}
	dst = appendInteger(append(dst, neverIndexed), 0, 7, len(name))
	for _, c := range name {
		dst = append(dst, lower[c])
	}
	return appendText(dst, value)
}

// appendNamed writes a field whose name is at index i of the static table.
func appendNamed(dst []byte, i int, value []byte) []byte {
	return appendText(appendInteger(dst, neverIndexed, 4, i), value)
}

// appendText writes a string. RFC 7541 §5.2.
func appendText(dst, s []byte) []byte { return append(appendInteger(dst, 0, 7, len(s)), s...) }

// appendInteger writes n into the low bits of first, and behind it. RFC 7541 §5.1.
func appendInteger(dst []byte, first byte, bits, n int) []byte {
	limit := 1<<bits - 1
	if n < limit {
		return append(dst, first|byte(n))
	}
	dst = append(dst, first|byte(limit))
	for n -= limit; n >= 0x80; n >>= 7 {
		dst = append(dst, byte(n)|0x80)
	}
	return append(dst, byte(n))
}

// appendIndexed writes a field that the static table has whole. RFC 7541 §6.1.
func appendIndexed(dst []byte, i int) []byte { return append(dst, 0x80|byte(i)) }

// appendStatus writes :status.
func appendStatus(dst []byte, status int) []byte {
	switch status {
	case 200:
		return appendIndexed(dst, staticStatus)
	case 204:
		return appendIndexed(dst, staticStatus+1)
	case 206:
		return appendIndexed(dst, staticStatus+2)
	case 304:
		return appendIndexed(dst, staticStatus+3)
	case 400:
		return appendIndexed(dst, staticStatus+4)
	case 404:
		return appendIndexed(dst, staticStatus+5)
	case 500:
		return appendIndexed(dst, staticStatus+6)
	}
	dst = append(appendInteger(dst, neverIndexed, 4, staticStatus), 3)
	return strconv.AppendInt(dst, int64(status), 10)
}

// appendLength writes content-length.
func appendLength(dst []byte, n int64) []byte {
	dst = append(appendInteger(dst, neverIndexed, 4, staticLength), 0)
	at := len(dst)
	dst = strconv.AppendInt(dst, n, 10)
	dst[at-1] = byte(len(dst) - at)
	return dst
}
