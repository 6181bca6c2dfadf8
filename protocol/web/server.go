// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/kyozon/kyozon/accesslog"
	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/certs"
	"github.com/kyozon/kyozon/certs/acme"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/protocol/web/http1"
	"github.com/kyozon/kyozon/protocol/web/http2"
	"github.com/kyozon/kyozon/relay"
	"github.com/kyozon/kyozon/service"
)

// certificatesEvery is how often certificate files are looked at.
const certificatesEvery = 5 * time.Second

// fronts is what outlives the generations: the fronts by address, and what the connections of each loop share.
type fronts struct {
	byAddr   map[listen.Addr]*front
	locals   []local
	evidence evidence
	log      *accesslog.Log
}

// local is what the connections of one loop have in common. Only that loop uses it.
type local struct {
	exchanges exchanges
	http2     *http2.Shared
	out       [48 << 10]byte
	gathered  [32 << 10]byte
	_         [64]byte
}

func newFronts(loops int, log *accesslog.Log) *fronts {
	f := &fronts{byAddr: make(map[listen.Addr]*front), locals: make([]local, loops), log: log}
	for i := range f.locals {
		f.locals[i].http2 = http2.NewShared()
	}
	return f
}

// front is one address that clients come to.
type front struct {
	all     *fronts
	current atomic.Pointer[table]
}

// table is what a front serves in one generation. It is immutable.
type table struct {
	hosts    map[string]*site // by name
	wild     map[string]*site // by what follows "*."
	fallback *site            // takes what no other does; may be nil
	first    *site            // of the file: handshakes that fail and are for nobody's host count there
	tls      *tls.Config      // nil if the front speaks plain HTTP
	terms    *certs.Terms     // for clients that name nobody's host; nil if no TLS is ended here
	limits   http1.Limits     // of requests
	answers  http1.Limits     // of responses: servers are the operator's own
	timeouts Timeouts
	acme     *acme.Client // answers http-01, whoever has ordered
	ending   atomic.Bool  // nobody follows: connections close after their request
}

// site is one service at one front.
type site struct {
	name        string
	literals    *literals
	route       *backend.Route
	idle        time.Duration
	passThrough bool
	http2       []*backend.Pool // whose servers speak HTTP/2
	response    time.Duration
	rate        int64          // bytes a second that clients must at least move; 0 means none
	minimum     uint16         // version of TLS; 0 means 1.2
	clients     *certs.Clients // who may come with a certificate; nil asks for none
	chain       bool           // servers are told of the chain of a client's certificate
	terms       *certs.Terms   // nil if TLS is not ended here
}

// build makes the tables of all services.
func build(services []*service.Service, env service.Env) (service.Server, error) {
	kept := service.Keep(env, "fronts", func() *fronts { return newFronts(env.Loops.Len(), env.AccessLog) })
	b := &builder{env: env, evidence: &kept.evidence, tables: make(map[listen.Addr]*table), clients: make(map[string]*certs.Clients),
		pairs: make(map[listen.Addr][]certs.Pair), orders: make(map[listen.Addr][]acme.Order)}
	b.tickets = service.Keep(env, "tickets", func() *certs.Tickets { return openTickets(env) })
	if err := service.ReadAll(services, readFiles); err != nil {
		return service.Server{}, err
	}
	for _, s := range services {
		if err := b.openClients(s); err != nil {
			return service.Server{}, fmt.Errorf("service %s: %w", s.Name, err)
		}
		for _, l := range s.Listen {
			if err := b.add(s, l); err != nil {
				return service.Server{}, fmt.Errorf("service %s: %w", s.Name, err)
			}
		}
	}
	for _, t := range b.tables {
		t.acme = env.ACME
	}
	stores, err := b.openCertificates()
	if err != nil {
		return service.Server{}, err
	}
	server := service.Server{Doors: make(map[listen.Addr]service.Handler)}
	fresh := make(map[listen.Addr]*front)
	for a, t := range b.tables {
		f := kept.byAddr[a]
		if f == nil {
			f = &front{all: kept}
			f.current.Store(t) // its door may open a moment before start
		}
		fresh[a] = f
		server.Doors[a] = service.Handler{Conn: f.accept}
	}
	server.Start = func() { kept.start(b.tables, fresh) }
	server.Legacy = b.tickets.Legacy
	server.Findings = func() []service.Finding { return kept.evidence.findings(services) }
	server.Drain = func(last bool) { drain(env.Loops, b.tables, last) }
	server.Run = func(ctx context.Context) { b.watch(ctx, stores) }
	server.Orders = slices.Concat(slices.Collect(maps.Values(b.orders))...)
	server.Certificates = func() (all []certs.Info) {
		for _, s := range stores {
			all = append(all, s.Infos()...)
		}
		return all
	}
	return server, nil
}

