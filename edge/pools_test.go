// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
)

// namer is a web server that answers its name.
func namer(t *testing.T, f ip.Family, name string) netip.AddrPort {
	t.Helper()
	return servertest.HTTP(t, f, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) }))
}

// nowhere returns an address of family f at which nobody listens.
func nowhere(t *testing.T, f ip.Family) netip.AddrPort {
	t.Helper()
	at, err := servertest.FreeAddr(f)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// mustGet returns whom the client got.
func mustGet(t *testing.T, c *http.Client, at netip.AddrPort) string {
	t.Helper()
	status, body, err := get(c, at)
	if err != nil || status != 200 {
		t.Fatalf("got %d %q, %v", status, body, err)
	}
	return body
}

// TestRetry: a server that refuses the connection costs no client anything, before it is ejected and after.
func TestRetry(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		at := b.free(listen.TCP, x.Client)
		pool := servers([]netip.AddrPort{nowhere(t, x.Backend), namer(t, x.Backend, "well"), nowhere(t, x.Backend)})
		b.serve(line("web", "web", at, pool, "health: {every: never, eject: 4}"))
		for i := range 20 {
			if got := mustGet(t, browser(t, x.Client, false), at); got != "well" {
				t.Errorf("request %d: got %q", i, got)
			}
		}
		if n := b.errors("web", "connect-failed"); n != 0 {
			t.Errorf("%d clients were told", n)
		}
		ejected := 0
		for _, s := range b.edge.Status().Backends {
			if s.State == "ejected" {
				ejected++
			}
		}
		if ejected != 2 {
			t.Errorf("%d servers are ejected, want 2", ejected)
		}
	})
}

// TestAllRefuse: when no server can be reached, the client learns it at once.
func TestAllRefuse(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		tcp, web := b.free(listen.TCP, x.Client), b.free(listen.TCP, x.Client)
		pool := servers([]netip.AddrPort{nowhere(t, x.Backend)})
		b.serve(line("tcp", "tcp", tcp, pool, "health: {every: never}"), line("web", "web", web, pool, "health: {every: never}"))
		if !refused(tcp) {
			t.Error("tcp: the client was not refused")
		}
		if status, _, err := get(browser(t, x.Client, false), web); status != 502 {
			t.Errorf("web: got %d, %v, want 502", status, err)
		}
		for _, name := range []string{"tcp", "web"} {
			if n := b.errors(name, "connect-failed"); n != 1 {
				t.Errorf("%s: counted %d, want 1", name, n)
			}
		}
	})
}

// TestFallback: clients of a pool that is down are served by the fallback, and go back when it is up.
func TestFallback(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		at := b.free(listen.TCP, x.Client)
		var well atomic.Bool
		ill := servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if !well.Load() {
				w.WriteHeader(503)
			}
			fmt.Fprint(w, "new")
		}))
		other := ip.V4 // of the other family, as it is where dedicated servers are new
		if x.Backend == ip.V4 {
			other = ip.V6
		}
		pools := fmt.Sprintf(`new: {servers: [%q], handover: header}, existing: {servers: [%q], handover: header}`, ill, namer(t, other, "existing"))
		b.serve(line("web", "web", at, pools, fmt.Sprintf("clients: {%v: {share: {new: 100%%}, fallback: [existing]}}", x.Client),
			"health: {every: 100ms, timeout: 90ms, rise: 1, fall: 2, http: /}"))
		keep := browser(t, x.Client, true)
		if got := mustGet(t, keep, at); got != "existing" {
			t.Errorf("new is down: got %q", got)
		}
		well.Store(true)
		await(t, "clients go to the new pool", func() bool { return mustGet(t, keep, at) == "new" })
		well.Store(false)
		await(t, "clients go to the fallback", func() bool {
			status, body, err := get(keep, at)
			if err != nil {
				t.Fatal(err)
			}
			return status == 200 && body == "existing"
		})
	})
}

// TestNoneUp: a service without a server that is up says so, to clients and in its status.
func TestNoneUp(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		at := b.free(listen.TCP, x.Client)
		b.serve(line("web", "web", at, servers([]netip.AddrPort{nowhere(t, x.Backend)}), "health: {every: 1s}"))
		if status, _, err := get(browser(t, x.Client, false), at); status != 503 {
			t.Errorf("got %d, %v, want 503", status, err)
		}
		s := b.edge.Status()
		if got := s.Services[0]; got.State != "degraded" || got.Reason != "no backend is up" || got.Up != 0 || got.Backends != 1 {
			t.Errorf("got %+v", got)
		}
		if got := s.Backends[0]; got.State != "down" || got.Reason == "" || got.Checked.IsZero() {
			t.Errorf("got %+v", got)
		}
		if n := b.errors("web", "none-up"); n != 1 {
			t.Errorf("counted %d, want 1", n)
		}
	})
}

