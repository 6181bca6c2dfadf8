// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"bufio"
	"context"
	"log/slog"
	"net"
	"net/netip"
	"net/textproto"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/certs/acme"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/relay"
	"github.com/kyozon/kyozon/service"
)

// patience is how long anything may take on a busy machine before a test gives up.
const patience = time.Minute

// TestMain fails if a goroutine or a descriptor is left behind.
func TestMain(m *testing.M) { servertest.Main(m) }

// bench is an edge of mail services. When its test ends, no flow may be left.
type bench struct {
	t        testing.TB
	loops    *relay.Loops
	book     *backend.Book
	registry metrics.Registry
	sockets  *listen.Set
	kept     map[string]any
	standIns backend.StandIns // nil if there is no ledger
	limits   *limit.Limits    // nil if there are none
	health   backend.Health
	fallback *backend.Spec // another pool, if there is one
	state    string
	hold     time.Duration
	mute     time.Duration
	stopped  chan struct{} // see service.Env; nil if nothing is waited for
	final    time.Duration
	more     map[string]backend.Spec // pools beside the one that clients are sent to
	building sync.Mutex              // of generations, one after the other
}

func newBench(t testing.TB) *bench {
	t.Helper()
	ls, err := relay.Open(2)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, loops: ls, book: backend.NewBook(2), sockets: listen.NewSet(listen.Options{}), kept: make(map[string]any),
		state: t.TempDir(), hold: holdTime, mute: askTime, final: finalTime}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { ls.Run(ctx) })
	t.Cleanup(func() {
		b.waitFor("the end of all flows", func() bool { return b.sum().Active == 0 })
		cancel()
		wg.Wait()
		ls.Close()
		b.sockets.Close()
	})
	return b
}

// sum adds up all counters.
func (b *bench) sum() metrics.Sample {
	sum := metrics.Sample{Errors: make(map[metrics.Reason]int64)}
	for _, s := range b.registry.Samples() {
		sum.Opened += s.Opened
		sum.Active += s.Active
		sum.Requests += s.Requests
		for r, n := range s.Errors {
			sum.Errors[r] += n
		}
	}
	return sum
}

func (b *bench) waitFor(what string, ok func() bool) {
	b.t.Helper()
	await(b.t, what, ok)
}

// await waits until something is so.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen within %v: %s", patience, what)
		}
	}
}

// edge is one listen of a service while it is served.
type edge struct {
	at     netip.AddrPort
	server service.Server
	pool   *backend.Pool
	end    func() // of its generation, if not with the test
}

