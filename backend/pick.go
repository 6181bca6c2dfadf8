// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

// Hot path: no allocation per packet.

import (
	"errors"
	"math"

	"github.com/kyozon/kyozon/ip"
)

// ErrNoneUp means that no backend that has not been tried is up.
var ErrNoneUp = errors.New("backend: none up")

// ErrFull means that every backend that is up and has not been tried has reached its cap.
var ErrFull = errors.New("backend: all full")

const (
	triesPerFlow = 8
	triesPerPool = 3 // then the next pool: who waits for a fourth connect has gone
)

// Tried remembers the backends that one flow has tried, so that it gets another one after a connect that failed. The
// zero value is ready for use.
type Tried struct {
	n        int
	byKey    bool // every pool picks by Hash
	backends [triesPerFlow]*Backend
}

// Len returns how many have been tried.
func (t *Tried) Len() int { return t.n }

func (t *Tried) add(b *Backend) {
	t.backends[t.n] = b
	t.n++
}

// has says whether the server that b stands for has been tried, also as a member of another pool.
func (t *Tried) has(b *Backend) bool {
	for _, other := range t.backends[:t.n] {
		if other.tally == b.tally {
			return true
		}
	}
	return false
}

// exhausted says whether the flow should leave p alone.
func (t *Tried) exhausted(p *Pool) bool {
	n := 0
	for _, b := range t.backends[:t.n] {
		if b.pool == p {
			n++
		}
	}
	return n >= triesPerPool || t.n == triesPerFlow
}

// Pick chooses one of p's backends for a flow and takes a place in it. Equal keys get the same backend if the pool
// picks by Hash, as long as it is available. tried learns the backend, and is not offered it again. now is the clock of
// the caller's loop. Pick does not block and does not allocate. Returns ErrNoneUp or ErrFull.
func (p *Pool) Pick(key uint64, now int64, tried *Tried) (*Backend, error) {
	for _, ejected := range [2]bool{false, true} {
		if b := p.pick(picking{key, now, tried, ejected}); b != nil {
			return b, nil
		}
	}
	if p.full(tried) {
		return nil, ErrFull
	}
	return nil, ErrNoneUp
}

// only takes a place in b for a flow that no other backend will do for, whether or not b is ejected.
func (b *Backend) only(tried *Tried) error {
	switch {
	case !b.Up() || tried.has(b):
		return ErrNoneUp
	case b.full() || !b.take():
		return ErrFull
	}
	tried.add(b)
	return nil
}

// picking is what a flow asks for.
type picking struct {
	key     uint64
	now     int64
	tried   *Tried
	ejected bool // take an ejected one rather than none
}

// suits says whether b may be picked.
func (q *picking) suits(b *Backend) bool {
	return b.Up() && !b.full() && (q.ejected || b.tally.ejected(q.now) == 0) && (q.tried.n == 0 || !q.tried.has(b))
}

// pick returns nil if no backend suits.
func (p *Pool) pick(q picking) *Backend {
	if q.tried.exhausted(p) {
		return nil
	}
	for {
		b := p.best(&q)
		if b == nil {
			return nil
		}
		if b.take() {
			q.tried.add(b)
			return b
		}
	}
}

func (p *Pool) best(q *picking) *Backend {
	switch {
	case p.Spec.Pick == Hash || q.tried.byKey:
		return p.hash(q)
	case p.Spec.Pick == FewestFlows:
		return p.fewestFlows(q)
	}
	return p.roundRobin(q)
}

// stride is the time between two flows to a backend of full weight 1, on the clock of roundRobin.
const stride = 1 << 18 * whole

// roundRobin gives each backend its turns at even distances: of weights 5, 1 and 1 it makes a a a b c a a, again and
// again, not a a a a a b c. Each backend has a time at which its next turn is due; the earliest wins and is due
// again one stride later. Who was away does not make up for it: its turn is due when it comes back, not before.
//
// Loops race for a turn by compare-and-swap. The loser looks again.
func (p *Pool) roundRobin(q *picking) *Backend {
	for {
		var best *Backend
		var was, first int64
		start := p.clock.Load()
		for i := range p.backends {
			b := &p.backends[i]
			if !q.suits(b) {
				continue
			}
			due := b.due.Load()
			if at := max(due, start); best == nil || at < first {
				best, was, first = b, due, at
			}
		}
		if best == nil {
			return nil
		}
		if best.due.CompareAndSwap(was, first+stride/best.weight(q.now)) {
			if first > start {
				p.clock.Store(first)
			}
			return best
		}
	}
}

// fewestFlows picks the backend that would have the fewest flows for its weight with one more. Of equals it takes one
// after the other.
func (p *Pool) fewestFlows(q *picking) *Backend {
	var best *Backend
	var flows, weight int64
	n := len(p.backends)
	if n == 0 {
		return nil
	}
	i := int(p.turn.Add(1) % uint32(n))
	for range n {
		if i++; i >= n {
			i = 0
		}
		b := &p.backends[i]
		if !q.suits(b) {
			continue
		}
		f, w := b.tally.flows.Load()+1, b.weight(q.now)
		if best == nil || f*weight < flows*w {
			best, flows, weight = b, f, w
		}
	}
	return best
}

// hash picks by weighted rendezvous: each backend draws a number that only depends on the key and its address, and the
// highest wins. So a backend that goes takes only its own keys along, one that comes takes its share from the others,
// and nothing else moves. It needs no table, and is the same in every process.
//
// Thaler and Ravishankar 1998; the weights by the logarithmic method of Schindelhauer and Schomaker 2005.
func (p *Pool) hash(q *picking) *Backend {
	var best *Backend
	var highest float64
	key := slotted(q.key)
	for i := range p.backends {
		b := &p.backends[i]
		if !q.suits(b) {
			continue
		}
		if s := draw(key, b.seed, float64(b.weight(q.now)), highest); s > highest {
			best, highest = b, s
		}
	}
	return best
}

// draw is one participant's number in a weighted rendezvous: more than 0 if the weight is. One that cannot beat the
// highest so far is spared the logarithm, since 1−u ≤ −ln(u); then the number is 0.
func draw(key, seed uint64, weight, highest float64) float64 {
	u := (float64(ip.Mix(key^seed)>>11) + 0.5) / (1 << 53) // in (0,1)
	if weight <= highest*(1-u) {
		return 0
	}
	return weight / -math.Log(u)
}

// full says whether p has a backend that would be picked if it were not at its cap.
func (p *Pool) full(tried *Tried) bool {
	for i := range p.backends {
		if b := &p.backends[i]; b.Up() && b.full() && !tried.has(b) {
			return true
		}
	}
	return false
}
