// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/probe"
	"github.com/kyozon/kyozon/service"
)

const (
	proofTimeout = 1500 * time.Millisecond // one question: the kernel asks twice in it, and so do pings
	proofEvery   = 5 * time.Second         // until the way back is there
	proofsAtOnce = 256                     // ways
)

// proofs keeps what is known of the ways back. A server that sees the client's stand-in as its peer answers to that
// address, and only a route, on the server or its gateway, brings the answer here. So before a backend gets flows from
// stand-ins, a connection from one, answered or refused, has proved the way back. The same holds for embedded clients,
// and for clients' own addresses where the edge is in front. A server of a UDP service may drop TCP without a word: it
// is asked by a ping and by a datagram too.
//
//	require: every backend of a new generation is held ─ ask all ─▶ free those whose ways are all proved
//	run:     every few seconds ask for the rest                  ─▶ changed, which opens services
//
// A way that was once proved stays proved: a reload asks only what is new.
type proofs struct {
	log     *slog.Logger
	changed func() // called when a way back has been found

	mu      sync.Mutex
	known   map[way]*proof
	waiting map[*backend.Backend][]way // those held, of the latest generation, with all their ways
}

// way is from where to where a backend must be able to answer.
type way struct {
	backend   netip.AddrPort
	transport listen.Transport
	source    netip.Addr
	prefix    netip.Prefix // that stands for source; none if clients come with their own addresses
}

// proof is what is known of a way.
type proof struct {
	proved  bool
	missing bool   // the backend answers, but not to source: nothing but a change of routes will help
	reason  string // why it is not proved, and what to do
}

func newProofs(log *slog.Logger, changed func()) *proofs {
	return &proofs{log: log, changed: changed, known: make(map[way]*proof)}
}

// require holds every backend of g whose ways back are not all proved, after asking for those that are new.
func (p *proofs) require(ctx context.Context, g *generation) {
	p.watch(g)
	p.askAll(ctx)
}

// watch holds every backend of g whose ways back are not all proved, in place of those of another generation.
func (p *proofs) watch(g *generation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.waiting = make(map[*backend.Backend][]way)
	for _, s := range g.config.Services {
		g.eachWay(s, func(w way, b *backend.Backend) {
			if p.known[w] == nil {
				p.known[w] = &proof{reason: "the way back has not been proved yet"}
			}
			p.waiting[b] = append(p.waiting[b], w)
		})
	}
	for b := range p.waiting {
		p.weighLocked(b)
	}
}

// weighLocked holds or frees a backend by what is known now.
func (p *proofs) weighLocked(b *backend.Backend) {
	for _, w := range p.waiting[b] {
		if pr := p.known[w]; !pr.proved {
			b.Hold(backend.ForWay, pr.reason)
			return
		}
	}
	b.Free(backend.ForWay)
	delete(p.waiting, b)
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
	open := p.open()
	var wg sync.WaitGroup
	limit := make(chan struct{}, proofsAtOnce)
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
	return slices.ContainsFunc(open, func(w way) bool { return p.known[w].proved })
}

// open returns the ways that somebody waits for and that are not proved.
func (p *proofs) open() []way {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make(map[way]bool)
	for _, ways := range p.waiting {
		for _, w := range ways {
			if !p.known[w].proved {
				all[w] = true
			}
		}
	}
	return slices.Collect(maps.Keys(all))
}

// settle writes down what was found.
func (p *proofs) settle(w way, now proof) {
	p.mu.Lock()
	defer p.mu.Unlock()
	was := *p.known[w]
	if now == was {
		return
	}
	*p.known[w] = now
	if now.proved {
		p.log.Info("way back proved", "backend", w.backend, "source", w.source)
	} else if now.reason != was.reason {
		p.log.Warn("way back not proved", "backend", w.backend, "source", w.source, "err", now.reason)
	}
	for b, ways := range p.waiting {
		if slices.Contains(ways, w) {
			p.weighLocked(b)
		}
	}
}

// prove asks from the way's source, and if nothing comes back, from the edge's own address.
func prove(ctx context.Context, w way) proof {
	err := w.ask(ctx, probe.Target{Addr: w.backend, Local: w.source, Transparent: !w.prefix.IsValid()})
	switch {
	case err == nil:
		return proof{proved: true}
	case errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES):
		return proof{missing: true, reason: fmt.Sprintf("this process may not connect as %v: it needs CAP_NET_ADMIN", w.source)}
	case !errors.Is(err, probe.ErrTimeout):
		reason := fmt.Sprintf("cannot connect from %v: %v", w.source, err)
		if w.foreign() {
			reason += "; " + w.advice()
		}
		return proof{missing: w.foreign(), reason: reason}
	}
	if direct := w.ask(ctx, probe.Target{Addr: w.backend}); direct != nil {
		return proof{reason: w.silence(direct)}
	}
	return proof{missing: true, reason: fmt.Sprintf("%v answers to the edge, but not to %v: %s", w.backend, w.source, w.advice())}
}

