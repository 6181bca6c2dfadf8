// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package ledger

// Hot path: no allocation per packet.

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"sync/atomic"

	"github.com/kyozon/kyozon/ip"
)

// Find returns the stand-in of a client that has a lease; for an IPv4 client the address it is embedded in, if there
// is a prefix for that. It takes no lock, allocates nothing and reads no clock.
func (l *Ledger) Find(client netip.Addr) (standIn netip.Addr, ok bool) {
	if client.Is4() {
		if !l.o.Embed.IsValid() {
			return netip.Addr{}, false
		}
		return ip.Embed(l.o.Embed, client), true
	}
	v := l.view.Load()
	s := v.find(high(client))
	if s == nil {
		return netip.Addr{}, false
	}
	val := s.val.Load()
	if val&unusable != 0 {
		return netip.Addr{}, false
	}
	// Losing against another flow, or against the writer, does no harm: the lease is good for days.
	if now := l.clock.Load(); uint32(val) < now {
		s.val.CompareAndSwap(val, val&^seconds|uint64(now))
	}
	return v.addr(offset(val)), true
}

// high returns the first 64 bits of an IPv6 address.
func high(a netip.Addr) uint64 {
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8])
}

// A value packs all that changes of a lease into one word, so that it is read and written at once:
//
//	63        36 35       32 31           0
//	│  offset   │   flags   │  last used  │
//
// The offset is that of the stand-in in the pool. A value of 0 is a slot that was never used.
const (
	seconds  uint64 = 1<<32 - 1
	dead     uint64 = 1 << 32 // the lease has ended
	pending  uint64 = 1 << 33 // not yet on disk
	idle     uint64 = 1 << 34 // to be renewed on disk before it is used
	unproven uint64 = 1 << 35 // not to be written
	unusable        = dead | pending | idle | unproven
)

func value(off uint32, flags uint64, used uint32) uint64 {
	return uint64(off)<<36 | flags | uint64(used)
}
func offset(val uint64) uint32 { return uint32(val >> 36) }

// slot is one lease. The key is written once, before the first value; a value that is not 0 is never 0 again.
type slot struct{ key, val atomic.Uint64 }

// set takes the flags off from a slot, gives it others and moves its last use on; Find may touch it meanwhile.
func (s *slot) set(off, flags uint64, used uint32) {
	for {
		val := s.val.Load()
		last := max(uint32(val), used)
		if s.val.CompareAndSwap(val, val&^(seconds|off)|flags|uint64(last)) {
			return
		}
	}
}

// table finds slots by the first bits of a prefix: open addressing, linear probing. One goroutine inserts, many read.
// It is never full, and dead slots keep their key until the table is made anew.
type table struct {
	slots  []slot // a power of two
	seed   uint64 // a client that chooses its prefix must not choose its slot
	filled int    // the writer's: slots that have a key
	dead   int    // the writer's: of them with a lease that has ended
}

// newTable returns a table that has room for n leases and a third more.
func newTable(n int) *table {
	size := 64
	for size/4*3 < n+n/3 {
		size *= 2
	}
	return &table{slots: make([]slot, size), seed: rand.Uint64()}
}

// find returns the slot of key, or nil.
func (t *table) find(key uint64) *slot {
	mask := uint64(len(t.slots) - 1)
	for i := ip.Mix(key ^ t.seed); ; i++ {
		s := &t.slots[i&mask]
		if s.val.Load() == 0 {
			return nil
		}
		if s.key.Load() == key {
			return s
		}
	}
}

// insert puts a value at a key that has none or a dead one. The table must have room.
func (t *table) insert(key, val uint64) {
	mask := uint64(len(t.slots) - 1)
	for i := ip.Mix(key ^ t.seed); ; i++ {
		s := &t.slots[i&mask]
		if s.val.Load() == 0 {
			s.key.Store(key)
			s.val.Store(val)
			t.filled++
			return
		}
		if s.key.Load() == key {
			s.val.Store(val)
			t.dead--
			return
		}
	}
}

// kill marks the lease of a slot of t as ended.
func (t *table) kill(s *slot) {
	s.set(unusable&^dead, dead, 0)
	t.dead++
}

// room says whether one more may be inserted.
func (t *table) room() bool { return t.filled < len(t.slots)/4*3 }

// grown returns a copy of t without the dead, with room for half as many more.
func (t *table) grown() *table {
	live := t.filled - t.dead
	n := newTable(live + live/2)
	for i := range t.slots {
		s := &t.slots[i]
		if val := s.val.Load(); val != 0 && val&dead == 0 {
			n.insert(s.key.Load(), val)
		}
	}
	return n
}

// view is the tables by length of prefix, longest first: 64, 56, 48, 32. It is immutable but for the slots.
type view struct {
	base   uint32 // the first address of the pool
	tables [levels]*table
}

const levels = 4

func levelOf(bits uint8) int {
	switch bits {
	case 64:
		return 0
	case 56:
		return 1
	case 48:
		return 2
	}
	return 3
}

func bitsOf(level int) uint8 { return [levels]uint8{64, 56, 48, 32}[level] }

func cut(hi uint64, bits uint8) uint64 { return hi &^ (1<<(64-bits) - 1) }

// find returns the slot of the longest prefix that has a lease and contains hi, or nil.
func (v *view) find(hi uint64) *slot {
	for level, t := range v.tables {
		if t == nil {
			continue
		}
		if s := t.find(cut(hi, bitsOf(level))); s != nil && s.val.Load()&dead == 0 {
			return s
		}
	}
	return nil
}

func (v *view) addr(off uint32) netip.Addr { return addr(v.base + off) }

// addr returns the IPv4 address of a number, and number the number of an address.
func addr(n uint32) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], n)
	return netip.AddrFrom4(b)
}

func number(a netip.Addr) uint32 {
	b := a.As4()
	return binary.BigEndian.Uint32(b[:])
}
