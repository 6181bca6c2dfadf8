// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"net/netip"
	"time"
)

// Until returns the stand-in of a client that has a lease, and until when it may be used without asking again. It is for
// whoever gives stand-ins to something that does not ask at each flow, and must take them back by then. It takes a lock,
// and does not count as a use.
func (l *Ledger) Until(client netip.Addr) (standIn netip.Addr, until time.Time, ok bool) {
	if client.Is4() {
		return netip.Addr{}, time.Time{}, false
	}
	l.mu.RLock()
	defer l.mu.RUnlock()
	v := l.view.Load()
	s := v.find(high(client))
	if s == nil || s.val.Load()&unusable != 0 {
		return netip.Addr{}, time.Time{}, false
	}
	off := offset(s.val.Load())
	le := &l.book.leases[off]
	if le.stage != live {
		return netip.Addr{}, time.Time{}, false
	}
	return v.addr(off), time.Unix(int64(le.last)+int64(l.t.renew)-int64(l.t.margin), 0), true
}

// Prefix returns the pool that stand-ins come from.
func (l *Ledger) Prefix() netip.Prefix { return l.o.Pool }
