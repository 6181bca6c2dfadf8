// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/state"
)

// Record is one line of the book.
type Record struct {
	Prefix   netip.Prefix `json:"prefix"`             // the clients
	StandIn  netip.Addr   `json:"stand-in"`           // what servers see; for an IPv4 client the address it is embedded in
	Shared   bool         `json:"shared,omitempty"`   // several clients of the prefix have it
	Unproven bool         `json:"unproven,omitempty"` // the client has not proved its address
	From     time.Time    `json:"from,omitzero"`      // zero for an embedded address, which is not leased
	Last     time.Time    `json:"last,omitzero"`      // last use; after a restart up to Keep/12 (3 days) earlier than it was
	Until    time.Time    `json:"until,omitzero"`     // when it was taken back; zero while it is leased
}

// Who reads the book both ways: a is a stand-in, an IPv6 address, an IPv4 address of a client or one that is
// embedded. It returns what was leased at a time, the zero time meaning now; of an IPv6 client only the lease of the
// longest prefix, which is the one that was used. Who held a stand-in is known for at least Keep after the end.
//
// If the store cannot be read, it returns what is known without it and ErrUnavailable.
func (l *Ledger) Who(a netip.Addr, at time.Time) ([]Record, error) {
	a = ip.Canonical(a)
	if r, ok := l.embedded(a); ok {
		return []Record{r}, nil
	}
	if a.Is4() && !l.o.Pool.Contains(a) {
		return nil, nil
	}
	found, store := l.current(a, at)
	var err error
	if !at.IsZero() {
		var past []Record
		past, err = l.past(store, a, at)
		found = append(found, past...)
	}
	slices.SortStableFunc(found, func(x, y Record) int { return cmp.Compare(y.Prefix.Bits(), x.Prefix.Bits()) })
	found = slices.CompactFunc(found, func(x, y Record) bool {
		return x.StandIn == y.StandIn && x.Prefix == y.Prefix && x.From.Equal(y.From)
	})
	if !a.Is4() && len(found) > 0 {
		longest := found[0].Prefix
		found = slices.DeleteFunc(found, func(r Record) bool { return r.Prefix != longest })
	}
	return found, err
}

// embedded answers for IPv4 clients.
func (l *Ledger) embedded(a netip.Addr) (Record, bool) {
	if !l.o.Embed.IsValid() {
		return Record{}, false
	}
	if client, ok := ip.Extract(l.o.Embed, a); ok {
		return Record{Prefix: netip.PrefixFrom(client, 32), StandIn: a}, true
	}
	if a.Is4() && !l.o.Pool.Contains(a) {
		return Record{Prefix: netip.PrefixFrom(a, 32), StandIn: ip.Embed(l.o.Embed, a)}, true
	}
	return Record{}, false
}

// current looks into RAM: at most one lease of a stand-in, and one of each length of prefix.
func (l *Ledger) current(a netip.Addr, at time.Time) (found []Record, store state.Store) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	b := l.book
	add := func(off uint32) {
		le := b.leases[off]
		if le.stage != live && le.stage != lent {
			return
		}
		le.last = b.used(off)
		if r := le.record(b.view.addr(off)); at.IsZero() || !r.From.After(at) {
			found = append(found, r)
		}
	}
	if a.Is4() {
		if off := number(a) - b.view.base; int(off) < len(b.leases) {
			add(off)
		}
		return found, l.store
	}
	for level, t := range b.view.tables {
		if t == nil {
			continue
		}
		if s := t.find(cut(high(a), bitsOf(level))); s != nil && s.val.Load()&dead == 0 {
			add(offset(s.val.Load()))
		}
	}
	return found, l.store
}

// past looks at the leases that have ended since.
func (l *Ledger) past(store state.Store, a netip.Addr, at time.Time) (found []Record, err error) {
	if store == nil {
		return nil, ErrUnavailable
	}
	err = store.Each([]byte(pastPrefix), func(e state.Entry) error {
		until, standIn, le, err := decodePast(e.Key, e.Value)
		if err != nil {
			return err
		}
		r := le.record(addr(standIn))
		r.Until = time.Unix(int64(until), 0)
		if (r.StandIn == a || r.Prefix.Contains(a)) && !r.From.After(at) && at.Before(r.Until) {
			found = append(found, r)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return found, nil
}

func (l lease) record(standIn netip.Addr) Record {
	return Record{
		Prefix: l.prefix(), StandIn: standIn, Shared: l.use == shared, Unproven: l.stage == lent,
		From: time.Unix(int64(l.first), 0), Last: time.Unix(int64(l.last), 0),
	}
}
