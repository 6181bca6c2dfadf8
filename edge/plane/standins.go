// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"container/heap"
	"encoding/binary"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/ledger"
	"github.com/kyozon/kyozon/listen"
)

const (
	// unattended is how long the kernel plane takes new flows without a process: a stand-in must be taken back by then.
	unattended = 30 * time.Second

	// waitingMost bounds the clients that wait to be looked at.
	waitingMost = 1 << 16
)

// standing is the stand-ins that the kernel plane knows. The user plane asks the ledger at each flow; the kernel
// plane is told, and a stand-in is taken from it again before the ledger would have to be asked.
type standing struct {
	ledger atomic.Pointer[ledger.Ledger]
	recent [1 << 12]atomic.Uint64 // /64s that were met of late, so that not each flow waits for the lock

	mu      sync.Mutex
	waiting []netip.Addr         // clients whose /64 should be known
	until   map[uint64]time.Time // by /64: those that the kernel plane knows
	ends    ends
}

func (s *standing) init() { s.until = make(map[uint64]time.Time) }

// StandIns is the ledger as the flows of one transport use it: it tells the kernel plane of those who have proved that
// they are there. A TCP client has, by the handshake; a UDP client has when it goes on after an answer.
func (p *Plane) StandIns(l *ledger.Ledger, t listen.Transport) backend.StandIns {
	return standIns{Ledger: l, plane: p, proven: t == listen.TCP}
}

type standIns struct {
	*ledger.Ledger
	plane  *Plane
	proven bool
}

// Find implements backend.StandIns.
func (s standIns) Find(client netip.Addr) (netip.Addr, bool) {
	standIn, ok := s.Ledger.Find(client)
	if ok && s.proven {
		s.plane.meet(client)
	}
	return standIn, ok
}

// Lease implements backend.StandIns.
func (s standIns) Lease(client netip.Addr, done func(netip.Addr, error)) {
	s.Ledger.Lease(client, func(standIn netip.Addr, err error) {
		if err == nil && s.proven {
			s.plane.meet(client)
		}
		done(standIn, err)
	})
}

// Prove implements backend.StandIns.
func (s standIns) Prove(client netip.Addr) {
	s.Ledger.Lease(client, func(_ netip.Addr, err error) {
		if err == nil {
			s.plane.meet(client)
		}
	})
}

func high(a netip.Addr) uint64 {
	b := a.As16()
	return binary.BigEndian.Uint64(b[:8])
}

// meet has the kernel plane know the /64 of a client, soon. It does not block.
func (p *Plane) meet(client netip.Addr) {
	if !p.Open() || !client.Is6() {
		return
	}
	s, hi := &p.stand, high(client)
	place := &s.recent[hi%uint64(len(s.recent))]
	if place.Load() == hi {
		return
	}
	place.Store(hi)
	s.mu.Lock()
	if len(s.waiting) < waitingMost {
		s.waiting = append(s.waiting, client)
	}
	s.mu.Unlock()
	p.Wake()
}

// meetAll tells the kernel plane the stand-ins of those who wait.
func (p *Plane) meetAll() {
	s := &p.stand
	s.mu.Lock()
	waiting := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	k, l := p.open.Load(), s.ledger.Load()
	if k == nil || l == nil {
		return
	}
	for _, client := range waiting {
		standIn, until, ok := l.Until(client)
		until = until.Add(-unattended)
		if !ok || time.Now().After(until) {
			s.recent[high(client)%uint64(len(s.recent))].Store(0)
			continue
		}
		if err := k.Lease(client, standIn); err != nil { // full: the user plane carries him
			p.options.Log.Debug("tell the kernel plane a stand-in", "err", err)
			continue
		}
		s.keep(high(client), until)
	}
}

// keep remembers until when a /64 may be known.
func (s *standing) keep(hi uint64, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.until[hi].Equal(until) {
		return
	}
	s.until[hi] = until
	heap.Push(&s.ends, end{hi, until})
}

// expire takes back the stand-ins whose time is up. Whoever comes next goes through the user plane, and is known again.
func (p *Plane) expire(now time.Time) {
	for _, hi := range p.stand.due(now) {
		p.forgetClient(hi)
	}
}

func (p *Plane) forgetClient(hi uint64) {
	var a [16]byte
	binary.BigEndian.PutUint64(a[:8], hi)
	if k := p.open.Load(); k != nil {
		if err := k.Forget(netip.AddrFrom16(a)); err != nil {
			p.options.Log.Error("take back a stand-in", "err", err)
		}
	}
	p.stand.recent[hi%uint64(len(p.stand.recent))].Store(0)
}

// due takes out the /64s whose time is up.
func (s *standing) due(now time.Time) (all []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.ends) > 0 && !s.ends[0].until.After(now) {
		e := heap.Pop(&s.ends).(end)
		if s.until[e.hi].Equal(e.until) {
			delete(s.until, e.hi)
			all = append(all, e.hi)
		}
	}
	return all
}

// reconcileLocked looks at the stand-ins that the process before has left in the kernel plane: those that the ledger does
// not give any more are taken back.
func (p *Plane) reconcileLocked() {
	k, l := p.open.Load(), p.stand.ledger.Load()
	if k == nil {
		return
	}
	var gone []uint64
	if err := k.Leases(func(client netip.Prefix, standIn netip.Addr) bool {
		var now netip.Addr
		var until time.Time
		ok := false
		if l != nil {
			now, until, ok = l.Until(client.Addr())
		}
		if until = until.Add(-unattended); ok && now == standIn && until.After(time.Now()) {
			p.stand.keep(high(client.Addr()), until)
		} else {
			gone = append(gone, high(client.Addr()))
		}
		return true
	}); err != nil {
		p.options.Log.Error("read stand-ins of the kernel plane", "err", err)
	}
	for _, hi := range gone {
		p.forgetClient(hi)
	}
}

// end is when a /64 must be forgotten.
type end struct {
	hi    uint64
	until time.Time
}

// ends is a heap: the first to end is the first.
type ends []end

func (e ends) Len() int           { return len(e) }
func (e ends) Less(i, j int) bool { return e[i].until.Before(e[j].until) }
func (e ends) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }

// Push implements heap.Interface.
func (e *ends) Push(x any) { *e = append(*e, x.(end)) }

// Pop implements heap.Interface.
func (e *ends) Pop() any {
	last := len(*e) - 1
	x := (*e)[last]
	*e = (*e)[:last]
	return x
}
