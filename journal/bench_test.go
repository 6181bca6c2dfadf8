// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

// BenchmarkAppend counts records of 4 KiB made durable for many writers, each of whom waits for it and then settles it.
func BenchmarkAppend(b *testing.B) {
	for _, writers := range []int{1, 16, 256, 4096} {
		b.Run(fmt.Sprintf("writers=%d", writers), func(b *testing.B) {
			j, _ := run(b, b.TempDir(), Options{})
			data := make([]byte, 4096)
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for range writers {
				wg.Go(func() {
					written := make(chan error, 1)
					for next.Add(1) <= int64(b.N) {
						id := j.Append(1, func(err error) { written <- err }, data)
						if err := <-written; err != nil {
							b.Error(err)
						}
						j.Settle(id)
					}
				})
			}
			wg.Wait()
			s := j.Status()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64(s.Appended)/float64(s.Commits), "records/sync")
		})
	}
}

// BenchmarkUnsynced counts what a caller spends on a small record that it does not wait for, and on its settlement.
func BenchmarkUnsynced(b *testing.B) {
	j, _ := run(b, b.TempDir(), Options{Unsynced: true})
	data := make([]byte, 64)
	b.ReportAllocs()
	for b.Loop() {
		j.Settle(j.Put(1, data))
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
