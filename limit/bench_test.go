// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
)

// rules with everything on and no one near it.
func plenty() Rules {
	r := Rules{Open: MaxCount, Wider4: DefaultWider(ip.V4), Wider6: DefaultWider(ip.V6)}
	for k := range r.Rates {
		r.Rates[k] = Rate{Count: MaxCount, Per: time.Second, Burst: MaxCount}
	}
	return r
}

// spread returns n addresses of both families or one, each with prefixes of its own.
func spread(f ip.Family, n int) []netip.Addr {
	all := make([]netip.Addr, n)
	for i := range all {
		x := ip.Mix(uint64(i))
		if f == ip.V4 {
			all[i] = netip.AddrFrom4([4]byte{byte(x), byte(x >> 8), byte(x >> 16), byte(x >> 24)})
			continue
		}
		var b [16]byte
		binary.BigEndian.PutUint64(b[:8], 0x2<<60|x>>4)
		all[i] = netip.AddrFrom16(b)
	}
	return all
}

// BenchmarkAllow is one question, for one client, who is always there, and for many, who are not in the cache.
func BenchmarkAllow(b *testing.B) {
	for _, f := range []ip.Family{ip.V4, ip.V6} {
		for _, n := range []int{1, 1 << 10, 1 << 16} {
			b.Run(fmt.Sprintf("%v/clients=%d", f, n), func(b *testing.B) {
				l, clients := NewTable(DefaultSize).Limits(plenty()), spread(f, n)
				b.ReportAllocs()
				now := int64(0)
				for i := 0; b.Loop(); i++ {
					now += 1000
					l.Allow(Requests, clients[i&(n-1)], now)
				}
			})
		}
	}
}

// BenchmarkOpen is a connection that comes and goes.
func BenchmarkOpen(b *testing.B) {
	l, clients := NewTable(DefaultSize).Limits(plenty()), spread(ip.V6, 1<<10)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.Allow(Open, clients[i&1023], int64(i))
		l.Release(clients[i&1023])
	}
}

// BenchmarkRefuse is a flood from one /48.
func BenchmarkRefuse(b *testing.B) {
	r := plenty()
	r.Rates[Requests] = Rate{1, time.Hour, 1}
	l, clients := NewTable(DefaultSize).Limits(r), flood(1<<16)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		l.Allow(Requests, clients[i&(1<<16-1)], 0)
	}
}

// BenchmarkParallel is all loops at once, each with clients of its own or all with those of one /48.
func BenchmarkParallel(b *testing.B) {
	for name, clients := range map[string][]netip.Addr{"own": spread(ip.V6, 1<<10), "one-48": flood(1 << 10)} {
		b.Run(name, func(b *testing.B) {
			l := NewTable(DefaultSize).Limits(plenty())
			b.RunParallel(func(pb *testing.PB) {
				for i := 0; pb.Next(); i++ {
					l.Allow(Requests, clients[i&1023], int64(i)*1000)
				}
			})
		})
	}
}

// flood returns n addresses of 2001:db8:666::/48, each in another /64 as far as there are.
func flood(n int) []netip.Addr {
	all := make([]netip.Addr, n)
	for i := range all {
		b := [16]byte{0x20, 0x01, 0x0d, 0xb8, 0x06, 0x66}
		binary.BigEndian.PutUint64(b[6:], ip.Mix(uint64(i)))
		all[i] = netip.AddrFrom16(b)
	}
	return all
}
