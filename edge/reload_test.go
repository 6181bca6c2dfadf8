// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
)

// load is how much TestReloadUnderLoad does.
type load struct {
	reloads, streams, workers int
	every                     time.Duration // between two requests of a worker
	requests                  int64         // from one reload to the next
}

func loadOf(soak string) load {
	if soak != "" {
		return load{reloads: 100, streams: 5000, workers: 40, every: 20 * time.Millisecond, requests: 200}
	}
	return load{reloads: 20, streams: 500, workers: 8, every: 25 * time.Millisecond, requests: 25}
}

// streamsFor returns how many streams, up to want, the kernel gives this process descriptors for: each end of two
// connections is one.
func streamsFor(t *testing.T, want int) int {
	t.Helper()
	const each, others = 4, 1000
	var now syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &now); err != nil {
		t.Fatal(err)
	}
	need := uint64(each*want + others)
	if now.Cur >= need || syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: need, Max: max(need, now.Max)}) == nil {
		return want
	}
	return int(now.Cur-others) / each
}

// descriptors returns how many this process has open, but for those that keep ports for other tests.
func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(slices.DeleteFunc(all, func(d os.DirEntry) bool { return servertest.Reserves(d.Name()) }))
}

// TestReloadUnderLoad: however often the file changes, no request fails, no connection is lost, no UDP flow moves, and
// in the end nothing is left of any generation. It is not parallel, because it counts what the process holds.
func TestReloadUnderLoad(t *testing.T) {
	l := loadOf(os.Getenv("KYOZON_SOAK"))
	l.streams = streamsFor(t, l.streams)
	goroutines, files := runtime.NumGoroutine(), descriptors(t)
	t.Run("load", func(t *testing.T) { reloadUnderLoad(t, l) })
	await(t, "goroutines are back to the start", func() bool { return runtime.NumGoroutine() <= goroutines })
	await(t, "descriptors are back to the start", func() bool { return descriptors(t) <= files })
}

// site is a site with a service of each protocol for each crossing, and from one generation to the next some change:
// weights, and whether there is one service more.
type site struct {
	tcp, udp, web [4]netip.AddrPort // where clients come, by crossing
	extra         netip.AddrPort

	tcpServers, udpServers, webServers [2]netip.AddrPort // by family
}

func newSite(t *testing.T, b *bench) *site {
	s := new(site)
	for i, f := range []ip.Family{ip.V4, ip.V6} {
		s.tcpServers[i], s.udpServers[i], s.webServers[i] = teller(t, f), packetTeller(t, f), namer(t, f, "well")
	}
	for i, x := range ip.Crossings() {
		s.tcp[i], s.udp[i], s.web[i] = b.free(listen.TCP, x.Client), b.free(listen.UDP, x.Client), b.free(listen.TCP, x.Client)
	}
	s.extra = nowhere(t, ip.V6)
	return s
}

func (s *site) lines(generation int) (all []string) {
	pool := func(a netip.AddrPort, more string) string {
		return fmt.Sprintf(`existing: {servers: [{address: %q, weight: %d}]%s}`, a, 1+generation%200, more)
	}
	for i := range s.tcp {
		family := i % 2 // of the backend
		all = append(all, line(fmt.Sprintf("tcp%d", i), "tcp", s.tcp[i], pool(s.tcpServers[family], "")),
			line(fmt.Sprintf("udp%d", i), "udp", s.udp[i], pool(s.udpServers[family], "")),
			line(fmt.Sprintf("web%d", i), "web", s.web[i], pool(s.webServers[family], ", handover: header")))
	}
	if generation%2 == 1 {
		all = append(all, line("extra", "tcp", s.extra, pool(s.tcpServers[0], "")))
	}
	return all
}

func reloadUnderLoad(t *testing.T, l load) {
	b := newBench(t)
	s := newSite(t, b)
	b.serve(s.lines(0)...)

	var streams []*stream
	var packets []*net.UDPConn
	var sources []netip.AddrPort
	for i := range l.streams {
		streams = append(streams, open(t, s.tcp[i%4]))
	}
	for i := range 4 + l.streams/100 {
		c := dialPackets(t, s.udp[i%4])
		saw, err := askPackets(c)
		if err != nil {
			t.Fatal(err)
		}
		packets, sources = append(packets, c), append(sources, saw)
	}

	var sent atomic.Int64
	end := s.request(t, l, &sent)
	for n := 1; n <= l.reloads; n++ {
		b.serve(s.lines(n)...)
		k := n % len(packets)
		if saw, err := askPackets(packets[k]); err != nil || saw != sources[k] {
			t.Errorf("reload %d: the server sees the flow come from %v, then %v: %v", n, sources[k], saw, err)
		}
		await(t, "there is load", func() bool { return sent.Load() >= int64(n)*l.requests })
	}
	failed := end()
	t.Logf("%d reloads, %d streams, %d requests, %d of them failed", l.reloads, len(streams), sent.Load(), failed)

	for i, c := range streams {
		c.SetDeadline(time.Now().Add(patience))
		if err := c.echo("still here"); err != nil {
			t.Fatalf("stream %d was lost: %v", i, err)
		}
	}
	for i, c := range packets {
		if saw, err := askPackets(c); err != nil || saw != sources[i] {
			t.Errorf("the server sees flow %d come from %v, then %v: %v", i, sources[i], saw, err)
		}
		c.Close()
	}
	for _, c := range streams {
		c.Close()
	}
	if g := b.edge.Status().Generation; g != l.reloads+1 {
		t.Errorf("got generation %d, want %d", g, l.reloads+1)
	}
	// The first still has its UDP flows, whose end nobody can see.
	await(t, "no other older generation drains", func() bool { return b.edge.Status().Draining == 1 })
}

