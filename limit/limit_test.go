// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

const second = int64(time.Second)

// usual are the rules of most tests: 10 a second and 10 at once of each rate, 3 connections open.
func usual() Rules {
	r := Rules{Open: 3, Wider4: DefaultWider(ip.V4), Wider6: DefaultWider(ip.V6)}
	for k := range r.Rates {
		r.Rates[k] = Rate{Count: 10, Per: time.Second, Burst: 10}
	}
	return r
}

// client is the nth client of a network: another /64 of 2001:db8:0::/48, or another address of 192.0.2.0/24, while n is
// small; else other networks.
func client(f ip.Family, n int) netip.Addr {
	if f == ip.V4 {
		return netip.AddrFrom4([4]byte{192, 0, 2 + byte(n>>8), byte(n)})
	}
	return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n), 15: 1})
}

// allowed counts how many of n pass.
func allowed(l *Limits, k Kind, client netip.Addr, now int64, n int) (passed int) {
	for range n {
		if l.Allow(k, client, now) {
			passed++
		}
	}
	return passed
}

// TestRate: a burst at once, then one for each tenth of a second, and never more than the burst however long it was quiet.
func TestRate(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		t.Parallel()
		for _, k := range []Kind{Requests, Connections, Handshakes, FailedLogins} {
			l, c := NewTable(0).Limits(usual()), client(f, 1)
			for i, step := range []struct {
				now  int64
				want int
			}{
				{0, 10}, {0, 0}, {second/10 - 1, 0}, {second / 10, 1}, {second / 10, 0}, {second / 2, 4}, {second, 5},
				{second + second/20, 0}, {100 * second, 10}, {100 * second, 0}, {101 * second, 10},
			} {
				if got := allowed(l, k, c, step.now, 20); got != step.want {
					t.Errorf("%v, step %d at %v: %d passed, want %d", k, i, time.Duration(step.now), got, step.want)
				}
			}
		}
	})
}

// TestGiveBack: what is given back can be had again, by the client and in his wider prefixes, and no more than that.
func TestGiveBack(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		t.Parallel()
		r := usual()
		r.Wider4, r.Wider6 = []Wider{{24, 1}}, []Wider{{48, 1}}
		l := NewTable(0).Limits(r)
		l.GiveBack(FailedLogins, client(f, 1)) // of which nothing is known
		if got := allowed(l, FailedLogins, client(f, 1), 0, 20); got != 10 {
			t.Errorf("%d passed, want 10", got)
		}
		for range 3 {
			l.GiveBack(FailedLogins, client(f, 1))
		}
		if got := allowed(l, FailedLogins, client(f, 2), 0, 20); got != 3 {
			t.Errorf("%d of the neighbour passed, want the 3 that were given back", got)
		}
		if got := allowed(l, FailedLogins, client(f, 1), second, 20); got != 10 {
			t.Errorf("%d passed later, want 10", got)
		}
	})
}

// TestOpen: as many as the rules say, and one more for each that is given back.
func TestOpen(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		t.Parallel()
		l, c := NewTable(0).Limits(usual()), client(f, 1)
		if got := allowed(l, Open, c, 0, 10); got != 3 {
			t.Errorf("%d are open, want 3", got)
		}
		l.Release(c)
		if got := allowed(l, Open, c, 0, 10); got != 1 {
			t.Errorf("%d take the place of one, want 1", got)
		}
		for range 5 { // more than there are: of those that were forgotten
			l.Release(c)
		}
		if got := allowed(l, Open, c, 0, 10); got != 3 {
			t.Errorf("%d are open, want 3", got)
		}
		l.Release(client(f, 2)) // who is not there
	})
}

