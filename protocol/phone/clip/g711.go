// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package clip

import "math/bits"

// The two laws of ITU-T G.711: a sign, a segment of three bits, each twice as wide as the one before, and a place in it of
// four. By µ-law all bits are inverted, by A-law every other one.

const (
	bias    = 132 // is added by µ-law, so that the first segment is one like the others
	loudest = 32767 - bias
	odd     = 0x55
)

// toMu returns a sample by µ-law.
func toMu(s int16) byte {
	v, sign := int(s), byte(0)
	if v < 0 {
		v, sign = -v, 0x80
	}
	v = min(v, loudest) + bias
	segment := bits.Len(uint(v)) - 8
	return ^(sign | byte(segment<<4) | byte(v>>(segment+3)&0x0f))
}

// fromMu returns the sample in the middle of those that are written so.
func fromMu(b byte) int16 {
	b = ^b
	v := (int(b&0x0f)<<3+bias)<<(b>>4&7) - bias
	if b&0x80 != 0 {
		v = -v
	}
	return int16(v)
}

// toA returns a sample by A-law, which has 13 bits.
func toA(s int16) byte {
	v, sign := int(s)>>3, byte(0x80)
	if v < 0 {
		v, sign = -v-1, 0
	}
	segment := max(bits.Len(uint(v))-5, 0)
	return (sign | byte(segment<<4) | byte(v>>max(segment, 1)&0x0f)) ^ odd
}

// fromA returns the sample in the middle of those that are written so.
func fromA(b byte) int16 {
	b ^= odd
	v := int(b&0x0f)<<4 + 8
	if segment := b >> 4 & 7; segment > 0 {
		v = (v + 0x100) << (segment - 1)
	}
	if b&0x80 == 0 {
		v = -v
	}
	return int16(v)
}
