// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package wheel

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestModel compares a wheel with a list: whatever is set, moved and stopped, each timer fires once, not early, and at
// most a tick late.
func TestModel(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	now := int64(1e15)
	w := New[int](now)
	timers := make([]Timer[int], 200)
	want := map[int]int64{}
	for i := range timers {
		timers[i].Value = i
	}
	spans := []int64{0, 1, tick, 200e6, 32e9, 41e9, 1800e9}
	for step := range 20_000 {
		i := r.IntN(len(timers))
		switch r.IntN(4) {
		case 0:
			w.Stop(&timers[i])
			delete(want, i)
		case 1, 2:
			at := now + r.Int64N(spans[r.IntN(len(spans))]+1)
			w.Set(&timers[i], at)
			want[i] = at
		case 3:
			if next, ok := w.Next(); ok && r.IntN(2) == 0 {
				now = max(now, next)
			} else {
				now += r.Int64N(spans[r.IntN(6)] + 1)
			}
			w.Advance(now, func(i int) {
				if at, ok := want[i]; !ok || at > now {
					t.Fatalf("step %d: timer %d fired at %d, want %d, %v", step, i, now, at, ok)
				}
				delete(want, i)
				if r.IntN(8) == 0 {
					w.Set(&timers[i], now+1)
					want[i] = now + 1
				}
			})
			for i, at := range want {
				if at <= now-2*tick {
					t.Fatalf("step %d: timer %d of %d has not fired at %d", step, i, at, now)
				}
			}
		}
		if w.Len() != len(want) {
			t.Fatalf("step %d: %d timers, want %d", step, w.Len(), len(want))
		}
		if next, ok := w.Next(); ok {
			first := int64(1 << 62)
			for _, at := range want {
				first = min(first, at)
			}
			if next > max(first, now)+2*tick {
				t.Fatalf("step %d: next is %d, want %d", step, next, first)
			}
		}
	}
}

// TestSameTick: timers of one tick that stop and set each other lose none.
func TestSameTick(t *testing.T) {
	t.Parallel()
	w := New[int](0)
	timers := make([]Timer[int], 4)
	for i := range timers {
		timers[i].Value = i
		w.Set(&timers[i], tick)
	}
	var fired []int
	w.Advance(tick, func(i int) {
		fired = append(fired, i)
		if i == 0 {
			w.Stop(&timers[3]) // the last of the slot
			w.Set(&timers[0], 2*tick)
		}
	})
	w.Advance(2*tick, func(i int) { fired = append(fired, i) })
	if want := []int{0, 1, 2, 0}; !slices.Equal(fired, want) || w.Len() != 0 {
		t.Errorf("fired %v, want %v; %d left", fired, want, w.Len())
	}
}

func TestAllocs(t *testing.T) {
	w := New[*int](0)
	var timer Timer[*int]
	now := int64(0)
	if n := testing.AllocsPerRun(100, func() {
		now += tick
		w.Set(&timer, now+500e6)
		w.Stop(&timer)
		w.Set(&timer, now)
		w.Advance(now+tick, func(*int) {})
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkSetStop(b *testing.B) {
	w := New[int](0)
	var timers [1024]Timer[int]
	for i := range b.N {
		w.Set(&timers[i%len(timers)], int64(i)*1000+500e6)
	}
}
