// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package media

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/media/stream"
)

// Kernel is the kernel plane, as far as the relay uses it. Its times are of the system's monotonic clock.
type Kernel interface {
	// Put has packets go by a lane from now on.
	Put(l *stream.Lane) error

	// Take ends a lane, and Look does not; they return what it has counted. False: there is none.
	Take(k stream.LaneKey) (stream.Tally, bool)
	Look(k stream.LaneKey) (stream.Tally, bool)

	// All yields all lanes, and Astray those that no longer lead to where they should.
	All(yield func(*stream.Lane)) error
	Astray(yield func(*stream.Lane)) error

	// Fates yields how many packets of lanes did not go by them, and why.
	Fates(yield func(why control.Fate, came ip.Family, packets uint64)) error
}

// How many packets of a seat go through user space until it has a lane: at first, so that whoever begins has begun; when something
// came that the lane does not take, more each time; when there can be none.
const (
	firstPackets   = 2
	againPackets   = 8
	maxAgain       = 7 // times that they are doubled
	refusedPackets = 500
)

// monotonic is the system's clock.
func monotonic() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0 // cannot fail: the clock is there and the pointer is good
	}
	return t.Nano()
}

func (s *seat) local() netip.AddrPort {
	return netip.AddrPortFrom(s.pair.addr, s.pair.port+uint16(s.at))
}

// key is that of the seat's lane, from whom it was made for.
func (s *seat) key(remote netip.AddrPort) stream.LaneKey {
	return stream.LaneKey{Local: s.local(), Remote: remote}
}

// laneOf returns the lane that a seat should have, if it should have one.
func (h *shard) laneOf(s *seat) (l stream.Lane, ok bool) {
	c := s.pair.call
	o := c.pairs[1-s.side][s.index]
	if s.pair != c.pairs[s.side][s.index] || !s.pair.network.Kernel || !o.network.Kernel {
		return l, false
	}
	l, out, reports, ok := c.streams[s.index].Lane(s.side, s.at)
	if !ok {
		return l, false
	}
	l.Local, l.From, l.DSCP = s.local(), o.seats[out].local(), o.seats[out].dscp
	if l.ReportTo != 0 {
		l.ReportFrom = o.seats[reports].local().Port()
	}
	l.Call, l.Stream = c.id, s.index
	l.Heard += h.clock
	l.Arrival += h.clock
	return l, true
}

// passed is called for each packet of a seat that has gone through: the next ones may go by a lane.
func (h *shard) passed(s *seat) {
	if s.wait > 0 {
		s.wait--
		return
	}
	if s.lane {
		return
	}
	s.wait = refusedPackets
	l, ok := h.laneOf(s)
	if !ok {
		return
	}
	if err := h.plane.options.Kernel.Put(&l); err != nil {
		h.plane.refused.note(err)
		return
	}
	s.lane = true
	s.pair.call.lanes++
	h.count.lanes++
}

// beside is called before a packet of a call that has lanes passes. If it is from whom the seat's lane is for it has not gone by it:
// because it is none for it, or was here before it. Where it belongs to what the lane counts it is added to that, later; if
// not, it is a new beginning, which user space counts, and the lane is over.
func (h *shard) beside(s *seat, from netip.AddrPort, p []byte) {
	if !s.lane || from != h.heardBy(s) || !s.pair.call.streams[s.index].Counts(s.side, s.at, p) {
		return
	}
	if t, ok := h.plane.options.Kernel.Look(s.key(from)); ok && s.late < maxLate && s.pair.call.streams[s.index].Fits(s.side, s.at, &t, p) {
		s.addLate(p)
		return
	}
	h.takeLane(s, from)
	s.wait = againPackets << s.again
	s.again = min(s.again+1, maxAgain)
}

// maxLate bounds what is counted beside a lane, so that its bytes fit into their number.
const maxLate = 1 << 15

func (s *seat) addLate(p []byte) {
	s.late++
	s.lateBytes += uint32(len(p))
}

func (h *shard) heardBy(s *seat) netip.AddrPort {
	return s.pair.call.streams[s.index].Ends[s.side].Latches[s.at].From()
}

