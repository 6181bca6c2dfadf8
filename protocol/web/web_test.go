// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/relay"
	"github.com/kyozon/kyozon/service"
)

// bench is an edge of web services alone.
type bench struct {
	t        testing.TB
	loops    *relay.Loops
	book     *backend.Book
	registry metrics.Registry
	kept     map[string]any
	sockets  *listen.Set
	doors    map[listen.Addr]*relay.Acceptor
	handlers map[listen.Addr]*atomic.Pointer[service.Handler]
	running  service.Server
}

func newBench(t testing.TB) *bench {
	t.Helper()
	ls, err := relay.Open(2)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, loops: ls, book: backend.NewBook(2), kept: make(map[string]any), sockets: listen.NewSet(listen.Options{}),
		doors: make(map[listen.Addr]*relay.Acceptor), handlers: make(map[listen.Addr]*atomic.Pointer[service.Handler])}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { ls.Run(ctx) })
	t.Cleanup(func() {
		for _, a := range b.doors {
			a.Close()
		}
		cancel()
		wg.Wait()
		ls.Close()
		b.sockets.Close()
	})
	return b
}

// freeAddr returns an address of family f at which the bench will listen.
func (b *bench) freeAddr(f ip.Family) listen.Addr {
	b.t.Helper()
	l, err := b.sockets.Stream(listen.Addr{AddrPort: netip.AddrPortFrom(iptest.Loopback(f), 0)})
	if err != nil {
		b.t.Fatal(err)
	}
	return l.Addr()
}

// site describes one service of the bench.
func (b *bench) service(name string, at listen.Addr, spec backend.Spec, o *Options) *service.Service {
	spec.Name = "existing"
	return &service.Service{Name: name, Protocol: "web", Listen: []service.Listen{{Addr: at}},
		Pools:  map[string]backend.Spec{"existing": spec},
		Routes: map[service.Door]backend.RouteSpec{{Family: at.Family()}: {Shares: []backend.Share{{Pool: "existing", Percent: 100}}}},
		Health: backend.Health{}, Timeouts: backend.Timeouts{Connect: 2 * time.Second, Idle: 10 * time.Second}, Options: o}
}

// serve puts the services in place of those that run.
func (b *bench) serve(services ...*service.Service) {
	b.t.Helper()
	routes := make(map[string]*backend.Route)
	for _, s := range services {
		pools := make(map[string]*backend.Pool)
		for name, spec := range s.Pools {
			pools[name] = backend.NewPool(backend.PoolOptions{Service: s.Name, Spec: spec, Health: s.Health, Book: b.book})
		}
		for d, spec := range s.Routes {
			r, err := backend.NewRoute(s.Name, spec, pools)
			if err != nil {
				b.t.Fatal(err)
			}
			r.Open(backend.Access{Service: s.Name, Family: d.Family, Deny: s.Deny, Timeouts: s.Timeouts, Book: b.book, Registry: &b.registry})
			routes[s.Name] = r
		}
	}
	env := service.NewEnv(service.Env{Log: slog.New(slog.DiscardHandler), Loops: b.loops,
		Route: func(name string, _ service.Door) *backend.Route { return routes[name] }}, b.kept)
	server, err := build(services, env)
	if err != nil {
		b.t.Fatal(err)
	}
	server.Start()
	for a, h := range server.Doors {
		if b.handlers[a] == nil {
			b.handlers[a] = new(atomic.Pointer[service.Handler])
		}
		b.handlers[a].Store(&h)
		if b.doors[a] == nil {
			lease, err := b.sockets.Stream(a)
			if err != nil {
				b.t.Fatal(err)
			}
			p := b.handlers[a]
			if b.doors[a], err = b.loops.Listen(lease.FD(), func(c *relay.Conn) { p.Load().Conn(c) }); err != nil {
				b.t.Fatal(err)
			}
		}
	}
	old := b.running
	b.running = server
	if old.Drain != nil {
		old.Drain(false)
	}
}

// shared is a pool of one backend whose connections are shared between clients.
func shared(a netip.AddrPort) backend.Spec {
	return backend.Spec{Servers: []backend.Server{{Addr: a, Weight: 1}}, Handover: backend.HandoverHeader}
}

