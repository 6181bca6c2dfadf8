// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/kyozon/kyozon/ip"
)

// Count is how often prefixes of one length have refused since the table was made.
type Count struct {
	Family  ip.Family
	Kind    Kind
	Bits    int // of the prefix
	Refused int64
}

// Counts returns the counters of a family: one for each kind that is limited and each length, also where nothing was
// refused.
func (l *Limits) Counts(f ip.Family) []Count {
	if l == nil {
		return nil
	}
	zero := netip.IPv6Unspecified()
	if f == ip.V4 {
		zero = netip.IPv4Unspecified()
	}
	var all []Count
	for _, k := range Kinds() {
		if !l.limited[k] {
			continue
		}
		for _, t := range slices.Backward(l.family(f)) {
			all = append(all, Count{f, k, t.bits, l.table.counter(k, zero, t.bits).Load()})
		}
	}
	return all
}

// Refused is a prefix that has refused its clients, and about how often.
type Refused struct {
	Prefix netip.Prefix
	Kind   Kind
	Count  int64
}

// Heaviest returns the prefixes that have refused most since it was last called, the heaviest first, n at most.
func (t *Table) Heaviest(n int) []Refused {
	var all []Refused
	for i := range t.shards {
		for _, h := range t.shards[i].takeHeavy() {
			if h.count > 0 {
				all = append(all, Refused{netip.PrefixFrom(h.addr, h.bits), h.kind, h.count})
			}
		}
	}
	slices.SortFunc(all, func(a, b Refused) int { return cmp.Or(cmp.Compare(b.Count, a.Count), a.Prefix.Compare(b.Prefix)) })
	return all[:min(n, len(all))]
}

func (s *shard) takeHeavy() (all [heaviest]heavy) {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, s.heavy = s.heavy, all
	return all
}
