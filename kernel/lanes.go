// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"
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

// Put makes a lane, or puts one in place of another. It returns ErrLanes if there are too many, and an error if there is no way to
// where it leads.
func (s *Streams) Put(l *stream.Lane) error {
	value, err := s.value(l)
	if err != nil {
		return err
	}
	switch err := s.objects.Lanes.Put(whereOf(l.LaneKey), value); {
	case errors.Is(err, unix.E2BIG):
		return ErrLanes
	case err != nil:
		return fmt.Errorf("put lane: %w", err)
	}
	return nil
}

// Take removes a lane and returns what it has counted. False: there is none.
func (s *Streams) Take(k stream.LaneKey) (stream.Tally, bool) {
	var value streamsLane
	if err := s.objects.Lanes.LookupAndDelete(whereOf(k), &value); err != nil {
		return stream.Tally{}, false
	}
	return value.tally(), true
}

// Look returns what a lane has counted. False: there is none.
func (s *Streams) Look(k stream.LaneKey) (stream.Tally, bool) {
	var value streamsLane
	if err := s.objects.Lanes.Lookup(whereOf(k), &value); err != nil {
		return stream.Tally{}, false
	}
	return value.tally(), true
}

// All yields every lane. One that is made or removed meanwhile may be yielded or not.
func (s *Streams) All(yield func(*stream.Lane)) error {
	return s.each(func(w *streamsWhere, v *streamsLane) { yield(laneOf(w, v)) })
}

// Astray yields the lanes whose way has changed since they were made: they lead where their packets may no longer arrive.
func (s *Streams) Astray(yield func(*stream.Lane)) error {
	type ends struct{ from, to [16]uint8 }
	ways, backs := make(map[ends]way), make(map[ends]uint32)
	s.links.Clear()
	s.lookStrict()
	return s.each(func(w *streamsWhere, v *streamsLane) {
		e, back := ends{v.Saddr, v.Daddr}, ends{w.Local, w.Remote}
		if v.Family == uint8(ip.V6) {
			clear(e.from[8:]) // each call has an address of its own in a prefix
		}
		now, ok := ways[e]
		if !ok {
			now, _ = s.way(addrPort(v.Saddr, 0).Addr(), addrPort(v.Daddr, 0).Addr()) // none: it is another than it was
			ways[e] = now
		}
		if now.iif, ok = backs[back]; !ok {
			now.iif = s.iif(addrPort(w.Local, 0).Addr(), addrPort(w.Remote, 0).Addr())
			backs[back] = now.iif
		}
		if now != v.way() {
			yield(laneOf(w, v))
		}
	})
}

func (s *Streams) each(yield func(*streamsWhere, *streamsLane)) error {
	const bundle = 256
	var cursor ebpf.MapBatchCursor
	keys, values := make([]streamsWhere, bundle), make([]streamsLane, bundle)
	for {
		n, err := s.objects.Lanes.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			yield(&keys[i], &values[i])
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list lanes: %w", err)
		}
	}
}

// Fates calls yield for each reason why packets of lanes went to the process, or nowhere.
func (s *Streams) Fates(yield func(why string, packets uint64)) error {
	for fate, why := range map[streamsFate]string{
		streamsFatePASSED_FORM: "passed form", streamsFatePASSED_KIND: "passed kind", streamsFatePASSED_SOURCE: "passed source",
		streamsFatePASSED_LONG: "passed long", streamsFateDROPPED_HEADERS: "dropped headers",
	} {
		var perProcessor []uint64
		if err := s.objects.Fates.Lookup(uint32(fate), &perProcessor); err != nil {
			return fmt.Errorf("read fates: %w", err)
		}
		sum := uint64(0)
		for _, n := range perProcessor {
			sum += n
		}
		if sum > 0 {
			yield(why, sum)
		}
	}
	return nil
}

func whereOf(k stream.LaneKey) streamsWhere {
	return streamsWhere{Local: k.Local.Addr().As16(), Remote: k.Remote.Addr().As16(), LocalPort: port(k.Local.Port()), RemotePort: port(k.Remote.Port())}
}

// value is a lane as the program wants it.
func (s *Streams) value(l *stream.Lane) (*streamsLane, error) {
	w, err := s.way(l.From.Addr(), l.To.Addr())
	if err != nil {
		return nil, err
	}
	w.iif = s.iif(l.Local.Addr(), l.Remote.Addr())
	v := &streamsLane{Saddr: l.From.Addr().As16(), Daddr: l.To.Addr().As16(), Heard: uint64(l.Heard), Arrival: uint64(l.Arrival), Jitter: uint64(l.Jitter),
		Bytes: l.Bytes, Packets: l.Packets, Reports: l.Reports, Ssrc: l.SSRC, Timestamp: l.Timestamp, Max: l.Max, Received: l.Received, Base: l.Base,
		Lost: l.Lost, Sport: port(l.From.Port()), Dport: port(l.To.Port()), Family: uint8(ip.FamilyOf(l.To.Addr())), Oif: w.oif, Limit: w.limit,
		Scale: scale(max(l.Clock, 1000)), Iif: w.iif, Call: uint64(l.Call), Seat: seatOf(l)}
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
	v.First = first(v, l.DSCP)
	v.Addresses, v.Ports = differences(whereOf(l.LaneKey), v, v.Sport, v.Dport)
	_, v.ReportPorts = differences(whereOf(l.LaneKey), v, v.ReportSport, v.ReportDport)
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
	if v.Family == uint8(ip.V6) {
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

// differences is what a packet that becomes one of the lane adds to a checksum: its addresses, and its ports. RFC 1624
func differences(w streamsWhere, v *streamsLane, sport, dport uint16) (addresses, ports uint16) {
	var sum uint32
	for _, a := range [][2][16]uint8{{w.Remote, v.Saddr}, {w.Local, v.Daddr}} {
		for i := 0; i < 16; i += 2 {
			sum += uint32(^binary.NativeEndian.Uint16(a[0][i:])) + uint32(binary.NativeEndian.Uint16(a[1][i:]))
		}
	}
	return folded(sum), folded(uint32(^w.RemotePort) + uint32(sport) + uint32(^w.LocalPort) + uint32(dport))
}

func folded(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

func seatOf(l *stream.Lane) uint8 { return l.Stream<<2 | uint8(l.At)<<1 | uint8(l.Side) }

// laneOf is the reverse of value.
func laneOf(w *streamsWhere, v *streamsLane) *stream.Lane {
	l := &stream.Lane{
		LaneKey: stream.LaneKey{Local: addrPort(w.Local, w.LocalPort), Remote: addrPort(w.Remote, w.RemotePort)},
		From:    addrPort(v.Saddr, v.Sport), To: addrPort(v.Daddr, v.Dport), Call: control.ID(v.Call), Side: control.Side(v.Seat & 1),
		At: stream.Port(v.Seat >> 1 & 1), Stream: v.Seat >> 2, Opaque: v.Flags&streamsLaneFlagsOPAQUE != 0, Clock: scale(max(v.Scale, 1)),
		Tally: v.tally(),
	}
	if v.Flags == streamsLaneFlagsMEDIA|streamsLaneFlagsREPORTS {
		l.ReportFrom, l.ReportTo = port(v.ReportSport), port(v.ReportDport)
	}
	var b [4]byte
	binary.NativeEndian.PutUint32(b[:], v.First)
	if l.DSCP = b[1] >> 2; v.Family == uint8(ip.V6) {
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
