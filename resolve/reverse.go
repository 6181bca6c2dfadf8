// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"net/netip"
	"strconv"
)

// Reverse returns the name that has the PTR record of an address. RFC 1035 §3.5, RFC 3596 §2.5.
func Reverse(a netip.Addr) string {
	if a.Is4() {
		return Below(a, "in-addr.arpa")
	}
	return Below(a, "ip6.arpa")
}

// Below returns the name of an address in a zone: its bytes, or the nibbles of an IPv6 address, last one first. RFC 5782
// §2.1 and §2.4.
func Below(a netip.Addr, zone string) string {
	const digits = "0123456789abcdef"
	name := make([]byte, 0, 64+len(zone))
	if a.Is4() {
		b := a.As4()
		for i := range b {
			name = append(strconv.AppendUint(name, uint64(b[len(b)-1-i]), 10), '.')
		}
		return string(append(name, zone...))
	}
	b := a.As16()
	for i := range b {
		c := b[len(b)-1-i]
		name = append(name, digits[c&15], '.', digits[c>>4], '.')
	}
	return string(append(name, zone...))
}
