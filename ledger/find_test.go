// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/kyozon/kyozon/state/statetest"
)

func TestFindAllocs(t *testing.T) {
	o := options()
	o.Embed = netip.MustParsePrefix("64:ff9b::/96")
	l := start(t, statetest.NewVolatile(), o)
	l.lease("2001:db8::1")
	for _, client := range []string{"2001:db8::2", "2001:db9::1", "192.0.2.1"} {
		a := netip.MustParseAddr(client)
		if n := testing.AllocsPerRun(100, func() {
			l.clock.Add(1) // so that the use is noted each time
			l.Find(a)
		}); n != 0 {
			t.Errorf("Find %s: %v allocations", client, n)
		}
	}
	l.end()
}

// TestTable compares the table with a map, over growth and deaths.
func TestTable(t *testing.T) {
	t.Parallel()
	table, want := newTable(0), make(map[uint64]uint64)
	for i := range 20000 {
		key := uint64(rand.IntN(3000)) << 16
		if _, ok := want[key]; ok {
			table.kill(table.find(key))
			delete(want, key)
			continue
		}
		if !table.room() {
			table = table.grown()
		}
		want[key] = value(uint32(i), 0, 1)
		table.insert(key, want[key])
	}
	for key := range uint64(3000) {
		s := table.find(key << 16)
		got := uint64(0)
		if s != nil && s.val.Load()&dead == 0 {
			got = s.val.Load()
		}
		if got != want[key<<16] {
			t.Fatalf("key %x: %x, want %x", key<<16, got, want[key<<16])
		}
	}
	if live := table.filled - table.dead; live != len(want) {
		t.Errorf("%d live, want %d", live, len(want))
	}
}

// TestCounter compares the counter with a map, over growth and counts that go back to 0.
func TestCounter(t *testing.T) {
	t.Parallel()
	c, want := newCounter(64), make(map[uint64]int)
	for range 50000 {
		key, n := rand.Uint64N(3000), 1
		if want[key] > 0 && rand.IntN(2) == 0 {
			n = -want[key]
		}
		c.add(key, n)
		want[key] += n
	}
	for key := range uint64(4000) {
		if c.of(key) != want[key] {
			t.Fatalf("key %d: %d, want %d", key, c.of(key), want[key])
		}
	}
}

// Readers look while the tables grow under them: who was told can be found ever after.
func TestFindConcurrent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := start(t, statetest.NewVolatile(), small(18))
		var wg sync.WaitGroup
		for r := range 4 {
			wg.Go(func() {
				for i := range 500 {
					client := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(r), byte(i), byte(i >> 8)})
					done := make(chan netip.Addr, 1)
					l.Lease(client, func(a netip.Addr, err error) {
						if err != nil {
							t.Error(err)
						}
						done <- a
					})
					want := <-done
					for range 10 {
						if a, ok := l.Find(client); !ok || a != want {
							t.Errorf("Find %v: %v, %v; want %v", client, a, ok, want)
						}
					}
				}
			})
		}
		wg.Wait()
		l.end()
	})
}