// request sends web requests, and counts them, until the function it returns is called, which returns how many have
// failed: half of them over connections that are kept, half over new ones, of which some always wait in the socket.
func (s *site) request(t *testing.T, l load, sent *atomic.Int64) (end func() (failed int64)) {
	var lost atomic.Int64
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range l.workers {
		at := s.web[i%4]
		c := browser(t, ip.FamilyOf(at.Addr()), i/4%2 == 0)
		wg.Go(func() {
			turn := time.NewTicker(l.every)
			defer turn.Stop()
			for {
				select {
				case <-stop:
					return
				case <-turn.C:
				}
				sent.Add(1)
				if status, body, err := get(c, at); err != nil || status != 200 || body != "well" {
					if lost.Add(1) < 10 {
						t.Errorf("request: got %d %q, %v", status, body, err)
					}
				}
			}
		})
	}
	return func() int64 {
		close(stop)
		wg.Wait()
		return lost.Load()
	}
}

// TestReloadSame: a file that has not changed is no new generation.
func TestReloadSame(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b := newBench(t)
		service := line("tcp", "tcp", b.free(listen.TCP, x.Client), servers([]netip.AddrPort{teller(t, x.Backend)}))
		b.serve(service)
		if err := b.edge.Reload(b.parse(service)); !errors.Is(err, edge.ErrNoChange) {
			t.Errorf("got %v, want %v", err, edge.ErrNoChange)
		}
		if g := b.edge.Status().Generation; g != 1 {
			t.Errorf("got generation %d, want 1", g)
		}
	})
}

// TestReloadFails: a reload that cannot be done changes nothing, opens nothing and says why.
func TestReloadFails(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b := newBench(t)
		at, server := b.free(listen.TCP, x.Client), teller(t, x.Backend)
		pool := servers([]netip.AddrPort{server})
		old := line("tcp", "tcp", at, pool)
		b.serve(old)
		s := open(t, at)

		busy, free := nowhere(t, x.Client), nowhere(t, x.Client)
		taken, err := net.Listen("tcp", busy.String())
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Close()
		bad := b.parse(line("tcp", "tcp", at, servers([]netip.AddrPort{nowhere(t, x.Backend)})), line("b", "tcp", free, pool), line("c", "tcp", busy, pool))
		err = b.edge.Reload(bad)
		want := fmt.Sprintf("open tcp %v: address in use by this process", busy)
		if err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Fatalf("got %v, want %s", err, want)
		}

		if err := s.echo("still here"); err != nil {
			t.Errorf("the connection was lost: %v", err)
		}
		if err := open(t, at).echo("new"); err != nil {
			t.Errorf("a new client is not served as before: %v", err)
		}
		if c, err := dialFrom(client(x.Client), free); err == nil {
			c.Close()
			t.Errorf("%v is open", free)
		}
		st := b.edge.Status()
		if st.Generation != 1 || st.ReloadErr != err.Error() || len(st.Services) != 1 || !st.Ready {
			t.Errorf("got %+v", st)
		}
		taken.Close()
		b.serve(old, line("c", "tcp", busy, pool)) // and the way out is still open
		if err := open(t, busy).echo("new"); err != nil {
			t.Error(err)
		}
		if st := b.edge.Status(); st.ReloadErr != "" || st.Generation != 2 {
			t.Errorf("got %+v", st)
		}
	})
}

// TestReloadMoves: a service goes to another address; who is inside stays, and the old address is closed.
func TestReloadMoves(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b := newBench(t)
		from, pool := b.free(listen.TCP, x.Client), servers([]netip.AddrPort{teller(t, x.Backend)})
		b.serve(line("tcp", "tcp", from, pool))
		s := open(t, from)
		to := b.free(listen.TCP, x.Client)
		b.serve(line("tcp", "tcp", to, pool))
		if err := open(t, to).echo("new"); err != nil {
			t.Error(err)
		}
		if c, err := dialFrom(client(x.Client), from); err == nil {
			c.Close()
			t.Errorf("%v is still open", from)
		}
		if err := s.echo("still here"); err != nil {
			t.Errorf("the connection was lost: %v", err)
		}
	})
}

