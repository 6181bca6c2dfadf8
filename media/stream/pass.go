// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package stream

// Hot path: no allocation per packet.

import (
	"net/netip"

	"github.com/kyozon/kyozon/media/control"
)

// Kind is what a packet is, by its first bytes.
type Kind uint8

// The kinds.
const (
	Other  Kind = iota // STUN too: ICE ends at the edge, and nothing of it may reach the other side
	Media              // RTP, or SRTP
	Report             // RTCP, or SRTCP
	Keys               // DTLS, for SRTP
)

const (
	rtpHeader  = 12 // RFC 3550 §5.1
	rtcpHeader = 8  // RFC 3550 §6.4: the first packet of a compound is a report, whose sender is named
)

// KindOf returns the kind of a packet at a port for media. RFC 7983 §7, RFC 5761 §4.
func KindOf(p []byte) Kind {
	if len(p) == 0 {
		return Other
	}
	switch b := p[0]; {
	case b >= 20 && b <= 63:
		return Keys
	case b < 128 || b > 191: // version 2
		return Other
	case len(p) >= rtcpHeader && p[1] >= 192 && p[1] <= 223:
		return Report
	case len(p) >= rtpHeader && (p[1]&0x7f < 64 || p[1]&0x7f > 95):
		return Media
	}
	return Other
}

// Counts is what is of no single call.
type Counts struct {
	Dropped [len(control.Figures{}.Dropped)]uint64 // packets, by control.Drop
	Latched [len(control.Figures{}.Latched)]uint64 // who was not heard before, by control.Latching
}

// Pass takes a packet that came from from at a port of a side. It returns the port of the other side that it leaves from,
// and where it goes; or false: it is dropped, and counted.
func (s *Stream) Pass(t *Counts, side control.Side, at Port, from netip.AddrPort, p []byte, now int64) (out Port, to netip.AddrPort, ok bool) {
	e, other := &s.Ends[side], &s.Ends[1-side]
	kind := KindOf(p)
	if e.opaque && at == RTP {
		kind = Media
	}
	if why, ok := e.takes(kind, at); !ok {
		e.Strangers++
		t.Dropped[why]++
		return 0, netip.AddrPort{}, false
	}
	if !e.hears(t, at, from, now) {
		if e.Latches[RTP].Expects() {
			e.Strangers++
			t.Dropped[control.Stranger]++
		} else { // telephones send before their answer has come, which says where they are
			t.Dropped[control.Nowhere]++
		}
		return 0, netip.AddrPort{}, false
	}
	e.Heard = now
	out = at
	switch {
	case kind == Report:
		e.Quality.RTCP++
		out = RTCP
		if other.mux {
			out = RTP
		}
	case e.opaque:
		e.Quality.countOpaque(p)
	case kind == Media:
		e.Quality.Count(p, now, e.clock)
	case other.mux:
		out = RTP
	}
	to = other.Latches[out].To(other.signal)
	if ok = to.IsValid(); !ok {
		t.Dropped[control.Nowhere]++
	}
	return out, to, ok
}

// hears says whether a packet is of this side. Once its RTP was heard, RTCP comes from there, or exactly from where it is
// described; so nobody who shares its address can speak for it.
func (e *End) hears(t *Counts, at Port, from netip.AddrPort, now int64) bool {
	l := &e.Latches[at]
	if l.heard(from) {
		return true
	}
	if media := &e.Latches[RTP]; at == RTCP && placeOf(from) != l.want && media.from != (place{}) {
		if media.rank == exact || from.Addr() != media.From().Addr() {
			return false
		}
	}
	if !l.Hear(from, e.signal, now) {
		return false
	}
	t.Latched[l.latching()]++
	return true
}

// takes says whether packets of a kind may come at a port, or why not.
func (e *End) takes(kind Kind, at Port) (why control.Drop, ok bool) {
	switch kind {
	case Media:
		return control.Misplaced, at == RTP
	case Report:
		return control.Misplaced, at == RTCP || e.mux
	case Keys:
		return control.Misplaced, !e.opaque
	}
	return control.Unknown, false
}
