// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"net/netip"
	"sync/atomic"
)

// PoolOptions are what a pool is made of.
type PoolOptions struct {
	Service string
	Spec    Spec
	Health  Health
	TLS     *Credentials // what Spec.TLS.Read has returned; without them no server is trusted, and none spoken to in clear
	Keeper  *Keeper      // outlives the pool; may be nil if Health.Every is 0
	Book    *Book        // outlives the pool
}

// Pool is a named set of servers of one generation. Its health and its counts are adopted from the generation before.
type Pool struct {
	Spec Spec

	service     string
	health      Health
	credentials *Credentials // nil in clear
	keeper      *Keeper
	book        *Book
	backends    []Backend

	clock atomic.Int64  // of roundRobin: the turn that was taken last
	turn  atomic.Uint32 // of fewestFlows
}

// NewPool returns a pool that is ready for use, and watches its backends until it is closed.
func NewPool(o PoolOptions) *Pool {
	p := &Pool{Spec: o.Spec, credentials: o.credentials(), service: o.Service, health: o.Health, keeper: o.Keeper, book: o.Book,
		backends: make([]Backend, len(o.Spec.Servers))}
	for i, s := range o.Spec.Servers {
		b := &p.backends[i]
		b.Server, b.pool, b.seed = s, p, s.seed()
		b.tally = p.book.adopt(entry{p.service, s.Addr})
		b.secure = p.book.client(b.tally, p.credentials, s.Addr)
		if !o.Spec.TLS.Asks() {
			b.offer = b.secure
		}
		b.due.Store(stride / (2 * whole * int64(max(1, s.Weight)))) // half a turn: heavy and light ones are mixed from the start
		if p.health.Every > 0 {
			b.verdict = p.keeper.Watch(b.check())
		}
	}
	return p
}

// Close gives back what the pool has adopted. Flows that it has picked go on and are still counted; call it when it
// is to pick no more.
func (p *Pool) Close() {
	p.book.leave(func(yield func(*tally) bool) {
		for i := range p.backends {
			yield(p.backends[i].tally)
		}
	})
	for i := range p.backends {
		if v := p.backends[i].verdict; v != nil {
			p.keeper.Release(v)
		}
	}
}

// Service returns the name of the service that the pool belongs to.
func (p *Pool) Service() string { return p.service }

// Has says whether one of the pool's backends has the address a, at any port.
func (p *Pool) Has(a netip.Addr) bool {
	for i := range p.backends {
		if p.backends[i].Addr.Addr() == a {
			return true
		}
	}
	return false
}

// Backends returns the pool's backends in the order of the file.
func (p *Pool) Backends() []*Backend {
	all := make([]*Backend, len(p.backends))
	for i := range p.backends {
		all[i] = &p.backends[i]
	}
	return all
}
