// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
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

// patience is how long anything may take on a busy machine before a test gives up.
const patience = time.Minute

// TestMain fails if a goroutine or a descriptor is left behind.
func TestMain(m *testing.M) { servertest.Main(m) }

// bench is an edge of one protocol. When its test ends, no flow may be left.
type bench struct {
	t        testing.TB
	loops    *relay.Loops
	book     *backend.Book
	registry metrics.Registry
	sockets  *listen.Set
	ports    backend.Ports    // nil if there is no other plane
	standIns backend.StandIns // nil if there is no ledger
}

func newBench(t testing.TB) *bench {
	t.Helper()
	ls, err := relay.Open(2)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, loops: ls, book: backend.NewBook(2), sockets: listen.NewSet(listen.Options{})}
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
		sum.ToServer += s.ToServer
		sum.ToClient += s.ToClient
		for r, n := range s.Errors {
			sum.Errors[r] += n
		}
	}
	return sum
}

func (b *bench) waitFor(what string, ok func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); runtime.Gosched() {
		if time.Now().After(deadline) {
			b.t.Fatalf("did not happen within %v: %s; counted %+v", patience, what, b.sum())
		}
	}
}

// serve opens a service of protocol p for clients of family f until the test ends, and returns its address.
func (b *bench) serve(t testing.TB, p service.Protocol, f ip.Family, spec backend.Spec, change func(*service.Service)) netip.AddrPort {
	t.Helper()
	lend := map[listen.Transport]func(listen.Addr) (*listen.Lease, error){listen.TCP: b.sockets.Stream, listen.UDP: b.sockets.Packet}
	lease, err := lend[p.Transports[0]](listen.Addr{Transport: p.Transports[0], AddrPort: netip.AddrPortFrom(iptest.Loopback(f), 0)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(lease.Close)
	spec.Name = "existing"
	s := &service.Service{Name: "x", Protocol: p.Name, Listen: []service.Listen{{Addr: lease.Addr()}},
		Pools:    map[string]backend.Spec{"existing": spec},
		Timeouts: backend.Timeouts{Connect: patience, Idle: patience}, Options: p.Options()}
	if change != nil {
		change(s)
	}
	pools := map[string]*backend.Pool{"existing": backend.NewPool(backend.PoolOptions{Service: s.Name, Spec: spec, Book: b.book})}
	route, err := backend.NewRoute(s.Name, backend.RouteSpec{Shares: []backend.Share{{Pool: "existing", Percent: 100}}}, pools)
	if err != nil {
		t.Fatal(err)
	}
	route.Open(backend.Access{Service: s.Name, Family: f, Deny: s.Deny, Timeouts: s.Timeouts, Book: b.book, Registry: &b.registry,
		Ports: b.ports, StandIns: b.standIns})
	server, err := p.Build([]*service.Service{s}, service.NewEnv(service.Env{Log: slog.New(slog.DiscardHandler), Loops: b.loops,
		Route: func(string, service.Door) *backend.Route { return route }}, make(map[string]any)))
	if err != nil {
		t.Fatal(err)
	}
	h := server.Doors[lease.Addr()]
	if p.Transports[0] == listen.UDP {
		packets, err := b.loops.OpenPackets(lease.FD(), h.Flow)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { packets.Close(metrics.Drained) })
	} else {
		acceptor, err := b.loops.Listen(lease.FD(), h.Conn)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(acceptor.Close)
	}
	return lease.Addr().AddrPort
}

func to(servers ...netip.AddrPort) (s backend.Spec) {
	for _, a := range servers {
		s.Servers = append(s.Servers, backend.Server{Addr: a, Weight: 1})
	}
	return s
}

func dial(t testing.TB, at netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// try sends a byte and wants it back. Where a client is reset depends on who is faster.
func try(at netip.AddrPort) (*net.TCPConn, error) {
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at))
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(patience))
	if _, err = c.Write([]byte("x")); err == nil {
		_, err = io.ReadFull(c, make([]byte, 1))
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func TestTCP(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		before := b.sum()
		at := b.serve(t, TCP(), x.Client, to(servertest.Echo(t, x.Backend)), nil)
		carried := int64(0)
		for _, size := range []int{0, 1, 100_000, 3 << 20} {
			c := dial(t, at)
			sent := make([]byte, size)
			rand.Read(sent)
			var wg sync.WaitGroup
			wg.Go(func() {
				c.Write(sent)
				c.CloseWrite()
			})
			got, err := io.ReadAll(c)
			if wg.Wait(); err != nil || !bytes.Equal(got, sent) {
				t.Errorf("%d bytes: got %d, %v", size, len(got), err)
			}
			carried += int64(size)
		}
		b.waitFor("the end of all flows", func() bool { return b.sum().Active == 0 })
		after := b.sum()
		if after.Opened-before.Opened != 4 || after.ToServer-before.ToServer != carried || after.ToClient-before.ToClient != carried {
			t.Errorf("counted %+v, before %+v, carried %d", after, before, carried)
		}
	})
	if n := len(b.sum().Errors); n != 0 {
		t.Errorf("errors %v", b.sum().Errors)
	}
}