// ask returns nil if anything comes back. A refusal proves as much as a connection: the answer has come back. Of several
// errors it returns the one that says most: that there was no answer, and else that of TCP.
func (w way) ask(ctx context.Context, t probe.Target) error {
	ways := []probe.Func{probe.TCP}
	if w.transport == listen.UDP {
		ways = append(ways, probe.Echo, probe.UDP)
	}
	ctx, cancel := context.WithTimeout(ctx, proofTimeout)
	defer cancel()
	errs := make([]error, len(ways))
	var answered atomic.Bool
	var wg sync.WaitGroup
	for i, ask := range ways {
		wg.Go(func() {
			errs[i] = ask(ctx, t).Err
			if errs[i] == nil || errors.Is(errs[i], syscall.ECONNREFUSED) {
				answered.Store(true)
				cancel()
			}
		})
	}
	wg.Wait()
	if answered.Load() {
		return nil
	}
	if i := slices.IndexFunc(errs, isTimeout); i >= 0 {
		if slices.ContainsFunc(errs, mayNotPing) {
			return fmt.Errorf("%w; %w", errs[i], probe.ErrMayNotPing)
		}
		return errs[i]
	}
	return errs[0]
}

func isTimeout(err error) bool  { return errors.Is(err, probe.ErrTimeout) }
func mayNotPing(err error) bool { return errors.Is(err, probe.ErrMayNotPing) }

// silence says that a server answers to nobody, and what it was asked.
func (w way) silence(err error) string {
	if w.transport == listen.TCP {
		return fmt.Sprintf("no answer on TCP from %v, neither to %v nor to the edge itself: %v", w.backend, w.source, err)
	}
	reason := fmt.Sprintf("no answer from %v to a ping, on UDP or on TCP, neither to %v nor to the edge itself: let it answer pings from %s",
		w.backend, w.source, w.clients())
	if mayNotPing(err) {
		reason += fmt.Sprintf(" (%v)", probe.ErrMayNotPing)
	}
	return reason
}

// clients names who comes this way.
func (w way) clients() string {
	if !w.prefix.IsValid() {
		return "its clients"
	}
	return w.prefix.String()
}

// advice says what to do about answers that do not come.
func (w way) advice() string {
	if w.foreign() {
		return fmt.Sprintf("this machine does not take such addresses; ip route add local %v dev lo (CAP_NET_ADMIN)", w.prefix)
	}
	text := "make this machine the server's gateway, and look at rp_filter on both"
	if w.prefix.IsValid() {
		text = fmt.Sprintf("on the server or its gateway, ip route add %v via %s, and look at rp_filter on both", w.prefix,
			here(w.backend.Addr()))
	}
	if w.transport == listen.UDP {
		text += "; let the server answer pings from " + w.clients()
	}
	return text
}

// foreign says whether this machine does not take what is sent to stand-ins or embedded clients.
func (w way) foreign() bool {
	if !w.prefix.IsValid() {
		return false
	}
	is, err := isLocal(w.source)
	return err == nil && !is
}

// here returns by which address of this machine a server knows it.
func here(server netip.Addr) string {
	routes, err := netlink.RouteGet(net.IP(server.AsSlice())) //house:ok netlink has no other
	if err != nil || len(routes) == 0 {
		return "this machine"
	}
	return routes[0].Src.String()
}

// anyClient stands for clients that keep their own address: documentation addresses, RFC 5737 and RFC 3849.
func anyClient(f ip.Family) netip.Addr {
	if f == ip.V4 {
		return netip.AddrFrom4([4]byte{192, 0, 2, 1})
	}
	return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: 1})
}

// eachWay calls fn for every way back that a service needs.
func (g *generation) eachWay(s *service.Service, fn func(way, *backend.Backend)) {
	for door, route := range g.routes[s.Name] {
		for _, p := range route.Pools() {
			if p.Spec.Source != backend.SourceClient {
				continue
			}
			for _, b := range p.Backends() {
				w := g.wayOf(door.Family, b)
				w.transport = s.Listen[0].Transport // a protocol has one
				if w.source.IsValid() && !b.Drain {
					fn(w, b)
				}
			}
		}
	}
}

// wayOf returns the way that proves a crossing; none on loopback, where every address is local.
func (g *generation) wayOf(client ip.Family, b *backend.Backend) way {
	w := way{backend: b.Addr}
	l := g.config.Addresses.Ledger
	switch (ip.Crossing{Client: client, Backend: b.Family()}) {
	case ip.Crossing{Client: ip.V6, Backend: ip.V4}:
		w.prefix, w.source = l.Pool, l.Pool.Addr().Next()
	case ip.Crossing{Client: ip.V4, Backend: ip.V6}:
		w.prefix, w.source = l.Embed, ip.Embed(l.Embed, anyClient(ip.V4))
	default:
		if !b.Addr.Addr().IsLoopback() {
			w.source = anyClient(client)
		}
	}
	return w
}

// whyShut returns why a service must not open, or "". It may open when one of its servers can get flows and of none
// it is certain that answers go astray: that would be an error for a part of the clients, of which nobody knows.
func (p *proofs) whyShut(g *generation, s *service.Service) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var missing, silent []string
	held := make(map[*backend.Backend]bool)
	g.eachWay(s, func(w way, b *backend.Backend) {
		switch pr := p.known[w]; {
		case pr.proved:
			return
		case pr.missing:
			missing = append(missing, pr.reason)
		default:
			silent = append(silent, pr.reason)
		}
		held[b] = true
	})
	if len(missing) > 0 {
		return slices.Min(missing)
	}
	for _, route := range g.routes[s.Name] {
		for _, pool := range route.Pools() {
			if slices.ContainsFunc(pool.Backends(), func(b *backend.Backend) bool { return !held[b] }) {
				return ""
			}
		}
	}
	if len(silent) == 0 {
		return "" // it has no servers
	}
	return slices.Min(silent)
}
