// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
	"unsafe"
)

// day is some seconds in which flooders and honest clients ask. All times are the test's.
type day struct {
	limits *Limits
	rules  Rules
	random *rand.Rand
}

func newDay(size int) *day {
	r := usual()
	return &day{NewTable(size).Limits(r), r, rand.New(rand.NewPCG(1, 2))}
}

// from returns a random address of a prefix.
func (d *day) from(prefix string) netip.Addr {
	p := netip.MustParsePrefix(prefix)
	if p.Addr().Is4() {
		a := p.Addr().As4()
		n := binary.BigEndian.Uint32(a[:]) | uint32(d.random.Uint64()>>32)>>p.Bits()
		return netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))
	}
	b := p.Addr().As16()
	low, high := d.random.Uint64(), d.random.Uint64()
	if p.Bits() < 64 {
		binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(b[:8])|high>>p.Bits())
	}
	binary.BigEndian.PutUint64(b[8:], low)
	return netip.AddrFrom16(b)
}

// flood has a hundred thousand random addresses of each prefix ask in each second, while each honest client asks ten
// times: all that it may. It returns how many requests of each honest client are refused in two seconds.
func (d *day) flood(prefixes []string, honest []netip.Addr) []int {
	const perSecond, seconds = 100_000, 2
	refused := make([]int, len(honest))
	for i := range perSecond * seconds {
		now := int64(i) * second / perSecond
		for _, p := range prefixes {
			d.limits.Allow(Requests, d.from(p), now)
		}
		if i%(perSecond/10) != 0 {
			continue
		}
		for n, c := range honest {
			if !d.limits.Allow(Requests, c, now) {
				refused[n]++
			}
		}
	}
	return refused
}

// TestFlood: who floods harms nobody outside the prefix that he owns, however much of the table he wants.
func TestFlood(t *testing.T) {
	t.Parallel()
	elsewhere := make([]netip.Addr, 50)
	for i := range elsewhere {
		elsewhere[i] = client(6, 0x1000_0000+i<<16)
	}
	addr := netip.MustParseAddr
	tests := []struct {
		name    string
		flood   []string
		size    int
		honest  []netip.Addr // beside the fifty
		suffers bool         // the honest ones beside the fifty
	}{
		{"a /48", []string{"2001:db8:666::/48"}, DefaultSize, []netip.Addr{addr("2001:db8:666:7::1")}, true},
		{"a /56, with neighbours in the /48", []string{"2001:db8:666:100::/56"}, DefaultSize, []netip.Addr{addr("2001:db8:666:700::1"), addr("2001:db8:666:800::1")}, false},
		{"a /64, with neighbours in the /56", []string{"2001:db8:666:107::/64"}, DefaultSize, []netip.Addr{addr("2001:db8:666:108::1"), addr("2001:db8:666:800::1")}, false},
		{"a /24 of IPv4", []string{"192.0.2.0/24"}, DefaultSize, []netip.Addr{addr("192.0.3.1"), addr("198.51.100.1")}, false},
		{"an address, with neighbours in the /24", []string{"192.0.2.1/32"}, DefaultSize, []netip.Addr{addr("192.0.2.2"), addr("192.0.2.3")}, false},
		{"a /32 that fills a small table", []string{"2a00:bad::/32"}, 0, nil, false},
		{"half of the world", []string{"2000::/4"}, 0, nil, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			d := newDay(test.size)
			refused := d.flood(test.flood, append(elsewhere[:50:50], test.honest...))
			for i, n := range refused {
				switch {
				case i >= len(elsewhere) && test.suffers:
					t.Logf("%v, within the flood: %d of 20 refused", test.honest[i-len(elsewhere)], n)
				case n > 0:
					t.Errorf("honest client %d: %d of 20 refused", i, n)
				}
			}
			if test.size == 0 && d.limits.Table().Forgotten() == 0 {
				t.Error("the table is not full: it is too large for this test")
			}
		})
	}
}

// TestFloodSlots: a flood of a /48 fills one shard at most, and of that only what the /48 lets through; when it is over
// all of it is free.
func TestFloodSlots(t *testing.T) {
	t.Parallel()
	d := newDay(DefaultSize)
	d.flood([]string{"2001:db8:666::/48"}, nil)
	for _, at := range []struct {
		now  int64
		most int
	}{
		{2 * second, 1 + 256 + 16*10}, // the /48, its /56s, and a /64 for each that has passed and is not whole again
		{12 * second, 0},
	} {
		held, where := 0, 0
		for i := range d.limits.Table().shards {
			if n := d.held(i, at.now); n > 0 {
				held, where = held+n, where+1
			}
		}
		if held > at.most || where > 1 {
			t.Errorf("%d slots of %d shards are held after %v, want %d of one at most", held, where, time.Duration(at.now), at.most)
		}
	}
}

// held returns how many slots of a shard are not whole.
func (d *day) held(shard int, now int64) (n int) {
	for _, set := range d.limits.Table().shards[shard].sets {
		for i := range set.slots {
			if d.limits.debt(&set.slots[i], now) > 0 {
				n++
			}
		}
	}
	return n
}

// TestForget: of prefixes that do not all find a place, those that owe most are remembered.
func TestForget(t *testing.T) {
	t.Parallel()
	d := newDay(0)
	heavy := client(6, 0x2000_0000)
	passed := 0
	for i := range 200_000 { // in one second; the table has room for 4,096 prefixes
		now := int64(i) * second / 200_000
		d.limits.Allow(Requests, d.from("2000::/4"), now)
		if d.limits.Allow(Requests, heavy, now) {
			passed++
		}
	}
	if d.limits.Table().Forgotten() == 0 || passed < 19 || passed > 20 {
		t.Errorf("%d were forgotten; of the one who asked always %d passed, want 19 or 20", d.limits.Table().Forgotten(), passed)
	}
}

// TestSize: a table is as large as its comment says.
func TestSize(t *testing.T) {
	t.Parallel()
	table := NewTable(DefaultSize)
	sets := shards * len(table.shards[0].sets)
	if slots := sets * ways; slots != DefaultSize {
		t.Errorf("room for %d prefixes, want %d", slots, DefaultSize)
	}
	if size := sets * int(unsafe.Sizeof(set{})); size != 6<<20 || unsafe.Sizeof(*table) > 128<<10 {
		t.Errorf("%d bytes of sets and %d others", size, unsafe.Sizeof(*table))
	}
}
