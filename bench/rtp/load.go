// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/kyozon/kyozon/bench"
)

const (
	packetsPerSecond = 50
	packetSize       = 172 // RTP with 160 bytes of speech
	tick             = time.Millisecond
	batch            = 64
	maxBehind        = 100 * time.Millisecond // what is later than this is not sent, and lost: the machine can do no more
	tooLate          = 100 * time.Millisecond // for speech
	ahead            = 5 * time.Millisecond   // until all know of a measurement
	stragglers       = 2 * time.Second        // how long at most it is waited for packets that are still on their way
)

// result is what came of a load.
type result struct {
	due      int64         // what was, or should have been, sent in the time of the measurement
	received int64         // of that
	inTime   int64         // of that
	cpu      time.Duration // of the whole machine
	process  time.Duration // of the relay
	p50, p99 time.Duration
	lanes    uint64 // that the kernel plane had at the end
}

// loss returns which part has not arrived.
func (r result) loss() float64 { return 1 - float64(r.received)/float64(max(r.due, 1)) }

// lossInTime is loss, with what came too late for speech.
func (r result) lossInTime() float64 { return 1 - float64(r.inTime)/float64(max(r.due, 1)) }

// load is what is exerted: for how long before it is measured, and while it is.
type load struct {
	flows     [2]*flow
	settle, d time.Duration
	settled   func(context.Context) error // waits after settle for what may take longer; nil: there is nothing
}

// exert sends both ways for a while, and measures after the streams have settled. program is nil if nothing relays. Of what was sent in
// that time each packet is waited for, while others are sent on.
func exert(ctx context.Context, l load, program bench.Program) (r result, err error) {
	if err := l.watch(dropAll); err != nil {
		return r, err
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var failed [2]error
	for i, f := range l.flows {
		f.sent.Store(0)
		f.withheld.Store(0)
		f.until.Store(0)
		wg.Go(func() {
			runtime.LockOSThread() // and not unlocked: nobody else is to have this thread
			failed[i] = f.pace(stop)
		})
	}
	r, err = l.measure(ctx, program)
	close(stop)
	wg.Wait()
	if err = errors.Join(err, failed[0], failed[1]); err != nil {
		return r, err
	}
	got, err := l.await(ctx)
	r.received, r.inTime = got.all, got.within(tooLate)
	r.p50, r.p99 = got.quantile(0.5), got.quantile(0.99)
	return r, errors.Join(err, l.watch(passAll))
}

// watch sets the window of both sinks.
func (l load) watch(window [2]int64) (err error) {
	for _, f := range l.flows {
		err = errors.Join(err, f.to.sink.count(window))
	}
	return err
}

// measure measures while packets are sent.
func (l load) measure(ctx context.Context, program bench.Program) (r result, err error) {
	if err := bench.Wait(ctx, l.settle); err != nil {
		return r, err
	}
	if l.settled != nil {
		if err := l.settled(ctx); err != nil {
			return r, err
		}
	}
	for _, f := range l.flows {
		if err := f.to.sink.forget(); err != nil {
			return r, err
		}
	}
	used, err := bench.Busy()
	if err != nil {
		return r, err
	}
	own, err := cpuOf(program)
	if err != nil {
		return r, err
	}
	began := monotonic() + int64(ahead)
	window := [2]int64{began, began + int64(l.d)}
	for _, f := range l.flows {
		f.since.Store(window[0])
		f.until.Store(window[1])
	}
	if err := errors.Join(l.watch(window), bench.Wait(ctx, ahead+l.d)); err != nil {
		return r, err
	}
	busy, err := used()
	after, failed := cpuOf(program)
	if err = errors.Join(err, failed, bench.Wait(ctx, tooLate)); err != nil { // those who are last have no easier way
		return r, err
	}
	r.cpu, r.process = busy, after-own
	for _, f := range l.flows {
		r.due += f.sent.Load() + f.withheld.Load()
	}
	return r, nil
}

func cpuOf(program bench.Program) (time.Duration, error) {
	if program == nil {
		return 0, nil
	}
	return program.CPU()
}

// await waits until no more packets come, and returns how long those that were counted took.
func (l load) await(ctx context.Context) (all delays, err error) {
	const every = 50 * time.Millisecond
	for waited, quiet := time.Duration(0), 0; ; waited += every {
		now := delays{}
		for _, f := range l.flows {
			d, err := f.to.sink.delays()
			if err != nil {
				return all, err
			}
			now.add(d)
		}
		if quiet++; now.all != all.all {
			quiet = 0
		}
		if all = now; quiet == 4 || waited >= stragglers {
			return all, nil
		}
		if err := bench.Wait(ctx, every); err != nil {
			return all, err
		}
	}
}

var errUnheard = errors.New("packets do not arrive as they should")

// begun is how many packets of each stream come before a load, at a pace that every relay bears: calls do not begin all at once.
const begun = 4

// prove has one packet of each stream received by a socket, whose kernel looks at every checksum.
func (l load) prove(ctx context.Context) error {
	if err := l.watch(passAll); err != nil {
		return err
	}
	for range begun {
		for _, f := range l.flows {
			if err := f.once(ctx); err != nil {
				return err
			}
		}
	}
	for i, f := range l.flows {
		f.to.hears(true)
		want := len(f.frames)
		for try := 0; f.to.hears(false) < want; try++ {
			if try == 500 {
				return fmt.Errorf("%w: in direction %d those of %d streams of %d", errUnheard, i, f.to.hears(false), want)
			}
			if try%20 == 0 {
				if err := f.once(ctx); err != nil {
					return err
				}
			}
			if err := bench.Wait(ctx, 20*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return nil
}

// once sends one packet of each stream, with its checksum.
func (f *flow) once(ctx context.Context) error {
	f.count = 0
	b := newBurst()
	b.check = true
	for f.count < int64(len(f.frames)) {
		if err := f.send(b, min(batch, len(f.frames)-int(f.count)), monotonic()); err != nil {
			return err
		}
		if err := bench.Wait(ctx, tick); err != nil {
			return err
		}
	}
	return nil
}
