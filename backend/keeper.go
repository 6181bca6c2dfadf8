// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/kyozon/kyozon/probe"
)

// Check is one question that is asked of one backend again and again. Two checks never share a verdict, also not of
// the same address.
type Check struct {
	Target     probe.Target
	Every      time.Duration // more than 0
	Timeout    time.Duration // 0 means Every
	Rise, Fall int           // below 1 means 1
}

// complete spells out what zero stands for, so that checks which mean the same are the same.
func (c Check) complete() Check {
	if c.Timeout <= 0 {
		c.Timeout = c.Every
	}
	c.Rise, c.Fall = max(1, c.Rise), max(1, c.Fall)
	return c
}

// KeeperOptions say how a Keeper asks.
type KeeperOptions struct {
	Ask     probe.Func                      // nil means probe.Ask
	Changed func(c Check, was, now Opinion) // called when a verdict's state changes, by the verdict's own goroutine
}

// Keeper keeps asking backends whether they are well. It outlives the generations: a generation that is built adopts
// the verdicts that there are, so that a reload forgets nothing and asks nobody twice.
//
// Each check has an actor of its own, which alone writes its verdict:
//
//	Watch ─▶ Run ─starts─▶ actor: ask, wait, ask, … ──writes──▶ Verdict ◀──reads one atomic── a flow that is picked
//	Release ─▶ Run ─stops when nobody watches─▶ ┘
//
// A check that is new is asked at once, the rest are spread over the time between two questions. Until its first
// answer a backend is down; that answer alone decides, without Rise or Fall. So a generation that waits for it (Wait)
// before it takes over loses nothing, neither at the start nor when a reload replaces every server of a pool.
type Keeper struct {
	options KeeperOptions
	start   time.Time
	changed chan struct{} // one is enough: Run looks at everything

	mu      sync.Mutex
	watched map[Check]*Verdict
}

// NewKeeper returns a Keeper that watches nothing.
func NewKeeper(o KeeperOptions) *Keeper {
	if o.Ask == nil {
		o.Ask = probe.Ask
	}
	return &Keeper{options: o, start: time.Now(), changed: make(chan struct{}, 1), watched: make(map[Check]*Verdict)}
}

// Now returns nanoseconds since the keeper was made. It is the clock of slow start; loops that were started with the
// keeper have about the same.
func (k *Keeper) Now() int64 { return int64(time.Since(k.start)) }

// Watch returns the verdict on c, which is asked while Run runs and until each Watch is taken back with Release.
func (k *Keeper) Watch(c Check) *Verdict {
	c = c.complete()
	k.mu.Lock()
	defer k.mu.Unlock()
	v := k.watched[c]
	if v == nil {
		v = newVerdict(c)
		k.watched[c] = v
		k.wake()
	}
	v.watchers++
	return v
}

// Release takes back one Watch. The verdict then stays as it is.
func (k *Keeper) Release(v *Verdict) {
	k.mu.Lock()
	defer k.mu.Unlock()
	v.watchers--
	if v.watchers > 0 {
		return
	}
	if v.stop == nil {
		delete(k.watched, v.check)
		return
	}
	k.wake()
}

func (k *Keeper) wake() {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// Run asks until ctx is done, and returns when nobody is being asked any more. Call it once.
func (k *Keeper) Run(ctx context.Context) {
	var actors sync.WaitGroup
	defer actors.Wait()
	for {
		k.reconcile(ctx, &actors)
		select {
		case <-ctx.Done():
			return
		case <-k.changed:
		}
	}
}

// reconcile makes those who are asked the same as those who are watched.
func (k *Keeper) reconcile(ctx context.Context, actors *sync.WaitGroup) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for c, v := range k.watched {
		switch {
		case v.watchers == 0:
			v.stop()
			delete(k.watched, c)
		case v.stop == nil:
			own, stop := context.WithCancel(ctx)
			v.stop = stop
			actors.Go(func() { k.keep(own, v) })
		}
	}
}

// keep is the actor of one check.
func (k *Keeper) keep(ctx context.Context, v *Verdict) {
	wait := rand.N(v.check.Every) + 1 // after the first question, so that the later ones do not come all together
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		k.ask(ctx, v)
		timer.Reset(wait - time.Since(began))
		wait = v.check.Every
	}
}

func (k *Keeper) ask(ctx context.Context, v *Verdict) {
	deadline, cancel := context.WithTimeout(ctx, v.check.Timeout)
	defer cancel()
	r := k.options.Ask(deadline, v.check.Target)
	if ctx.Err() != nil {
		return // it was we who broke off
	}
	was, now := v.record(r.Err, k.Now())
	if was.State != now.State && k.options.Changed != nil {
		k.options.Changed(v.check, was, now)
	}
}

// Wait returns when each check that is watched now has had an answer, good or bad, or ctx is done, with its error.
func (k *Keeper) Wait(ctx context.Context) error {
	k.mu.Lock()
	all := make([]*Verdict, 0, len(k.watched))
	for _, v := range k.watched {
		all = append(all, v)
	}
	k.mu.Unlock()
	for _, v := range all {
		select {
		case <-v.answered:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
