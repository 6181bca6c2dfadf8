// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"testing"
	"time"
)

func TestLoad(t *testing.T) {
	t.Parallel()
	ms := int64(time.Millisecond)
	d := load{}
	for _, test := range []struct {
		now, spent int64 // in milliseconds
		due, busy  bool
	}{
		{10, 9, false, false}, // too early to tell
		{64, 33, true, true},
		{100, 33, false, true},
		{128, 65, true, false}, // just half
		{10_000, 4000, true, false},
		{10_064, 4064, true, true},
	} {
		due := d.due(test.now * ms)
		if due {
			d.look(test.now*ms, test.spent*ms)
		}
		if due != test.due || d.busy != test.busy {
			t.Errorf("at %d ms: due %t, busy %t; want %t, %t", test.now, due, d.busy, test.due, test.busy)
		}
	}
}

// A loop sees what its own thread computes.
func TestBusy(t *testing.T) {
	l := startLoops(t, 1).loops[0]
	l.do(func() {
		for began := threadTime(); threadTime() < began+int64(time.Millisecond); {
			continue // until it has computed so long
		}
		l.load = load{busy: true, since: l.now}
		if !l.Busy() {
			t.Error("what was seen just now does not count")
		}
		l.load = load{since: l.now - int64(time.Hour), spent: threadTime()}
		if l.Busy() {
			t.Error("a loop is busy that has computed nothing for an hour")
		}
		l.load = load{since: l.now - busyWindow, spent: threadTime() - busyWindow}
		if !l.Busy() {
			t.Error("a loop is not busy that has computed all the time")
		}
		if n := testing.AllocsPerRun(10, func() { l.Busy() }); n > 0 {
			t.Errorf("%v allocations", n)
		}
	})
}
