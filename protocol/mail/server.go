// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/certs"
	"github.com/kyozon/kyozon/certs/acme"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/protocol/mail/queue"
	"github.com/kyozon/kyozon/protocol/mail/scan"
	"github.com/kyozon/kyozon/protocol/mail/users"
	"github.com/kyozon/kyozon/relay"
	"github.com/kyozon/kyozon/service"
)

// dialect is what is spoken at the listens of one name.
type dialect struct {
	secure  bool // TLS comes first
	login   bool // clients log in: what they submit is relayed
	mailbox bool // clients log in, and open a mailbox
	id      bool // servers are told by ID who the client is

	// speak begins with a client. Where TLS comes first, that is done.
	speak func(f *front, t *table, c *relay.Conn)
}

// dialects is read only.
var dialects = map[string]dialect{
	"smtp":        {speak: speakSMTP},
	"submission":  {speak: speakSMTP, login: true},
	"submissions": {speak: speakSMTP, login: true, secure: true},
	"imap":        {speak: speakIMAP, mailbox: true, id: true},
	"imaps":       {speak: speakIMAP, mailbox: true, id: true, secure: true},
	"pop3":        {speak: speakPOP3, mailbox: true},
	"pop3s":       {speak: speakPOP3, mailbox: true, secure: true},
}

func listens() []string { return slices.Sorted(maps.Keys(dialects)) }

// fronts is what outlives the generations.
type fronts struct {
	byAddr  map[listen.Addr]*front
	locals  []local
	known   acquaintances
	spool   *spool
	tickets *certs.Tickets
	proofs  *proofs
	log     *slog.Logger
	notes   notes

	outcomes outcomes
	queues   *queues

	resolvers resolvers
	mu        sync.Mutex
	memories  map[string]*memory // by service: what has been seen of clients

	hold  time.Duration // see holdTime
	final time.Duration // see finalTime
	busy  atomic.Int64  // transactions under way
}

// local is what the connections of one loop have in common. Only that loop uses it.
type local struct {
	out [16 << 10]byte
	_   [64]byte
}

// front is one address that clients come to.
type front struct {
	all     *fronts
	current atomic.Pointer[table]
	offers  atomic.Pointer[offers] // what can be done with mailboxes here
}

// table is what a front serves in one generation. It is immutable.
type table struct {
	dialect  dialect
	listen   string
	options  *Options
	service  string
	idle     time.Duration // of what is passed through
	route    *backend.Route
	backends []offered       // of the route
	keeps    map[string]*way // the pools whose messages are kept, by name
	terms    *certs.Terms    // nil if there is no TLS
	guard    *guard          // nil if there is no policy
	engines  *scan.Engines   // nil if there are none
	memory   *memory
	visitors *visitors
	places   *places     // nil if users are where they are without a directory
	ending   atomic.Bool // nobody follows: sessions end after their transaction
}

func (t *table) passes() bool { return t.options.passes() }

