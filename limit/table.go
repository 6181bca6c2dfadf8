// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package limit

// Hot path: no allocation per packet.

import (
	"math/bits"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/kyozon/kyozon/ip"
)

// DefaultSize is how many prefixes a table remembers. It takes 6 MiB at most; pages that no prefix has come to are
// never touched.
const DefaultSize = 1 << 17

const (
	shards   = 256
	ways     = 8 // slots that one prefix may be in
	heaviest = 4 // prefixes that a shard names for each report
)

// Table remembers what prefixes have used. It is bounded, never grows, and outlives reloads. Make one for each service,
// so that a flood against one does not reach another.
//
//	prefix ─ seeded hash ─▶ shard: of the widest prefix ─▶ set: eight slots ─▶ slot: the prefix
type Table struct {
	secret    [4]uint64 // of the hash
	mask      uint64    // picks a set
	shards    [shards]shard
	refused4  [kinds][33]atomic.Int64 // by the length of the prefix that refused
	refused6  [kinds][65]atomic.Int64
	forgotten atomic.Int64
}

// shard is a part of the table with its own lock. All prefixes of one client are in one shard.
type shard struct {
	mu    sync.Mutex
	sets  []set
	heavy [heaviest]heavy
	_     [64]byte // shards are locked by different cores
}

// set is six cache lines: a look-up reads the first and one or two more.
type set struct {
	keys  [ways]uint64 // 0 is a slot that was never used
	slots [ways]slot
}

// slot is one prefix.
type slot struct {
	whole [Open]int64 // when the budget of each rate will be whole again
	open  int32       // connections
	times int32       // of its tier
}

// NewTable returns a table for about so many prefixes.
func NewTable(size int) *Table {
	t := &Table{mask: 1}
	for i := range t.secret {
		t.secret[i] = rand.Uint64() // of ChaCha8, seeded by the system
	}
	for (t.mask+1)*shards*ways < uint64(size) {
		t.mask = t.mask<<1 | 1
	}
	n := int(t.mask + 1)
	all := make([]set, shards*n)
	for i := range t.shards {
		t.shards[i].sets = all[i*n : (i+1)*n]
	}
	return t
}

// key names a prefix by a hash that nobody outside can guess: two folded multiplications with secrets, as wyhash does,
// which Go's own maps use where a processor has no AES. Two prefixes with one key would share a budget; with 64 bits that
// does not happen.
func (t *Table) key(high uint64, of *tier) uint64 {
	h := fold(high&of.mask^t.secret[0], of.tag^t.secret[1])
	return max(fold(h^t.secret[2], t.secret[3]|1), 1)
}

// fold multiplies and adds the halves of the product without carries: each bit of it depends on all of a and b.
func fold(a, b uint64) uint64 {
	high, low := bits.Mul64(a, b)
	return high ^ low
}

func (t *Table) shard(widest uint64) *shard { return &t.shards[widest>>56] }

// set returns the set of a key. It is picked by other bits than the shard.
func (s *shard) set(key uint64) *set { return &s.sets[key&uint64(len(s.sets)-1)] }

// find returns the slot of a key, or nil.
func (s *shard) find(key uint64) *slot {
	set := s.set(key)
	for i := range set.keys {
		if set.keys[i] == key {
			return &set.slots[i]
		}
	}
	return nil
}

// counter returns that of refusals by prefixes of a length.
func (t *Table) counter(k Kind, client netip.Addr, bits int) *atomic.Int64 {
	if client.Is4() {
		return &t.refused4[k][bits]
	}
	return &t.refused6[k][bits]
}

// heavy is a prefix that has been refused since the last report, and how often.
type heavy struct {
	addr  netip.Addr
	bits  int
	kind  Kind
	count int64
}

// refuse notes that a prefix refused a client. Of those that come too often to be noted all, the ones that come most
// stay: the space-saving algorithm, which may say a few more than there were.
func (s *shard) refuse(k Kind, client netip.Addr, bits int) {
	p, _ := client.Prefix(bits) // cannot fail: bits fits the family
	least := &s.heavy[0]
	for i := range s.heavy {
		h := &s.heavy[i]
		if h.addr == p.Addr() && h.bits == bits && h.kind == k {
			h.count++
			return
		}
		if h.count < least.count {
			least = h
		}
	}
	*least = heavy{p.Addr(), bits, k, least.count + 1}
}

// Forgotten returns how often a prefix was forgotten that still owed something, because more prefixes came at once
// than the table remembers.
func (t *Table) Forgotten() int64 { return t.forgotten.Load() }

// family returns the family whose counters and tiers are meant.
func (l *Limits) family(f ip.Family) []tier {
	if f == ip.V4 {
		return l.own4
	}
	return l.own6
}
