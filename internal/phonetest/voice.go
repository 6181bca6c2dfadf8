// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phonetest

import (
	"encoding/binary"
	"math"
	"strings"
)

// The types of payload that a Voice has.
const (
	PCMU   = 0
	Events = 101 // as the descriptions of this package say
)

const (
	rate  = 8000
	frame = 160 // samples in a packet
)

// Voice makes packets: a tone, digits, reports.
type Voice struct {
	ssrc      uint32
	number    uint16
	timestamp uint32
}

// next returns the header of the next packet.
func (v *Voice) next(kind byte) *Header {
	v.number++
	return &Header{Type: kind, Number: v.number, Timestamp: v.timestamp, SSRC: v.ssrc}
}

// Tone returns 20 ms of a tone in G.711 µ-law.
func (v *Voice) Tone(hz int) []byte {
	v.timestamp += frame
	b := v.next(PCMU).Append(nil)
	for i := range uint32(frame) {
		b = append(b, compress(8000*math.Sin(2*math.Pi*float64(hz)*float64(v.timestamp+i)/rate)))
	}
	return b
}

// Secret returns a packet whose payload only its receiver understands.
func (v *Voice) Secret(payload []byte) []byte {
	v.timestamp += frame
	return append(v.next(PCMU).Append(nil), payload...)
}

// Digit returns the packets of a key that is pressed: the event as it goes on, and its end three times. RFC 4733 §2.5.
func (v *Voice) Digit(key byte) (all [][]byte) {
	v.timestamp += frame
	for i := range 6 {
		h := v.next(Events)
		h.Marker = i == 0
		end := byte(10) // the volume
		if i >= 3 {
			end |= 0x80
		}
		b := append(h.Append(nil), byte(strings.IndexByte(keys, key)), end)
		all = append(all, binary.BigEndian.AppendUint16(b, uint16(frame*min(i+1, 4))))
	}
	v.timestamp += frame * 4
	return all
}

// keys are in the order of their events. RFC 4733 §3.2.
const keys = "0123456789*#ABCD"

// Report returns a sender report. RFC 3550 §6.4.1.
func (v *Voice) Report() []byte {
	b := binary.BigEndian.AppendUint32([]byte{0x80, 200, 0, 6}, v.ssrc)
	b = append(b, make([]byte, 8)...) // no wall clock
	b = binary.BigEndian.AppendUint32(b, v.timestamp)
	return append(b, make([]byte, 8)...)
}

// Digits returns the keys that were pressed, of which each must have ended.
func Digits(packets []Packet) string {
	var pressed strings.Builder
	last, found := uint32(0), false
	for _, p := range packets {
		var h Header
		payload, ok := h.Read(p.Data)
		if !ok || h.Type != Events || len(payload) != 4 || payload[1]&0x80 == 0 || found && h.Timestamp == last || int(payload[0]) >= len(keys) {
			continue
		}
		last, found = h.Timestamp, true
		pressed.WriteByte(keys[payload[0]])
	}
	return pressed.String()
}

// Samples returns what packets in µ-law say, in the order in which they came.
func Samples(packets []Packet) (all []float64) {
	for _, p := range packets {
		var h Header
		payload, ok := h.Read(p.Data)
		if !ok || h.Type != PCMU {
			continue
		}
		for _, b := range payload {
			all = append(all, expand(b))
		}
	}
	return all
}

// compress is µ-law of ITU-T G.711: 8 segments, each twice as wide as the one before.
func compress(sample float64) byte {
	sign := byte(0)
	if sample < 0 {
		sign, sample = 0x80, -sample
	}
	n := int(min(sample, 32635)) + 132
	segment := 7
	for ; segment > 0 && n < 1<<(segment+7); segment-- {
	}
	return ^(sign | byte(segment<<4) | byte(n>>(segment+3)&0xf))
}

func expand(b byte) float64 {
	b = ^b
	n := float64((int(b&0xf)<<3+132)<<(b>>4&7) - 132)
	if b&0x80 != 0 {
		return -n
	}
	return n
}