// TestMaxFlows: a server never has more flows than it may, over all loops; who comes then is told.
func TestMaxFlows(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		at := b.free(listen.TCP, x.Client)
		pool := fmt.Sprintf(`existing: {servers: [{address: %q, max-flows: 3}]}`, teller(t, x.Backend))
		b.serve(line("tcp", "tcp", at, pool, "health: {every: never}"))
		var inside []*stream
		for range 3 {
			inside = append(inside, open(t, at))
		}
		if !refused(at) {
			t.Error("a fourth client was not refused")
		}
		if n := b.errors("tcp", "full"); n != 1 {
			t.Errorf("counted %d as full, want 1", n)
		}
		if s := b.edge.Status().Backends[0]; s.Flows != 3 || s.Cap != 3 {
			t.Errorf("got %+v", s)
		}
		inside[0].Close()
		await(t, "the place is free", func() bool { return b.edge.Status().Backends[0].Flows == 2 })
		if err := open(t, at).echo("in"); err != nil {
			t.Error(err)
		}
	})
}

// TestShares: a client prefix stays with its pool, and about as many go to each as the file says.
func TestShares(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		at := b.free(listen.TCP, x.Client)
		site := func(share int) string {
			pools := fmt.Sprintf(`new: {servers: [%q]}, existing: {servers: [%q]}`, teller(t, x.Backend), teller(t, x.Backend))
			return line("tcp", "tcp", at, pools, proxyFrom, "health: {every: never}",
				fmt.Sprintf("clients: {%v: {share: {new: %d%%, existing: %d%%}}}", x.Client, share, 100-share))
		}
		// The pool of each client, told by the number of its flows: the connections stay open until all are counted.
		const clients = 60
		count := func() (inNew int) {
			var all []*stream
			for i := range clients {
				all = append(all, open(t, at, proxied(2, netip.AddrPortFrom(another(x.Client, i), 1000))...))
			}
			for _, s := range b.edge.Status().Backends {
				if s.Pool == "new" {
					inNew = int(s.Flows)
				}
			}
			for _, s := range all {
				s.Close()
			}
			await(t, "all are gone", func() bool { return len(b.edge.Flows(1)) == 0 })
			return inNew
		}
		b.serve(site(20))
		first := count()
		if second := count(); first != second || first < 3 || first > 25 {
			t.Errorf("of %d clients %d, then %d are in the new pool, want about 20%%", clients, first, second)
		}
		b.serve(site(100))
		if all := count(); all != clients {
			t.Errorf("of %d clients %d are in the new pool, want all", clients, all)
		}
	})
}

// TestSharesRise: while clients ask again and again over connections that stay, a share is raised step by step. No request
// fails, who is with the new servers stays there, and in the end all are.
func TestSharesRise(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		at := b.free(listen.TCP, x.Client)
		pools := fmt.Sprintf(`new: {servers: [%q], handover: header}, existing: {servers: [%q], handover: header}`,
			namer(t, x.Backend, "new"), namer(t, x.Backend, "existing"))
		rise := func(share int) {
			b.serve(line("web", "web", at, pools, proxyFrom, "health: {every: never}",
				fmt.Sprintf("clients: {%v: {share: {new: %d%%, existing: %d%%}}}", x.Client, share, 100-share)))
		}
		rise(10)
		const clients = 20
		var inNew, asked atomic.Int64
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for i := range clients {
			c := browser(t, x.Client, true)
			dial := c.Transport.(*http.Transport).DialContext
			c.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
				conn, err := dial(ctx, network, addr)
				if err == nil {
					_, err = conn.Write(proxied(2, netip.AddrPortFrom(another(x.Client, i), 1000)))
				}
				return conn, err
			}
			wg.Go(func() {
				moved := false
				for ; ctx.Err() == nil; asked.Add(1) {
					status, pool, err := get(c, at)
					switch {
					case err != nil || status != 200:
						t.Errorf("client %d: got %d %q, %v", i, status, pool, err)
						return
					case pool == "new" && !moved:
						moved = true
						inNew.Add(1)
					case pool != "new" && moved:
						t.Errorf("client %d has gone back", i)
						return
					}
				}
			})
		}
		for _, share := range []int{30, 60, 100} {
			before := asked.Load()
			await(t, "all have asked", func() bool { return asked.Load() > before+3*clients })
			rise(share)
		}
		await(t, "all are with the new servers", func() bool { return inNew.Load() == clients || t.Failed() })
		cancel()
		wg.Wait()
	})
}
