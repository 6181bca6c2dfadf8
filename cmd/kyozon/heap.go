// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync/atomic"
)

const (
	// gcPercent trades memory for processor while what lives is small (a few hundred bytes a flow): what is allocated dies at
	// once.
	gcPercent = 400

	// gcLeast does so where much lives, as with a million subscribers.
	gcLeast = 50

	// gcRoom is how much may be allocated between collections in any case.
	gcRoom = 256 << 20
)

// gcPercentOf returns by how much the heap may grow beyond what lives before it is collected: at four times as much, 256 MB
// would be more than a gigabyte.
func gcPercentOf(live uint64) int {
	return int(min(gcPercent, max(gcLeast, gcRoom*100/max(live, 1))))
}

// heap has the garbage collector keep to gcPercentOf: it is told after each collection.
type heap struct {
	set  func(percent int)
	last int
	over atomic.Bool
}

// tendHeap begins, unless GOGC says what the operator wants. The function that it returns ends it.
func tendHeap() (end func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	h := &heap{set: func(percent int) { debug.SetGCPercent(percent) }}
	h.tend()
	return func() { h.over.Store(true) }
}

// collected is what nobody holds, so that a collection finds it.
type collected struct{ _ *heap }

// tend sets what follows from what lives, now and after the next collection.
func (h *heap) tend() {
	live := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(live)
	if percent := gcPercentOf(live[0].Value.Uint64()); percent != h.last {
		h.last = percent
		h.set(percent)
	}
	if !h.over.Load() {
		runtime.AddCleanup(new(collected), (*heap).tend, h)
	}
}
