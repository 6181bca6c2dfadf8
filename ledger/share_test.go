// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kyozon/kyozon/state/statetest"
)

// TestShare leases one client after the other and says whose stand-in the last one has.
func TestShare(t *testing.T) {
	t.Parallel()
	subscribers := func(n, step int) (clients []string) {
		for i := range n {
			clients = append(clients, fmt.Sprintf("2001:db8:0:%x::1", i*step))
		}
		return clients
	}
	sites := func(n int) (clients []string) {
		for i := range n {
			clients = append(clients, fmt.Sprintf("2001:db8:%x::1", i+1))
		}
		return clients
	}
	tests := []struct {
		name          string
		bits          int
		per48, per32  int
		pool          int
		clients       []string
		last          string
		want          string
		shared        bool
		leased, group int // stand-ins in all, and shared ones
	}{
		{"alone", 64, 99, 99, 24, subscribers(crowd-1, 1), "2001:db8::ff:0:0:1", "2001:db8::/64", false, crowd - 1, 0},
		{"crowded /56", 64, 99, 99, 24, subscribers(crowd, 1), "2001:db8:0:ff::1", "2001:db8::/56", false, crowd + 1, 0},
		{"beside a crowded /56", 64, 99, 99, 24, subscribers(crowd, 1), "2001:db8:0:100::1", "2001:db8:0:100::/64", false, crowd + 1, 0},
		{"/48 at its cap", 64, 8, 99, 24, subscribers(8, 256), "2001:db8:0:fff::1", "2001:db8::/48", true, 9, 1},
		{"beside a /48 at its cap", 64, 8, 99, 24, subscribers(8, 256), "2001:db8:1::1", "2001:db8:1::/64", false, 9, 0},
		{"/32 at its cap", 64, 99, 8, 24, sites(8), "2001:db8:99::1", "2001:db8:99::/48", true, 9, 1},
		{"/32 far beyond its cap", 64, 99, 8, 24, sites(9), "2001:db8:99::1", "2001:db8::/32", true, 10, 2},
		{"beside a /32 at its cap", 64, 99, 8, 24, sites(12), "2001:db9::1", "2001:db9::/64", false, 11, 2},
		{"pool nearly full", 64, 99, 99, 27, sites(28), "2001:db8:1:1::1", "2001:db8::/32", true, 29, 1},
		{"/56 for each", 56, 99, 99, 24, nil, "2001:db8:0:1ff::1", "2001:db8:0:100::/56", false, 1, 0},
		{"/48 for each", 48, 1, 99, 24, sites(2), "2001:db8:5:ffff::1", "2001:db8:5::/48", false, 3, 0},
		{"/48 for each, /32 at its cap", 48, 1, 2, 24, sites(2), "2001:db8:5::1", "2001:db8::/32", true, 3, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := small(tt.pool)
				o.Bits, o.CapPer48, o.CapPer32 = tt.bits, tt.per48, tt.per32
				store := statetest.NewVolatile()
				l := start(t, store, o)
				had := make(map[string]netip.Addr)
				for _, c := range tt.clients {
					had[c] = l.lease(c)
				}
				a := l.lease(tt.last)
				check := func(l running) {
					t.Helper()
					if r := l.who(a, time.Time{}); r.Prefix.String() != tt.want || r.Shared != tt.shared {
						t.Errorf("%s is of %v, shared %v; want %s, %v", tt.last, r.Prefix, r.Shared, tt.want, tt.shared)
					}
					if r := l.who(netip.MustParseAddr(tt.last), time.Time{}); r.StandIn != a {
						t.Errorf("%s has %+v, want %v", tt.last, r, a)
					}
					if s := l.Status(); s.Leased != tt.leased || s.Shared != tt.group {
						t.Errorf("%d leased, %d shared; want %d, %d", s.Leased, s.Shared, tt.leased, tt.group)
					}
					for c, a := range had {
						if l.lease(c) != a {
							t.Errorf("%s lost its stand-in", c)
						}
					}
				}
				check(l)
				l.end()
				l = start(t, store.Restart(), o)
				check(l)
				l.end()
			})
		})
	}
}

// Without a single stand-in left there is nothing to share.
func TestFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := start(t, statetest.NewVolatile(), small(30))
		l.lease("2001:db8::1")
		l.refused("2001:db9::1", ErrFull)
		l.end()
	})
}
