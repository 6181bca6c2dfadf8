// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sdp

import "net/netip"

// Kind is what an address in a c= is worth to somebody else.
type Kind uint8

// The kinds.
const (
	Global      Kind = iota
	Private          // of a network of its own: who is in it can reach it
	Unspecified      // 0.0.0.0, ::, or a name below .invalid: nobody is to send
	Name             // a host name, which this package does not look up
	Local            // of a link or a host
	Multicast
	Mapped // ::ffff:192.0.2.1: IPv4, written as if it were IPv6
	CLAT   // the inner side of 464XLAT: its host has IPv6 only
	NAT64  // IPv4, seen through a translator
)

// kinds is in the order of the constants.
var kinds = [...]string{"global", "private", "unspecified", "name", "local", "multicast", "mapped", "clat", "nat64"}

// String returns the name of k, for CDRs and labels.
func (k Kind) String() string { return kinds[k] }

var (
	clat      = netip.MustParsePrefix("192.0.0.0/29")   // RFC 7335 §4
	shared    = netip.MustParsePrefix("100.64.0.0/10")  // RFC 6598 §7
	wellKnown = netip.MustParsePrefix("64:ff9b::/96")   // RFC 6052 §2.1
	localUse  = netip.MustParsePrefix("64:ff9b:1::/48") // RFC 8215
)

// KindOf returns the kind of an address as it was written. Prefixes of translators that a network has found for itself
// (RFC 7050) are in a Policy.
func KindOf(a netip.Addr) Kind {
	switch {
	case a.Is4In6():
		return Mapped
	case a.IsUnspecified():
		return Unspecified
	case a.IsMulticast():
		return Multicast
	case a.IsLoopback(), a.IsLinkLocalUnicast():
		return Local
	case clat.Contains(a):
		return CLAT
	case wellKnown.Contains(a), localUse.Contains(a):
		return NAT64
	case a.IsPrivate(), shared.Contains(a): // RFC 1918 §3, RFC 4193 §3.1
		return Private
	}
	return Global
}