// TestTiers: clients of one prefix share what it has, each length with its own multiple, and nobody else does.
func TestTiers(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddr
	r := usual()
	r.Wider4, r.Wider6 = []Wider{{24, 2}}, []Wider{{56, 2}, {48, 3}}
	for _, test := range []struct {
		name    string
		clients []string // each wants all that it can have, in this order
		want    []int    // of 10 a client, 20 a /56 or /24, 30 a /48
	}{
		{"one", []string{"2001:db8::1"}, []int{10}},
		{"one /64", []string{"2001:db8::1", "2001:db8::ffff:0:0:1"}, []int{10, 0}},
		{"one /56", []string{"2001:db8::1", "2001:db8:0:1::1", "2001:db8:0:2::1"}, []int{10, 10, 0}},
		{"one /48", []string{"2001:db8::1", "2001:db8:0:1::1", "2001:db8:0:100::1", "2001:db8:0:ffff::1"}, []int{10, 10, 10, 0}},
		{"who is refused takes nothing", []string{"2001:db8::1", "2001:db8::1", "2001:db8:0:1::1", "2001:db8:0:100::1"}, []int{10, 0, 10, 10}},
		{"two /48", []string{"2001:db8::1", "2001:db8:0:1::1", "2001:db8:0:100::1", "2001:db8:1::1"}, []int{10, 10, 10, 10}},
		{"one /32 of IPv4", []string{"192.0.2.1", "192.0.2.1"}, []int{10, 0}},
		{"one /24", []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.3.1"}, []int{10, 10, 0, 10}},
		{"addresses with the same bits", []string{"0.0.0.1", "0:0:0:1::", "::1"}, []int{10, 10, 10}},
	} {
		for _, k := range []Kind{Requests, Open} {
			r.Open = 10
			l := NewTable(0).Limits(r)
			for i, c := range test.clients {
				if got := allowed(l, k, addr(c), 0, 50); got != test.want[i] {
					t.Errorf("%s: %v: client %d, %s, has %d, want %d", test.name, k, i, c, got, test.want[i])
				}
			}
		}
	}
}

// TestNone: what is not limited is not counted.
func TestNone(t *testing.T) {
	t.Parallel()
	for name, l := range map[string]*Limits{"no limits": nil, "no rules": NewTable(0).Limits(Rules{})} {
		for _, k := range Kinds() {
			if got := allowed(l, k, client(ip.V6, 1), 0, 1000); got != 1000 {
				t.Errorf("%s: %v: %d passed", name, k, got)
			}
		}
		l.Release(client(ip.V6, 1))
		if c := l.Counts(ip.V6); len(c) != 0 {
			t.Errorf("%s: counters %v", name, c)
		}
	}
}

// TestReload: other rates hold at once, and forgive nothing; connections are given back to the limits that let them in,
// also when the rules know other lengths by then.
func TestReload(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		t.Parallel()
		c, table := client(f, 1), NewTable(0)
		old, more, fewer := usual(), usual(), usual()
		more.Rates[Requests] = Rate{100, time.Second, 100}
		fewer.Rates[Requests] = Rate{5, time.Second, 5}
		if got := allowed(table.Limits(old), Requests, c, 0, 50); got != 10 {
			t.Fatalf("%d passed, want 10", got)
		}
		if got := allowed(table.Limits(fewer), Requests, c, 0, 50); got != 0 {
			t.Errorf("%d passed after a reload that gives less", got)
		}
		if got := allowed(table.Limits(more), Requests, c, second/2, 200); got != 50 { // half of the second is owed still
			t.Errorf("%d passed after a reload that gives more, want 50", got)
		}

		first, other := table.Limits(old), usual()
		other.Wider4, other.Wider6 = []Wider{{16, 100}}, []Wider{{32, 100}}
		if got := allowed(first, Open, c, 0, 10); got != 3 {
			t.Fatalf("%d are open, want 3", got)
		}
		second := table.Limits(other)
		got := allowed(second, Open, c, 0, 10)
		for range 3 {
			first.Release(c)
		}
		for range got {
			second.Release(c)
		}
		for i, l := range []*Limits{first, second} {
			if got := allowed(l, Open, c, 0, 10); got != 3 {
				t.Errorf("rules %d: %d may be open when all were given back, want 3", i, got)
			}
			for range 3 {
				l.Release(c)
			}
		}
	})
}

// TestConcurrent: loops that ask at the same time never give more than there is, and all that is given back is there.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	l := NewTable(DefaultSize).Limits(usual())
	var passed [2]atomic.Int64
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			for i := range 2000 {
				for f, c := range []netip.Addr{client(ip.V4, 9), client(ip.V6, 9)} {
					if l.Allow(Requests, c, 0) {
						passed[f].Add(1)
					}
				}
				own := client(ip.V6, i*8+n)
				l.Allow(Connections, own, int64(i))
				if shared := client(ip.V6, i&1); l.Allow(Open, shared, int64(i)) {
					l.Release(shared)
				}
			}
			l.Table().Heaviest(1)
		})
	}
	wg.Wait()
	if a, b := passed[0].Load(), passed[1].Load(); a != 10 || b != 10 {
		t.Errorf("%d and %d passed, want 10 each", a, b)
	}
	for n := range 2 {
		if got := allowed(l, Open, client(ip.V6, n), 0, 10); got != 3 {
			t.Errorf("%d may be open, want 3", got)
		}
	}
}

// TestAllocations: the hot path allocates nothing, whether it lets in, refuses or forgets.
func TestAllocations(t *testing.T) {
	l := NewTable(0).Limits(usual())
	clients := append(flood(1<<10), spread(ip.V4, 1<<10)...)
	i := 0
	if n := testing.AllocsPerRun(4<<10, func() {
		i++
		c, now := clients[i%len(clients)], int64(i)*second/1000
		l.Allow(Requests, c, now)
		if l.Allow(Open, c, now) && i%2 == 0 {
			l.Release(c)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if l.Table().Forgotten() == 0 {
		t.Error("nothing was forgotten: the table is too large for this test")
	}
}

// TestObserve: who wants more gets it, and is counted; when all is given back, nothing is owed.
func TestObserve(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		t.Parallel()
		r := usual()
		r.Observe = true
		table := NewTable(0)
		l, c := table.Limits(r), client(f, 1)
		for _, k := range []Kind{Requests, Open} {
			if n := allowed(l, k, c, 0, 15); n != 15 {
				t.Errorf("%v: %d pass, want 15", k, n)
			}
		}
		for range 15 {
			l.Release(c)
		}
		seen := make(map[Kind]int64)
		for _, n := range l.Counts(f) {
			seen[n.Kind] += n.Refused
		}
		if seen[Requests] != 5 || seen[Open] != 12 {
			t.Errorf("counted %v, want 5 requests and 12 open", seen)
		}
		r.Observe = false
		l = table.Limits(r)
		if n := allowed(l, Open, c, 0, 15); n != 3 {
			t.Errorf("%d pass when it is enforced, want 3", n)
		}
		if n := allowed(l, Requests, c, second/10, 15); n != 1 { // what was too much has taken nothing
			t.Errorf("%d pass a tenth of a second later, want 1", n)
		}
	})
}
