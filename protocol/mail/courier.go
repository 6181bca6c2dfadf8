// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"context"
	"net/netip"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/protocol/mail/outcome"
	"github.com/kyozon/kyozon/protocol/mail/queue"
)

const (
	sweepEvery = time.Minute // how often it is looked whose time is up
	blockedFor = time.Second // how soon it is looked again whether there is a server
)

// result is what has come of an errand with one message.
type result struct {
	holding  *holding
	message  *queue.Message
	outcome  queue.Outcome
	untried  string            // why no server was asked; then there is no outcome
	lost     bool              // the server has not said what has become of it, at least to one recipient
	delivery *outcome.Delivery // open as long as what has become of the message is not on disk
}

// run brings messages to servers until ctx is done.
func (q *queues) run(ctx context.Context) {
	adopt := time.NewTicker(adoptEvery)
	defer adopt.Stop()
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	for {
		next := time.NewTimer(q.round(time.Now()))
		select {
		case <-q.wake:
		case <-next.C:
		case now := <-sweep.C:
			q.sweep(now)
		case <-adopt.C:
			if q.life.TryLock() { // else somebody does it, or closes all
				q.adopt()
				q.life.Unlock()
			}
		case <-ctx.Done():
			next.Stop()
			q.collect(time.Now())
			return
		}
		next.Stop()
	}
}

// round writes down what has come of errands, sends new ones, and returns when it is to be called again at the latest.
func (q *queues) round(now time.Time) (wait time.Duration) {
	q.collect(now)
	wait = sweepEvery
	if q.isStopping() {
		return wait
	}
	for _, h := range q.each() {
		due, next := h.queue.Due(now)
		if !next.IsZero() {
			wait = min(wait, next.Sub(now))
		}
		for _, d := range due {
			if !q.serve(h, d, now) {
				wait = min(wait, blockedFor)
			}
		}
	}
	return wait
}

// collect writes down what has come of errands.
func (q *queues) collect(now time.Time) {
	q.mu.Lock()
	all := q.results
	q.results = nil
	q.mu.Unlock()
	for _, r := range all {
		if r.untried != "" {
			r.holding.queue.Return(r.message, r.untried)
		} else {
			r.outcome.Done = r.close
			r.holding.queue.Finish(r.message, r.outcome, now)
		}
		q.all.busy.Add(-1)
	}
}

// close says that what has become of the message is on disk: it will not be delivered again for want of that.
func (r result) close() {
	switch {
	case r.delivery == nil:
	case r.lost: // nobody knows: RFC 1047
		r.delivery.Lost()
	default:
		r.delivery.Refused()
	}
}

// serve sends errands to a destination until nothing more is due there, and says whether that is so or there is no server
// for it.
func (q *queues) serve(h *holding, d queue.Destination, now time.Time) bool {
	for {
		q.mu.Lock()
		w := q.ways[d]
		var b *backend.Backend
		if w != nil {
			b = q.pickLocked(w, now)
		}
		turn := q.turn
		q.mu.Unlock()
		if w == nil { // it is stuck
			return true
		}
		if b == nil {
			return false
		}
		m := h.queue.Take(d, now)
		if m == nil {
			return true
		}
		q.mu.Lock()
		q.loadLocked(b.Addr).busy++
		q.turn++
		q.mu.Unlock()
		q.all.busy.Add(1)
		e := &errand{queues: q, holding: h, way: w, message: m, backend: b, loop: q.loops.At(turn % q.loops.Len())}
		e.loop.Post(e.begin)
	}
}

// pickLocked returns the server that has the least to do of those that are well, not left alone and have a place; or nil.
func (q *queues) pickLocked(w *way, now time.Time) (best *backend.Backend) {
	all := w.pool.Backends()
	least := w.atOnce
	for i := range all {
		b := all[(i+q.turn)%len(all)]
		l := q.loadLocked(b.Addr)
		if b.Up() && l.busy < least && !now.Before(l.until) {
			best, least = b, l.busy
		}
	}
	return best
}

func (q *queues) loadLocked(server netip.AddrPort) *load {
	if q.loads == nil {
		q.loads = make(map[netip.AddrPort]*load)
	}
	if q.loads[server] == nil {
		q.loads[server] = new(load)
	}
	return q.loads[server]
}

// done takes what has come of an errand. over says that its connection is no more.
func (q *queues) done(e *errand, r result, over bool) {
	q.mu.Lock()
	q.results = append(q.results, r)
	l := q.loadLocked(e.backend.Addr)
	if over {
		l.busy--
	}
	if r.untried == "" {
		l.fails = 0
	} else {
		l.fails++
		l.until = time.Now().Add(backOff(l.fails))
	}
	q.mu.Unlock()
	q.rouse()
}

// idle says that the connection of an errand, whose last message is done, is no more.
func (q *queues) idle(e *errand) {
	q.mu.Lock()
	q.loadLocked(e.backend.Addr).busy--
	q.mu.Unlock()
	q.rouse()
}

// another returns a message that can go over the connection of an errand too, or nil.
func (q *queues) another(e *errand) *queue.Message {
	q.mu.Lock()
	ok := !q.stopping && q.ways[e.way.Destination] == e.way && e.backend.Up()
	q.mu.Unlock()
	if !ok {
		return nil
	}
	m := e.holding.queue.Take(e.way.Destination, time.Now())
	if m != nil {
		q.all.busy.Add(1)
	}
	return m
}

// sweep ends what is too late, and tells senders of what takes long, whether or not a server can be asked.
func (q *queues) sweep(now time.Time) {
	q.mu.Lock()
	var all []queue.Destination
	for d := range q.ways {
		all = append(all, d)
	}
	stopping := q.stopping
	q.mu.Unlock()
	if stopping {
		return
	}
	for _, h := range q.each() {
		for _, d := range all {
			for _, m := range h.queue.Late(d, now) {
				results := make([]queue.Result, len(m.Left()))
				for i := range results {
					results[i].Reply = noServerYet
				}
				h.queue.Finish(m, queue.Outcome{Results: results}, now)
			}
		}
	}
}

// noServerYet is what a report says of who could not be asked.
const noServerYet = "No server has taken it in time"
