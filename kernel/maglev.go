// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"cmp"
	"slices"

	"github.com/kyozon/kyozon/ip"
)

// RingSize is the number of slots of a table: a prime, and a hundred times the backends for which shares are exact to
// a percent. The slot of a client is ip.Key modulo it.
const RingSize = 65_537

// seat is a backend that wants slots in a ring.
type seat struct {
	number uint32 // what is written into the slots
	key    uint64 // where it prefers to sit: the same at every edge and after every restart
	weight int    // more than 0
}

// maglev fills a ring: each seat in turn, as often as its weight says, takes the next free slot in the order that it
// prefers. A seat that comes or goes moves little more than its share. The ring is all 0 if there are no seats.
//
// "Maglev: A Fast and Reliable Software Network Load Balancer" (NSDI 2016), §3.4.
func maglev(seats []seat, ring []uint32) {
	clear(ring)
	if len(seats) == 0 {
		return
	}
	seats = slices.SortedFunc(slices.Values(seats), func(a, b seat) int { return cmp.Compare(a.key, b.key) })
	heaviest := slices.MaxFunc(seats, func(a, b seat) int { return cmp.Compare(a.weight, b.weight) }).weight
	size := uint64(len(ring))
	at, step, credit := make([]uint64, len(seats)), make([]uint64, len(seats)), make([]int, len(seats))
	for i, s := range seats {
		at[i] = ip.Mix(s.key) % size
		step[i] = ip.Mix(s.key^0xff)%(size-1) + 1
	}
	for free := len(ring); ; {
		for i, s := range seats {
			if credit[i] += s.weight; credit[i] < heaviest {
				continue
			}
			credit[i] -= heaviest
			for ring[at[i]] != 0 {
				at[i] = (at[i] + step[i]) % size
			}
			ring[at[i]] = s.number
			if free--; free == 0 {
				return
			}
		}
	}
}