// serve opens a listen for clients of family f until the test ends.
func (b *bench) serve(t testing.TB, name string, f ip.Family, spec backend.Spec, change func(*Options)) *edge {
	t.Helper()
	lease, err := b.sockets.Stream(listen.Addr{Transport: listen.TCP, AddrPort: netip.AddrPortFrom(iptest.Loopback(f), 0)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lease.Close)
	e := b.build(t, service.Listen{Name: name, Addr: lease.Addr()}, spec, change)
	acceptor, err := b.loops.Listen(lease.FD(), e.server.Doors[lease.Addr()].Conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(acceptor.Close)
	return e
}

// build makes a generation with one listen, and puts it into service.
func (b *bench) build(t testing.TB, l service.Listen, spec backend.Spec, change func(*Options)) *edge {
	t.Helper()
	p := Protocol()
	spec.Name = "existing"
	o := defaults()
	o.Name, o.RelayProof = "mx.example", false
	if change != nil {
		change(o)
	}
	s := &service.Service{Name: "x", Protocol: p.Name, Listen: []service.Listen{l}, Pools: map[string]backend.Spec{"existing": spec},
		Timeouts: backend.Timeouts{Connect: patience, Idle: patience}, Options: o}
	credentials, err := spec.TLS.Read()
	if err != nil {
		t.Fatal(err)
	}
	e := &edge{at: l.AddrPort}
	e.pool = backend.NewPool(backend.PoolOptions{Service: s.Name, Spec: spec, Health: b.health, TLS: credentials, Book: b.book})
	all := map[string]*backend.Pool{"existing": e.pool}
	clients := backend.RouteSpec{Shares: []backend.Share{{Pool: "existing", Percent: 100}}}
	if f := b.fallback; f != nil {
		all[f.Name] = backend.NewPool(backend.PoolOptions{Service: s.Name, Spec: *f, Health: b.health, Book: b.book})
		clients.Fallback = []string{f.Name}
	}
	route, err := backend.NewRoute(s.Name, clients, all)
	if err != nil {
		t.Fatal(err)
	}
	route.Open(backend.Access{Service: s.Name, Family: l.Family(), Timeouts: s.Timeouts, Book: b.book, Registry: &b.registry,
		StandIns: b.standIns, Limits: b.limits})
	pools, direct := b.pools(e.pool, s)
	b.building.Lock() // as the edge does
	defer b.building.Unlock()
	e.server, err = p.Build([]*service.Service{s}, service.NewEnv(service.Env{Log: slog.New(slog.DiscardHandler), Loops: b.loops,
		ACME:  acme.NewClient(b.state, slog.New(slog.DiscardHandler)),
		State: b.state, Route: func(string, service.Door) *backend.Route { return route }, Pools: pools, Direct: direct, Stopped: b.stopped}, b.kept))
	if err != nil {
		t.Fatal(err)
	}
	if f := b.kept["fronts"].(*fronts); f.final != b.final || f.hold != b.hold || f.proofs.patience != b.mute { // before there is a session
		f.hold, f.final = b.hold, b.final
		f.proofs.patience = b.mute
	}
	e.server.Start()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { e.server.Run(ctx) })
	e.end = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	t.Cleanup(e.end)
	return e
}

// pools are those of a service, and how its messages get there when they have been kept.
func (b *bench) pools(existing *backend.Pool, s *service.Service) (func(string) map[string]*backend.Pool, func(string, ip.Family) *backend.Route) {
	all := map[string]*backend.Pool{"existing": existing}
	for name, spec := range b.more {
		spec.Name = name
		all[name] = backend.NewPool(backend.PoolOptions{Service: s.Name, Spec: spec, Book: b.book})
	}
	return func(string) map[string]*backend.Pool { return all }, func(_ string, f ip.Family) *backend.Route {
		r, _ := backend.NewRoute(s.Name, backend.RouteSpec{}, nil) // which has no pool that could be missing
		r.Open(backend.Access{Service: s.Name, Family: f, Timeouts: s.Timeouts, Book: b.book, Registry: &b.registry, StandIns: b.standIns})
		return r
	}
}

func tcpAddr(a netip.AddrPort) listen.Addr { return listen.Addr{Transport: listen.TCP, AddrPort: a} }

func to(servers ...netip.AddrPort) (s backend.Spec) {
	for _, a := range servers {
		s.Servers = append(s.Servers, backend.Server{Addr: a, Weight: 1})
	}
	return s
}

// client is a client of SMTP that says what the test says.
type client struct {
	t    testing.TB
	conn net.Conn
	text *textproto.Reader
}

func dialPlain(t testing.TB, at netip.AddrPort) net.Conn {
	t.Helper()
	conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// dial connects and reads the greeting.
func dial(t testing.TB, at netip.AddrPort) *client {
	t.Helper()
	c := newClient(t, dialPlain(t, at))
	c.want("220 ")
	return c
}

func newClient(t testing.TB, conn net.Conn) *client {
	conn.SetDeadline(time.Now().Add(patience))
	return &client{t: t, conn: conn, text: textproto.NewReader(bufio.NewReader(conn))}
}

// say sends lines as one piece.
func (c *client) say(lines ...string) {
	c.t.Helper()
	if _, err := c.conn.Write([]byte(strings.Join(lines, "\r\n") + "\r\n")); err != nil {
		c.t.Fatal(err)
	}
}

// hear reads a reply, its lines joined by a space.
func (c *client) hear() string {
	c.t.Helper()
	c.conn.SetDeadline(time.Now().Add(patience)) // for this, and what is said then
	var all []string
	for {
		line, err := c.text.ReadLine()
		if err != nil {
			c.t.Fatalf("no reply: %v; before it %q", err, all)
		}
		all = append(all, line)
		if len(line) < 4 || line[3] != '-' {
			return strings.Join(all, " ")
		}
	}
}

// want reads a reply that begins so.
func (c *client) want(prefix string) string {
	c.t.Helper()
	got := c.hear()
	if !strings.HasPrefix(got, prefix) {
		c.t.Fatalf("got %q, want %q", got, prefix)
	}
	return got
}

// do says one line and wants a reply.
func (c *client) do(line, want string) string {
	c.t.Helper()
	c.say(line)
	return c.want(want)
}

// ends wants the connection to end.
func (c *client) ends() {
	c.t.Helper()
	if line, err := c.text.ReadLine(); err == nil {
		c.t.Fatalf("got %q, want the end", line)
	}
}
