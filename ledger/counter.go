// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"math/rand/v2"

	"github.com/kyozon/kyozon/ip"
)

// counter counts by key, in 12 bytes a slot where a map takes five times that. Keys have at most 48 bits. It is
// open-addressed as table is; a count of 0 keeps its slot until the counter grows.
type counter struct {
	keys   []uint64 // plus one, so that 0 is a slot that was never used
	counts []uint32
	seed   uint64
	filled int
}

func newCounter(size int) *counter {
	return &counter{keys: make([]uint64, size), counts: make([]uint32, size), seed: rand.Uint64()}
}

// slot returns where key is, or would be.
func (c *counter) slot(key uint64) uint64 {
	mask := uint64(len(c.keys) - 1)
	i := ip.Mix(key^c.seed) & mask
	for c.keys[i] != 0 && c.keys[i] != key+1 {
		i = (i + 1) & mask
	}
	return i
}

func (c *counter) of(key uint64) int { return int(c.counts[c.slot(key)]) }

// add adds n, which may be negative, but not beyond 0.
func (c *counter) add(key uint64, n int) {
	i := c.slot(key)
	if c.keys[i] == 0 {
		if c.filled >= len(c.keys)/4*3 {
			c.grow()
			i = c.slot(key)
		}
		c.keys[i] = key + 1
		c.filled++
	}
	c.counts[i] = uint32(int(c.counts[i]) + n)
}

func (c *counter) grow() {
	live := 0
	for _, n := range c.counts {
		if n > 0 {
			live++
		}
	}
	size := 64
	for size < 2*live {
		size *= 2
	}
	next := newCounter(size)
	for i, n := range c.counts {
		if n > 0 {
			next.add(c.keys[i]-1, int(n))
		}
	}
	*c = *next
}
