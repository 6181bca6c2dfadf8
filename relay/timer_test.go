// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"math/rand/v2"
	"testing"
	"time"
)

// Every timer is called once, not early and not later than a tick after its time, however it was moved before.
func TestTimers(t *testing.T) {
	t.Parallel()
	var w wheel
	now := int64(time.Hour)
	w.init(now)
	type entry struct {
		Timer
		due   int64
		calls int
	}
	timers := make([]entry, 500)
	for i := range timers {
		e := &timers[i]
		e.Func = func() {
			if e.calls++; e.due == 0 || now < e.due || now > e.due+2*int64(tick) {
				t.Errorf("timer %d: called at %v, due at %v", i, time.Duration(now), time.Duration(e.due))
			}
			e.due = 0
		}
	}
	r := rand.New(rand.NewPCG(1, 2))
	for range 20_000 {
		e := &timers[r.IntN(len(timers))]
		switch r.IntN(4) {
		case 0:
			w.stop(&e.Timer)
			e.due = 0
		default:
			e.due = now + r.Int64N(int64(90*time.Second)) // up to three turns of the wheel
			w.set(&e.Timer, e.due)
		}
		now += r.Int64N(int64(tick))
		w.advance(now)
	}
	for w.count > 0 { // as a loop without work does
		rest := w.rest(now)
		if rest < 0 || rest > 1000 {
			t.Fatalf("a rest of %d ms", rest)
		}
		now += int64(rest) * int64(time.Millisecond)
		w.advance(now)
	}
	if rest := w.rest(now); rest != -1 {
		t.Errorf("a rest of %d ms without timers", rest)
	}
	for i := range timers {
		if timers[i].due != 0 {
			t.Errorf("timer %d was due at %v and never called", i, time.Duration(timers[i].due))
		}
	}
}

// A timer may set and stop others of its own tick, itself too; and a process that was stopped for long calls all that
// are due.
func TestTimersInTimers(t *testing.T) {
	t.Parallel()
	var w wheel
	w.init(0)
	var calls []string
	var a, b, c Timer
	a.Func = func() {
		calls = append(calls, "a")
		w.stop(&b)
		w.set(&c, 1)
		if len(calls) < 2 {
			w.set(&a, 1)
		}
	}
	b.Func = func() { calls = append(calls, "b") }
	c.Func = func() { calls = append(calls, "c") }
	w.set(&a, 1)
	w.set(&b, 1)
	w.advance(int64(10 * time.Minute))
	w.advance(int64(10*time.Minute) + 2*int64(tick))
	if got := len(calls); got != 4 || calls[0] != "a" || b.next != nil {
		t.Errorf("called %v", calls)
	}
}

func TestTimerAllocations(t *testing.T) {
	var w wheel
	now := int64(time.Hour)
	w.init(now)
	called := 0
	timers := make([]Timer, 100)
	for i := range timers {
		timers[i].Func = func() { called++ }
	}
	if n := testing.AllocsPerRun(100, func() {
		for i := range timers {
			w.set(&timers[i], now+int64(i)*int64(tick))
			w.set(&timers[i], now+int64(i+1)*int64(tick))
		}
		now += int64(4 * time.Second)
		w.advance(now)
	}); n != 0 || called == 0 {
		t.Errorf("%v allocations, %d calls", n, called)
	}
}