// TestReloadMovesPackets: a UDP service goes to another address; its flows stay until they drain.
func TestReloadMovesPackets(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		from, pool := b.free(listen.UDP, x.Client), servers([]netip.AddrPort{packetTeller(t, x.Backend)})
		b.serve(line("udp", "udp", from, pool))
		c := dialPackets(t, from)
		before, err := askPackets(c)
		if err != nil {
			t.Fatal(err)
		}
		to := b.free(listen.UDP, x.Client)
		b.drain = ample
		b.serve(line("udp", "udp", to, pool))
		if after, err := askPackets(c); err != nil || after != before {
			t.Errorf("the server sees the flow come from %v, then %v: %v", before, after, err)
		}
		if _, err := askPackets(dialPackets(t, to)); err != nil {
			t.Error(err)
		}
		stranger := dialPackets(t, from)
		stranger.Write([]byte("?"))
		stranger.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		if n, err := stranger.Read(make([]byte, 100)); err == nil {
			t.Errorf("a new client got %d bytes at the old address", n)
		}
		await(t, "the old address is closed", func() bool {
			c.Write([]byte("?"))
			c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
			_, err := c.Read(make([]byte, 100))
			return err != nil && !errors.Is(err, os.ErrDeadlineExceeded) // refused
		})
	})
}

// TestBackends: a server is added, drained and removed, and no client notices but those that stay too long.
func TestBackends(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		b.drain = ample
		at := b.free(listen.TCP, x.Client)
		first, second := teller(t, x.Backend), teller(t, x.Backend)
		site := func(servers ...string) string {
			return line("tcp", "tcp", at, "existing: {servers: ["+strings.Join(servers, ", ")+"]}")
		}
		server := func(a netip.AddrPort, drain bool) string { return fmt.Sprintf("{address: %q, drain: %v}", a, drain) }
		flows := func(a netip.AddrPort) int64 {
			for _, s := range b.edge.Status().Backends {
				if s.Address == a.String() {
					return s.Flows
				}
			}
			return -1
		}

		b.serve(site(server(first, false)))
		old := open(t, at)

		b.serve(site(server(first, false), server(second, false))) // added: half of the new clients go there
		both := []*stream{open(t, at), open(t, at), open(t, at), open(t, at)}
		if n := flows(second); n != 2 {
			t.Errorf("added: the new server has %d of 4 new flows, want 2", n)
		}

		b.serve(site(server(first, true), server(second, false))) // draining: all new clients go to the other
		late := []*stream{open(t, at), open(t, at), open(t, at)}
		if n := flows(second); n != 5 {
			t.Errorf("draining: the other server has %d flows, want 5", n)
		}
		for _, s := range b.edge.Status().Backends {
			if want := map[string]string{first.String(): "draining", second.String(): "up"}[s.Address]; s.State != want {
				t.Errorf("draining: %s is %s, want %s", s.Address, s.State, want)
			}
		}
		if err := old.echo("still here"); err != nil {
			t.Errorf("draining: the connection was lost: %v", err)
		}

		removed := time.Now()
		b.serve(site(server(second, false))) // removed: its flows are cut, but only when the drain is over
		if err := old.echo("still here"); err != nil {
			t.Errorf("removed: the connection was lost before the drain was over: %v", err)
		}
		if !old.cut() {
			t.Error("removed: the connection was not cut")
		}
		if after := time.Since(removed); after < b.drain*9/10 {
			t.Errorf("removed: the connection was cut after %v, before the drain of %v was over", after, b.drain)
		}
		for _, s := range late { // of an older generation, too, but their server is still there
			if err := s.echo("still here"); err != nil {
				t.Errorf("removed: a connection to the other server was lost: %v", err)
			}
		}
		await(t, "the flows of the removed server are gone", func() bool { return b.errors("tcp", "drained") == 3 })
		alive := 0
		for _, s := range both {
			if s.echo("still here") == nil {
				alive++
			}
		}
		if alive != 2 {
			t.Errorf("removed: %d of 4 connections are alive, want the 2 to the other server", alive)
		}
	})
}

// TestBackendRemovedLater: the drain of a server begins when it is removed, however many reloads there were before, and
// reaches the flows of every generation.
func TestBackendRemovedLater(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		b.drain = ample
		at := b.free(listen.TCP, x.Client)
		first, second := teller(t, x.Backend), teller(t, x.Backend)
		b.serve(line("tcp", "tcp", at, servers([]netip.AddrPort{first}, "pick: hash")))
		old := open(t, at)
		b.serve(line("tcp", "tcp", at, servers([]netip.AddrPort{first}, "pick: round-robin"))) // concerns nobody
		later := time.NewTimer(b.drain * 3 / 2)                                                // so the first reload's drain is over
		<-later.C
		if err := old.echo("still here"); err != nil {
			t.Errorf("the connection was lost although its server is still there: %v", err)
		}
		removed := time.Now()
		b.serve(line("tcp", "tcp", at, servers([]netip.AddrPort{second})))
		if err := old.echo("still here"); err != nil {
			t.Errorf("the connection was lost before the drain was over: %v", err)
		}
		if !old.cut() {
			t.Error("the connection was not cut")
		}
		if after := time.Since(removed); after < b.drain*9/10 {
			t.Errorf("the connection was cut after %v, before the drain of %v was over", after, b.drain)
		}
	})
}
