// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package ip

import (
	"encoding/binary"
	"net/netip"

	"github.com/gaissmai/bart"
)

// ClientBits is the length of the IPv6 prefix that stands for one client: the one network a host's privacy
// addresses come from. RFC 8981 §3.3, RFC 4291 §2.5.1.
const ClientBits = 64

// ClientPrefix returns the prefix that a client is known by: the /64 of an IPv6 address, an IPv4 address itself.
func ClientPrefix(a netip.Addr) netip.Prefix {
	bits := 32
	if !a.Is4() {
		bits = ClientBits
	}
	p, _ := a.Prefix(bits) // cannot fail: bits fits the family
	return p
}

// Key spreads the client prefix of a over 64 bits: equal for all addresses of one client, and the same in every
// process, so that a restart or a second edge sends a client to the same place.
func Key(a netip.Addr) uint64 {
	b := a.As16()
	if a.Is4() {
		return Mix(uint64(binary.BigEndian.Uint32(b[12:])) | 1<<32)
	}
	return Mix(binary.BigEndian.Uint64(b[:8]))
}

// Mix is the finalizer of SplitMix64: a bijection whose output bits all depend on all input bits. It spreads what is
// hashed; it keeps no secret.
func Mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Embed puts an IPv4 address into the last 32 bits of a /96 prefix. RFC 6052 §2.2.
func Embed(prefix netip.Prefix, v4 netip.Addr) netip.Addr {
	b := prefix.Addr().As16()
	a := v4.As4()
	copy(b[12:], a[:])
	return netip.AddrFrom16(b)
}

// Extract returns the IPv4 address that Embed put into a. RFC 6052 §2.3.
func Extract(prefix netip.Prefix, a netip.Addr) (v4 netip.Addr, ok bool) {
	if !prefix.Contains(a) || a.Is4() {
		return netip.Addr{}, false
	}
	b := a.As16()
	return netip.AddrFrom4([4]byte(b[12:])), true
}

// Prefixes is a set of prefixes of both families. The zero value is empty. It is safe for many readers.
type Prefixes struct{ table *bart.Lite }

// NewPrefixes returns the set of the given prefixes, which must be canonical.
func NewPrefixes(prefixes ...netip.Prefix) Prefixes {
	if len(prefixes) == 0 {
		return Prefixes{}
	}
	t := new(bart.Lite)
	for _, p := range prefixes {
		t.Insert(p.Masked())
	}
	return Prefixes{t}
}

// Contains says whether a is in one of the prefixes. It does not allocate.
func (p Prefixes) Contains(a netip.Addr) bool { return p.table != nil && p.table.Lookup(a) }

// IsZero says whether the set is empty.
func (p Prefixes) IsZero() bool { return p.table == nil }

// All calls yield for each prefix, until it returns false.
func (p Prefixes) All(yield func(netip.Prefix) bool) {
	if p.table == nil {
		return
	}
	for prefix := range p.table.All() {
		if !yield(prefix) {
			return
		}
	}
}
