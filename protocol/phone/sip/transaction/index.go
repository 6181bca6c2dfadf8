// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package transaction

// Hot path: no allocation per packet.

import "hash/maphash"

// index finds what has a text by a hash of it. Those with one bucket are a chain that runs through themselves, so that one
// more takes no memory, and to look for what is not there is to look at one word: most messages begin something new, and what
// tens of thousands of transactions take fits into no cache.
//
// It grows by one bucket with each entry (linear hashing), so that no call waits until a large table has been made anew.
type index[U any] struct {
	seed    maphash.Seed
	buckets []*entry[U]
	half    uint64 // of the power of two that the buckets grow to
	count   int
}

// entry is a transaction in an index, by a text.
type entry[U any] struct {
	x    *Transaction[U] // nil if it is in none
	text string
	hash uint64
	next *entry[U]
}

func newIndex[U any]() index[U] {
	return index[U]{seed: maphash.MakeSeed(), buckets: make([]*entry[U], 1), half: 1}
}

// bucket returns where the chain of a hash begins: those buckets that the growth has not come to are still one with those
// that it has split.
func (i *index[U]) bucket(hash uint64) **entry[U] {
	at := hash & (2*i.half - 1)
	if at >= uint64(len(i.buckets)) {
		at &= i.half - 1
	}
	return &i.buckets[at]
}

// find returns the transaction that has the text, or nil, and the hash of the text, for put.
func (i *index[U]) find(text []byte) (x *Transaction[U], hash uint64) {
	hash = maphash.Bytes(i.seed, text)
	for e := *i.bucket(hash); e != nil; e = e.next {
		if e.hash == hash && e.text == string(text) {
			return e.x, hash
		}
	}
	return nil, hash
}

// put adds an entry with a text that is not in, and its hash.
func (i *index[U]) put(e *entry[U], x *Transaction[U]) {
	e.x = x
	i.count++
	if i.count > len(i.buckets) {
		i.split()
	}
	at := i.bucket(e.hash)
	e.next, *at = *at, e
}

// split adds a bucket, which takes its part of the chain that its entries were in.
func (i *index[U]) split() {
	last := uint64(len(i.buckets))
	if last == 2*i.half {
		i.half = last
	}
	old := &i.buckets[last-i.half]
	chain := *old
	*old = nil
	var fresh *entry[U]
	for chain != nil {
		e := chain
		chain = e.next
		to := old
		if e.hash&(2*i.half-1) == last {
			to = &fresh
		}
		e.next, *to = *to, e
	}
	i.buckets = append(i.buckets, fresh)
}

// drop takes an entry out, if it is in.
func (i *index[U]) drop(e *entry[U]) {
	if e.x == nil {
		return
	}
	at := i.bucket(e.hash)
	for *at != e {
		at = &(*at).next
	}
	*at, e.x, e.next = e.next, nil, nil
	i.count--
}

// all yields the transactions. What is yielded may be dropped.
func (i *index[U]) all(yield func(*Transaction[U]) bool) {
	for _, e := range i.buckets {
		for e != nil {
			x := e.x
			if e = e.next; !yield(x) {
				return
			}
		}
	}
}
