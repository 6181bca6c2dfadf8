// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"encoding/json"
	"fmt"
	"net/netip"

	"github.com/kyozon/kyozon/state"
)

// crowd is how many leases inside one /56 show that the /56 is one subscriber's.
const crowd = 32

// stage is what becomes of a stand-in.
//
//	free ─▶ quota ─▶ lent ─┐
//	  │      (on disk)     ▼
//	  └────────────────▶ writing ─▶ live ─▶ ending ─▶ free
type stage uint8

const (
	free    stage = iota
	quota         // kept for unproven clients, and on disk as such
	lent          // an unproven client has it
	writing       // a client has it, but that is not on disk for certain
	live          // a client has it
	ending        // it was unused for so long that it is being taken back
)

// book is every stand-in that is or was given, by its offset in the pool. The caller sees to it that one goroutine
// writes.
type book struct {
	o      Options
	view   *view
	leases []lease // grows up to the pool; the first two and the last of it are never leased
	freed  []uint32
	quota  []uint32 // those of stage quota, oldest first

	per48, per32             *counter // leases inside them
	leased, shared, unproven int
}

// usable is how many stand-ins a pool has: not its first and last address, which old software takes for broadcast,
// and not the one that Reserve returns.
func usable(pool netip.Prefix) int { return 1<<(32-pool.Bits()) - 3 }

func newBook(o Options) *book {
	return &book{
		o: o, view: &view{base: number(o.Pool.Addr())}, leases: make([]lease, 2),
		per48: newCounter(64), per32: newCounter(64),
	}
}

// read makes the book of what store holds.
func read(store state.Store, o Options, t times, now uint32) (*book, meta, error) {
	m, err := readMeta(store)
	if err != nil {
		return nil, m, err
	}
	now = max(now, m.Alive)
	b := newBook(o)
	var outside int
	err = store.Each([]byte(leasePrefix), func(e state.Entry) error {
		standIn, l, err := decodeLease(e.Key, e.Value)
		if err != nil {
			return err
		}
		off := int64(standIn) - int64(b.view.base)
		if off < 2 || off >= int64(usable(o.Pool)+2) {
			if l.use != kept {
				outside++
			}
			return nil
		}
		l.stage = live
		if l.use == kept {
			l.stage = quota
		}
		b.at(uint32(off), l)
		return nil
	})
	if err != nil {
		return nil, m, err
	}
	if outside > 0 {
		return nil, m, fmt.Errorf("pool %v leaves out %d leases of %v: use a pool that contains it", o.Pool, outside, m.Pool)
	}
	b.index(t, now)
	return b, m, nil
}

func readMeta(store state.Store) (m meta, err error) {
	err = store.Each([]byte(metaKey), func(e state.Entry) error { return json.Unmarshal(e.Value, &m) })
	if err == nil && m.Version != 0 && m.Version != version {
		err = errRecord
	}
	if err != nil {
		return m, fmt.Errorf("read %s: %w", metaKey, err)
	}
	return m, nil
}

// at puts a lease at an offset.
func (b *book) at(off uint32, l lease) {
	if grow := int(off) + 1 - len(b.leases); grow > 0 {
		b.leases = append(b.leases, make([]lease, grow)...)
	}
	b.leases[off] = l
}

// index makes the tables, the counts and the lists out of the leases.
func (b *book) index(t times, now uint32) {
	var n [levels]int
	for i := range b.leases {
		if l := &b.leases[i]; l.stage == live {
			n[levelOf(l.bits)]++
		}
	}
	for level, n := range n {
		if n > 0 {
			b.view.tables[level] = newTable(n)
		}
	}
	for i := range b.leases {
		off, l := uint32(i), &b.leases[i]
		switch {
		case l.stage == quota:
			b.quota = append(b.quota, off)
		case l.stage == free && off >= 2:
			b.freed = append(b.freed, off)
		case l.stage == live:
			var flags uint64
			if t.idleAt(l.last, now) {
				flags = idle
			}
			b.count(l, 1)
			if s := b.view.tables[levelOf(l.bits)].find(l.hi); s == nil { // else an older one that only runs out
				b.insert(off, flags, l.last)
			}
		}
	}
}

// idleAt says whether a lease that was renewed at last must be renewed before it is used.
func (t times) idleAt(last, now uint32) bool { return now+t.margin >= last+t.renew }

