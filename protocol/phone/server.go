// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"context"
	"crypto/rand"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/certs"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/protocol/phone/digest"
	"github.com/kyozon/kyozon/protocol/phone/location"
	"github.com/kyozon/kyozon/protocol/phone/plan"
	"github.com/kyozon/kyozon/protocol/phone/sdp"
	"github.com/kyozon/kyozon/service"
)

// settings is what the file says of a service. It is immutable, but for what the DNS says of it.
type settings struct {
	options     *Options
	networks    map[netip.AddrPort]*network // by the address of a listen
	roster      *roster                     // where they are in a database
	subscribers map[string]*subscriber      // by name
	guard       *digest.Server
	plan        *plan.Plan // nil if there are no numbers
	trunks      map[string]*trunk
	sorted      []*trunk // by name
	partners    map[string]partner
	directory   atomic.Pointer[directory]
	terms       *certs.Terms // nil if there is no TLS
	store       *certs.Store
	policy      sdp.Policy

	announcements map[string]*announcement
}

// clients is how many of those who have proved who they are are remembered at once, so that what they said cannot be said
// again by others.
const clients = 100_000

// network is a part of the world with its own reachability.
type network struct {
	name        string
	subscribers bool              // they register here
	routes      [2]*backend.Route // who may come in, over IPv4 and IPv6
	locals      [2]netip.AddrPort // where calls go out to gateways
	secures     [2]netip.AddrPort // in TLS
	media       [2]bool           // they can be relayed from and to it, over IPv4 and IPv6
}

// networkAt returns the network of a listen; one without a name that nothing else is in if the listen has gone.
func (s *settings) networkAt(at netip.AddrPort) *network {
	if n := s.networks[at]; n != nil {
		return n
	}
	return &network{}
}

func (n *network) routeOf(a netip.Addr) *backend.Route {
	return n.routes[familyIndex(a)]
}

// build makes the settings of all services.
func build(services []*service.Service, env service.Env) (service.Server, error) {
	server := service.Server{Doors: make(map[listen.Addr]service.Handler)}
	var starts []func()
	var cores []*core
	sets := make(map[*core]*settings)
	for _, s := range services {
		var reading sync.WaitGroup
		c := service.Keep(env, s.Name, func() *core {
			log, relay := env.Log.With("service", s.Name), ""
			if len(s.Networks) > 0 {
				relay = service.MediaSocket(env.State)
			}
			c := newCore(log, env.Loops, filepath.Join(env.State, "phone", s.Name), string(s.Options.(*Options).CDR), relay)
			c.name = s.Name
			reading.Go(c.readBindings) // a million take as long as the subscribers, which are read meanwhile
			return c
		})
		cores = append(cores, c)
		set, err := c.read(s, env)
		reading.Wait()
		if err != nil {
			return service.Server{}, err
		}
		sets[c] = set
		if len(s.Networks) > 0 {
			c.openRelay(service.MediaSocket(env.State))
		}
		c.settings.CompareAndSwap(nil, set) // a door may open a moment before start
		for _, l := range s.Listen {
			server.Doors[l.Addr] = service.Handler{Conn: c.accept}
			if l.Transport == listen.UDP {
				server.Doors[l.Addr] = service.Handler{Datagrams: c.open}
				if set.options.isSecure(l.AddrPort) {
					server.Doors[l.Addr] = service.Handler{Datagrams: c.openDeaf}
				}
			}
		}
		starts = append(starts, func() {
			c.settings.Store(set)
			c.keep(set.networks)
			c.calls.hold()
			c.away.Store(here)
			c.begun.Do(c.begin)
			c.relays.hold()
			if r := c.relays.client.Load(); r != nil {
				r.Keep(set.clips())
			}
			c.renew()
		})
	}
	server.Start = func() {
		for _, start := range starts {
			start()
		}
	}
	server.Certificates = func() (all []certs.Info) {
		for _, c := range cores {
			if store := sets[c].store; store != nil {
				all = append(all, store.Infos()...)
			}
		}
		return all
	}
	server.Telephony = telephony(cores)
	server.Counts = func() (all []service.Count) {
		for _, c := range cores {
			all = append(all, c.counts()...)
		}
		if i := slices.IndexFunc(cores, func(c *core) bool { return c.relays.client.Load() != nil }); i >= 0 { // they have one relay
			all = append(all, cores[i].relays.figures()...)
		}
		return all
	}
	server.Legacy = func() []byte {
		for _, c := range cores {
			c.leave()
		}
		return nil
	}
	server.Drain = func(last bool) {
		for _, c := range cores {
			if last {
				c.part()
			}
		}
	}
	server.Run = func(ctx context.Context) {
		var all sync.WaitGroup
		for _, c := range cores {
			all.Go(func() { c.homes.run(ctx) })
			if d := sets[c].roster; d != nil {
				all.Go(func() { d.watch(ctx, sets[c].options.Domain, c) })
			}
			all.Go(func() { c.watch(ctx, sets[c]) })
			all.Go(func() { c.follow(ctx, sets[c]) })
			all.Go(func() { c.look(ctx, sets[c]) })
			all.Go(func() { c.tabulate(ctx) })
			all.Go(func() {
				c.record(ctx)
				parting, cancel := context.WithTimeout(context.WithoutCancel(ctx), partingPatience)
				_ = c.insert(parting) // what does not go now goes with the next process
				cancel()
				c.calls.release(func() {
					c.away.Store(gone)
					c.write()
					c.homes.close()
				})
			})
		}
		sweep(ctx, cores)
		all.Wait()
		for _, c := range cores {
			c.relays.release()
		}
	}
	return server, nil
}

