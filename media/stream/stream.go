// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package stream decides what becomes of the packets of a relayed stream, and judges how well they come. It knows no
// socket and no clock: who calls it gives the time.
//
//	packet at a port of one side ─▶ KindOf ─▶ Latch.Hear ─▶ Quality.Count ─▶ Latch.To of the other side
//	                                  │            │
//	                               of none     a stranger: dropped, and nothing is ever sent to him
//
// RFC 3550 (RTP), RFC 5761 (RTP and RTCP at one port), RFC 7362 (latching).
package stream

import (
	"net/netip"

	"github.com/kyozon/kyozon/media/control"
)

// Port is one of the two ports of a side.
type Port uint8

// The ports.
const (
	RTP Port = iota
	RTCP
)

// End is one side of a stream.
type End struct {
	Latches [2]Latch // by port
	Quality Quality

	Strangers uint64 // packets that were dropped: from others, or of no known kind
	Heard     int64  // when something last came; 0 if nothing did

	signal netip.Addr // where its signalling comes from, if that was proved
	clock  uint32
	mux    bool
	opaque bool
	held   bool
}

// Stream is a stream that is relayed.
type Stream struct{ Ends [2]End }

// Set tells what is known of one side. The other side may latch again if nobody was heard there: an offer was answered.
func (s *Stream) Set(r *control.Remote, now int64) {
	e := &s.Ends[r.Side]
	e.clock, e.mux, e.opaque, e.held = r.Clock, r.Mux, r.Opaque, r.Held
	if e.clock == 0 {
		e.clock = 8000
	}
	rtcp := r.RTCP
	if !rtcp.IsValid() && r.RTP.Port() > 0 && r.RTP.Port() < 65535 {
		rtcp = netip.AddrPortFrom(r.RTP.Addr(), r.RTP.Port()+1) // RFC 3550 §11
	}
	moved := r.Signal != e.signal
	e.signal = r.Signal
	e.Latches[RTP].Set(r.RTP, moved, r.Learn, now)
	e.Latches[RTCP].Set(rtcp, moved, r.Learn, now)
	other := &s.Ends[1-r.Side]
	other.Latches[RTP].Reopen(now)
	other.Latches[RTCP].Reopen(now)
}

// To returns where packets to an end go, or nowhere.
func (e *End) To(at Port) netip.AddrPort { return e.Latches[at].To(e.signal) }

// Held says whether silence says nothing, because a side is held.
func (s *Stream) Held() bool { return s.Ends[0].held || s.Ends[1].held }
