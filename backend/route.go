// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

// Hot path: no allocation per packet.

import (
	"errors"
	"slices"
	"strconv"
	"sync/atomic"

	"github.com/kyozon/kyozon/ip"
)

// Route is where the clients of one listen and family go: a pool by share, then the fallbacks in order. It belongs to
// a generation.
type Route struct {
	Access

	shares   []share
	fallback []*Pool
	active   atomic.Int64          // flows under way
	last     atomic.Pointer[error] // see Fault
}

// share is a pool that takes part in the draw for a client.
type share struct {
	pool   *Pool
	weight float64
	seed   uint64 // of the service and the pool's name
}

// NewRoute returns the route that spec describes, over the pools of a service, which it does not own. Flows may use it
// when it has been opened. It fails if a pool is missing or no pool has a share.
func NewRoute(service string, spec RouteSpec, pools map[string]*Pool) (*Route, error) {
	r := new(Route)
	for _, s := range spec.Shares {
		p := pools[s.Pool]
		if p == nil {
			return nil, buildError(service, "no pool "+strconv.Quote(s.Pool))
		}
		if s.Percent > 0 {
			r.shares = append(r.shares, share{p, s.Percent, seed(service + "/" + s.Pool)})
		}
	}
	for _, name := range spec.Fallback {
		p := pools[name]
		if p == nil {
			return nil, buildError(service, "no pool "+strconv.Quote(name))
		}
		r.fallback = append(r.fallback, p)
	}
	if len(r.shares) == 0 && len(spec.Shares) > 0 {
		return nil, buildError(service, "no pool has a share")
	}
	return r, nil
}

func buildError(service, cause string) error {
	return errors.New("build route of " + service + ": " + cause)
}

// Choose returns the pool that the client with this key belongs to, whether or not it is well. It is
// the same in every process and for every listen of the service. When one share is raised against another, the only
// clients that move are those that the one gains. A route without shares has none for anybody.
func (r *Route) Choose(key uint64) *Pool {
	if len(r.shares) == 1 {
		return r.shares[0].pool
	}
	key = slotted(key)
	var best *Pool
	var highest float64
	for i := range r.shares {
		s := &r.shares[i]
		if d := draw(key, s.seed, s.weight, highest); d > highest {
			best, highest = s.pool, d
		}
	}
	return best
}

// Next takes a place for a flow of the client with this key: in its pool, or else in the first fallback that has one to
// give. Call it again, with the same tried, when the connect has failed. A backend that is ejected comes
// last of all, but it does come: a route never ejects the last backend that is up. now is the clock of the caller's
// loop. Next does not block and does not allocate. Returns ErrNoneUp or ErrFull.
func (r *Route) Next(key uint64, now int64, tried *Tried) (*Backend, *Pool, error) {
	own := r.Choose(key)
	if own == nil {
		return nil, nil, ErrNoneUp
	}
	for _, ejected := range [2]bool{false, true} {
		q := picking{key, now, tried, ejected}
		if b := own.pick(q); b != nil {
			return b, own, nil
		}
		for _, p := range r.fallback {
			if p == own {
				continue
			}
			if b := p.pick(q); b != nil {
				return b, p, nil
			}
		}
	}
	if own.full(tried) || slices.ContainsFunc(r.fallback, func(p *Pool) bool { return p.full(tried) }) {
		return nil, nil, ErrFull
	}
	return nil, nil, ErrNoneUp
}

// nextFor is Next for a client who may be sent somewhere.
func (r *Route) nextFor(c *Client, key uint64, now int64, tried *Tried) (*Backend, *Pool, error) {
	switch {
	case c.Server != nil:
		return c.Server, c.Server.pool, c.Server.only(tried)
	case c.Pool != nil:
		b, err := c.Pool.Pick(key, now, tried)
		return b, c.Pool, err
	}
	return r.Next(key, now, tried)
}

// Pools returns the pools that clients of r may be sent to: those with a share, then the fallbacks, each once.
func (r *Route) Pools() []*Pool {
	var all []*Pool
	add := func(p *Pool) {
		if !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	for _, s := range r.shares {
		add(s.pool)
	}
	for _, p := range r.fallback {
		add(p)
	}
	return all
}

// seed spreads a string over 64 bits: FNV-1a, then mix.
func seed(s string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return ip.Mix(h)
}
