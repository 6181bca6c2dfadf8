// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package accesslog writes a line of JSON for each request, and for each flow of a protocol that has no requests. It
// never holds up who serves them: where the writer falls behind, lines are dropped and counted.
//
//	loop 0 ─ Add ─▶ ring ─┐
//	loop 1 ─ Add ─▶ ring ─┼─▶ Run: render ─▶ 64 KiB of lines ─▶ write ─▶ file
//	                      └─  every 250 ms, or when a quarter of a ring has come
//
// The lines are those of log/slog's JSONHandler, to the byte: a test holds the renderer against it. The handler itself
// is not used because it takes ten times as long (3.2 µs to 0.3 µs), and the writer shares the processors with the loops.
//
// A file is only appended to, by writes of whole lines: two processes may have it open while one replaces the other,
// and what rotates it may move it away (Open then makes it anew) or truncate it.
package accesslog

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// writeEvery is how long a line waits at most.
	writeEvery = 250 * time.Millisecond

	// writeSize is how many bytes of lines are written at once.
	writeSize = 64 << 10
)

// Options say what a Log is made of.
type Options struct {
	Loops int          // how many loops call Add
	Now   func() int64 // the loops' clock in nanoseconds
	Log   *slog.Logger // hears of lines that cannot be written
}

// Log is the access log of a process. It is off until Use is given a target. A nil Log is always off.
type Log struct {
	options Options
	on      atomic.Bool
	rings   atomic.Pointer[[]ring] // one for each loop, made when the log is on for the first time
	wake    chan struct{}          // of size 1: one call to look is enough

	lines atomic.Int64 // written
	lost  atomic.Int64 // rendered, but not written
	fault atomic.Pointer[string]
	to    atomic.Pointer[string]

	mu      sync.Mutex
	target  *Target
	buffer  []byte // lines to be written
	pending int64  // how many
	torn    bool   // the file ends in the middle of a line
}

// New returns a Log that is off.
func New(o Options) *Log {
	return &Log{options: o, wake: make(chan struct{}, 1), buffer: make([]byte, 0, writeSize+4096)}
}

// On says whether lines are written. Where they are not, Add does nothing: ask before you work for it.
func (l *Log) On() bool { return l != nil && l.on.Load() }

// Add has r written, soon, or drops it if the writer is too far behind. It is called on the loop whose number it is
// given, does not block and does not allocate; r is the caller's again when it returns.
func (l *Log) Add(loop int, r *Record) {
	if l.On() && (*l.rings.Load())[loop].put(r) {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

// Run writes until ctx is done, and then what is still there: end it after the loops.
func (l *Log) Run(ctx context.Context) {
	look := time.NewTicker(writeEvery)
	defer look.Stop()
	for {
		select {
		case <-look.C:
		case <-l.wake:
		case <-ctx.Done():
			l.Use(nil).Close()
			return
		}
		l.mu.Lock()
		l.drainLocked()
		l.mu.Unlock()
	}
}

// Use has lines written to t from now on, or none if t is nil. Those of before are written to what was used until now,
// which it returns: the caller closes it, or gives it back to Use.
func (l *Log) Use(t *Target) (was *Target) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.drainLocked()
	was, l.target, l.torn = l.target, t, false
	l.to.Store(nil)
	l.fault.Store(nil)
	if t != nil {
		l.to.Store(&t.name)
		if l.rings.Load() == nil {
			rings := make([]ring, l.options.Loops)
			for i := range rings {
				rings[i].slots = make([]Record, ringSize)
			}
			l.rings.Store(&rings)
		}
	}
	l.on.Store(t != nil)
	return was
}

// Status is how the log is.
type Status struct {
	To      string // a file, or stderr; empty if the log is off
	Lines   int64  // written since the process started
	Dropped int64  // not written, because the writer was behind or could not write
	Err     string // why it cannot write now
}

// Status returns how the log is now. It does not wait for a write under way.
func (l *Log) Status() Status {
	s := Status{Lines: l.lines.Load(), Dropped: l.lost.Load()}
	if to := l.to.Load(); to != nil {
		s.To = *to
	}
	if text := l.fault.Load(); text != nil {
		s.Err = *text
	}
	if rings := l.rings.Load(); rings != nil {
		for i := range *rings {
			s.Dropped += (*rings)[i].dropped.Load()
		}
	}
	return s
}

// drainLocked renders and writes what is in the rings.
func (l *Log) drainLocked() {
	now, clock := time.Now(), l.options.Now() // together: the wall clock may be set, theirs is not
	rings := l.rings.Load()
	if rings == nil {
		return
	}
	for i := range *rings {
		q := &(*rings)[i]
		for range ringSize { // one that is filled as fast as it is read does not keep the others waiting
			r := q.next()
			if r == nil {
				break
			}
			at := now.Add(time.Duration(r.At - clock)).Truncate(time.Microsecond)
			l.buffer = appendLine(l.buffer, r, at)
			q.taken()
			if l.pending++; len(l.buffer) >= writeSize {
				l.writeLocked()
			}
		}
	}
	l.writeLocked()
}

// writeLocked writes the lines that are rendered. Those that cannot be written are lost: to keep them would only make
// newer ones wait.
func (l *Log) writeLocked() {
	lines, n := l.buffer, l.pending
	l.buffer, l.pending = l.buffer[:0], 0
	if n == 0 || l.target == nil {
		return
	}
	whole, err := l.target.write(lines, &l.torn)
	l.lines.Add(whole)
	l.lost.Add(n - whole)
	l.report(err)
}

// report tells of a fault when it begins and when it ends.
func (l *Log) report(err error) {
	was := l.fault.Load()
	if err != nil {
		if was == nil {
			l.options.Log.Error("access log cannot be written", "file", l.target.name, "err", err)
		}
		text := err.Error()
		l.fault.Store(&text)
		return
	}
	if was != nil {
		l.fault.Store(nil)
		l.options.Log.Info("access log is written again", "file", l.target.name, "lost", l.lost.Load())
	}
}
