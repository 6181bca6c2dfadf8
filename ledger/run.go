// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"
)

const (
	batchSize  = 4096             // changes in one batch
	retryEvery = time.Second      // a lost store is tried
	lastWords  = 10 * time.Second // for what is still to be written when Run ends
)

// writer is what only Run's goroutine touches.
type writer struct {
	meta    meta                  // as on disk
	alive   uint32                // the latest meta.Alive that may be on disk
	doubt   bool                  // meta.Clean may be on disk, though we go on
	marked  uint32                // when mark was last called
	todo    []uint32              // stand-ins to be written, in the order in which they were asked for
	waiting map[uint32][]*request // by stand-in
	clock   []*request            // all that wait, oldest first
	batch   *batch                // under way, or nil
	begun   time.Time             // when it was
	retry   time.Time             // when a lost store is tried next
	foreign bool                  // someone else writes the store: never try again
	pass    pass
	lent    []uint32 // stand-ins that unproven clients have, or had
	requota []uint32 // to be kept for unproven clients once more: the store failed
	reend   []uint32 // to be taken back once more
}

// reset forgets what belongs to a store that is no longer ours. Whoever waits must have been answered.
func (w *writer) reset(m meta) {
	*w = writer{meta: m, alive: m.Alive, waiting: make(map[uint32][]*request)}
}

// ask is something to be done on Run's goroutine.
type ask struct {
	do    func(ctx context.Context) error
	reply chan error // 1: Run does not wait
}

// Run writes what is asked for until ctx is done and what was under way is written. It is called once.
//
//	queue ─▶ serve ─▶ todo ─┐
//	              pass ─────┴▶ fill ─▶ batch ─▶ write (its own goroutine) ─▶ settle ─▶ done
//
// While one batch is being written the next one gathers: that is all there is to the group commit.
func (l *Ledger) Run(ctx context.Context) error {
	batches, written := make(chan *batch, 1), make(chan *batch, 1) // 1: there is one batch at a time
	var wg sync.WaitGroup
	wg.Go(func() {
		for b := range batches {
			b.err = b.write(context.WithoutCancel(ctx))
			written <- b
		}
	})
	defer wg.Wait()
	defer close(batches)
	defer close(l.ended)

	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	late := time.NewTimer(Deadline)
	defer late.Stop()
	always := make(chan struct{})
	close(always)
	for ctx.Err() == nil {
		if next := l.fill(); next != nil {
			l.w.batch, l.w.begun = next, time.Now()
			batches <- next
		}
		l.publish()
		l.expire(late)
		var more <-chan struct{}
		if l.w.batch == nil && l.w.pass.active {
			more = always
		}
		select {
		case <-more:
		case b := <-written:
			l.settle(b)
		case <-l.wake:
			l.serveAll()
		case <-tick.C:
			l.tick()
		case <-late.C:
		case a := <-l.control:
			l.await(written)
			a.reply <- a.do(ctx)
		case <-ctx.Done():
		}
	}
	l.await(written)
	l.refuse()
	words, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWords)
	defer cancel()
	return l.finish(words)
}

// await settles the batch that is under way.
func (l *Ledger) await(written <-chan *batch) {
	if l.w.batch != nil {
		l.settle(<-written)
	}
}

// refuse answers all that wait or come later.
func (l *Ledger) refuse() {
	l.qmu.Lock()
	queue := l.queue
	l.queue, l.stopped = nil, true
	l.qmu.Unlock()
	for _, r := range append(l.w.clock, queue...) {
		r.answer(netip.Addr{}, ErrUnavailable)
	}
	l.w.clock, l.w.waiting = nil, make(map[uint32][]*request)
}

// serveAll looks at everything that was asked for.
func (l *Ledger) serveAll() {
	l.qmu.Lock()
	queue := l.queue
	l.queue = nil
	l.qmu.Unlock()
	for _, r := range queue {
		if standIn, err := l.serve(r); !errors.Is(err, errWait) {
			r.answer(standIn, err)
		}
	}
}

// errWait means that the answer comes when the store has written.
var errWait = errors.New("ledger: wait")

