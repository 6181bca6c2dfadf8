// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/kernel"
	"github.com/kyozon/kyozon/listen"
)

// rest is how long a port is kept after its flow in the user plane has ended: as long as the host's stack, or the server,
// may have it in TIME_WAIT.
const rest = time.Minute

// Ports is the table of source ports of both planes, for flows of one transport.
type Ports struct {
	plane     *Plane
	transport listen.Transport
}

// Ports returns the table of source ports for flows of a transport.
func (p *Plane) Ports(t listen.Transport) Ports { return Ports{p, t} }

// Shares implements backend.Ports.
func (s Ports) Shares(to netip.AddrPort) bool {
	return s.plane.Open() && s.plane.state.Load().backends[listen.Addr{Transport: s.transport, AddrPort: to}]
}

// Take implements backend.Ports. Where the kernel has no room left in its table, the flow goes on without: then no flow
// of the kernel's begins either.
func (s Ports) Take(u backend.Use) bool {
	k := s.plane.open.Load()
	if k == nil {
		return true
	}
	if u.Client {
		if s.transport == listen.UDP && s.plane.state.Load().fronts[listen.Addr{Transport: listen.UDP, AddrPort: u.To}] {
			return k.ReserveClient(u.From, u.To) == nil
		}
		return true
	}
	return !errors.Is(k.Reserve(s.transport, u.From, u.To), kernel.ErrTaken)
}

// Give implements backend.Ports.
func (s Ports) Give(u backend.Use) {
	if s.plane.Open() {
		s.plane.gives.add(give{s.transport, u, time.Now()})
	}
}

// give is what a flow has given back.
type give struct {
	transport listen.Transport
	use       backend.Use
	at        time.Time
}

// gives are what rests, the oldest first.
type gives struct {
	mu  sync.Mutex
	all []give
}

func (g *gives) add(one give) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.all = append(g.all, one)
}

// due takes out what has rested until now.
func (g *gives) due(now time.Time) []give {
	g.mu.Lock()
	defer g.mu.Unlock()
	n := 0
	for n < len(g.all) && now.Sub(g.all[n].at) >= rest {
		n++
	}
	due := g.all[:n:n]
	g.all = g.all[n:]
	return due
}

// flushGives lets both planes have again what has rested. If another process has taken the place of this one, it has
// the UDP flows too, and what they use.
func (p *Plane) flushGives(now time.Time) {
	due, gone := p.gives.due(now), p.gone.Load()
	k := p.open.Load()
	if k == nil {
		return
	}
	for _, g := range due {
		if g.transport == listen.UDP && gone {
			continue
		}
		err := error(nil)
		if g.use.Client {
			err = k.ReleaseClient(g.use.From, g.use.To)
		} else {
			err = k.Release(g.transport, g.use.From, g.use.To)
		}
		if err != nil {
			p.options.Log.Error("give back a port", "err", err)
		}
	}
}
