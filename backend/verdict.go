// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"context"
	"math"
	"sync/atomic"
	"time"
)

// Health states of a verdict.
const (
	Unknown HealthState = iota // not answered yet; counts as down
	Up
	Down
)

// HealthState is what a check has found.
type HealthState uint8

// String returns "unknown", "up" or "down".
func (s HealthState) String() string { return [...]string{"unknown", "up", "down"}[s] }

// Opinion is what a check has found so far. It is immutable.
type Opinion struct {
	State  HealthState
	Since  time.Time // of State; zero if it is Unknown
	Reason string    // of the last bad answer; "" if the last was good
}

// Verdict is what one check says of one backend. It may be read from anywhere.
type Verdict struct {
	check Check

	// up is what a flow reads: 0 means down, else the keeper's clock when the backend came up.
	up       atomic.Int64
	opinion  atomic.Pointer[Opinion]
	checked  atomic.Int64 // Unix nanoseconds of the last answer
	answered chan struct{}

	against int // answers in a row that speak against the state; only the actor uses it

	watchers int                // guarded by Keeper.mu
	stop     context.CancelFunc // nil until the actor runs; guarded by Keeper.mu
}

// longUp is the value of Verdict.up for a backend that has nothing to recover from.
const longUp = math.MinInt64 / 2

func newVerdict(c Check) *Verdict {
	v := &Verdict{check: c, answered: make(chan struct{})}
	v.opinion.Store(new(Opinion))
	return v
}

// Opinion returns what is known now.
func (v *Verdict) Opinion() Opinion { return *v.opinion.Load() }

// Checked returns when the last answer came; zero if none has.
func (v *Verdict) Checked() time.Time {
	if ns := v.checked.Load(); ns != 0 {
		return time.Unix(0, ns)
	}
	return time.Time{}
}

// record adds one answer, which came at now by the keeper's clock, and returns the opinions before and after.
func (v *Verdict) record(bad error, now int64) (was, is Opinion) {
	at := time.Now()
	was = v.Opinion()
	is = was
	is.Reason = ""
	if bad != nil {
		is.Reason = bad.Error()
	}
	if next := v.next(was.State, bad == nil); next != was.State {
		v.against = 0
		is.State, is.Since = next, at
		v.up.Store(upSince(was.State, next, now))
	}
	if is != was {
		v.opinion.Store(&is)
	}
	v.checked.Store(at.UnixNano())
	if was.State == Unknown {
		close(v.answered)
	}
	return was, is
}

// next returns the state that follows s after one more answer.
func (v *Verdict) next(s HealthState, well bool) HealthState {
	answer, enough := Down, v.check.Fall
	if well {
		answer, enough = Up, v.check.Rise
	}
	if answer == s {
		v.against = 0
		return s
	}
	v.against++
	if s == Unknown || v.against >= enough {
		return answer
	}
	return s
}

func upSince(was, is HealthState, now int64) int64 {
	switch {
	case is != Up:
		return 0
	case was == Unknown:
		return longUp
	}
	return max(now, 1)
}
