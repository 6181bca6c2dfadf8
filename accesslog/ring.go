// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package accesslog

// Hot path: no allocation per packet.

import "sync/atomic"

// ringSize is how many records a loop is ahead of the writer at most: what 80,000 requests a second make in 50 ms.
const ringSize = 4096

// ring takes records from one loop to the writer. Each end writes only what is its own, so that neither waits for the
// other, and what they write is on cache lines of their own.
type ring struct {
	slots []Record // ringSize of them

	_       [64]byte
	tail    atomic.Uint64 // records put in so far
	seen    uint64        // head, when the loop last looked
	dropped atomic.Int64  // records for which there was no room

	_    [64]byte
	head atomic.Uint64 // records taken out so far
	_    [64]byte
}

// put copies r into the ring, or drops it if there is no room. It says whether the writer should be woken: a quarter of
// the ring has come in.
func (q *ring) put(r *Record) (wake bool) {
	t := q.tail.Load()
	if t-q.seen == ringSize {
		if q.seen = q.head.Load(); t-q.seen == ringSize {
			q.dropped.Add(1)
			return false
		}
	}
	q.slots[t%ringSize] = *r
	q.tail.Store(t + 1)
	return (t+1)%(ringSize/4) == 0
}

// next returns the oldest record, or nil. It is the writer's until taken.
func (q *ring) next() *Record {
	h := q.head.Load()
	if h == q.tail.Load() {
		return nil
	}
	return &q.slots[h%ringSize]
}

// taken gives the place of the record that next returned back to the loop.
func (q *ring) taken() { q.head.Store(q.head.Load() + 1) }
