// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package limit gives each client prefix a budget: requests, connections, TLS handshakes and failed logins over time,
// and connections open at once.
//
// An IPv6 subscriber has 2^64 addresses and more, so a budget belongs to his /64, and, since he may have a /56 or a
// /48, the wider prefixes have budgets too, some times as large. IPv4 has /32 and /24 in the same way. A client passes
// if all of his prefixes have something left:
//
//	              shard of the /48
//	Allow ─ lock ─▶ /48 left? ─▶ /56 left? ─▶ /64 left? ─▶ take one of each ─▶ true
//	                  │ no         │ no         │ no
//	                  └────────────┴────────────┴─▶ takes nothing, remembers nothing ─▶ false
//
// A flood hurts nobody beside it, for four reasons. The widest prefix is asked first and who is refused takes nothing:
// random addresses of a /48 use up that /48 and no more, and one /64 that is over its budget uses up no more of its
// /48. A budget that is whole again is the same as none, so a slot is free as soon as its prefix has been quiet: what
// one /48 lets through bounds the slots that its prefixes hold. All prefixes of a /48 share one shard, so it can fill
// no other. And where a set of slots is full of prefixes that all owe something, the one that owes least is forgotten,
// that is, it gets a whole budget: forgetting can let somebody have too much, and never too little. A wide prefix owes
// what all in it owe together, so it outlives them.
//
// What this cannot do is to tell neighbours apart within the prefix that floods: they share what it has.
package limit

// Hot path: no allocation per packet.

import (
	"encoding/binary"
	"net/netip"
)

// Kind is something that is counted for a prefix.
type Kind uint8

// The kinds. All but Open are rates.
const (
	Requests Kind = iota
	Connections
	Handshakes
	FailedLogins // taken by each login, and given back with GiveBack by one that has not failed
	Open         // connections at once: each that Allow lets in must be given back with Release
	kinds
)

// String returns the word of the site file.
func (k Kind) String() string {
	return [kinds]string{"requests", "connections", "handshakes", "failed-logins", "open"}[k]
}

// Kinds returns all of them, in the order in which tables show them.
func Kinds() [kinds]Kind { return [kinds]Kind{Requests, Connections, Handshakes, FailedLogins, Open} }

// Limits are the rules of one generation over a table that outlives it. They are immutable, and their methods may be
// called from anywhere at once. Nil limits nothing.
type Limits struct {
	table    *Table
	observe  bool // nobody is refused
	limited  [kinds]bool
	own4     []tier // the widest first, the client's own prefix last
	own6     []tier
	fraction [kinds]float64 // of a whole budget that one unit of debt is: a nanosecond, or an open connection
}

// tier is the budgets of the prefixes of one length.
type tier struct {
	bits  int
	mask  uint64
	tag   uint64      // the length and the family, for the hash
	every [Open]int64 // nanoseconds in which one more is earned
	depth [Open]int64 // how far ahead of the clock a budget may be used, in nanoseconds: that of the whole burst
	open  int32       // connections at once
	times int32       // how many times the budget of a client it has
}

// Allow says whether the client, whose address must be canonical, may have one more of a kind, and if so takes it; where
// it is only observed, he may, and what is too much takes nothing. now
// is the clock of the caller's loop, in nanoseconds. It does not wait for anything but another loop's Allow, and does
// not allocate.
func (l *Limits) Allow(k Kind, client netip.Addr, now int64) bool {
	if l == nil || !l.limited[k] {
		return true
	}
	high, tiers := l.tiers(client)
	var keys [maxTiers]uint64
	var found [maxTiers]*slot
	keys[0] = l.table.key(high, &tiers[0])
	s := l.table.shard(keys[0])
	over := false
	s.mu.Lock()
	for i := range tiers {
		if i > 0 {
			keys[i] = l.table.key(high, &tiers[i])
		}
		found[i] = s.find(keys[i])
		if over || found[i] == nil || tiers[i].fits(k, found[i], now) {
			continue
		}
		s.refuse(k, client, tiers[i].bits)
		l.table.counter(k, client, tiers[i].bits).Add(1)
		if !l.observe || k != Open { // which will be given back
			s.mu.Unlock()
			return l.observe
		}
		over = true
	}
	for i := range tiers { // before any slot is given to another prefix
		if found[i] != nil {
			tiers[i].take(k, found[i], now)
		}
	}
	for i := range tiers {
		if found[i] == nil {
			tiers[i].take(k, l.put(s, keys[i], tiers[i].times, now), now)
		}
	}
	s.mu.Unlock()
	return true
}

