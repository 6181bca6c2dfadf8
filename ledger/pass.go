// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"errors"
	"time"

	"github.com/kyozon/kyozon/state"
)

// scanSize is how many leases are looked at before others get a turn: a few milliseconds.
const scanSize = 1 << 15

// pass is one look at every lease. When all that it wrote is on disk, the time it began is written too: until then
// no use was later than a renewal on disk plus Renew.
type pass struct {
	active bool
	began  uint32
	next   int // the lease to look at
}

func (p *pass) start(now uint32) { *p = pass{active: true, began: now} }

// stop gives up a pass that could not be written. The next one begins when the store is back.
func (p *pass) stop() { *p = pass{} }

// tick is called once a second.
func (l *Ledger) tick() {
	w := &l.w
	now := max(l.clock.Load(), uint32(time.Now().Unix()))
	l.clock.Store(now)
	l.unlend(now)
	writable := l.store != nil && l.lost == nil
	switch {
	case writable && !w.pass.active && now-w.pass.began >= l.t.pass:
		w.pass.start(now)
	case !writable && now-w.marked >= l.t.pass && (l.store == nil || !l.stale()):
		w.marked = now
		l.mark(now)
	}
}

// mark marks what is idle, as a pass does, while nothing can be written.
func (l *Ledger) mark(now uint32) {
	b := l.book
	for i := range b.leases {
		le := &b.leases[i]
		if le.stage != live || !l.t.idleAt(le.last, now) {
			continue
		}
		if s := b.slot(uint32(i)); s != nil && s.val.Load()&pending == 0 {
			s.set(0, idle, 0)
		}
	}
}

// unlend takes stand-ins back that unproven clients no longer use. It waits twice as long as they are told.
func (l *Ledger) unlend(now uint32) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.book
	going := l.w.lent[:0]
	for _, off := range l.w.lent {
		switch {
		case b.leases[off].stage != lent: // proved meanwhile
		case now-b.used(off) <= uint32(2*UnprovenLife/time.Second):
			going = append(going, off)
		default:
			b.drop(off)
			b.leases[off] = lease{use: kept, stage: quota, first: now}
			b.quota = append(b.quota, off)
			b.unproven--
		}
	}
	l.w.lent = going
}

// fillQuota keeps as many stand-ins on disk for unproven clients as there should be.
func (l *Ledger) fillQuota(n *batch) {
	b, now := l.book, l.clock.Load()
	l.mu.Lock()
	defer l.mu.Unlock()
	for ; len(l.w.requota) > 0 && !n.full(); l.w.requota = l.w.requota[1:] {
		n.keep(b, l.w.requota[0])
	}
	want := l.o.UnprovenQuota - len(b.quota) - b.unproven - len(n.quota) - len(l.w.requota)
	for ; want > 0 && b.left() > b.floor() && !n.full(); want-- {
		off := b.take()
		b.leases[off] = lease{use: kept, stage: quota, first: now, last: now, fresh: true}
		n.keep(b, off)
	}
	for ; want < 0 && len(b.quota) > 0 && !n.full(); want++ {
		l.end(n, b.quota[0], now)
		b.quota = b.quota[1:]
	}
}

// keep adds a stand-in that is kept for unproven clients.
func (n *batch) keep(b *book, off uint32) {
	op := state.Op{Key: leaseKey(b.view.base + off), Value: b.leases[off].encode(), Revision: state.Any}
	if b.leases[off].fresh {
		op.Revision = 0
	}
	n.ops = append(n.ops, op)
	n.quota = append(n.quota, off)
}

// fillPass goes on with the pass, if there is one.
func (l *Ledger) fillPass(n *batch) {
	p, now := &l.w.pass, l.clock.Load()
	l.mu.Lock()
	defer l.mu.Unlock()
	for ; len(l.w.reend) > 0 && !n.full(); l.w.reend = l.w.reend[1:] {
		l.end(n, l.w.reend[0], now)
	}
	if !p.active {
		return
	}
	until := min(p.next+scanSize, len(l.book.leases))
	for ; p.next < until && !n.full(); p.next++ {
		l.visit(n, uint32(p.next), now)
	}
	if p.next < len(l.book.leases) || n.full() {
		return
	}
	p.active = false
	n.prune = now - l.t.keep
	n.setMeta(meta{Version: version, Pool: l.o.Pool, Alive: p.began})
}

// visit does with one lease what its time says.
func (l *Ledger) visit(n *batch, off, now uint32) {
	b, t := l.book, l.t
	le, s := &b.leases[off], b.slot(off)
	if le.stage != live {
		return
	}
	used := le.last
	if s != nil {
		val := s.val.Load()
		if val&pending != 0 {
			return // it is being renewed
		}
		used = max(used, uint32(val))
		if t.idleAt(le.last, now) {
			s.set(0, idle, 0)
		}
	}
	switch {
	case now > max(used, le.last+t.renew)+t.keep:
		l.end(n, off, now)
	case used > le.last && now >= le.last+t.renew/2:
		n.lease(b, off, used)
	}
}

// end takes the stand-in at off back, and remembers whose it was. It is called with mu held.
func (l *Ledger) end(n *batch, off, now uint32) {
	b := l.book
	le := &b.leases[off]
	le.last, le.stage = b.used(off), ending
	b.drop(off)
	standIn := b.view.base + off
	n.ops = append(n.ops, state.Op{Key: leaseKey(standIn), Revision: state.Any})
	if le.use != kept {
		n.ops = append(n.ops, state.Op{Key: pastKey(now, standIn), Value: le.encode(), Revision: state.Any})
	}
	n.ended = append(n.ended, off)
}

// addPrune adds the removal of what ended before n.prune. It may leave some for the next pass.
func (n *batch) addPrune() error {
	stop := errors.New("stop")
	err := n.store.Each([]byte(pastPrefix), func(e state.Entry) error {
		until, _, _, err := decodePast(e.Key, e.Value)
		if err == nil && (until >= n.prune || len(n.ops) >= 2*batchSize) {
			err = stop
		}
		if err != nil {
			return err
		}
		n.ops = append(n.ops, state.Op{Key: append([]byte(nil), e.Key...), Revision: state.Any})
		return nil
	})
	if errors.Is(err, stop) {
		return nil
	}
	return err
}

// finish writes all that is still to be written, last of all that there is nothing more.
func (l *Ledger) finish(ctx context.Context) error {
	w := &l.w
	if l.store == nil {
		return nil
	}
	if w.foreign {
		return l.lost
	}
	// Another process may take over while our unproven clients are still served: it must not give theirs away.
	for _, off := range w.lent {
		if s := l.book.slot(off); s != nil && l.book.leases[off].stage == lent {
			l.promote(off, s)
		}
	}
	w.lent = nil
	for w.pass.start(l.clock.Load()); ; {
		n := &batch{store: l.store}
		l.fillTodo(n)
		l.fillPass(n)
		l.publish()
		if n.meta != nil {
			n.ops = n.ops[:len(n.ops)-1]
			n.setMeta(meta{Version: version, Pool: l.o.Pool, Alive: w.pass.began, Clean: true})
		}
		if len(n.ops) > 0 {
			n.err = n.write(ctx)
			l.settle(n)
		}
		if n.err != nil || n.meta != nil {
			return n.err
		}
	}
}
