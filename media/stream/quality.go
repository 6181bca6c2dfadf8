// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package stream

// Hot path: no allocation per packet.

import (
	"encoding/binary"
	"time"
)

const (
	maxDropout  = 3000                   // numbers that may be skipped. RFC 3550 §A.1
	maxMisorder = 100                    // how far behind a late packet may be
	maxTransit  = int64(4 * time.Second) // a larger step is a new beginning, or a lie
)

// Quality counts what comes from one side in one stream, and how well.
type Quality struct {
	Packets, Bytes uint64 // of RTP
	RTCP           uint64 // packets

	ssrc      uint32
	timestamp uint32
	base, max uint32 // sequence numbers with their cycles
	received  uint32 // of this source
	bad       uint32 // the number after one that did not fit; out of range: none
	lost      uint64 // of earlier sources
	arrival   int64
	jitter    int64 // nanoseconds, 16 times
}

// none is no sequence number.
const none = 1 << 16

func (q *Quality) countOpaque(p []byte) {
	q.Packets++
	q.Bytes += uint64(len(p))
}

// Count counts a packet of RTP that came now. clock is how many timestamps there are in a second.
func (q *Quality) Count(p []byte, now int64, clock uint32) {
	q.countOpaque(p)
	number, timestamp := uint32(binary.BigEndian.Uint16(p[2:])), binary.BigEndian.Uint32(p[4:])
	ssrc := binary.BigEndian.Uint32(p[8:])
	if q.received == 0 || ssrc != q.ssrc {
		q.begin(ssrc, number)
		q.timestamp, q.arrival = timestamp, now
		return
	}
	if !q.follow(number) {
		return
	}
	if timestamp != q.timestamp { // several packets with one say nothing: a digit, a frame of video
		q.step(timestamp, now, clock)
	}
}

// begin counts another source.
func (q *Quality) begin(ssrc, number uint32) {
	q.lost = q.Lost()
	q.ssrc, q.base, q.max, q.received, q.bad = ssrc, number, number, 1, none
}

// follow counts a sequence number, and says whether it is the newest. RFC 3550 §A.1; it has two of a source before it
// believes in it, which the latch does for us.
func (q *Quality) follow(number uint32) bool {
	last := q.max & 0xffff
	ahead := (number - last) & 0xffff
	switch {
	case ahead > 0 && ahead < maxDropout:
		q.max += ahead
		q.received++
		q.bad = none
		return true
	case ahead == 0 || ahead > 1<<16-maxMisorder: // twice, or late
		q.received++
		return false
	case number == q.bad: // the second after a jump: it has begun anew
		q.begin(q.ssrc, number)
		return false
	}
	q.bad = (number + 1) & 0xffff
	q.received++
	q.max++ // it is not lost, whatever its number
	return false
}

// step updates the jitter. RFC 3550 §A.8.
func (q *Quality) step(timestamp uint32, now int64, clock uint32) {
	sent := int64(int32(timestamp-q.timestamp)) * int64(time.Second) / int64(clock)
	d := now - q.arrival - sent
	q.timestamp, q.arrival = timestamp, now
	if d < 0 {
		d = -d
	}
	if d > maxTransit {
		return
	}
	q.jitter += d - q.jitter>>4
}

// Lost returns how many packets have not come.
func (q *Quality) Lost() uint64 {
	if expected := q.max - q.base + 1; q.received > 0 && expected > q.received {
		return q.lost + uint64(expected-q.received)
	}
	return q.lost
}

// Jitter returns how much the packets' ways differ in time.
func (q *Quality) Jitter() time.Duration { return time.Duration(q.jitter >> 4) }

// MOS estimates how the speech would be judged at the edge: 1 to 4.5, or 0 if nothing came. It is the E-model of ITU-T G.107
// with its defaults (R₀ 93.2) and what is known here: loss, as it harms G.711 with concealment (ITU-T G.113: Ie 0, Bpl
// 25.1), and the delay of a frame and of a buffer that bears the jitter. The delay of the network is not known.
func (q *Quality) MOS() float32 {
	if q.Packets == 0 {
		return 0
	}
	const frame, late = 20.0, 177.3 // ms
	delay := frame + 2*float64(q.Jitter())/float64(time.Millisecond)
	impaired := 0.024 * delay
	if delay > late {
		impaired += 0.11 * (delay - late)
	}
	lost := float64(q.Lost())
	loss := 100 * lost / (lost + float64(q.Packets))
	r := min(max(93.2-impaired-95*loss/(loss+25.1), 0), 100)
	return float32(max(1, 1+0.035*r+7e-6*r*(r-60)*(100-r)))
}
