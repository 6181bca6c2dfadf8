// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package stun tells who asks from which address his packet came: telephones behind a NAT or a firewall ask that at the
// SIP port, so that their way in stays open and they notice when it has become another.
//
//	datagram whose first two bits are 0 ─▶ Append ─▶ the answer, to where it came from
//
// Only what RFC 5626 §4.4.2 needs: Binding, without credentials. The answer is at most 24 bytes longer than the question.
//
// RFC 8489 (STUN), RFC 5626 §4.4.2 (keep-alive).
package stun

// Hot path: no allocation per packet.

import (
	"encoding/binary"
	"net/netip"
)

const (
	header = 20         // RFC 8489 §5
	cookie = 0x2112a442 // RFC 8489 §5

	bindingRequest = 0x0001
	bindingSuccess = 0x0101
	bindingError   = 0x0111

	xorMapped         = 0x0020 // RFC 8489 §14.2
	errorCode         = 0x0009 // RFC 8489 §14.8
	unknownAttributes = 0x000a // RFC 8489 §14.13

	maxUnknown = 4 // how many are named
)

// Append appends the answer to the datagram p, which came from an address. It returns false for what is not answered: what
// is no STUN, or no Binding request. RFC 8489 §6.3.
func Append(dst, p []byte, from netip.AddrPort) ([]byte, bool) {
	if len(p) < header || binary.BigEndian.Uint16(p) != bindingRequest || binary.BigEndian.Uint32(p[4:]) != cookie ||
		int(binary.BigEndian.Uint16(p[2:])) != len(p)-header || len(p)%4 != 0 {
		return dst, false
	}
	unknown, n, ok := attributes(p[header:])
	switch {
	case !ok:
		return dst, false
	case n > 0:
		return appendUnknown(dst, p, unknown[:n]), true
	}
	return appendMapped(dst, p, from), true
}

// attributes walks over those of a request and returns which we would have to understand. We understand none: who we
// talk to needs no proof. RFC 8489 §6.3.1, §14.
func attributes(p []byte) (unknown [maxUnknown]uint16, n int, ok bool) {
	for len(p) > 0 {
		if len(p) < 4 {
			return unknown, 0, false
		}
		kind, length := binary.BigEndian.Uint16(p), int(binary.BigEndian.Uint16(p[2:]))
		length = (length + 3) &^ 3
		if length > len(p)-4 {
			return unknown, 0, false
		}
		if kind < 0x8000 && n < maxUnknown {
			unknown[n] = kind
			n++
		}
		p = p[4+length:]
	}
	return unknown, n, true
}

// begin writes the header of the answer to p.
func begin(dst, p []byte, kind uint16, length int) []byte {
	dst = binary.BigEndian.AppendUint16(dst, kind)
	dst = binary.BigEndian.AppendUint16(dst, uint16(length))
	return append(dst, p[4:header]...)
}

func appendMapped(dst, p []byte, from netip.AddrPort) []byte {
	family, size := uint16(2), 16
	if from.Addr().Is4() {
		family, size = 1, 4
	}
	dst = begin(dst, p, bindingSuccess, 8+size)
	dst = binary.BigEndian.AppendUint16(dst, xorMapped)
	dst = binary.BigEndian.AppendUint16(dst, uint16(4+size))
	dst = binary.BigEndian.AppendUint16(dst, family)
	dst = binary.BigEndian.AppendUint16(dst, from.Port()^cookie>>16)
	a := from.Addr().As16()
	for i, b := range a[16-size:] {
		dst = append(dst, b^p[4+i]) // cookie and transaction, which follow each other
	}
	return dst
}

// appendUnknown refuses a request. RFC 8489 §6.3.1: 420.
func appendUnknown(dst, p []byte, unknown []uint16) []byte {
	size := 2 * len(unknown)
	padded := (size + 3) &^ 3
	dst = begin(dst, p, bindingError, 8+4+padded)
	dst = binary.BigEndian.AppendUint16(dst, errorCode)
	dst = append(dst, 0, 4, 0, 0, 4, 20) // class 4, number 20, and no words
	dst = binary.BigEndian.AppendUint16(dst, unknownAttributes)
	dst = binary.BigEndian.AppendUint16(dst, uint16(size))
	for _, u := range unknown {
		dst = binary.BigEndian.AppendUint16(dst, u)
	}
	return append(dst, make([]byte, padded-size)...)
}
