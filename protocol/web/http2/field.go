// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

// Hot path: no allocation per packet.

import (
	"encoding/binary"
	"math/bits"
)

// kind is what a field means here. It is found once, when the field comes as a literal, and kept in the dynamic table.
type kind uint8

// The kinds. What is regular goes into the head as it is.
const (
	regular kind = iota
	cookie
	host
	te
	length
	ofConnection // RFC 9113 §8.2.2
	badName
	badValue

	// Pseudo-header fields: RFC 9113 §8.3.
	method
	scheme
	path
	authority
	status
	unknown
)

func (k kind) pseudo() bool { return k >= method }

// kindOf returns the kind of the field called name.
func kindOf(name []byte) kind {
	if len(name) > 0 && name[0] == ':' {
		return pseudoOf(name)
	}
	switch string(name) {
	case "cookie":
		return cookie
	case "host":
		return host
	case "te":
		return te
	case "content-length":
		return length
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade":
		return ofConnection
	}
	if !isName(name) {
		return badName
	}
	return regular
}

func pseudoOf(name []byte) kind {
	switch string(name) {
	case ":method":
		return method
	case ":scheme":
		return scheme
	case ":path":
		return path
	case ":authority":
		return authority
	case ":status":
		return status
	}
	return unknown // RFC 8441's :protocol would be another kind
}

// isName says whether p is a token in lower case. RFC 9113 §8.2.1.
func isName(p []byte) bool {
	for _, c := range p {
		if lower[c] != c || c == 0 {
			return false
		}
	}
	return len(p) > 0
}

// isToken says whether p is one. RFC 9110 §5.6.2.
func isToken(p []byte) bool {
	for _, c := range p {
		if lower[c] == 0 {
			return false
		}
	}
	return len(p) > 0
}

// isValue says whether p can stand in a head: no control byte but HTAB in it, no whitespace around it. RFC 9113 §8.2.1
// demands it of CR, LF and NUL; the others http1 would refuse.
func isValue(p []byte) bool {
	if len(p) == 0 {
		return true
	}
	if a, z := p[0], p[len(p)-1]; a == ' ' || a == '\t' || z == ' ' || z == '\t' {
		return false
	}
	const ones, high = 0x0101010101010101, 0x8080808080808080
	i := 0
	for ; i+8 <= len(p); i += 8 {
		w := binary.LittleEndian.Uint64(p[i:])
		t := w &^ high
		// The top bit of a byte of t+0x60… is clear below 0x20; that of t+1 is set for DEL only.
		for bad := (^(t + 0x60*ones) | (t + ones)) &^ w & high; bad != 0; bad &= bad - 1 {
			if p[i+bits.TrailingZeros64(bad)>>3] != '\t' {
				return false
			}
		}
	}
	for _, c := range p[i:] {
		if c < ' ' && c != '\t' || c == 0x7f {
			return false
		}
	}
	return true
}

// lower is a table of 256 entries: a byte that a token can have, in lower case, or 0.
const lower = "" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00!\x00#$%&'\x00\x00*+\x00-.\x00" +
	"0123456789\x00\x00\x00\x00\x00\x00" +
	"\x00abcdefghijklmno" +
	"pqrstuvwxyz\x00\x00\x00^_" +
	"`abcdefghijklmno" +
	"pqrstuvwxyz\x00|\x00~\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
