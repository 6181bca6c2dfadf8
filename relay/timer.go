// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

// Hot path: no allocation per packet.

import "time"

const (
	tick  = 32 * time.Millisecond // how late a timer may be
	slots = 1024                  // one turn of the wheel takes 32 s
)

// Timer calls its function once on its loop, up to 32 ms late. The zero value with a Func is ready; the owner keeps
// it in place. Its methods are called on the loop only.
//
// Moving a timer to a later time, as an idle deadline is with every byte, only stores the time: the timer is looked
// at when its old time comes, and moved then.
type Timer struct {
	Func func()

	at         int64 // when it is due, in nanoseconds of the loop's clock; 0 means never
	slotTime   int64 // the tick in whose slot it waits
	next, prev *Timer
}

// wheel holds timers in slots by the tick in which they must be looked at.
type wheel struct {
	slots [slots]Timer // list heads
	due   Timer        // the head of the list that expire works through
	tick  int64        // the last tick that was looked at
	count int
}

func (w *wheel) init(now int64) {
	w.tick = now / int64(tick)
	for i := range w.slots {
		h := &w.slots[i]
		h.next, h.prev = h, h
	}
}

// set makes t due at the given time.
func (w *wheel) set(t *Timer, at int64) {
	t.at = at
	due := max(at/int64(tick), w.tick) + 1
	if t.next != nil {
		if due >= t.slotTime {
			return
		}
		w.unlink(t)
	}
	w.link(t, due)
}

func (w *wheel) link(t *Timer, due int64) {
	h := &w.slots[due%slots]
	t.slotTime = due
	t.prev, t.next = h.prev, h
	h.prev.next, h.prev = t, t
	w.count++
}

func (w *wheel) unlink(t *Timer) {
	t.prev.next, t.next.prev = t.next, t.prev
	t.next, t.prev = nil, nil
	w.count--
}

// stop takes t off the wheel.
func (w *wheel) stop(t *Timer) {
	t.at = 0
	if t.next != nil {
		w.unlink(t)
	}
}

// rest returns how many milliseconds may pass before a slot must be looked at, but a second at most; -1 if there is no timer.
func (w *wheel) rest(now int64) int {
	if w.count == 0 {
		return -1
	}
	next := w.tick + 1
	for h := &w.slots[next%slots]; h.next == h && next < w.tick+int64(time.Second/tick); h = &w.slots[next%slots] {
		next++
	}
	return int((max(next*int64(tick)-now, 0) + int64(time.Millisecond) - 1) / int64(time.Millisecond))
}

// advance runs the timers that are due.
func (w *wheel) advance(now int64) {
	last := now / int64(tick)
	if last-w.tick > slots {
		w.tick = last - slots // the process was stopped for long; each slot need be seen only once
	}
	for w.tick < last {
		w.tick++
		w.expire(&w.slots[w.tick%slots], now)
	}
}

// expire looks at one slot. The timers are moved to a list of their own first, because what they run may set timers
// in this very slot.
func (w *wheel) expire(h *Timer, now int64) {
	if h.next == h {
		return
	}
	due := &w.due
	due.next, due.prev = h.next, h.prev
	due.next.prev, due.prev.next = due, due
	h.next, h.prev = h, h
	for due.next != due {
		t := due.next
		switch w.unlink(t); {
		case t.slotTime > w.tick: // a later turn of the wheel
			w.link(t, t.slotTime)
		case t.at > now: // it was moved
			w.link(t, t.at/int64(tick)+1)
		default:
			t.at = 0
			t.Func()
		}
	}
}
