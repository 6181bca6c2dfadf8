// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package wheel holds very many timers, most of which are stopped before their time: setting and stopping one costs a
// few writes, whatever their number. It has no clock and starts no goroutine; its owner tells it the time.
package wheel

// Hot path: no allocation per packet.

import "math/bits"

const (
	tick  = 10e6 // nanoseconds: the shortest interval of SIP is 200 ms
	slots = 4096 // one turn takes 41 s, which is longer than 64 times T1
)

// Timer is one alarm, for its owner's value. It is part of what it wakes, and must not be copied while it is set. The zero
// Timer is stopped.
type Timer[T any] struct {
	Value      T
	at         int64
	prev, next *Timer[T] // nil when stopped
}

// At returns when the timer fires, or 0 if it is stopped.
func (t *Timer[T]) At() int64 { return t.at }

// Wheel keeps timers in slots by the tick in which they must be looked at. Times are nanoseconds of a clock that does
// not go back. It is not safe for use by two at once.
type Wheel[T any] struct {
	now   int64 // in ticks: all before it has fired
	count int
	full  [slots / 64]uint64
	slot  [slots]Timer[T] // heads of rings
}

// New returns a wheel that stands at now.
func New[T any](now int64) *Wheel[T] {
	w := &Wheel[T]{now: now / tick}
	for i := range w.slot {
		w.slot[i].prev, w.slot[i].next = &w.slot[i], &w.slot[i]
	}
	return w
}

// Len returns how many timers are set.
func (w *Wheel[T]) Len() int { return w.count }

// Set lets t fire at a time, rounded up to 10 ms, or moves it there. A time that has passed is the next tick's.
func (w *Wheel[T]) Set(t *Timer[T], at int64) {
	w.Stop(t)
	w.put(t, at)
	w.count++
}

func (w *Wheel[T]) put(t *Timer[T], at int64) {
	t.at = max(at, 1)
	due := max((at+tick-1)/tick, w.now+1)
	i := min(due, w.now+slots-1) % slots // one that is further away is looked at on the way
	head := &w.slot[i]
	t.prev, t.next = head.prev, head
	head.prev.next, head.prev = t, t
	w.full[i/64] |= 1 << (i % 64)
}

// Stop takes t off the wheel, if it is set.
func (w *Wheel[T]) Stop(t *Timer[T]) {
	if t.next == nil {
		return
	}
	t.prev.next, t.next.prev = t.next, t.prev
	t.prev, t.next, t.at = nil, nil, 0
	w.count--
}

// Advance fires what is due by now, in the order of the ticks. fire may set and stop timers.
func (w *Wheel[T]) Advance(now int64, fire func(T)) {
	for target := now / tick; w.now < target; {
		if w.count == 0 {
			w.now = target
			return
		}
		w.now = min(w.nextFull(), target)
		i := w.now % slots
		if w.full[i/64]&(1<<(i%64)) > 0 {
			w.empty(i, fire)
		}
	}
}

// empty fires the timers of one slot. Those of a later turn go on, to another slot, as do all that fire sets.
func (w *Wheel[T]) empty(i int64, fire func(T)) {
	head := &w.slot[i]
	w.full[i/64] &^= 1 << (i % 64)
	for head.next != head {
		t := head.next
		at := t.at
		w.Stop(t)
		if due := (at + tick - 1) / tick; due > w.now {
			w.put(t, at)
			w.count++
		} else {
			fire(t.Value)
		}
	}
}

// Next returns when Advance has something to do next; ok is false if no timer is set. It may be early, never late.
func (w *Wheel[T]) Next() (at int64, ok bool) {
	if w.count == 0 {
		return 0, false
	}
	return w.nextFull() * tick, true
}

// nextFull returns the first tick after now whose slot may have timers.
func (w *Wheel[T]) nextFull() int64 {
	for n := int64(1); n < slots; {
		i := (w.now + n) % slots
		rest := w.full[i/64] >> (i % 64)
		if rest != 0 {
			return w.now + min(n+int64(bits.TrailingZeros64(rest)), slots-1)
		}
		n += 64 - i%64
	}
	return w.now + slots - 1
}