// Release gives back what Allow(Open, client, …) of the same Limits has let in.
func (l *Limits) Release(client netip.Addr) {
	if l == nil || !l.limited[Open] {
		return
	}
	high, tiers := l.tiers(client)
	key := l.table.key(high, &tiers[0])
	s := l.table.shard(key)
	s.mu.Lock()
	for i := range tiers {
		if i > 0 {
			key = l.table.key(high, &tiers[i])
		}
		if found := s.find(key); found != nil && found.open > 0 { // else it was forgotten
			found.open--
		}
	}
	s.mu.Unlock()
}

// GiveBack gives back one of a rate that Allow of the same Limits has let in, and that has turned out not to count.
func (l *Limits) GiveBack(k Kind, client netip.Addr) {
	if l == nil || !l.limited[k] {
		return
	}
	high, tiers := l.tiers(client)
	key := l.table.key(high, &tiers[0])
	s := l.table.shard(key)
	s.mu.Lock()
	for i := range tiers {
		if i > 0 {
			key = l.table.key(high, &tiers[i])
		}
		if found := s.find(key); found != nil { // else it was forgotten
			found.whole[k] -= tiers[i].every[k]
		}
	}
	s.mu.Unlock()
}

// tiers returns the first 64 bits of an address and the tiers of its family.
func (l *Limits) tiers(client netip.Addr) (high uint64, tiers []tier) {
	if client.Is4() {
		a := client.As4()
		return uint64(binary.BigEndian.Uint32(a[:])) << 32, l.own4
	}
	a := client.As16()
	return binary.BigEndian.Uint64(a[:8]), l.own6
}

// fits says whether a prefix may have one more. A rate is a token bucket kept as one number, the time at which it will
// be whole again: the generic cell rate algorithm of ITU-T I.371.
func (t *tier) fits(k Kind, s *slot, now int64) bool {
	if k == Open {
		return s.open < t.open
	}
	return max(s.whole[k], now)+t.every[k]-now <= t.depth[k]
}

// take takes one.
func (t *tier) take(k Kind, s *slot, now int64) {
	if k == Open {
		s.open++
		return
	}
	s.whole[k] = max(s.whole[k], now) + t.every[k]
}

// put gives a slot to a prefix that has none: one that nobody needs, or that of the prefix which owes least.
func (l *Limits) put(s *shard, key uint64, times int32, now int64) *slot {
	set := s.set(key)
	best, least := 0, 0.0
	for i := range set.slots {
		debt := l.debt(&set.slots[i], now)
		if set.keys[i] == 0 || debt == 0 {
			best, least = i, 0
			break
		}
		if i == 0 || debt < least {
			best, least = i, debt
		}
	}
	if least > 0 {
		l.table.forgotten.Add(1)
	}
	set.keys[best] = key
	set.slots[best] = slot{times: times}
	return &set.slots[best]
}

// debt returns how many times a client's own budget a prefix has used: 0 if its budget is whole.
func (l *Limits) debt(s *slot, now int64) float64 {
	debt := 0.0
	for k := range s.whole {
		if ahead := s.whole[k] - now; ahead > 0 {
			debt = max(debt, float64(ahead)*l.fraction[k])
		}
	}
	return max(debt*float64(s.times), float64(s.open)*l.fraction[Open])
}