// A server that speaks first is heard, and a client that speaks before its server is reached is not lost, even if it
// ends its half at once.
func TestWhoSpeaksFirst(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		at := b.serve(t, TCP(), x.Client, to(servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
			io.WriteString(c, "220 ready ")
			io.Copy(c, c)
		})), nil)
		for _, size := range []int{0, 5, 100_000} {
			c := dial(t, at)
			said := strings.Repeat("x", size)
			go func() {
				io.WriteString(c, said)
				c.CloseWrite()
			}()
			if got, err := io.ReadAll(c); err != nil || string(got) != "220 ready "+said {
				t.Errorf("%d bytes: got %d, %v", size, len(got), err)
			}
		}
	})
}

// A server learns who the client is by the PROXY header, which comes before the client's first byte.
func TestProxyHeader(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		spec := to(servertest.Echo(t, x.Backend))
		spec.Handover = backend.HandoverProxyV1
		at := b.serve(t, TCP(), x.Client, spec, nil)
		c := dial(t, at)
		io.WriteString(c, "hello")
		c.CloseWrite()
		client := c.LocalAddr().(*net.TCPAddr).AddrPort()
		want := fmt.Sprintf("PROXY TCP%d %v %v %d %d\r\nhello", x.Client, client.Addr(), at.Addr(), client.Port(), at.Port())
		if got, err := io.ReadAll(c); err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	})
}

// A client that gets no server is reset, and counted by why.
func TestNoServer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*service.Service)
		spec   func(backend.Spec) backend.Spec
		want   metrics.Reason
	}{
		{"denied", func(s *service.Service) {
			s.Deny = ip.NewPrefixes(netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))
		}, func(s backend.Spec) backend.Spec { return s }, metrics.Denied},
		{"draining", nil, func(s backend.Spec) backend.Spec { s.Servers[0].Drain = true; return s }, metrics.NoneUp},
		{"refused", nil, func(s backend.Spec) backend.Spec {
			s.Servers[0].Addr = netip.AddrPortFrom(s.Servers[0].Addr.Addr(), 1)
			return s
		}, metrics.ConnectFailed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
				at := b.serve(t, TCP(), x.Client, tt.spec(to(servertest.Echo(t, x.Backend))), tt.change)
				if _, err := try(at); err == nil {
					t.Error("the client got a server")
				}
			})
			if n := b.sum().Errors[tt.want]; n != 4 {
				t.Errorf("counted %v, want 4 %v", b.sum().Errors, tt.want)
			}
		})
	}
}

// A server that refuses is passed over, and a cap is kept.
func TestNextServer(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		live := servertest.Echo(t, x.Backend)
		spec := to(netip.AddrPortFrom(live.Addr(), 1), live)
		spec.Servers[1].Cap = 3
		at := b.serve(t, TCP(), x.Client, spec, nil)
		var held []*net.TCPConn
		for i := range 5 {
			c, err := try(at)
			if (err == nil) != (i < 3) {
				t.Errorf("client %d: %v", i, err)
			}
			if err == nil {
				held = append(held, c)
			}
		}
		for _, c := range held {
			c.Close()
		}
		b.waitFor("free places", func() bool { return b.sum().Active == 0 })
		c, err := try(at)
		if err != nil {
			t.Fatalf("after the others have gone: %v", err)
		}
		c.Close()
	})
}

func TestIdle(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		at := b.serve(t, TCP(), x.Client, to(servertest.Echo(t, x.Backend)), func(s *service.Service) { s.Timeouts.Idle = 100 * time.Millisecond })
		c, err := try(at)
		if err != nil { // its time was over before the client, on a busy machine, had an answer
			return
		}
		defer c.Close()
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("an idle flow goes on")
		}
	})
	b.waitFor("the end of all of them", func() bool { return b.sum().Errors[metrics.ClientTimeout] == 4 })
}

func TestUDP(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		at := b.serve(t, UDP(), x.Client, to(servertest.UDPEcho(t, x.Backend)), nil)
		before := b.sum()
		for range 5 {
			c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			c.SetDeadline(time.Now().Add(patience))
			for _, size := range []int{1, 1200, 9000} {
				sent, got := make([]byte, size), make([]byte, 1<<16)
				rand.Read(sent)
				c.Write(sent)
				if n, err := c.Read(got); err != nil || !bytes.Equal(got[:n], sent) {
					t.Fatalf("%d bytes: got %d, %v", size, n, err)
				}
			}
		}
		if n := b.sum().Opened - before.Opened; n != 5 {
			t.Errorf("%d flows, want 5", n)
		}
	})
	b.waitFor("the end of all flows", func() bool { return b.sum().Active == 0 })
	if s := b.sum(); s.ToServer != 4*5*(1+1200+9000) || s.ToClient != s.ToServer {
		t.Errorf("counted %+v", s)
	}
}

// Packets of clients that get no server are dropped without a trace, but for the count.
func TestUDPDenied(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		at := b.serve(t, UDP(), x.Client, to(servertest.UDPEcho(t, x.Backend)), func(s *service.Service) {
			s.Deny = ip.NewPrefixes(netip.PrefixFrom(iptest.Loopback(x.Client), iptest.Loopback(x.Client).BitLen()))
		})
		c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(at))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		before := b.sum().Errors[metrics.Denied]
		c.Write([]byte("x"))
		b.waitFor("a refusal", func() bool { return b.sum().Errors[metrics.Denied] > before })
	})
	if n := b.sum().Opened; n != 0 {
		t.Errorf("%d flows", n)
	}
}
