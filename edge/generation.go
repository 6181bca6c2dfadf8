// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/certs/acme"
	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/relay"
	"github.com/kyozon/kyozon/service"
)

// generation is one configuration while it runs.
type generation struct {
	number  int
	config  *config.Config
	pools   map[string]map[string]*backend.Pool        // by service and name
	routes  map[string]map[service.Door]*backend.Route // by service and door
	direct  map[string]map[ip.Family]*backend.Route    // by service and client family, of those that need it
	limits  map[string]*limit.Limits                   // by service, of those that have some
	servers []service.Server                           // by protocol, in the order of the table
	leave   map[string]func() []byte                   // what a protocol leaves to the next process, by its name
	guards  map[listen.Addr]*guard                     // who answers at each address
	fresh   map[listen.Addr]*door                      // doors that the generation before did not have
	routing *routing                                   // has what the configuration needs until close
	ended   context.CancelFunc                         // of what its servers run; nil before it is in service
}

// build makes the generation of cfg aside. It opens no port that is open already and starts nothing. What it has taken
// it gives back on error.
func (e *Edge) build(cfg *config.Config, old *generation) (_ *generation, err error) {
	g := &generation{number: 1, config: cfg, pools: make(map[string]map[string]*backend.Pool),
		routes: make(map[string]map[service.Door]*backend.Route), direct: make(map[string]map[ip.Family]*backend.Route), limits: limitsOf(cfg, old), guards: make(map[listen.Addr]*guard),
		leave: make(map[string]func() []byte), fresh: make(map[listen.Addr]*door), routing: &e.routing}
	if old != nil {
		g.number = old.number + 1
	}
	defer func() {
		if err != nil {
			g.close()
			e.sockets.Sweep()
		}
	}()
	if err := e.routing.take(cfg); err != nil {
		e.options.Log.Warn("routes are missing", "err", err)
	}
	for _, s := range cfg.Services {
		if err := e.buildRoutes(g, s); err != nil {
			return nil, cfg.Placed(err)
		}
	}
	if err := e.buildServers(g); err != nil {
		return nil, cfg.Placed(err)
	}
	return g, e.lendDoors(g)
}

// buildRoutes makes the pools and routes of one service.
func (e *Edge) buildRoutes(g *generation, s *service.Service) error {
	pools := make(map[string]*backend.Pool)
	g.pools[s.Name] = pools
	for name, spec := range s.Pools {
		credentials, err := spec.TLS.Read()
		if err != nil {
			return service.Of(s.Name, []error{service.PoolError(name, err)})
		}
		pools[name] = backend.NewPool(backend.PoolOptions{Service: s.Name, Spec: spec, Health: s.Health,
			TLS: credentials, Keeper: e.keeper, Book: e.book})
	}
	g.routes[s.Name] = make(map[service.Door]*backend.Route)
	for door, spec := range s.Routes {
		r, err := backend.NewRoute(s.Name, spec, pools)
		if err != nil {
			return fmt.Errorf("service %s: %w", s.Name, err)
		}
		a := e.access(g, s, door.Family)
		a.Allow, a.Deny, a.Limits = s.Allow, s.Deny, g.limits[s.Name]
		r.Open(a)
		g.routes[s.Name][door] = r
	}
	return nil
}

// access is how the flows of a service's clients of a family reach their backends, whoever they are.
func (e *Edge) access(g *generation, s *service.Service, f ip.Family) backend.Access {
	a := backend.Access{Service: s.Name, Family: f, Timeouts: s.Timeouts, Book: e.book, Registry: &e.registry, Log: e.accessLog}
	if e.ledger != nil {
		a.StandIns, a.Embed = e.ledger, e.settings.Embed
	}
	e.share(&a, s, g.config.Services)
	return a
}