// read makes the settings of one service.
func (c *core) read(s *service.Service, env service.Env) (*settings, error) {
	o := s.Options.(*Options) // made by our own Protocol
	set := &settings{options: o, networks: make(map[netip.AddrPort]*network), guard: c.guardOf(o.Domain)}
	named := o.networks(s)
	for _, l := range s.Listen {
		n := named[l.Name]
		n.routes[familyIndex(l.AddrPort.Addr())] = env.Route(s.Name, service.Door{Listen: l.Name, Family: l.Family()})
		set.networks[l.AddrPort] = n
	}
	set.policy.Ours = places(s.Networks)
	f := openFiles(s)
	if err := service.Of(s.Name, f.errs); err != nil {
		return nil, err
	}
	set.store, set.subscribers, set.announcements = f.store, f.subscribers, f.announcements
	set.terms = tlsTerms(f.store, s.Name, service.Keep(env, "tickets", certs.NewTickets))
	if d := o.Subscribers.Database; d != nil {
		var err error
		if set.roster, err = c.rosterOf(o); err != nil {
			return nil, service.Of(s.Name, []error{&service.Error{Path: []string{"phone", "subscribers", "database", d.key()}, Err: err}})
		}
	}
	if set.plan = o.Compile(); set.plan != nil {
		if err := set.makeTrunks(named, f.trunks); err != nil {
			return nil, service.Of(s.Name, []error{err})
		}
	}
	set.publish(c.answers.Load())
	if o.CDR != "" {
		if err := appendFile(string(o.CDR), nil); err != nil {
			return nil, service.Of(s.Name, []error{&service.Error{Path: []string{"phone", "cdr"}, Err: err}})
		}
	}
	return set, nil
}

// networks returns the networks of a service, by the names of its listens.
func (o *Options) networks(s *service.Service) map[string]*network {
	named := make(map[string]*network)
	for _, l := range s.Listen {
		n := named[l.Name]
		if n == nil {
			n = &network{name: l.Name, media: mediaOf(s.Networks, l.Name)}
			n.subscribers = (o.Subscribers.From != "" || o.Subscribers.Database != nil) &&
				(len(o.Subscribers.Networks) == 0 || slices.Contains(o.Subscribers.Networks, l.Name))
			named[l.Name] = n
		}
		locals := &n.locals[familyIndex(l.AddrPort.Addr())]
		if o.isSecure(l.AddrPort) {
			locals = &n.secures[familyIndex(l.AddrPort.Addr())]
		}
		if !locals.IsValid() {
			*locals = l.AddrPort
		}
	}
	return named
}

// guardOf returns who proves the subscribers of a domain. A reload keeps what he remembers.
func (c *core) guardOf(domain string) *digest.Server {
	if c.guard == nil || c.guard.Realm != domain {
		var key digest.Key
		rand.Read(key[:])
		c.guard = digest.NewServer(domain, []digest.Key{key}, clients)
	}
	return c.guard
}

// sweep forgets bindings that have expired, all once in a minute.
func sweep(ctx context.Context, cores []*core) {
	look := time.NewTicker(time.Minute / location.Parts)
	defer look.Stop()
	for i := 0; ; i++ {
		select {
		case <-ctx.Done():
			return
		case now := <-look.C:
			for _, c := range cores {
				c.places.Sweep(i, now.Unix())
			}
		}
	}
}

func index(i int) string { return strconv.Itoa(i) }