// builder collects what the services of one generation say about each address.
type builder struct {
	env      service.Env
	evidence *evidence
	tables   map[listen.Addr]*table
	pairs    map[listen.Addr][]certs.Pair
	orders   map[listen.Addr][]acme.Order
	clients  map[string]*certs.Clients // by service
	tickets  *certs.Tickets
}

// add puts a service into the table of one of its listens.
func (b *builder) add(s *service.Service, l service.Listen) error {
	o := s.Options.(*Options) // made by our own Protocol
	t := b.tables[l.Addr]
	if t == nil {
		t = &table{hosts: make(map[string]*site), wild: make(map[string]*site), limits: o.Limits.machine(),
			answers: http1.Limits{Head: relay.BufferSize, Fields: http1.MaxFields}, timeouts: o.Timeouts}
		b.tables[l.Addr] = t
	}
	st := &site{name: s.Name, literals: b.evidence.of(s.Name),
		route: b.env.Route(s.Name, service.Door{Listen: l.Name, Family: l.Family()}), idle: s.Timeouts.Idle, response: o.Timeouts.Response,
		rate:    int64(o.Timeouts.MinimumRate),
		clients: b.clients[s.Name]}
	for _, p := range st.route.Pools() {
		if slices.Contains(o.HTTP2, p.Spec.Name) {
			st.http2 = append(st.http2, p)
			p.Offer("h2", "http/1.1")
		}
	}
	if !o.plain(l.AddrPort.Port()) {
		if t.tls == nil {
			t.tls = new(tls.Config)
		}
		st.passThrough = o.TLS.PassThrough
		if !st.passThrough {
			b.pairs[l.Addr] = append(b.pairs[l.Addr], o.TLS.pairs()...)
			b.orders[l.Addr] = append(b.orders[l.Addr], o.orders()...)
			st.minimum = uint16(o.TLS.Minimum)
			st.chain = o.TLS.ClientCertificates != nil && o.TLS.ClientCertificates.Chain
		}
	}
	return t.add(st, o.Hosts)
}

// errHostTaken means that a request could belong to two services.
var errHostTaken = errors.New("another service at the same address has it")

func (t *table) add(s *site, hosts []string) error {
	if t.first == nil {
		t.first = s
	}
	if len(hosts) == 0 {
		if t.fallback != nil {
			return fmt.Errorf("no hosts: %w", errHostTaken)
		}
		t.fallback = s
	}
	for _, h := range hosts {
		m, name := t.hosts, h
		if len(h) > 2 && h[:2] == "*." {
			m, name = t.wild, h[2:]
		}
		if m[name] != nil {
			return fmt.Errorf("host %s: %w", h, errHostTaken)
		}
		m[name] = s
	}
	return nil
}

// each calls f for each service.
func (t *table) each(f func(*site)) {
	if t.fallback != nil {
		f(t.fallback)
	}
	for _, sites := range [2]map[string]*site{t.hosts, t.wild} {
		for _, s := range sites {
			f(s)
		}
	}
}

// named returns the service that a TLS client asks for; nil if there is none.
func (t *table) named(server string) *site { return t.site([]byte(strings.ToLower(server))) }

// site returns the service of a host, which is in lower case; nil if there is none.
func (t *table) site(host []byte) *site {
	if s := t.hosts[string(host)]; s != nil {
		return s
	}
	if len(t.wild) > 0 {
		for i, c := range host {
			if c != '.' {
				continue
			}
			if s := t.wild[string(host[i+1:])]; s != nil {
				return s
			}
			break
		}
	}
	return t.fallback
}

// whole says that all clients go to the servers of one service, who end their TLS: nothing is read. It is so in the kernel
// plane.
func (t *table) whole() bool {
	return t.fallback != nil && t.fallback.passThrough && len(t.hosts)+len(t.wild) == 0
}

// start puts the tables into service.
func (f *fronts) start(tables map[listen.Addr]*table, fresh map[listen.Addr]*front) {
	for a, t := range tables {
		fresh[a].current.Store(t)
	}
	f.byAddr = fresh
}

// drain ends what waits for nothing: the connections between two requests whose front has no successor, and, of the
// others, the backend connections that they hold for their next request.
func drain(loops *relay.Loops, tables map[listen.Addr]*table, last bool) {
	mine := make(map[*table]bool)
	for _, t := range tables {
		mine[t] = true
	}
	loops.Do(func(l *relay.Loop) {
		l.Each(func(c *relay.Conn) {
			if h, ok := c.Handler().(interface{ drain(map[*table]bool, bool) }); ok {
				h.drain(mine, last)
			}
		})
	})
}

// has says whether a route is one of the table's.
func (t *table) has(r *backend.Route) bool {
	if t.fallback != nil && t.fallback.route == r {
		return true
	}
	for _, sites := range [2]map[string]*site{t.hosts, t.wild} {
		for _, s := range sites {
			if s.route == r {
				return true
			}
		}
	}
	return false
}
