// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

// bench is an edge of web services alone. When its test ends, no flow may be left.
type bench struct {
	t        testing.TB
	loops    *relay.Loops
	book     *backend.Book
	registry metrics.Registry
	limits   *limit.Table
	from     func(*relay.Conn) // says where a client comes from; nil leaves it as it is
	kept     map[string]any
	sockets  *listen.Set
	doors    map[listen.Addr]*relay.Acceptor
	leases   []*listen.Lease
	handlers map[listen.Addr]*atomic.Pointer[service.Handler]
	running  service.Server
	stop     context.CancelFunc // of running.Run
	run      sync.WaitGroup
}

func newBench(t testing.TB) *bench {
	t.Helper()
	ls, err := relay.Open(2)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, loops: ls, book: backend.NewBook(2), limits: limit.NewTable(limit.DefaultSize), kept: make(map[string]any), sockets: listen.NewSet(listen.Options{}),
		doors: make(map[listen.Addr]*relay.Acceptor), handlers: make(map[listen.Addr]*atomic.Pointer[service.Handler]), stop: func() {}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { ls.Run(ctx) })
	t.Cleanup(func() {
		b.quiet(t)
		for _, a := range b.doors {
			a.Close()
		}
		b.stop()
		b.run.Wait()
		cancel()
		wg.Wait()
		ls.Close()
		for _, l := range b.leases {
			l.Close()
		}
		b.sockets.Close()
	})
	return b
}

// quiet waits until no flow is left.
func (b *bench) quiet(t testing.TB) {
	t.Helper()
	waitFor(t, "the end of all flows", func() bool { return b.active() == 0 })
}

// active returns how many flows there are.
func (b *bench) active() (n int64) {
	for _, s := range b.registry.Samples() {
		n += s.Active
	}
	return n
}

// sample adds up the counters of a service.
func (b *bench) sample(name string) metrics.Sample {
	sum := metrics.Sample{Errors: make(map[metrics.Reason]int64)}
	for _, s := range b.registry.Samples() {
		if s.Service == name {
			sum.Opened += s.Opened
			sum.Requests += s.Requests
			sum.ToServer += s.ToServer
			sum.ToClient += s.ToClient
			for r, n := range s.Errors {
				sum.Errors[r] += n
			}
		}
	}
	return sum
}

// freeAddr returns an address of family f at which the bench will listen.
func (b *bench) freeAddr(f ip.Family) listen.Addr {
	b.t.Helper()
	l, err := b.sockets.Stream(listen.Addr{AddrPort: netip.AddrPortFrom(iptest.Loopback(f), 0)})
	if err != nil {
		b.t.Fatal(err)
	}
	b.leases = append(b.leases, l)
	return l.Addr()
}

// service describes one service of the bench.
func (b *bench) service(name string, at listen.Addr, spec backend.Spec, o *Options) *service.Service {
	spec.Name = "existing"
	return &service.Service{Name: name, Protocol: "web", Listen: []service.Listen{{Addr: at}},
		Pools:  map[string]backend.Spec{"existing": spec},
		Routes: map[service.Door]backend.RouteSpec{{Family: at.Family()}: {Shares: []backend.Share{{Pool: "existing", Percent: 100}}}},
		Health: backend.Health{}, Timeouts: backend.Timeouts{Connect: patience, Idle: patience}, Options: o}
}

// serve puts the services in place of those that run.
func (b *bench) serve(services ...*service.Service) {
	b.t.Helper()
	routes := make(map[string]*backend.Route)
	for _, s := range services {
		pools := make(map[string]*backend.Pool)
		for name, spec := range s.Pools {
			credentials, err := spec.TLS.Read()
			if err != nil {
				b.t.Fatal(err)
			}
			pools[name] = backend.NewPool(backend.PoolOptions{Service: s.Name, Spec: spec, Health: s.Health, TLS: credentials, Book: b.book})
		}
		for d, spec := range s.Routes {
			r, err := backend.NewRoute(s.Name, spec, pools)
			if err != nil {
				b.t.Fatal(err)
			}
			r.Open(backend.Access{Service: s.Name, Family: d.Family, Deny: s.Deny, Limits: b.limits.Limits(s.Limits), Timeouts: s.Timeouts,
				Book: b.book, Registry: &b.registry})
			routes[s.Name] = r
		}
	}
	env := service.NewEnv(service.Env{Log: slog.New(slog.DiscardHandler), Loops: b.loops,
		ACME:  acme.NewClient(b.t.TempDir(), slog.New(slog.DiscardHandler)),
		Route: func(name string, _ service.Door) *backend.Route { return routes[name] }}, b.kept)
	server, err := build(services, env)
	if err != nil {
		b.t.Fatal(err)
	}
	server.Start()
	for a, h := range server.Doors {
		b.open(a, h)
	}
	for a, acceptor := range b.doors {
		if _, ok := server.Doors[a]; !ok {
			acceptor.Close()
			delete(b.doors, a)
		}
	}
	old := b.running
	b.running = server
	b.stop()
	var ctx context.Context
	ctx, b.stop = context.WithCancel(context.Background())
	b.run.Go(func() { server.Run(ctx) })
	if old.Drain != nil {
		old.Drain(false)
	}
}

