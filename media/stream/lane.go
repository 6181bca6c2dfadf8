// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"encoding/binary"
	"net/netip"

	"github.com/kyozon/kyozon/media/control"
)

// LaneKey is whose packets go by a lane: they come from Remote, who was heard, to Local, a port of the relay.
type LaneKey struct{ Local, Remote netip.AddrPort }

// Lane is one direction of a stream at one port, as the kernel plane can forward it without asking. All that is not said
// here comes to Pass, which goes on deciding who is heard.
type Lane struct {
	LaneKey
	From, To netip.AddrPort // of the packets that leave: a port of the relay, and who gets them

	// ReportFrom and ReportTo are the ports of RTCP that comes among RTP; 0 if none passes here. Its addresses are the same.
	ReportFrom, ReportTo uint16

	Call   control.ID
	Side   control.Side // that the packets come from
	Stream uint8
	At     Port

	Opaque bool   // all packets pass, not only RTP
	DSCP   uint8  // of what leaves
	Clock  uint32 // timestamps a second
	Tally
}

// SamePath says whether two lanes do the same to the same packets.
func (l *Lane) SamePath(o *Lane) bool {
	a, b := *l, *o
	a.Tally, b.Tally = Tally{}, Tally{}
	return a == b
}

// Tally is what is counted of a lane. Times are nanoseconds of the clock that Pass is told.
type Tally struct {
	Packets, Reports uint32 // these go round
	Bytes            uint64
	Heard            int64 // when something last came
	Arrival          int64 // when that came which Timestamp is of
	Jitter           int64 // 16 times

	SSRC, Timestamp, Base, Max, Received, Lost uint32 // see Quality
}

// The clocks that a lane can have. Others are no media's.
const (
	minClock = 1000
	maxClock = 1_000_000
)

// Lane returns the lane of what comes from a side at a port, with the counts that there are, and the port of the other side that
// RTCP among it leaves from. The caller adds the addresses of the relay. False: there is none, since nobody was heard, or
// nothing may be sent to the other side.
func (s *Stream) Lane(side control.Side, at Port) (l Lane, out, reports Port, ok bool) {
	e, other := &s.Ends[side], &s.Ends[1-side]
	q := &e.Quality
	l = Lane{Side: side, At: at, Opaque: e.opaque && at == RTP, Clock: e.clock}
	l.Remote = e.Latches[at].From()
	out = at
	if at == RTCP && other.mux {
		out = RTP
	}
	l.To = other.Latches[out].To(other.signal)
	switch {
	case !l.Remote.IsValid() || !l.To.IsValid() || e.clock < minClock || e.clock > maxClock:
		return l, 0, 0, false
	case at == RTCP && e.mux: // all comes at the other port
		return l, 0, 0, false
	case at == RTP && !e.opaque && q.received == 0:
		return l, 0, 0, false
	case at == RTP && e.mux && !e.opaque:
		reports = RTCP
		if other.mux {
			reports = RTP
		}
		if to := other.Latches[reports].To(other.signal); to.Addr() == l.To.Addr() {
			l.ReportTo = to.Port()
		}
	}
	l.Tally = Tally{Packets: uint32(q.Packets), Reports: uint32(q.RTCP), Bytes: q.Bytes, Heard: e.Heard, Arrival: q.arrival, Jitter: q.jitter,
		SSRC: q.ssrc, Timestamp: q.timestamp, Base: q.base, Max: q.max, Received: q.received, Lost: uint32(q.lost)}
	return l, out, reports, true
}

// Resume counts on from what a lane of a side has counted since it was made.
func (s *Stream) Resume(side control.Side, at Port, t *Tally) {
	e := &s.Ends[side]
	q := &e.Quality
	e.Heard = max(e.Heard, t.Heard)
	reports := int64(int32(t.Reports - uint32(q.RTCP)))
	if at == RTCP {
		q.RTCP += uint64(reports)
		return
	}
	if e.mux {
		q.RTCP += uint64(max(reports, 0)) // some may have come here meanwhile
	}
	q.Packets += uint64(int64(int32(t.Packets - uint32(q.Packets)))) // what has come here meanwhile is in t too
	q.Bytes = t.Bytes
	if t.Max != q.max || q.received == 0 {
		q.bad = none
	}
	q.ssrc, q.timestamp, q.base, q.max, q.received, q.lost = t.SSRC, t.Timestamp, t.Base, t.Max, t.Received, uint64(t.Lost)
	q.arrival, q.jitter = t.Arrival, t.Jitter
}

// Counts says whether a packet is one of those that a lane is for; but for RTCP that comes among RTP.
func (s *Stream) Counts(side control.Side, at Port, p []byte) bool {
	kind := KindOf(p)
	return at == RTP && (s.Ends[side].opaque || kind == Media) || at == RTCP && kind == Report
}

// Fits says whether a packet that Counts is one of those that a lane has counted, or counts next: neither another source's nor a jump.
func (s *Stream) Fits(side control.Side, at Port, t *Tally, p []byte) bool {
	if at == RTCP || s.Ends[side].opaque {
		return true
	}
	ahead := binary.BigEndian.Uint16(p[2:]) - uint16(t.Max)
	return binary.BigEndian.Uint32(p[8:]) == t.SSRC && (ahead < maxDropout || ahead > 1<<16-maxMisorder)
}

// Adopt takes over a lane that a process before has left, if he who was heard there may be heard: as it says in Latch, and
// whatever the time.
func (s *Stream) Adopt(l *Lane) bool {
	e := &s.Ends[l.Side]
	if !e.Latches[l.At].adopt(l.Remote, e.signal) {
		return false
	}
	s.Resume(l.Side, l.At, &l.Tally)
	return true
}
