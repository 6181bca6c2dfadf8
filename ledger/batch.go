// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/kyozon/kyozon/state"
)

// batch is one group commit.
type batch struct {
	store  state.Store
	ops    []state.Op
	leases []stamp  // written or renewed
	ended  []uint32 // taken back
	quota  []uint32 // kept for unproven clients
	meta   *meta    // the last op
	prune  uint32   // the past before this is forgotten; 0 means none
	err    error
}

// stamp is a lease and the time written as that of its last use.
type stamp struct{ off, last uint32 }

// fill gathers the next batch, or returns nil if there is nothing to write or it cannot be written now.
func (l *Ledger) fill() *batch {
	w := &l.w
	if w.batch != nil || l.store == nil {
		return nil
	}
	if l.lost != nil && (w.foreign || time.Now().Before(w.retry)) {
		return nil
	}
	n := &batch{store: l.store}
	l.fillTodo(n)
	if l.lost != nil {
		n.setMeta(w.meta) // something must be written to see whether the store is back
		return n
	}
	l.fillQuota(n)
	l.fillPass(n)
	if len(n.ops) == 0 {
		return nil
	}
	return n
}

func (n *batch) setMeta(m meta) {
	n.meta = &m
	n.ops = append(n.ops, m.op())
}

func (n *batch) full() bool { return len(n.ops) >= batchSize }

// fillTodo takes what was asked for. What it takes is taken for good: settle puts it back if it must.
func (l *Ledger) fillTodo(n *batch) {
	now := l.clock.Load()
	for len(l.w.todo) > 0 && !n.full() {
		n.lease(l.book, l.w.todo[0], now)
		l.w.todo = l.w.todo[1:]
	}
}

// lease adds the lease at off, last used at last.
func (n *batch) lease(b *book, off, last uint32) {
	le := b.leases[off]
	le.last = last
	op := state.Op{Key: leaseKey(b.view.base + off), Value: le.encode(), Revision: state.Any}
	if le.fresh {
		op.Revision = 0
	}
	n.ops = append(n.ops, op)
	n.leases = append(n.leases, stamp{off, last})
}

// write is called on the goroutine that waits for the disk.
func (n *batch) write(ctx context.Context) error {
	if n.prune > 0 {
		if err := n.addPrune(); err != nil {
			return err
		}
	}
	return n.store.Apply(ctx, n.ops...)
}

// settle makes true in RAM what is now on disk, and answers those that waited for it.
func (l *Ledger) settle(n *batch) {
	l.w.batch = nil
	if n.err != nil {
		l.fail(n)
		return
	}
	l.mu.Lock()
	if l.lost != nil {
		l.lost = nil
		l.log.Info("ledger store is back")
	}
	for _, s := range n.leases {
		le := &l.book.leases[s.off]
		le.stage, le.fresh, le.last = live, false, s.last
		if slot := l.book.slot(s.off); slot != nil {
			var flags uint64
			if l.t.idleAt(s.last, l.clock.Load()) {
				flags = idle
			}
			slot.set(pending|idle, flags, s.last)
		}
	}
	for _, off := range n.ended {
		if le := &l.book.leases[off]; le.use != kept {
			l.book.count(le, -1)
		}
		l.book.free(off)
	}
	for _, off := range n.quota {
		l.book.leases[off].fresh = false
		l.book.quota = append(l.book.quota, off)
	}
	if n.meta != nil {
		l.w.meta, l.w.alive, l.w.doubt = *n.meta, n.meta.Alive, false
	}
	l.mu.Unlock()
	l.publish()
	for _, s := range n.leases {
		l.tell(s.off, nil)
	}
}

// fail keeps what was to be written where it is: nobody knows whether it is on disk, so no one else may have it.
func (l *Ledger) fail(n *batch) {
	w := &l.w
	l.mu.Lock()
	if l.lost == nil {
		l.log.Error("ledger store is lost", "err", n.err)
	}
	l.lost = n.err
	for _, s := range n.leases {
		l.book.leases[s.off].fresh = false
		w.todo = append(w.todo, s.off)
	}
	for _, off := range n.quota {
		l.book.leases[off].fresh = false
	}
	l.mu.Unlock()
	w.foreign = errors.Is(n.err, state.ErrConflict)
	w.retry = time.Now().Add(retryEvery)
	w.pass.stop()
	if n.meta != nil {
		w.alive, w.doubt = max(w.alive, n.meta.Alive), w.doubt || n.meta.Clean
	}
	w.requota = append(w.requota, n.quota...)
	w.reend = append(w.reend, n.ended...)
	w.todo = slices.DeleteFunc(w.todo, l.unpin)
	for off := range w.waiting {
		l.tell(off, ErrUnavailable)
	}
}

// unpin says that the lease at off need not be written before others can be: it is on disk, and only its renewal
// was asked for.
func (l *Ledger) unpin(off uint32) bool {
	if l.book.leases[off].stage == writing {
		return false
	}
	if s := l.book.slot(off); s != nil && s.val.Load()&pending != 0 {
		s.set(pending, idle, 0)
	}
	return true
}

// tell answers all that wait for the stand-in at off.
func (l *Ledger) tell(off uint32, err error) {
	requests := l.w.waiting[off]
	if requests == nil {
		return
	}
	delete(l.w.waiting, off)
	var standIn netip.Addr
	if err == nil {
		standIn = l.book.view.addr(off)
	}
	for _, r := range requests {
		r.answer(standIn, err)
	}
}

// publish lets Find see tables that were made anew.
func (l *Ledger) publish() {
	if l.view.Load() != l.book.view {
		l.view.Store(l.book.view)
	}
}