func (b *bench) open(a listen.Addr, h service.Handler) {
	if b.handlers[a] == nil {
		b.handlers[a] = new(atomic.Pointer[service.Handler])
	}
	b.handlers[a].Store(&h)
	if b.doors[a] != nil {
		return
	}
	lease, err := b.sockets.Stream(a)
	if err != nil {
		b.t.Fatal(err)
	}
	b.leases = append(b.leases, lease)
	p := b.handlers[a]
	if b.doors[a], err = b.loops.Listen(lease.FD(), func(c *relay.Conn) {
		if b.from != nil {
			b.from(c)
		}
		p.Load().Conn(c)
	}); err != nil {
		b.t.Fatal(err)
	}
}

// shared is a pool of one backend whose connections are shared between clients.
func shared(a netip.AddrPort) backend.Spec {
	return backend.Spec{Servers: []backend.Server{{Addr: a, Weight: 1}}, Handover: backend.HandoverHeader}
}

// private is a pool of one backend that sees the edge, and whose connections belong to one client each.
func private(a netip.AddrPort) backend.Spec {
	return backend.Spec{Servers: []backend.Server{{Addr: a, Weight: 1}}}
}

// kinds is how connections to backends may be used: by several clients one after another, or not.
func kinds(a netip.AddrPort) map[string]backend.Spec {
	return map[string]backend.Spec{"shared": shared(a), "private": private(a)}
}

func get(t testing.TB, c *http.Client, url string) (int, string, http.Header) {
	t.Helper()
	r, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body), r.Header
}

func newClient(t testing.TB) *http.Client {
	tr := &http.Transport{DisableCompression: true}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

// raw is a client that says what it likes.
type raw struct {
	*net.TCPConn
	t testing.TB
	r *bufio.Reader
}

func connect(t testing.TB, at netip.AddrPort) *raw {
	t.Helper()
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return &raw{c, t, bufio.NewReader(c)}
}

func (c *raw) say(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Errorf("write: %v", err)
	}
}

// answer reads one response to a request of the given method, with its body.
func (c *raw) answer(method string) (*http.Response, string) {
	c.t.Helper()
	r, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.t.Fatalf("read response: %v", err)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		c.t.Errorf("read body: %v", err)
	}
	return r, string(body)
}

// end fails unless the edge has closed the connection and said nothing more.
func (c *raw) end() {
	c.t.Helper()
	if rest, err := io.ReadAll(c.r); err != nil || len(rest) > 0 {
		c.t.Errorf("the connection ends with %q, %v", rest, err)
	}
}

// waitFor tries until ok says yes.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen within %v: %s", patience, what)
		}
	}
}

// blackhole returns an address of family f at which no connect is ever answered: the queue of its socket is full.
func blackhole(t testing.TB, f ip.Family) netip.AddrPort {
	t.Helper()
	domain := map[ip.Family]int{ip.V4: unix.AF_INET, ip.V6: unix.AF_INET6}[f]
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	var bound unix.Sockaddr = &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if f == ip.V6 {
		bound = &unix.SockaddrInet6{Addr: netip.IPv6Loopback().As16()}
	}
	if err := unix.Bind(fd, bound); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	at := relay.LocalAddr(fd)
	for range 4 {
		c, err := net.DialTimeout("tcp", at.String(), 100*time.Millisecond)
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
	}
	return at
}

// certificate writes a new certificate for the names into dir, and returns a configuration for clients that trust it.
func certificate(t testing.TB, dir string, names ...string) (TLS, *tls.Config) {
	t.Helper()
	server, client := servertest.TLS(t, names...)
	save := func(name, kind string, der []byte) service.Path {
		path := filepath.Join(dir, strings.TrimPrefix(names[0], "*.")+name)
		if err := os.WriteFile(path+".new", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		return service.Path(path)
	}
	c := server.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return TLS{Certificate: save(".pem", "CERTIFICATE", c.Certificate[0]), Key: save(".key", "PRIVATE KEY", key)}, client
}
