// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"runtime"
	"sync/atomic"
	"testing"
)

func TestGCPercent(t *testing.T) {
	t.Parallel()
	const mb = 1 << 20
	for live, want := range map[uint64]int{0: 400, 10 * mb: 400, 64 * mb: 400, 128 * mb: 200, 256 * mb: 100, 512 * mb: 50, 4096 * mb: 50} {
		if got := gcPercentOf(live); got != want {
			t.Errorf("%d MB: got %d, want %d", live/mb, got, want)
		}
	}
}

// It is set anew after a collection that has found much more, and no more after the end.
func TestHeap(t *testing.T) {
	var last atomic.Int64
	h := &heap{set: func(percent int) { last.Store(int64(percent)) }}
	h.tend()
	if got := last.Load(); got < gcLeast || got > gcPercent {
		t.Errorf("got %d", got)
	}
	much := make([]byte, 512<<20)
	for last.Load() != gcLeast {
		runtime.GC()
	}
	h.over.Store(true)
	runtime.KeepAlive(much)
}