// directRoute returns the route of a service on which its protocol picks the backends.
func (e *Edge) directRoute(g *generation, s *service.Service, f ip.Family) *backend.Route {
	if g.direct[s.Name] == nil {
		g.direct[s.Name] = make(map[ip.Family]*backend.Route)
	}
	r := g.direct[s.Name][f]
	if r == nil {
		r, _ = backend.NewRoute(s.Name, backend.RouteSpec{}, nil) // which has no pool that could be missing
		r.Open(e.access(g, s, f))
		g.direct[s.Name][f] = r
	}
	return r
}

// directs is service.Env.Direct for some services.
func (e *Edge) directs(g *generation, services []*service.Service) func(string, ip.Family) *backend.Route {
	return func(name string, f ip.Family) *backend.Route {
		i := slices.IndexFunc(services, func(s *service.Service) bool { return s.Name == name })
		return e.directRoute(g, services[i], f)
	}
}

// buildServers has each protocol build its services.
func (e *Edge) buildServers(g *generation) error {
	for _, p := range e.options.Protocols {
		var services []*service.Service
		for _, s := range g.config.Services {
			if s.Protocol == p.Name {
				services = append(services, s)
			}
		}
		if len(services) == 0 {
			continue
		}
		if e.kept[p.Name] == nil {
			e.kept[p.Name] = make(map[string]any)
		}
		if e.acme == nil {
			e.acme = acme.NewClient(filepath.Join(g.config.State.Directory, "acme"), e.options.Log)
		}
		env := service.NewEnv(service.Env{Log: e.options.Log.With("protocol", p.Name), Loops: e.loops,
			State: g.config.State.Directory, Legacy: e.options.Legacies[p.Name], AccessLog: e.accessLog, Reopen: e.reopen, ACME: e.acme,
			Route:  func(name string, d service.Door) *backend.Route { return g.routes[name][d] },
			Pools:  func(name string) map[string]*backend.Pool { return g.pools[name] },
			Direct: e.directs(g, services), Stopped: e.ctx.Done()}, e.kept[p.Name])
		server, err := p.Build(services, env)
		if err != nil {
			return err
		}
		g.servers = append(g.servers, server)
		if server.Legacy != nil {
			g.leave[p.Name] = server.Legacy
		}
		for _, s := range services {
			for _, l := range s.Listen {
				h, ok := server.Doors[l.Addr]
				if !ok {
					return fmt.Errorf("service %s: %v: %w", s.Name, l.Addr, errNoHandler)
				}
				route := g.routes[s.Name][service.Door{Listen: l.Name, Family: l.Family()}]
				g.guards[l.Addr] = newGuard(h, s, route)
			}
		}
	}
	return nil
}

// run starts what the servers of a generation do beside answering at their doors. It ends with g.ended, and in any case
// with the edge.
func (e *Edge) run(g *generation) {
	var ctx context.Context
	ctx, g.ended = context.WithCancel(e.ctx)
	var orders []acme.Order
	for _, s := range g.servers {
		orders = append(orders, s.Orders...)
		if s.Run != nil {
			e.wg.Go(func() { s.Run(ctx) })
		}
	}
	if len(orders) > 0 {
		e.wg.Go(func() { e.acme.Run(ctx, orders) })
	}
}

// lendDoors opens the sockets that are not open yet.
func (e *Edge) lendDoors(g *generation) error {
	var errs []error
	for a := range g.guards {
		if e.doors[a] != nil {
			continue
		}
		d, err := lend(e.sockets, a)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		g.fresh[a] = d
	}
	return errors.Join(errs...)
}

// close gives back what the generation has taken.
func (g *generation) close() {
	for _, d := range g.fresh {
		d.close()
	}
	for _, pools := range g.pools {
		for _, p := range pools {
			p.Close()
		}
	}
	g.routing.giveBack(g.config)
}

// stale says whether files that the generation's pools are made of have changed, though the site file has not.
func (g *generation) stale() bool {
	for _, pools := range g.pools {
		for _, p := range pools {
			if p.Stale() {
				return true
			}
		}
	}
	return false
}