// build makes the tables of all services.
func build(services []*service.Service, env service.Env) (service.Server, error) {
	if err := service.ReadAll(services, readFiles); err != nil {
		return service.Server{}, err
	}
	kept := service.Keep(env, "fronts", func() *fronts {
		f := &fronts{locals: make([]local, env.Loops.Len()), spool: newSpool(filepath.Join(env.State, "mail")),
			tickets: openTickets(env), log: env.Log, hold: holdTime, final: finalTime,
			outcomes: outcomes{shelf: filepath.Join(env.State, "mail", "outcomes"), log: env.Log}}
		f.proofs = newProofs(&f.known, env.Log)
		f.queues = newQueues(f, env)
		return f
	})
	b := &builder{env: env, kept: kept, tables: make(map[listen.Addr]*table), ways: make(map[queue.Destination]*way),
		queued: make(map[string]queue.Terms)}
	for _, s := range services {
		if err := b.add(s); err != nil {
			return service.Server{}, fmt.Errorf("service %s: %w", s.Name, err)
		}
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
	server.Start = func() {
		kept.outcomes.hold()
		kept.queues.hold(b.ways, b.queued)
		kept.start(b.tables, fresh)
	}
	server.Legacy = kept.tickets.Legacy
	server.Drain = func(last bool) { drain(env.Loops, b.tables, kept.byAddr, last) }
	server.Shut = func(service string) string { return kept.proofs.shut(service, b.subjects) }
	server.Busy = kept.busy.Load
	server.Run = b.run
	server.Orders = b.orders
	server.Queue = kept.queues.shown
	server.Counts = func() []service.Count { return kept.counts(services) }
	server.Refusals = func() (all []service.Refusal) {
		for _, s := range services {
			all = append(all, kept.memory(s.Name).refusals(s.Name)...)
		}
		return all
	}
	server.Certificates = func() (all []certs.Info) {
		for _, s := range b.stores {
			all = append(all, s.Infos()...)
		}
		return all
	}
	return server, nil
}

// builder collects what one generation has.
type builder struct {
	env    service.Env
	kept   *fronts
	tables map[listen.Addr]*table
	stores []*certs.Store
	orders []acme.Order

	subjects []*subject
	used     []string // keys of resolvers
	ways     map[queue.Destination]*way
	queued   map[string]queue.Terms // by service, of those that keep messages
	scanners []*scan.Engines
	files    []*users.File
	remotes  []*users.Remote
}

// add makes the tables of a service.
func (b *builder) add(s *service.Service) error {
	o := s.Options.(*Options) // made by our own Protocol
	terms, err := b.openTLS(s.Name, o.TLS, o.orders())
	if err != nil {
		return err
	}
	m := b.kept.memory(s.Name)
	directory, err := b.directory(o.Users)
	if err != nil {
		return err
	}
	guard, engines, keeps := b.guard(o), b.engines(o, m), b.keeps(s.Name, o)
	for _, l := range s.Listen {
		t := &table{dialect: dialects[l.Name], listen: l.Name, idle: s.Timeouts.Idle, options: o, service: s.Name, terms: terms, memory: m, keeps: keeps, visitors: m.tally.at(entrance{l.Name, l.Family()}),
			route: b.env.Route(s.Name, service.Door{Listen: l.Name, Family: l.Family()})}
		if l.Name == "smtp" {
			t.guard, t.engines = guard, engines
		}
		if t.dialect.mailbox {
			t.idle = o.Timeouts.Mailbox
			if directory != nil {
				t.places = newPlaces(directory, t.route, &m.lookups)
			}
		}
		for _, p := range t.route.Pools() {
			for _, one := range p.Backends() {
				t.backends = append(t.backends, offered{b.kept.known.of(one), t.keeps[p.Spec.Name]})
			}
		}
		b.tables[l.Addr] = t
		b.subjects = append(b.subjects, t.need(l.AddrPort)...)
	}
	b.kept.proofs.hold(b.subjects)
	return nil
}

// run is what goes on beside the loops while the generation is in service.
func (b *builder) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { b.watch(ctx) })
	wg.Go(func() { b.kept.proofs.run(ctx, b) })
	wg.Go(func() { b.kept.outcomes.run(ctx) })
	for _, f := range b.files {
		wg.Go(func() { b.watchUsers(ctx, f) })
	}
	wg.Wait()
	<-ctx.Done()
	b.kept.queues.release(b.env.Stopped)
	b.kept.spool.wait()
	b.kept.outcomes.release()
	for _, e := range b.scanners {
		e.Close()
	}
	for _, r := range b.remotes {
		r.Close()
	}
	for _, key := range b.used {
		b.kept.resolvers.close(key)
	}
}

// start puts the tables into service.
func (f *fronts) start(tables map[listen.Addr]*table, fresh map[listen.Addr]*front) {
	for a, t := range tables {
		fresh[a].current.Store(t)
	}
	f.byAddr = fresh
}

// drain tells the clients of tables that nobody follows: those between two transactions at once, the others after
// theirs.
func drain(loops *relay.Loops, tables map[listen.Addr]*table, now map[listen.Addr]*front, last bool) {
	for a, t := range tables {
		if last || now[a] == nil {
			t.ending.Store(true)
		}
	}
	loops.Do(func(l *relay.Loop) {
		l.Each(func(c *relay.Conn) {
			if h, ok := c.Handler().(interface{ drain() }); ok {
				h.drain()
			}
		})
	})
}
