// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"encoding/binary"
	"net/netip"

	"github.com/kyozon/kyozon/ip"
)

// Figures are what a relay has, and has done since it started.
type Figures struct {
	Calls   uint64
	Streams uint64                     // that are relayed now
	Lanes   uint64                     // of them in the kernel plane: one for each direction and port
	Refused uint64                     // lanes that the kernel plane did not take
	Carried [planes][crossings]Carried // by ip.Crossing.Index(): from the family in which it came to that in which it left
	Dropped [drops]uint64              // packets
	Latched [latches]uint64            // how often somebody was heard who was not before
	Passed  Passed                     // packets of lanes that did not go by them

	Networks []Occupancy // by name, at most MaxNetworks
}

// Passed counts packets by their fate and the family in which they came: IPv4, IPv6.
type Passed [fates][families]uint64

// Of returns one of the counts.
func (p *Passed) Of(why Fate, came ip.Family) *uint64 {
	if came == ip.V4 {
		return &p[why][0]
	}
	return &p[why][1]
}

// Carried is what was relayed.
type Carried struct{ Packets, Bytes uint64 } // payload of UDP

// Occupancy is what of a network is in use.
type Occupancy struct {
	Name  string
	Media netip.Prefix
	Used  uint64 // pairs of ports, or addresses
	Size  uint64 // that there are; 0 for a prefix, which has more than anybody needs
}

// MaxNetworks bounds the networks of which Figures tell.
const MaxNetworks = 64

// crossings and families are how many there are.
const (
	crossings = 4
	families  = 2
)

// Relaying says what relays a stream.
type Relaying uint8

// The planes.
const (
	User   Relaying = iota // this process
	Kernel                 // the kernel, which this process has told how
	planes
)

// String returns the label value.
func (p Relaying) String() string { return [planes]string{"user", "kernel"}[p] }

// Planes returns all.
func Planes() []Relaying { return []Relaying{User, Kernel} }

// Drop says why a packet was dropped.
type Drop uint8

// The reasons.
const (
	Stranger  Drop = iota // he is not who is expected
	Unknown               // it is no kind of media
	Misplaced             // its kind does not come at this port
	Nowhere               // nobody is to be sent it, or it is not known yet who is to send or be sent it
	Unused                // it came to an address that no call has, or is too long
	Unsent                // the system did not take it
	drops
)

// String returns the label value.
func (d Drop) String() string {
	return [drops]string{"stranger", "unknown", "misplaced", "nowhere", "unused", "unsent"}[d]
}

// Drops returns all.
func Drops() (all []Drop) {
	for d := range drops {
		all = append(all, d)
	}
	return all
}

// Fate says why a packet of a lane did not go by it. It went to the process; but for Headers.
type Fate uint8

// The reasons, in the order of kernel/bpf/streams.h.
const (
	Form    Fate = iota // lengths that contradict each other, or no checksum
	Kind                // it is neither RTP nor RTCP, or not at this port
	Source              // another SSRC, or a jump in its numbers
	Long                // it is longer than every path takes
	Headers             // dropped: there was no memory for new ones
	fates
)

// String returns the label value.
func (f Fate) String() string { return [fates]string{"form", "kind", "source", "long", "headers"}[f] }

// Fates returns all.
func Fates() (all []Fate) {
	for f := range fates {
		all = append(all, f)
	}
	return all
}

// Latching says how somebody was found.
type Latching uint8

// The ways.
const (
	Exactly   Latching = iota // his description says where
	Near                      // at another port of the address that it names
	Signalled                 // where his signalling comes from
	latches
)

// String returns the label value.
func (l Latching) String() string { return [latches]string{"exactly", "near", "signalled"}[l] }

// Latchings returns all.
func Latchings() []Latching { return []Latching{Exactly, Near, Signalled} }

// Add adds what a part of a relay has done; not its networks.
func (f *Figures) Add(o *Figures) {
	to := f.numbers()
	for i, n := range o.numbers() {
		*to[i] += *n
	}
}

// numbers returns all numbers that there are once, in the order of the message.
func (f *Figures) numbers() (all []*uint64) {
	all = append(all, &f.Calls, &f.Streams, &f.Lanes, &f.Refused)
	for p := range f.Carried {
		for x := range f.Carried[p] {
			all = append(all, &f.Carried[p][x].Packets, &f.Carried[p][x].Bytes)
		}
	}
	for i := range f.Dropped {
		all = append(all, &f.Dropped[i])
	}
	for i := range f.Latched {
		all = append(all, &f.Latched[i])
	}
	return all
}

func appendFigures(b []byte, f *Figures, version uint16) []byte {
	for _, n := range f.numbers() {
		b = binary.BigEndian.AppendUint64(b, *n)
	}
	b = append(b, byte(min(len(f.Networks), MaxNetworks)))
	for i := range f.Networks[:min(len(f.Networks), MaxNetworks)] {
		n := &f.Networks[i]
		b = append(append(b, byte(len(n.Name))), n.Name...)
		b = appendAddr(b, netip.AddrPortFrom(n.Media.Addr(), uint16(n.Media.Bits())))
		b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, n.Used), n.Size)
	}
	if version >= 4 {
		for i := range f.Passed {
			for _, n := range f.Passed[i] {
				b = binary.BigEndian.AppendUint64(b, n)
			}
		}
	}
	return b
}

func (r *reader) figures() *Figures {
	f := new(Figures)
	for _, n := range f.numbers() {
		*n = r.uint64()
	}
	for range r.count(MaxNetworks) {
		n := Occupancy{Name: string(r.take(r.count(maxName)))}
		at := r.addr()
		if !at.Addr().IsValid() || int(at.Port()) > at.Addr().BitLen() {
			r.bad = true
			return f
		}
		n.Media = netip.PrefixFrom(at.Addr(), int(at.Port()))
		n.Used, n.Size = r.uint64(), r.uint64()
		f.Networks = append(f.Networks, n)
	}
	if r.version >= 4 {
		for i := range f.Passed {
			for k := range f.Passed[i] {
				f.Passed[i][k] = r.uint64()
			}
		}
	}
	return f
}

// Family returns that of a network.
func (o *Occupancy) Family() ip.Family { return ip.FamilyOf(o.Media.Addr()) }