// active returns how many flows the generation has.
func (g *generation) active() (n int64) {
	for _, doors := range g.routes {
		for _, r := range doors {
			n += r.Active()
		}
	}
	for _, families := range g.direct {
		for _, r := range families {
			n += r.Active()
		}
	}
	return n
}

// serves says whether the generation still has the backend of a flow. Such a flow may go on for as long as it likes:
// a reload is no reason to end it.
func (g *generation) serves(f *backend.Flow) bool { return g.servesAt(f.Service(), f.Backend.Addr) }

// servesAt says whether a service of the generation has a backend.
func (g *generation) servesAt(service string, addr netip.AddrPort) bool {
	for _, p := range g.pools[service] {
		for _, b := range p.Backends() {
			if b.Addr == addr {
				return true
			}
		}
	}
	return false
}

// retire lets the flows of an old generation end, for as long as they take. Those whose backend g no longer has, of
// whichever generation they are, are cut when the drain deadline has passed, unless the site has it again by then.
func (e *Edge) retire(old, g *generation) {
	e.draining.Add(1)
	e.wg.Go(func() {
		defer e.draining.Add(-1)
		e.await(0, func() bool { return old.active() == 0 })
		old.close()
	})
	e.wg.Go(func() {
		select {
		case <-time.After(g.config.Drain):
		case <-e.ctx.Done():
			return
		}
		now := e.generation.Load()
		e.cut(func(f *backend.Flow) bool { return !g.serves(f) && !now.serves(f) })
		e.cutInKernel(g, now)
	})
}

// retireKilled does the same for a process that was killed and has left flows in the kernel.
func (e *Edge) retireKilled(g *generation) {
	if !e.plane.Open() {
		return
	}
	e.wg.Go(func() {
		select {
		case <-time.After(g.config.Drain):
			e.cutInKernel(g, e.generation.Load())
		case <-e.ctx.Done():
		}
	})
}

// retireDoor closes a door that the site no longer has: at once to new clients, to UDP flows after the drain.
func (e *Edge) retireDoor(d *door, g *generation) {
	d.shut()
	if d.packets == nil {
		d.close()
		e.sockets.Sweep()
		return
	}
	e.wg.Go(func() {
		e.await(g.config.Drain, func() bool { return d.packets.Len() == 0 })
		e.mu.Lock()
		defer e.mu.Unlock()
		d.close()
		e.sockets.Sweep()
	})
}

// await returns when done says so, the time is up (0 means that it never is), or the edge stops.
func (e *Edge) await(limit time.Duration, done func() bool) {
	var late <-chan time.Time
	if limit > 0 {
		late = time.After(limit)
	}
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for !done() {
		select {
		case <-look.C:
		case <-late:
			return
		case <-e.ctx.Done():
			return
		}
	}
}

// active returns how many flows there are in all generations, and what else is under way.
func (e *Edge) active() (n int64) {
	for _, s := range e.generation.Load().servers {
		if s.Busy != nil {
			n += s.Busy()
		}
	}
	for _, s := range e.registry.Samples() {
		n += s.Active
		if !e.detach.Load() { // those in the kernel need no process
			n -= s.Kernel
		}
	}
	return n
}

// cut ends the flows that which names.
func (e *Edge) cut(which func(*backend.Flow) bool) {
	if e.ctx.Err() != nil {
		return
	}
	e.loops.Do(func(l *relay.Loop) {
		e.book.Each(l, func(f *backend.Flow) {
			if f.Cut != nil && which(f) {
				f.Cut(metrics.Drained)
			}
		})
	})
}

// families returns the families of the clients that a service has a route for.
func families(s *service.Service) (all []ip.Family) {
	for _, f := range []ip.Family{ip.V4, ip.V6} {
		for d := range s.Routes {
			if d.Family == f {
				all = append(all, f)
				break
			}
		}
	}
	return all
}