// private is a pool of one backend that sees each client as its peer.
func private(a netip.AddrPort) backend.Spec {
	return backend.Spec{Servers: []backend.Server{{Addr: a, Weight: 1}}, Source: backend.SourceClient}
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
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

func TestRequests(t *testing.T) {
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		backendAddr := servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s host=%s xff=%s fwd=%s body=%d", r.Method, r.RequestURI, r.Host, r.Header.Get("X-Forwarded-For"),
				r.Header.Get("Forwarded"), len(body))
		}))
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, shared(backendAddr), defaults()))
		c := newClient(t)
		url := "http://" + at.AddrPort.String()
		for range 3 {
			status, body, _ := get(t, c, url+"/a?b=c")
			client := iptest.Loopback(x.Client)
			fwd := client.String()
			if x.Client == ip.V6 {
				fwd = `"[` + fwd + `]"`
			}
			want := fmt.Sprintf(`GET /a?b=c host=%s xff=%s fwd=for=%s;proto=http;host="%s" body=0`, at.AddrPort, client, fwd, at.AddrPort)
			if status != 200 || body != want {
				t.Errorf("got %d %q\nwant 200 %q", status, body, want)
			}
		}
		for _, size := range []int{1, 1000, 200_000, 10 << 20} {
			for _, chunked := range []bool{false, true} {
				var in io.Reader = bytes.NewReader(make([]byte, size))
				if chunked {
					in = io.MultiReader(in) // hides the length
				}
				r, err := c.Post(url+"/up", "application/octet-stream", in)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(r.Body)
				r.Body.Close()
				if !strings.HasSuffix(string(body), fmt.Sprintf("body=%d", size)) {
					t.Errorf("size %d chunked %v: got %q", size, chunked, body)
				}
			}
		}
	})
}

func TestResponses(t *testing.T) {
	b := newBench(t)
	big := make([]byte, 20<<20)
	rand.Read(big)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		backendAddr := servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/length":
				w.Header().Set("Content-Length", fmt.Sprint(len(big)))
				w.Write(big)
			case "/chunked":
				for i := 0; i < len(big); i += 100_000 {
					w.Write(big[i:min(len(big), i+100_000)])
				}
			case "/close":
				w.Header().Set("Connection", "close")
				w.Write([]byte("bye"))
			case "/204":
				w.WriteHeader(204)
			case "/early":
				w.Header().Set("Link", "</x>; rel=preload")
				w.WriteHeader(103)
				w.Write([]byte("late"))
			case "/cut":
				w.Header().Set("Content-Length", "100")
				w.Write([]byte("short"))
				w.(http.Flusher).Flush()
				c, _, _ := w.(http.Hijacker).Hijack()
				c.Close()
			}
		}))
		for kind, spec := range map[string]backend.Spec{"shared": shared(backendAddr), "private": private(backendAddr)} {
			if kind == "private" && x != (ip.Crossing{Client: ip.V4, Backend: ip.V4}) && x != (ip.Crossing{Client: ip.V6, Backend: ip.V6}) {
				continue // stand-ins need a ledger: the edge's tests have one
			}
			at := b.freeAddr(x.Client)
			b.serve(b.service("shop", at, spec, defaults()))
			c := newClient(t)
			url := "http://" + at.AddrPort.String()
			for range 2 {
				for _, path := range []string{"/length", "/chunked"} {
					if _, body, _ := get(t, c, url+path); body != string(big) {
						t.Errorf("%s %s: got %d bytes, not the same", kind, path, len(body))
					}
				}
				for path, want := range map[string]string{"/close": "bye", "/204": "", "/early": "late"} {
					if _, body, _ := get(t, c, url+path); body != want {
						t.Errorf("%s %s: got %q, want %q", kind, path, body, want)
					}
				}
			}
			r, err := c.Get(url + "/cut")
			if err == nil {
				_, err = io.ReadAll(r.Body)
				r.Body.Close()
			}
			if err == nil {
				t.Errorf("%s: a response that was cut off looks whole", kind)
			}
		}
	})
}

// exchangeRaw sends bytes and returns all that comes back until the edge closes.
func exchangeRaw(t testing.TB, at netip.AddrPort, send string) string {
	t.Helper()
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	c.Write([]byte(send))
	got, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("%q: %v", send, err)
	}
	return string(got)
}

