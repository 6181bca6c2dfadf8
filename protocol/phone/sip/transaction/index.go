// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package transaction

// Hot path: no allocation per packet.

import "hash/maphash"

// index finds transactions by a text of each. The hashes lie side by side, and the texts in the transactions: most messages
// begin something new, and to find that there is nothing yet is to look at one place in memory, where one is then put. What
// tens of thousands of transactions take fits into no cache, and a map looks at three.
//
// It is a table with open addresses: who finds his slot taken has the next that is free.
type index[U any] struct {
	seed  maphash.Seed
	slots []slot[U] // a power of two, at most half of them taken
	count int
}

type slot[U any] struct {
	hash  uint64
	entry *entry[U] // nil if it is free
}

// entry is a transaction in an index, by a text.
type entry[U any] struct {
	x    *Transaction[U] // nil if it is in none
	text string
	hash uint64
}

// leastSlots is how many there are at first.
const leastSlots = 64

func newIndex[U any]() index[U] {
	return index[U]{seed: maphash.MakeSeed(), slots: make([]slot[U], leastSlots)}
}

// next returns the slot after one.
func (i *index[U]) next(at uint64) uint64 { return (at + 1) & uint64(len(i.slots)-1) }

// home returns the slot that a hash would have if it were alone.
func (i *index[U]) home(hash uint64) uint64 { return hash & uint64(len(i.slots)-1) }

// find returns the transaction that has the text, or nil, and the hash of the text, for put.
func (i *index[U]) find(text []byte) (x *Transaction[U], hash uint64) {
	hash = maphash.Bytes(i.seed, text)
	for at := i.home(hash); i.slots[at].entry != nil; at = i.next(at) {
		if s := &i.slots[at]; s.hash == hash && s.entry.text == string(text) {
			return s.entry.x, hash
		}
	}
	return nil, hash
}

// put adds an entry with a text that is not in, and its hash.
func (i *index[U]) put(e *entry[U], x *Transaction[U]) {
	if 2*i.count >= len(i.slots) {
		i.grow()
	}
	e.x = x
	i.count++
	i.place(slot[U]{e.hash, e})
}

func (i *index[U]) place(s slot[U]) {
	at := i.home(s.hash)
	for i.slots[at].entry != nil {
		at = i.next(at)
	}
	i.slots[at] = s
}

// grow makes twice as many slots. No transaction is looked at.
func (i *index[U]) grow() {
	old := i.slots
	i.slots = make([]slot[U], 2*len(old))
	for _, s := range old {
		if s.entry != nil {
			i.place(s)
		}
	}
}

// drop takes an entry out, if it is in. Those that stand behind it, since they found its slot taken, move up.
func (i *index[U]) drop(e *entry[U]) {
	if e.x == nil {
		return
	}
	e.x = nil
	i.count--
	free := i.home(e.hash)
	for i.slots[free].entry != e {
		free = i.next(free)
	}
	last := uint64(len(i.slots) - 1)
	for at := i.next(free); i.slots[at].entry != nil; at = i.next(at) {
		if away := at - i.home(i.slots[at].hash); away&last >= (at-free)&last {
			i.slots[free] = i.slots[at]
			free = at
		}
	}
	i.slots[free] = slot[U]{}
}

// all yields the transactions. None may be put in or dropped meanwhile.
func (i *index[U]) all(yield func(*Transaction[U]) bool) {
	for at := range i.slots {
		if e := i.slots[at].entry; e != nil && !yield(e.x) {
			return
		}
	}
}