// insert makes the lease at off be found.
func (b *book) insert(off uint32, flags uint64, used uint32) {
	l := &b.leases[off]
	level := levelOf(l.bits)
	t := b.view.tables[level]
	if t == nil || !t.room() {
		next := *b.view
		if t == nil {
			t = newTable(0)
		} else {
			t = t.grown()
		}
		next.tables[level] = t
		b.view = &next
	}
	t.insert(l.hi, value(off, flags, used))
}

// slot returns the slot of the lease at off, or nil if it has none.
func (b *book) slot(off uint32) *slot {
	l := &b.leases[off]
	t := b.view.tables[levelOf(l.bits)]
	if t == nil {
		return nil
	}
	s := t.find(l.hi)
	if s == nil || offset(s.val.Load()) != off || s.val.Load()&dead != 0 {
		return nil
	}
	return s
}

// drop makes the lease at off be no longer found.
func (b *book) drop(off uint32) {
	if s := b.slot(off); s != nil {
		b.view.tables[levelOf(b.leases[off].bits)].kill(s)
	}
}

// count adds n to what is counted of a lease.
func (b *book) count(l *lease, n int) {
	b.leased += n
	if l.use == shared {
		b.shared += n
	}
	b.per48.add(l.hi>>16, n)
	b.per32.add(l.hi>>32, n)
}

// left is how many stand-ins are free.
func (b *book) left() int { return usable(b.o.Pool) + 2 - len(b.leases) + len(b.freed) }

// floor is how many of them are left for sharing.
func (b *book) floor() int {
	size := usable(b.o.Pool)
	return max(size/32, min(1, size/4))
}

// take returns a free stand-in: one that was never given, or the one that has been free longest.
func (b *book) take() uint32 {
	if off := len(b.leases); off < usable(b.o.Pool)+2 {
		b.leases = append(b.leases, lease{})
		return uint32(off)
	}
	off := b.freed[0]
	b.freed = b.freed[1:]
	return off
}

// free gives a stand-in back.
func (b *book) free(off uint32) {
	b.leases[off] = lease{}
	b.freed = append(b.freed, off)
}

// choose says for which prefix a client that has no lease gets one, and whether others share it.
// Returns ErrFull.
func (b *book) choose(hi uint64) (bits uint8, u use, err error) {
	bits = uint8(b.o.Bits)
	in48, in32 := b.per48.of(hi>>16), b.per32.of(hi>>32)
	if bits == 64 && in48 >= crowd && b.in56(hi) >= crowd {
		bits = 56
	}
	left, floor := b.left(), b.floor()
	switch {
	case left > floor && in32 < b.o.CapPer32 && (bits == 48 || in48 < b.o.CapPer48):
		return bits, alone, nil
	case left > max(1, floor/4) && bits > 48 && in32 < b.o.CapPer32+max(1, b.o.CapPer32/8):
		return 48, shared, nil
	case left > 0:
		return 32, shared, nil
	}
	return 0, 0, ErrFull
}

// in56 counts the leases of /64s inside the /56 of hi.
func (b *book) in56(hi uint64) (n int) {
	t := b.view.tables[levelOf(64)]
	if t == nil {
		return 0
	}
	first := cut(hi, 56)
	for i := range uint64(256) {
		if s := t.find(first + i); s != nil && s.val.Load()&(dead|unproven) == 0 {
			n++
		}
	}
	return n
}

// give makes a lease at off that is not on disk yet and is not given out.
func (b *book) give(off uint32, l lease, flags uint64, now uint32) {
	b.leases[off] = l
	b.insert(off, flags, now)
}

// used returns when the lease at off was last used.
func (b *book) used(off uint32) uint32 {
	if s := b.slot(off); s != nil {
		return uint32(s.val.Load())
	}
	return b.leases[off].last
}

// touch takes every lease for used at now.
func (b *book) touch(now uint32) {
	for i := range b.leases {
		if b.leases[i].stage != live {
			continue
		}
		if s := b.slot(uint32(i)); s != nil {
			s.set(0, 0, now)
		}
	}
}

// adopt takes over when leases were used that both books have.
func (b *book) adopt(old *book) {
	shift := int64(old.view.base) - int64(b.view.base)
	for i := range old.leases {
		l, off := &old.leases[i], int64(i)+shift
		if l.stage != live || off < 2 || off >= int64(len(b.leases)) {
			continue
		}
		n := &b.leases[off]
		if s := b.slot(uint32(off)); n.stage == live && n.hi == l.hi && n.bits == l.bits && s != nil {
			s.set(0, 0, old.used(uint32(i)))
		}
	}
}
