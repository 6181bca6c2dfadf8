// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/state"
)

const million = 1_000_000

// clientOf returns an address of the nth of a million prefixes that are spread over 4,096 /32s.
func clientOf(n int) netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], 0x2400_0000_0000_0000|ip.Mix(uint64(n)+1)>>8&0xfff_ffff_ffff_0000|uint64(n)&0xff)
	return netip.AddrFrom16(b)
}

// fileOf1M returns a bbolt file with a million leases.
func fileOf1M(b *testing.B) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "state")
	store, err := state.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	base, now := number(wide().Pool.Addr()), uint32(time.Now().Unix())
	for n := 0; n < million; {
		var ops []state.Op
		for ; n < million && len(ops) < 50_000; n++ {
			le := lease{hi: high(clientOf(n)), bits: 64, first: now, last: now}
			ops = append(ops, state.Op{Key: leaseKey(base + 2 + uint32(n)), Value: le.encode()})
		}
		if err := store.Apply(context.Background(), ops...); err != nil {
			b.Fatal(err)
		}
	}
	return path
}

func openFile(b *testing.B, path string) (*Ledger, *state.Bolt) {
	b.Helper()
	store, err := state.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	l, err := Open(store, wide(), quiet())
	if err != nil {
		b.Fatal(err)
	}
	return l, store
}

// BenchmarkFind looks up random ones of a million leases.
func BenchmarkFind(b *testing.B) {
	l, store := openFile(b, fileOf1M(b))
	defer store.Close()
	clients := make([]netip.Addr, 1<<20)
	for i := range clients {
		clients[i] = clientOf(rand.IntN(million))
	}
	b.Run("known", func(b *testing.B) {
		b.ReportAllocs()
		defer cpu(b)()
		for i := 0; b.Loop(); i++ {
			if _, ok := l.Find(clients[i&(len(clients)-1)]); !ok {
				b.Fatal("not found")
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		defer cpu(b)()
		b.RunParallel(func(pb *testing.PB) {
			for i := rand.IntN(len(clients)); pb.Next(); i++ {
				if _, ok := l.Find(clients[i&(len(clients)-1)]); !ok {
					b.Error("not found")
					return
				}
			}
		})
	})
	b.Run("unknown", func(b *testing.B) {
		b.ReportAllocs()
		defer cpu(b)()
		for i := 0; b.Loop(); i++ {
			if _, ok := l.Find(netip.AddrFrom16([16]byte{0x2a, 0, byte(i >> 16), byte(i >> 8), byte(i)})); ok {
				b.Fatal("found")
			}
		}
	})
}

// BenchmarkOpen1M reads a million leases: seconds to start, and memory of the book.
func BenchmarkOpen1M(b *testing.B) {
	path := fileOf1M(b)
	var used uint64
	defer cpu(b)()
	for b.Loop() {
		b.StopTimer()
		before := heap()
		b.StartTimer()
		l, store := openFile(b, path)
		b.StopTimer()
		used = heap() - before
		if s := l.Status(); s.Leased != million {
			b.Fatalf("%d leases", s.Leased)
		}
		if err := store.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	b.ReportMetric(float64(used)/million, "bytes/lease")
	b.ReportMetric(b.Elapsed().Seconds()/float64(b.N), "s/start")
}

// cpu reports the processor time of an operation: it is what counts when other work shares the machine.
func cpu(b *testing.B) (report func()) {
	now := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	begun := now()
	return func() { b.ReportMetric(float64(now()-begun)/float64(b.N), "cpu-ns/op") }
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// BenchmarkLease leases for new clients in a real file with fsync, as many at once as the name says.
func BenchmarkLease(b *testing.B) {
	for _, callers := range []int{1, 16, 256, 4096} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			l, store := openFile(b, filepath.Join(b.TempDir(), "state"))
			defer store.Close()
			ctx, cancel := context.WithCancel(b.Context())
			ran := make(chan error, 1)
			go func() { ran <- l.Run(ctx) }()
			var late, failed atomic.Int64 // late ones are written all the same
			slots := make(chan struct{}, callers)
			b.ResetTimer()
			report := cpu(b)
			for n := range b.N {
				slots <- struct{}{}
				l.Lease(clientOf(n), func(_ netip.Addr, err error) {
					switch {
					case errors.Is(err, ErrDeadline):
						late.Add(1)
					case err != nil:
						failed.Add(1)
					}
					<-slots
				})
			}
			for range callers {
				slots <- struct{}{}
			}
			b.StopTimer()
			report()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "leases/s")
			b.ReportMetric(float64(late.Load()), "late")
			if n := failed.Load(); n > 0 {
				b.Errorf("%d of %d were refused", n, b.N)
			}
			cancel()
			if err := <-ran; err != nil {
				b.Error(err)
			}
		})
	}
}
