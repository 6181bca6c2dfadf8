// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package ip holds what every other package says about addresses: the family of an address, the crossing of a
// flow, IPv4 embedded in IPv6, the prefix a client is known by, and sets of prefixes.
//
// Inside the program every address is canonical: IPv4 is never written as ::ffff:a.b.c.d and no address has a
// zone. Canonical makes it so, once, where an address enters.
//
// RFC 4291 (addresses), RFC 6052 (IPv4 embedded in IPv6).
package ip

import "net/netip"

// Family is an address family. Its value is the IP version.
type Family uint8

// The two families.
const (
	V4 Family = 4
	V6 Family = 6
)

// String returns "ipv4" or "ipv6", as written in the site file and in labels.
func (f Family) String() string {
	switch f {
	case V4:
		return "ipv4"
	case V6:
		return "ipv6"
	}
	return "unknown"
}

// FamilyOf returns the family of a, which must be canonical.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return V4
	}
	return V6
}

// Canonical returns the one spelling of a that the program uses: unmapped and without a zone.
func Canonical(a netip.Addr) netip.Addr { return a.Unmap().WithZone("") }

// CanonicalPort is Canonical for an address with a port.
func CanonicalPort(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(Canonical(a.Addr()), a.Port())
}

// Crossing is the family of a client and of the backend that serves it.
type Crossing struct{ Client, Backend Family }

// Crossings are the four there are, in the order in which tables show them.
func Crossings() [4]Crossing {
	return [4]Crossing{{V4, V4}, {V4, V6}, {V6, V4}, {V6, V6}}
}

// Index returns the place of c in Crossings.
func (c Crossing) Index() int {
	i := 0
	if c.Client == V6 {
		i += 2
	}
	if c.Backend == V6 {
		i++
	}
	return i
}

// String returns, for example, "6→4".
func (c Crossing) String() string {
	return string(rune('0'+c.Client)) + "→" + string(rune('0'+c.Backend))
}
