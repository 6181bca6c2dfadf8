// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/media/stream"
)

// ErrLanes means that there are as many lanes as there may be.
var ErrLanes = errors.New("kernel: as many lanes as there may be")

// longest is the longest packet that a lane sends: every path takes that. What is longer the relay's sockets send, which know the path.
// RFC 8200 §5
const longest = minimumMTU6

// Put makes a lane, or puts one in place of another at the same port. It returns ErrLanes if there are too many, and an error if
// there is no way to where it leads.
func (s *Streams) Put(l *stream.Lane) error {
	value, err := s.value(l)
	if err != nil {
		return err
	}
	return s.slots.put(l.Local, value)
}

// Take removes a lane and returns what it has counted. False: there is none.
func (s *Streams) Take(k stream.LaneKey) (stream.Tally, bool) {
	value, ok := s.slots.take(k)
	return value.tally(), ok
}

// Look returns what a lane has counted. False: there is none.
func (s *Streams) Look(k stream.LaneKey) (stream.Tally, bool) {
	value, ok := s.slots.look(k)
	return value.tally(), ok
}

// All yields every lane. One that is made or removed meanwhile may be yielded or not.
func (s *Streams) All(yield func(*stream.Lane)) error {
	return s.slots.each(func(v *streamsLane) { yield(laneOf(v)) })
}

// Astray yields the lanes whose way has changed since they were made: they lead where their packets may no longer arrive.
func (s *Streams) Astray(yield func(*stream.Lane)) error {
	type ends struct{ from, to [16]uint8 }
	ways, backs := make(map[ends]way), make(map[ends]uint32)
	s.links.Clear()
	s.lookStrict()
	return s.slots.each(func(v *streamsLane) {
		e, back := ends{v.Saddr, v.Daddr}, ends{v.Local, v.Remote}
		if v.Flags&streamsLaneFlagsTO4 == 0 {
			clear(e.from[8:]) // each call has an address of its own in a prefix
		}
		now, ok := ways[e]
		if !ok {
			now, _ = s.way(addrPort(v.Saddr, 0).Addr(), addrPort(v.Daddr, 0).Addr()) // none: it is another than it was
			ways[e] = now
		}
		if now.iif, ok = backs[back]; !ok {
			now.iif = s.iif(addrPort(v.Local, 0).Addr(), addrPort(v.Remote, 0).Addr())
			backs[back] = now.iif
		}
		if now != v.way() {
			yield(laneOf(v))
		}
	})
}

// Fates calls yield for each reason why packets of lanes did not go by them, and the family in which they came, since OpenStreams.
func (s *Streams) Fates(yield func(why control.Fate, came ip.Family, packets uint64)) error {
	for _, why := range control.Fates() {
		for _, came := range []ip.Family{ip.V4, ip.V6} {
			n, err := s.passed(why, came)
			if err != nil {
				return err
			}
			yield(why, came, n-*s.before.Of(why, came))
		}
	}
	return nil
}

// passed returns how many packets have a fate, and came in a family, since the maps were made.
func (s *Streams) passed(why control.Fate, came ip.Family) (sum uint64, err error) {
	key := 2 * uint32(why)
	if came == ip.V6 {
		key++
	}
	var perProcessor []uint64
	if err := s.objects.Fates.Lookup(key, &perProcessor); err != nil {
		return 0, fmt.Errorf("read fates: %w", err)
	}
	for _, n := range perProcessor {
		sum += n
	}
	return sum, nil
}

// lookBefore reads what the process before has left in the counters.
func (s *Streams) lookBefore() (err error) {
	for _, why := range control.Fates() {
		for _, came := range []ip.Family{ip.V4, ip.V6} {
			if *s.before.Of(why, came), err = s.passed(why, came); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *streamsLane) key() stream.LaneKey {
	return stream.LaneKey{Local: addrPort(v.Local, v.LocalPort), Remote: addrPort(v.Remote, v.RemotePort)}
}

// value is a lane as the program wants it.
func (s *Streams) value(l *stream.Lane) (*streamsLane, error) {
	w, err := s.way(l.From.Addr(), l.To.Addr())
	if err != nil {
		return nil, err
	}
	w.iif = s.iif(l.Local.Addr(), l.Remote.Addr())
	v := &streamsLane{Remote: l.Remote.Addr().As16(), Saddr: l.From.Addr().As16(), Daddr: l.To.Addr().As16(), RemotePort: port(l.Remote.Port()),
		LocalPort: port(l.Local.Port()), Sport: port(l.From.Port()), Dport: port(l.To.Port()), Limit: w.limit, Seat: seatOf(l),
		Heard: uint64(l.Heard), Arrival: uint64(l.Arrival), Jitter: uint64(l.Jitter), Bytes: l.Bytes, Packets: l.Packets, Ssrc: l.SSRC,
		Timestamp: l.Timestamp, Max: l.Max, Received: l.Received, Scale: scale(max(l.Clock, 1000)), Oif: w.oif, Iif: w.iif,
		Local: l.Local.Addr().As16(), Call: uint64(l.Call), Reports: l.Reports, Base: l.Base, Lost: l.Lost}
	v.Hop.NhFamily, v.Hop.Nh = w.family, w.next
	v.ReportSport, v.ReportDport = port(l.ReportFrom), port(l.ReportTo)
	switch {
	case l.Opaque:
		v.Flags = streamsLaneFlagsOPAQUE
	case l.At == stream.RTCP:
		v.Flags = streamsLaneFlagsREPORTS
		v.ReportSport, v.ReportDport = v.Sport, v.Dport
	case l.ReportTo != 0:
		v.Flags = streamsLaneFlagsMEDIA | streamsLaneFlagsREPORTS
	default:
		v.Flags = streamsLaneFlagsMEDIA
	}
	if l.To.Addr().Is4() {
		v.Flags |= streamsLaneFlagsTO4
	}
	v.First = first(v, l.DSCP)
	v.difference()
	return v, nil
}

// scale is how many nanoseconds a step of a clock takes, 4096 times; and the reverse.
func scale(clock uint32) uint32 {
	return uint32((uint64(time.Second)<<12 + uint64(clock)/2) / uint64(clock))
}

// first is the first word of the header that leaves, as it is in memory: with the class, and in IPv6 a label, the same for all
// packets of a lane. RFC 6437 §3
func first(v *streamsLane, dscp uint8) uint32 {
	word := 0x45<<24 | uint32(dscp)<<18
	if v.Flags&streamsLaneFlagsTO4 == 0 {
		label := (uint32(v.Sport)<<16 | uint32(v.Dport)) * 0x9e3779b1
		for i := 0; i < 16; i += 4 {
			label = (label ^ binary.NativeEndian.Uint32(v.Daddr[i:])) * 0x9e3779b1
		}
		word = 6<<28 | uint32(dscp)<<22 | label>>12
	}
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], word)
	return binary.NativeEndian.Uint32(b[:])
}