// serve answers a request, or has it wait for a batch.
func (l *Ledger) serve(r *request) (netip.Addr, error) {
	if r.client.Is4() {
		if standIn, ok := l.Find(r.client); ok {
			return standIn, nil
		}
		return netip.Addr{}, ErrUnavailable
	}
	hi, b := high(r.client), l.book
	s := b.view.find(hi)
	if s == nil {
		if r.kind == proof {
			return netip.Addr{}, ErrUnavailable
		}
		return l.serveNew(r, hi)
	}
	val := s.val.Load()
	off, now := offset(val), l.clock.Load()
	standIn := b.view.addr(off)
	switch flags := val & unusable; {
	case flags == 0, flags == unproven && r.kind == wantUnproven:
		s.set(0, 0, now)
		return standIn, nil
	case l.store == nil:
		return netip.Addr{}, ErrUnavailable
	case flags == unproven:
		l.promote(off, s)
	case flags == idle && l.lost == nil:
		l.w.todo = append(l.w.todo, off)
		// Once is enough: who comes next finds it pending.
		s.set(idle, pending, now)
	case flags == idle && l.stale():
		s.set(idle, 0, now)
		return standIn, nil
	}
	return l.wait(r, off)
}

// stale says whether the next Open would see that the store was lost, and take every lease for used. See the package
// comment.
func (l *Ledger) stale() bool { return !l.w.doubt && l.clock.Load()-l.w.alive >= l.t.stale }

// serveNew gives a stand-in to a client that has none.
func (l *Ledger) serveNew(r *request, hi uint64) (netip.Addr, error) {
	if l.store == nil || l.lost != nil {
		return netip.Addr{}, ErrUnavailable
	}
	if l.w.batch != nil && time.Since(l.w.begun) > Deadline {
		return netip.Addr{}, ErrUnavailable // a store that hangs: nothing is set aside for clients that cannot be told
	}
	b, now := l.book, l.clock.Load()
	bits, use, err := b.choose(hi)
	if err != nil {
		return netip.Addr{}, err
	}
	n := lease{hi: cut(hi, bits), first: now, bits: bits, use: use, stage: writing, fresh: true}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.kind == wantUnproven && b.unproven >= l.o.UnprovenQuota {
		return netip.Addr{}, ErrFull
	}
	if r.kind == wantUnproven && use == alone && len(b.quota) > 0 { // before the first are kept it is a lease
		off := b.quota[0]
		b.quota = b.quota[1:]
		n.stage, n.fresh = lent, false
		b.unproven++
		b.give(off, n, unproven, now)
		l.w.lent = append(l.w.lent, off)
		return b.view.addr(off), nil
	}
	off := b.take()
	b.give(off, n, pending, now)
	b.count(&b.leases[off], 1)
	l.w.todo = append(l.w.todo, off)
	return l.wait(r, off)
}

// promote makes a lease of a stand-in that an unproven client has.
func (l *Ledger) promote(off uint32, s *slot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	le := &l.book.leases[off]
	le.stage = writing
	l.book.unproven--
	l.book.count(le, 1)
	s.set(unproven, pending, l.clock.Load())
	l.w.todo = append(l.w.todo, off)
}

// wait has r wait until the stand-in at off is written. If that cannot be now, it says so; what is set aside stays
// so and is written when the store is back.
func (l *Ledger) wait(r *request, off uint32) (netip.Addr, error) {
	switch {
	case l.lost == nil && r.done != nil:
		l.w.waiting[off] = append(l.w.waiting[off], r)
		l.w.clock = append(l.w.clock, r)
		return netip.Addr{}, errWait
	case r.kind == wantUnproven && l.book.leases[off].stage == writing:
		return l.book.view.addr(off), nil // it would not be written either
	}
	return netip.Addr{}, ErrUnavailable
}

// expire answers those whose time is up, and sets the timer for the next.
func (l *Ledger) expire(late *time.Timer) {
	now := time.Now()
	clock := l.w.clock
	for len(clock) > 0 && (clock[0].done == nil || !clock[0].deadline.After(now)) {
		clock[0].answer(netip.Addr{}, ErrDeadline)
		clock[0] = nil
		clock = clock[1:]
	}
	if l.w.clock = clock; len(clock) > 0 {
		late.Reset(clock[0].deadline.Sub(now))
	}
}
