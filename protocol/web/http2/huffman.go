// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

// Hot path: no allocation per packet.

import (
	"encoding/binary"
	"slices"
)

// codeSizes is how many bits the Huffman code of each byte has. RFC 7541 appendix B. The code is canonical: codes of one
// size are consecutive numbers, in the order of their bytes, and follow on those that are shorter. So the sizes say all.
var codeSizes = [256]uint8{
	13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
	28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
	6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6,
	5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10,
	13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7,
	7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6,
	15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5,
	6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28,
	20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
	24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
	22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
	21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
	26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
	19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
	20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
	26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
}

const (
	rootBits = 10 // all that a head usually has is not longer
	maxBits  = 30
	minBits  = 5
)

// huffman reads strings in the Huffman code.
type huffman struct {
	root  [1 << rootBits]uint16 // what begins with these bits: its size << 8 and the byte; 0 if it is longer
	end   [maxBits + 1]uint32   // the first number that is no code of this size, nor begins one that is shorter
	first [maxBits + 1]uint32   // the first code of this size
	index [maxBits + 1]uint16   // where its byte is in bytes
	bytes [256]uint8            // in the order of their codes
}

func newHuffman() *huffman {
	h := new(huffman)
	code, k := uint32(0), 0
	for size := minBits; size <= maxBits; size++ {
		code <<= 1
		h.first[size], h.index[size] = code, uint16(k)
		for b := range codeSizes {
			if int(codeSizes[b]) != size {
				continue
			}
			h.bytes[k] = uint8(b)
			k++
			for i := range 1 << max(0, rootBits-size) {
				if size <= rootBits {
					h.root[int(code)<<(rootBits-size)+i] = uint16(size)<<8 | uint16(b)
				}
			}
			code++
		}
		h.end[size] = code
	}
	return h
}

// append writes what p says. It returns false if p has the end symbol, or is not padded by less than a byte of ones.
// RFC 7541 §5.2.
func (h *huffman) append(dst, p []byte) (out []byte, ok bool) {
	dst = slices.Grow(dst, len(p)*8/minBits)
	var bits uint64 // not read yet, from the top
	have := 0       // how many of them
	for {
		if len(p) >= 8 {
			bits |= binary.BigEndian.Uint64(p) >> have
			n := (63 - have) >> 3
			p, have = p[n:], have+n<<3
		} else {
			for ; have <= 56 && len(p) > 0; p = p[1:] {
				bits |= uint64(p[0]) << (56 - have)
				have += 8
			}
		}
		for {
			e := h.root[bits>>(64-rootBits)]
			size, b := int(e>>8), byte(e)
			if e == 0 {
				size, b = h.long(bits)
			}
			if size > have {
				break
			}
			if size == maxBits && bits>>(64-maxBits) == 1<<maxBits-1 {
				return dst, false
			}
			dst = append(dst, b)
			bits <<= size
			have -= size
		}
		if len(p) == 0 {
			break
		}
	}
	return dst, have < 8 && ^bits>>(64-have) == 0
}

// long returns the symbol of more than rootBits bits that begins bits.
func (h *huffman) long(bits uint64) (size int, b byte) {
	for size = rootBits + 1; size < maxBits && uint32(bits>>(64-size)) >= h.end[size]; size++ {
	}
	return size, h.bytes[(int(h.index[size])+int(uint32(bits>>(64-size))-h.first[size]))&0xff]
}
