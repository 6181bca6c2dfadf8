// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/probe"
	"github.com/kyozon/kyozon/service"
)

const (
	proofTimeout = 1500 * time.Millisecond // one connection from a stand-in
	proofEvery   = 5 * time.Second         // until the way back is there
)

// proofs keeps what is known of the ways back. A server that sees the client's stand-in as its peer answers to that
// address, and only a route, on the server or its gateway, brings the answer here. So before a backend gets flows from
// stand-ins, a connection from one, answered or refused, has proved the way back.
//
// A way that was once proved stays proved: a reload asks only what is new.
type proofs struct {
	log     *slog.Logger
	changed func() // called when a way back has been found
	wake    chan struct{}

	mu    sync.Mutex
	known map[way]*proof
}

// way is from where a backend must be able to answer to.
type way struct {
	source  netip.Addr
	backend netip.AddrPort
}

// proof is what is known of a way.
type proof struct {
	proved  bool
	missing bool               // the backend answers to the edge's own address, but not to source
	reason  string             // why it is not proved, and what to do
	waiting []*backend.Backend // held until it is proved
}

func newProofs(log *slog.Logger, changed func()) *proofs {
	return &proofs{log: log, changed: changed, wake: make(chan struct{}, 1), known: make(map[way]*proof)}
}

// require holds every backend of g whose way back is not proved, after asking those that are new.
func (p *proofs) require(ctx context.Context, g *generation) {
	p.mu.Lock()
	for _, pr := range p.known {
		pr.waiting = nil // of a generation that is gone, or about to be
	}
	g.eachWay(func(w way, b *backend.Backend) {
		pr := p.known[w]
		if pr == nil {
			pr = &proof{reason: "the way back has not been proved yet"}
			p.known[w] = pr
		}
		if !pr.proved {
			b.Hold(pr.reason)
			pr.waiting = append(pr.waiting, b)
		}
	})
	p.mu.Unlock()
	p.askAll(ctx)
}

// run asks again and again for the ways that are not proved.
func (p *proofs) run(ctx context.Context) {
	again := time.NewTicker(proofEvery)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-again.C:
			if p.askAll(ctx) {
				p.changed()
			}
		}
	}
}

// askAll asks for every way that somebody waits for, all at once, and says whether one was found.
func (p *proofs) askAll(ctx context.Context) (found bool) {
	p.mu.Lock()
	var open []way
	for w, pr := range p.known {
		if !pr.proved && len(pr.waiting) > 0 {
			open = append(open, w)
		}
	}
	p.mu.Unlock()
	var wg sync.WaitGroup
	limit := make(chan struct{}, 64) // connections at once
	for _, w := range open {
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			p.settle(w, prove(ctx, w))
		})
	}
	wg.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range open {
		found = found || p.known[w].proved
	}
	return found
}

// settle writes down what was found.
func (p *proofs) settle(w way, now proof) {
	p.mu.Lock()
	defer p.mu.Unlock()
	pr := p.known[w]
	if now.reason != pr.reason {
		if now.proved {
			p.log.Info("way back proved", "backend", w.backend, "source", w.source)
		} else {
			p.log.Warn("way back not proved", "backend", w.backend, "source", w.source, "err", now.reason)
		}
	}
	pr.proved, pr.missing, pr.reason = now.proved, now.missing, now.reason
	for _, b := range pr.waiting {
		if pr.proved {
			b.Free()
		} else {
			b.Hold(pr.reason)
		}
	}
	if pr.proved {
		pr.waiting = nil
	}
}

// prove connects from the way's source. A refusal proves as much as a connection: the answer has come back.
func prove(ctx context.Context, w way) proof {
	transparent := w.source == anyClient4 || w.source == anyClient6
	err := connects(ctx, probe.Target{Addr: w.backend, Local: w.source, Transparent: transparent})
	switch {
	case err == nil || errors.Is(err, syscall.ECONNREFUSED):
		return proof{proved: true}
	case !errors.Is(err, probe.ErrTimeout):
		return proof{reason: fmt.Sprintf("cannot connect from %v: %v", w.source, err)}
	}
	direct := connects(ctx, probe.Target{Addr: w.backend})
	if direct != nil && !errors.Is(direct, syscall.ECONNREFUSED) {
		return proof{reason: fmt.Sprintf("no answer from %v, neither to %v nor to the edge itself: %v", w.backend, w.source, direct)}
	}
	return proof{missing: true, reason: fmt.Sprintf(
		"%v answers to the edge but not to %v: give the server (or its gateway) a route to the stand-ins through this "+
			"machine, and look at rp_filter on both", w.backend, w.source)}
}

