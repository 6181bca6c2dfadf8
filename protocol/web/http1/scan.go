// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http1

// Hot path: no allocation per packet.

import (
	"encoding/binary"
	"math/bits"
)

// Eight bytes at a time: ones has 1 in each byte, high has the top bit of each.
const (
	ones = 0x0101010101010101
	high = 0x8080808080808080
)

// control returns the index of the first control byte in p[i:], HTAB excepted, or len(p). Line ends are control
// bytes, so one pass both finds the lines of a head and proves that there is nothing between them to be found by
// somebody else.
func control(p []byte, i int) int {
	for ; i+8 <= len(p); i += 8 {
		w := binary.LittleEndian.Uint64(p[i:])
		t := w &^ high
		// The top bit of a byte of t+0x60… is clear below 0x20; that of t+1 is set for DEL only.
		bad := (^(t + 0x60*ones) | (t + ones)) &^ w & high
		for ; bad != 0; bad &= bad - 1 {
			if k := i + bits.TrailingZeros64(bad)>>3; p[k] != '\t' {
				return k
			}
		}
	}
	for ; i < len(p); i++ {
		if c := p[i]; (c < ' ' && c != '\t') || c == 0x7f {
			return i
		}
	}
	return i
}

// odd returns the index of the first byte of a target that may not be there (SP, HTAB, '#', not ASCII), or len(p).
// Other control bytes have been excluded before. Browsers leave some bytes bare that RFC 3986 §2 does not have, such
// as '|' and '{': they mean nothing to anyone and pass.
func odd(p []byte) int {
	i := 0
	for ; i+8 <= len(p); i += 8 {
		w := binary.LittleEndian.Uint64(p[i:])
		f := w ^ '#'*ones
		if (w|(w-'!'*ones)|(f-ones)&^f)&high != 0 {
			break // at or after the first odd byte: a borrow may mark one that follows it
		}
	}
	for ; i < len(p); i++ {
		if c := p[i]; c <= ' ' || c == '#' || c >= 0x80 {
			return i
		}
	}
	return i
}

// What class says of a byte.
const (
	token      = 1 // tchar. RFC 9110 §5.6.2
	underscore = 2
)

// class is a table of 256 entries.
const class = "" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x01\x00\x01\x01\x01\x01\x01\x00\x00\x01\x01\x00\x01\x01\x00" +
	"\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x00\x00\x00\x00\x00\x00" +
	"\x00\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01" +
	"\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x00\x00\x00\x01\x03" +
	"\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01" +
	"\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01\x00\x01\x00\x01\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// hostname is a table of 256 entries: the byte in lower case if a name can have it, else 0.
const hostname = "" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x2d\x2e\x00" +
	"\x30\x31\x32\x33\x34\x35\x36\x37\x38\x39\x00\x00\x00\x00\x00\x00" +
	"\x00\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f" +
	"\x70\x71\x72\x73\x74\x75\x76\x77\x78\x79\x7a\x00\x00\x00\x00\x5f" +
	"\x00\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f" +
	"\x70\x71\x72\x73\x74\x75\x76\x77\x78\x79\x7a\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"

// isToken says whether p is one.
func isToken(p []byte) bool {
	for _, c := range p {
		if class[c]&token == 0 {
			return false
		}
	}
	return len(p) > 0
}

// fold says whether name, a token, is lower but for the case of letters.
func fold(name []byte, lower string) bool {
	if len(name) != len(lower) {
		return false
	}
	for i := range len(lower) {
		if name[i]|0x20 != lower[i] {
			return false
		}
	}
	return true
}

// same says whether two tokens differ at most in the case of letters.
func same(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i, c := range a {
		if d := b[i]; c != d && (c|0x20 != d|0x20 || c|0x20 < 'a' || c|0x20 > 'z') {
			return false
		}
	}
	return true
}

// trim returns p without optional whitespace around it. RFC 9110 §5.6.3.
func trim(p []byte) []byte {
	for len(p) > 0 && (p[0] == ' ' || p[0] == '\t') {
		p = p[1:]
	}
	for len(p) > 0 && (p[len(p)-1] == ' ' || p[len(p)-1] == '\t') {
		p = p[:len(p)-1]
	}
	return p
}

// element cuts the first element off a comma-separated list. RFC 9110 §5.6.1.
func element(list []byte) (first, rest []byte) {
	for i, c := range list {
		if c == ',' {
			return trim(list[:i]), list[i+1:]
		}
	}
	return trim(list), nil
}
