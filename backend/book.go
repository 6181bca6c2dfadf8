// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"crypto/tls"
	"iter"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// Book remembers what is under way at each backend: it outlives the generations, so that caps and the picking of
// the backend with the fewest flows stay right while an old generation drains beside a new one. The zero value is
// empty, and enough where nothing is dialled.
type Book struct {
	running running // the flows under way
	loops   int

	mu      sync.Mutex
	tallies map[entry]*tally
}

// NewBook returns an empty book for flows on n loops.
func NewBook(n int) *Book { return &Book{loops: n, running: running{lists: make([]runningList, n)}} }

// entry is what a tally belongs to. Pools that name the same server of a service share it: a cap protects the server.
type entry struct {
	service string
	addr    netip.AddrPort
}

// tally is what the flows of all generations have to do with one backend.
type tally struct {
	_     [64]byte     // what loops write is on lines of its own
	flows atomic.Int64 // under way, those that are still connecting included
	fails atomic.Int32 // connects that failed since the last that did not
	times atomic.Int32 // ejections since then
	from  atomic.Int64 // when the last one began
	until atomic.Int64 // and when it ends; 0 if there was none
	_     [64]byte

	idle  idle        // unused connections
	pools int         // that use it; guarded by Book.mu, like what follows
	tls   *tls.Config // how the pool that came last speaks to it; see client
	tlsID string
}

// adopt returns the tally of a service's backend. Give it back with leave.
func (b *Book) adopt(e entry) *tally {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.tallies[e]
	if t == nil {
		if b.tallies == nil {
			b.tallies = make(map[entry]*tally)
		}
		t = &tally{idle: idle{loops: make([]idleLoop, b.loops)}}
		b.tallies[e] = t
	}
	t.pools++
	return t
}

// leave gives tallies back. Each stays in the book while it has flows.
func (b *Book) leave(tallies iter.Seq[*tally]) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for t := range tallies {
		t.pools--
	}
	for e, t := range b.tallies {
		if t.pools == 0 && t.flows.Load() == 0 {
			delete(b.tallies, e)
		}
	}
}

// ejectionsDoubled is how often the time of an ejection doubles when a backend fails again right after it.
const ejectionsDoubled = 4

// failed counts a connect that failed and ejects the backend if there have been too many in a row. Of connects that
// were under way together only the first ejects.
func (t *tally) failed(h *Health, now int64) {
	fails := t.fails.Add(1)
	until := t.until.Load()
	if h.Eject == 0 || int(fails) < h.Eject || now < until {
		return
	}
	length := h.EjectFor << min(t.times.Load(), ejectionsDoubled)
	if t.until.CompareAndSwap(until, now+int64(length)) {
		t.from.Store(now)
		t.times.Add(1)
	}
}

// connected takes back all that failed counted. It reads first: to write would make loops fight for the line.
func (t *tally) connected() {
	if t.fails.Load() == 0 && t.times.Load() == 0 {
		return
	}
	t.fails.Store(0)
	t.times.Store(0)
	t.until.Store(0)
}

// ejected says how much longer the backend is passed over.
func (t *tally) ejected(now int64) time.Duration { return time.Duration(max(0, t.until.Load()-now)) }