// moved is called when somebody else is heard at a seat than was, by a packet that has passed: where other lanes lead has changed too.
func (h *shard) moved(s *seat, was netip.AddrPort, p []byte) {
	if s.lane {
		if s.pair.call.streams[s.index].Counts(s.side, s.at, p) {
			s.addLate(p)
		}
		h.takeLane(s, was)
	}
	h.takeLanes(s.pair.call)
}

// takeLane ends the lane of a seat.
func (h *shard) takeLane(s *seat, remote netip.AddrPort) {
	if t, ok := h.plane.options.Kernel.Take(s.key(remote)); ok {
		h.resume(s, t)
	}
	s.lane, s.late, s.lateBytes, s.wait = false, 0, 0, firstPackets
	s.pair.call.lanes--
	h.count.lanes--
}

// resume counts on from a tally.
func (h *shard) resume(s *seat, t stream.Tally) {
	t.Heard -= h.clock
	t.Arrival -= h.clock
	if s.at == stream.RTCP {
		t.Reports += uint32(s.late)
	} else {
		t.Packets += uint32(s.late)
		t.Received += uint32(s.late)
		t.Bytes += uint64(s.lateBytes)
	}
	c := s.pair.call
	q := &c.streams[s.index].Ends[s.side].Quality
	packets, bytes := q.Packets+q.RTCP, q.Bytes
	c.streams[s.index].Resume(s.side, s.at, &t)
	n := &h.count.carried[control.Kernel][crossing(s.pair, c.pairs[1-s.side][s.index])]
	n.Packets += q.Packets + q.RTCP - packets
	n.Bytes += q.Bytes - bytes
}

// takeLanes ends all lanes of a call: it is to be another, or to end. Packets go through user space, and make new ones.
func (h *shard) takeLanes(c *call) {
	for s := range c.laned() {
		h.takeLane(s, h.heardBy(s))
		s.again = 0
	}
}

// lookLanes has a call know what its lanes have counted.
func (h *shard) lookLanes(c *call) {
	for s := range c.laned() {
		if t, ok := h.plane.options.Kernel.Look(s.key(h.heardBy(s))); ok {
			h.resume(s, t)
		}
	}
}

// laned yields the seats that have a lane.
func (c *call) laned() func(yield func(*seat) bool) {
	return func(yield func(*seat) bool) {
		if c.lanes == 0 {
			return
		}
		for _, pairs := range c.pairs {
			for _, p := range pairs {
				for i := range p.seats {
					if s := &p.seats[i]; s.lane && !yield(s) {
						return
					}
				}
			}
		}
	}
}

// astray ends the lanes of a call whose way has changed.
func (h *shard) astray(id control.ID) {
	if c := h.calls[id]; c != nil {
		h.takeLanes(c)
	}
}

// adopt has a call that is made again go on by the lanes that it had, where they are as they should be.
func (h *shard) adopt(c *call, left []*stream.Lane) {
	adopted := make(map[*stream.Lane]*seat)
	for _, l := range left {
		s := c.seat(l)
		heard := *l
		heard.Heard -= h.clock
		heard.Arrival -= h.clock
		if s == nil || s.lane || !c.streams[l.Stream].Adopt(&heard) {
			h.plane.options.Kernel.Take(l.LaneKey)
			continue
		}
		adopted[l], s.lane = s, true
		c.lanes++
		h.count.lanes++
	}
	for l, s := range adopted {
		if want, ok := h.laneOf(s); !ok || !want.SamePath(l) {
			h.takeLane(s, l.Remote)
		}
	}
}

// seat returns where the packets of a lane come in; nil if the call has no such place.
func (c *call) seat(l *stream.Lane) *seat {
	if int(l.Side) >= len(c.pairs) || int(l.Stream) >= len(c.pairs[l.Side]) || l.At > stream.RTCP {
		return nil
	}
	if s := &c.pairs[l.Side][l.Stream].seats[l.At]; s.local() == l.Local {
		return s
	}
	return nil
}