func connects(ctx context.Context, t probe.Target) error {
	ctx, cancel := context.WithTimeout(ctx, proofTimeout)
	defer cancel()
	return probe.TCP(ctx, t).Err
}

// anyClient4 and anyClient6 stand for clients that keep their own address: documentation addresses, RFC 5737 and 3849.
var (
	anyClient4 = netip.AddrFrom4([4]byte{192, 0, 2, 1})
	anyClient6 = netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: 1})
)

// eachWay calls fn for every way back that the generation's services need.
func (g *generation) eachWay(fn func(way, *backend.Backend)) {
	for _, s := range g.config.Services {
		for door, route := range g.routes[s.Name] {
			for _, p := range route.Pools() {
				if p.Spec.Source != backend.SourceClient {
					continue
				}
				for _, b := range p.Backends() {
					if source := g.proofSource(s, door, b); source.IsValid() {
						fn(way{source, b.Addr}, b)
					}
				}
			}
		}
	}
}

// proofSource returns the address that proves the way back for a crossing; none on loopback, where every address is
// local.
func (g *generation) proofSource(_ *service.Service, door service.Door, b *backend.Backend) netip.Addr {
	l := g.config.Addresses.Ledger
	switch (ip.Crossing{Client: door.Family, Backend: b.Family()}) {
	case ip.Crossing{Client: ip.V6, Backend: ip.V4}:
		return l.Pool.Addr().Next()
	case ip.Crossing{Client: ip.V4, Backend: ip.V6}:
		return ip.Embed(l.Embed, anyClient4)
	}
	switch {
	case b.Addr.Addr().IsLoopback():
		return netip.Addr{}
	case b.Family() == ip.V4:
		return anyClient4
	}
	return anyClient6
}

// missing returns why a service must stay shut: one of its backends cannot answer to stand-ins.
func (p *proofs) missing(g *generation, service string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	reason := ""
	g.eachWay(func(w way, b *backend.Backend) {
		if pr := p.known[w]; pr != nil && pr.missing && !pr.proved && b.Pool().Service() == service {
			reason = pr.reason
		}
	})
	return reason
}

// shutUnprovenLocked shuts the doors of services whose way back is missing, unless the service was open before: then
// only the new backends wait.
func (e *Edge) shutUnprovenLocked(g *generation) {
	open := make(map[listen.Addr]bool)
	shut := make(map[string]string)
	before := e.shut.Load()
	for _, s := range g.config.Services {
		_, wasShut := (*before)[s.Name]
		wasOpen := e.opened[s.Name] && !wasShut
		if reason := e.proofs.missing(g, s.Name); reason != "" && !wasOpen {
			shut[s.Name] = reason
			continue
		}
		e.opened[s.Name] = true
		for _, l := range s.Listen {
			open[l.Addr] = true
		}
	}
	e.shut.Store(&shut)
	for a, d := range e.doors {
		if !open[a] {
			d.close()
			delete(e.doors, a)
		}
	}
	e.sockets.Sweep()
}

// reopen opens the services whose way back has been found.
func (e *Edge) reopen() {
	e.mu.Lock()
	defer e.mu.Unlock()
	g := e.generation.Load()
	if g == nil || e.closing.Load() {
		return
	}
	shut := make(map[string]string)
	for name := range *e.shut.Load() {
		if reason := e.proofs.missing(g, name); reason != "" {
			shut[name] = reason
		}
	}
	for _, s := range g.config.Services {
		if _, still := shut[s.Name]; still {
			continue
		}
		for _, l := range s.Listen {
			if err := e.openDoorLocked(g, l.Addr); err != nil {
				shut[s.Name] = err.Error()
				e.options.Log.Error("service stays shut", "service", s.Name, "err", err)
			}
		}
		e.opened[s.Name] = shut[s.Name] == ""
	}
	e.shut.Store(&shut)
}

func (e *Edge) openDoorLocked(g *generation, a listen.Addr) error {
	if e.doors[a] != nil {
		return nil
	}
	d, err := lend(e.sockets, a)
	if err != nil {
		return err
	}
	if err := d.serve(e.loops, g.guards[a], e.options.Flows.take(a)); err != nil {
		d.close()
		return err
	}
	e.doors[a] = d
	return nil
}
