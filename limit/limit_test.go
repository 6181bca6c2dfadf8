// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"net/netip"
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
		for _, k := range []Kind{Requests, Connections, Handshakes} {
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
