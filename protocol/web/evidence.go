// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

// Hot path: no allocation per packet.

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/kyozon/kyozon/service"
)

// maxLiterals is how many kinds of literals of one service are told apart, of servers' addresses and of others each: a
// client may have a server write what it likes (//192.0.2.1), but cannot crowd out what servers say of themselves.
const maxLiterals = 32

// evidence is the literals of all services. It outlives generations.
type evidence struct {
	mu       sync.Mutex
	services map[string]*literals
}

// of returns the literals of a service.
func (e *evidence) of(service string) *literals {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.services == nil {
		e.services = make(map[string]*literals)
	}
	l := e.services[service]
	if l == nil {
		l = new(literals)
		l.found.Store(new([]*literal))
		e.services[service] = l
	}
	return l
}

// literals is what was found in the responses of one service. It is counted on all loops.
type literals struct {
	found atomic.Pointer[[]*literal] // replaced by a longer one, never written
	mu    sync.Mutex                 // of who replaces it
}

// literal is one address in one field of the responses of a pool.
type literal struct {
	pool, field string
	addr        netip.Addr
	own         bool // of a server of the pool
	example     string
	times       atomic.Int64
}

// count counts an address. Only the first time that one is seen it allocates.
func (l *literals) count(pool string, at place, addr netip.Addr, own bool) {
	if f := find(*l.found.Load(), pool, at.name, addr); f != nil {
		f.times.Add(1)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	all := *l.found.Load()
	f := find(all, pool, at.name, addr)
	if f == nil {
		alike := 0
		for _, o := range all {
			if o.own == own {
				alike++
			}
		}
		if alike == maxLiterals {
			return
		}
		f = &literal{pool: pool, field: string(at.name), addr: addr, own: own, example: string(at.example)}
		all = append(slices.Clip(all), f)
		l.found.Store(&all)
	}
	f.times.Add(1)
}

func find(all []*literal, pool string, field []byte, addr netip.Addr) *literal {
	for _, f := range all {
		if f.addr == addr && f.pool == pool && f.field == string(field) {
			return f
		}
	}
	return nil
}

// findings returns what was found in the responses of some services, in the order in which it was first seen.
func (e *evidence) findings(services []*service.Service) (all []service.Finding) {
	for _, s := range services {
		for _, f := range *e.of(s.Name).found.Load() {
			all = append(all, service.Finding{Service: s.Name, Pool: f.pool, Place: f.field, Address: f.addr, Backend: f.own,
				Count: f.times.Load(), Example: f.example})
		}
	}
	return all
}
