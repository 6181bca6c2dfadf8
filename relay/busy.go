// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

// Hot path: no allocation per packet.

import (
	"time"

	"golang.org/x/sys/unix"
)

// busyWindow is over how long at least it is seen whether a loop is busy.
const busyWindow = int64(64 * time.Millisecond)

// load says whether a loop is busy, by the processor time of its thread.
type load struct {
	busy  bool
	since int64 // when it was seen last
	spent int64 // and what the thread had computed by then
}

// due says whether it is to be seen again.
func (d *load) due(now int64) bool { return now-d.since >= busyWindow }

// look takes what the thread has computed until now.
func (d *load) look(now, spent int64) {
	d.busy = 2*(spent-d.spent) > now-d.since
	d.since, d.spent = now, spent
}

// Busy says whether the loop has computed for more than half of the time since it was last asked, or, if that is not long
// ago, before: whoever can have something done elsewhere should.
func (l *Loop) Busy() bool {
	if l.load.due(l.now) {
		l.load.look(l.now, threadTime())
	}
	return l.load.busy
}

// threadTime returns the processor time of this thread, in nanoseconds. A loop has one of its own.
func threadTime() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) // it is always there: clock_gettime(2)
	return t.Nano()
}
