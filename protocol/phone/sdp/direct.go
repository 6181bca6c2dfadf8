// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sdp

import (
	"net/netip"

	"github.com/kyozon/kyozon/ip"
)

// Leg is one end of a call.
type Leg struct {
	Network string     // where it is; ends of one network can reach each other
	Source  netip.Addr // where its signalling comes from
	Media   *Session   // what it has said of its media, or nil
}

// Policy is what a site knows about addresses.
type Policy struct {
	NAT64 []netip.Prefix // of translators in its networks (RFC 7050), beside the well-known one
	Ours  ip.Prefixes    // this machine's own: media sent there would go round and round
}

// Path is how media go, and if they are relayed, why.
type Path uint8

// The paths.
const (
	Direct       Path = iota
	OtherNetwork      // the ends do not share one
	OtherFamily       // they do, and yet speak different families
	NoAddress         // an end has named none that media can be sent to
	Translated        // an end's address is that of a translator, or behind one
	BehindNAT         // an end's address is private, and not where it signals from
	Loop              // an end named an address of ours: refuse the call
)

// paths is in the order of the constants.
var paths = [...]string{"direct", "other network", "other family", "no address", "translated", "behind nat", "loop"}

// String returns the reason, for CDRs and labels.
func (p Path) String() string { return paths[p] }

// Decide says how media go between two legs, as far as it is known: an end that has not said anything of its media
// speaks for itself later, and Decide is asked again; so it is with each new offer.
func (p *Policy) Decide(a, b Leg) Path {
	for _, l := range [...]Leg{a, b} {
		if p.loops(l.Media) {
			return Loop
		}
	}
	if a.Network != b.Network {
		return OtherNetwork
	}
	first, second := p.reach(a), p.reach(b)
	switch {
	case first == Translated || second == Translated:
		return Translated
	case crosses(a, b) || crosses(b, a):
		return OtherFamily
	case first != Direct:
		return first
	}
	return second
}

func (p *Policy) loops(s *Session) bool {
	for i := range media(s) {
		if m := &s.media[i]; m.Port != 0 && m.Addr.IsValid() && p.Ours.Contains(m.Addr) {
			return true
		}
	}
	return false
}

func media(s *Session) int {
	if s == nil {
		return 0
	}
	return s.count
}

// reach says whether others in its network can send to a leg where it says.
func (p *Policy) reach(l Leg) Path {
	for i := range media(l.Media) {
		m := &l.Media.media[i]
		if !m.Live() {
			continue
		}
		switch m.Kind {
		case CLAT, NAT64, Mapped:
			return Translated
		case Name, Local, Multicast:
			return NoAddress
		case Private:
			if m.Addr != l.Source {
				return BehindNAT
			}
		}
		for _, prefix := range p.NAT64 {
			if prefix.Contains(m.Addr) {
				return Translated
			}
		}
	}
	return Direct
}

// crosses says whether a leg has media in a family that the other one does not use.
func crosses(a, b Leg) bool {
	for i := range media(a.Media) {
		m := &a.Media.media[i]
		if !m.Live() {
			continue
		}
		if b.Media == nil {
			if m.Family != ip.FamilyOf(b.Source) {
				return true
			}
		} else if i < b.Media.count && b.Media.media[i].Live() && b.Media.media[i].Family != m.Family {
			return true
		}
	}
	return false
}