func TestRefusals(t *testing.T) {
	b := newBench(t)
	var reached atomic.Int64
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		backendAddr := servertest.HTTP(t, x.Backend, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
		at := b.freeAddr(x.Client)
		o := defaults()
		o.Hosts = []string{"shop.example.jp"}
		o.Timeouts.Request = 200 * time.Millisecond
		b.serve(b.service("shop", at, shared(backendAddr), o))
		for send, want := range map[string]string{
			"GET / HTTP/1.1\r\nHost: shop.example.jp\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": "400",
			"GET / HTTP/1.1\r\nHost: shop.example.jp\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello":              "400",
			"GET / HTTP/1.1\nHost: shop.example.jp\n\n":                                                                   "400",
			"GET / HTTP/1.1\r\n\r\n":                                                               "400",
			"GET / HTTP/2.0\r\nHost: shop.example.jp\r\n\r\n":                                      "505",
			"CONNECT a:1 HTTP/1.1\r\nHost: shop.example.jp\r\n\r\n":                                "501",
			"GET / HTTP/1.1\r\nHost: other.example.jp\r\n\r\n":                                     "421",
			"GET / HTTP/1.1\r\nHost: shop.exam":                                                    "408",
			"GET / HTTP/1.1\r\nHost: shop.example.jp\r\nX_Y: 1\r\n\r\n":                            "400",
			"POST / HTTP/1.1\r\nHost: shop.example.jp\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n": "400",
		} {
			got := exchangeRaw(t, at.AddrPort, send)
			if !strings.HasPrefix(got, "HTTP/1.1 "+want) && !(want == "501" && strings.HasPrefix(got, "HTTP/1.1 405")) {
				t.Errorf("%q: got %q, want %s", send, got, want)
			}
			if strings.Count(got, "HTTP/1.1 ") != 1 {
				t.Errorf("%q: got several responses: %q", send, got)
			}
		}
	})
	if n := reached.Load(); n != 0 {
		t.Errorf("%d of the refused requests reached the backend", n)
	}
}

func TestPipelining(t *testing.T) {
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		backendAddr := servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(w, r.Body)
			fmt.Fprint(w, r.URL.Path)
		}))
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, shared(backendAddr), defaults()))
		var send strings.Builder
		for i := range 50 {
			fmt.Fprintf(&send, "POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", i)
		}
		send.WriteString("GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at.AddrPort))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		c.Write([]byte(send.String()))
		r := bufio.NewReader(c)
		for i := range 51 {
			want := fmt.Sprintf("abc/%d", i)
			if i == 50 {
				want = "/last"
			}
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatalf("response %d: %v", i, err)
			}
			if body, err := io.ReadAll(resp.Body); string(body) != want {
				t.Fatalf("response %d: got %q, %v, want %q", i, body, err, want)
			}
		}
	})
}

func TestWebSocket(t *testing.T) {
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		backendAddr := servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, rw, _ := w.(http.Hijacker).Hijack()
			defer c.Close()
			rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello")
			rw.Flush()
			io.Copy(c, rw)
		}))
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, shared(backendAddr), defaults()))
		c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at.AddrPort))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		c.Write([]byte("GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"))
		r := bufio.NewReader(c)
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != 101 {
			t.Fatalf("got %v, %v", resp, err)
		}
		c.Write([]byte(" world"))
		c.CloseWrite()
		if got, err := io.ReadAll(r); string(got) != "hello world" {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// A connection that a backend has closed while nobody used it must not fail the next client's request.
func TestStaleConnection(t *testing.T) {
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		var requests atomic.Int64
		backendAddr := servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
			r := bufio.NewReader(c)
			for range 2 { // answers one request, and closes without a word on the second
				if _, err := http.ReadRequest(r); err != nil {
					return
				}
				if requests.Add(1)%2 == 0 {
					return
				}
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
		})
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, shared(backendAddr), defaults()))
		c := newClient(t)
		for range 6 {
			if status, body, _ := get(t, c, "http://"+at.AddrPort.String()+"/"); status != 200 || body != "ok" {
				t.Fatalf("got %d %q", status, body)
			}
		}
	})
}

// A keep-alive connection outlives a reload, and its next request is served by the new generation.
func TestReload(t *testing.T) {
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		say := func(word string) netip.AddrPort {
			return servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, word) }))
		}
		one, two := say("one"), say("two")
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, shared(one), defaults()))
		c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at.AddrPort))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		r := bufio.NewReader(c)
		for i, want := range []string{"one", "two", "one", "two"} {
			b.serve(b.service("shop", at, shared([]netip.AddrPort{one, two}[i%2]), defaults()))
			c.Write([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := io.ReadAll(resp.Body); string(got) != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
	})
}