// difference sets what a packet that becomes one of the lane adds to a checksum: its addresses, and its ports. RFC 1624
func (v *streamsLane) difference() {
	var sum uint32
	for _, a := range [][2][16]uint8{{v.Remote, v.Saddr}, {v.Local, v.Daddr}} {
		for i := 0; i < 16; i += 2 {
			sum += uint32(^binary.NativeEndian.Uint16(a[0][i:])) + uint32(binary.NativeEndian.Uint16(a[1][i:]))
		}
	}
	v.Addresses = folded(sum)
	v.Ports = folded(uint32(^v.RemotePort) + uint32(v.Sport) + uint32(^v.LocalPort) + uint32(v.Dport))
}

func folded(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func seatOf(l *stream.Lane) uint8 { return l.Stream<<2 | uint8(l.At)<<1 | uint8(l.Side) }

// laneOf is the reverse of value.
func laneOf(v *streamsLane) *stream.Lane {
	l := &stream.Lane{LaneKey: v.key(), From: addrPort(v.Saddr, v.Sport), To: addrPort(v.Daddr, v.Dport), Call: control.ID(v.Call),
		Side: control.Side(v.Seat & 1), At: stream.Port(v.Seat >> 1 & 1), Stream: v.Seat >> 2, Opaque: v.Flags&streamsLaneFlagsOPAQUE != 0,
		Clock: scale(max(v.Scale, 1)), Tally: v.tally()}
	if v.Flags&streamsLaneFlagsMEDIA != 0 && v.Flags&streamsLaneFlagsREPORTS != 0 {
		l.ReportFrom, l.ReportTo = port(v.ReportSport), port(v.ReportDport)
	}
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], v.First)
	if l.DSCP = b[1] >> 2; v.Flags&streamsLaneFlagsTO4 == 0 {
		l.DSCP = uint8(binary.BigEndian.Uint32(b[:]) >> 22 & 63)
	}
	return l
}

func (v *streamsLane) tally() stream.Tally {
	return stream.Tally{Packets: v.Packets, Reports: v.Reports, Bytes: v.Bytes, Heard: int64(v.Heard), Arrival: int64(v.Arrival), Jitter: int64(v.Jitter),
		SSRC: v.Ssrc, Timestamp: v.Timestamp, Base: v.Base, Max: v.Max, Received: v.Received, Lost: v.Lost}
}

// way is how packets of a lane leave: by an interface, to a next hop that may have another family than they.
type way struct {
	oif, family uint32
	next        [4]uint32
	limit       uint16 // of a packet, in bytes
	iif         uint32 // by which the packets come that it is for; 0: by any
}

func (v *streamsLane) way() way { return way{v.Oif, v.Hop.NhFamily, v.Hop.Nh, v.Limit, v.Iif} }

// way asks the routing table how packets leave, as it is for what the relay sends itself: so nothing need be forwarded by this
// machine. The kernel looks for the next hop's MAC address, and keeps it.
func (s *Streams) way(from, to netip.Addr) (w way, err error) {
	r, err := s.route(from, to)
	if err != nil {
		return w, fmt.Errorf("find the way to %v: %w", to, err)
	}
	next := to
	if r.Gw != nil {
		next, _ = netip.AddrFromSlice(r.Gw)
	}
	if via, ok := viaOf(r); ok {
		next = via
	}
	next = ip.Canonical(next)
	w = way{oif: uint32(r.LinkIndex), family: unix.AF_INET6, limit: longest}
	if next.Is4() {
		w.family = unix.AF_INET
	}
	copyWords(&w.next, next.AsSlice())
	if r.MTU > 0 && r.MTU < longest {
		w.limit = uint16(r.MTU)
	}
	return w, nil
}

func copyWords(to *[4]uint32, from []byte) {
	for i := 0; i+4 <= len(from); i += 4 {
		to[i/4] = binary.NativeEndian.Uint32(from[i:])
	}
}
