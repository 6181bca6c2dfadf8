// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

import "github.com/kyozon/kyozon/ip"

// Slots is how many classes of keys there are for what is decided by key: the pool of a client, and the backend of a pool
// that picks by Hash. It is the size of the kernel plane's tables, so that both planes decide alike.
const Slots = 65_537

// slotted returns a key that all keys of a slot share.
func slotted(key uint64) uint64 { return ip.Mix(key % Slots) }

// Sticky says whether a client's flows must go by his slot: he belongs to one of several pools, or a pool picks by Hash.
func (r *Route) Sticky() bool {
	for _, p := range r.Pools() {
		if p.Spec.Pick == Hash {
			return true
		}
	}
	return len(r.shares) > 1
}

// At returns the backend of the clients of a slot, as if each pool picked by Hash; nil if there is none. No place is
// taken in it.
func (r *Route) At(slot uint64, now int64) *Backend {
	own := r.Choose(slot)
	var tried Tried
	for _, ejected := range [2]bool{false, true} {
		q := picking{slot, now, &tried, ejected}
		if b := own.hash(&q); b != nil {
			return b
		}
		for _, p := range r.fallback {
			if b := p.hash(&q); b != nil {
				return b
			}
		}
	}
	return nil
}

// Serving returns the backends that flows of a route with one share go to now: those of its pool that are well, or of the
// first fallback that has some.
func (r *Route) Serving(now int64) []*Backend {
	var tried Tried
	for _, ejected := range [2]bool{false, true} {
		q := picking{0, now, &tried, ejected}
		for _, p := range r.Pools() {
			var well []*Backend
			for i := range p.backends {
				if b := &p.backends[i]; q.suits(b) {
					well = append(well, b)
				}
			}
			if len(well) > 0 {
				return well
			}
		}
	}
	return nil
}

// shareUnit is what a full share of one unit of weight counts in Share.
const shareUnit = 16

// Share returns b's part of the flows relative to others, in steps of a sixteenth of its weight; 0 if it gets none.
// ejected says that it gets some only where there is no other.
func (b *Backend) Share(now int64) (share int, ejected bool) {
	if !b.Up() || b.full() {
		return 0, false
	}
	return max(1, int(b.weight(now)*shareUnit/whole)), b.tally.ejected(now) > 0
}
