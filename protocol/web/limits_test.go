// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"crypto/rand"
	"crypto/tls"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/relay"
)

// few lets each client have few of a kind, and its /48 or /24 some more.
func few(k limit.Kind, n int) limit.Rules {
	r := limit.Rules{Wider4: limit.DefaultWider(ip.V4), Wider6: limit.DefaultWider(ip.V6)}
	r.Rates[k] = limit.Rate{Count: n, Per: time.Hour, Burst: n}
	return r
}

func nothing(http.ResponseWriter, *http.Request) {}

// What is beyond a limit of requests is answered with 429, over each version of HTTP.
func TestLimitedRequests(t *testing.T) {
	t.Parallel()
	const n = 5
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		for version, c := range map[string]*http.Client{"1": newClient(t), "2": newClient2(t)} {
			b := newBench(t)
			at := b.freeAddr(x.Client)
			s := b.service("shop", at, shared(servertest.HTTP(t, x.Backend, http.HandlerFunc(nothing))), defaults())
			s.Limits = few(limit.Requests, n)
			b.serve(s)
			for i := range 2 * n {
				want := 200
				if i >= n {
					want = 429
				}
				if got, _, _ := get(t, c, "http://"+at.AddrPort.String()); got != want {
					t.Errorf("HTTP/%s, request %d: got %d, want %d", version, i, got, want)
				}
			}
			if got := b.sample("shop").Errors[metrics.Limited]; got != n {
				t.Errorf("HTTP/%s: %d were counted, want %d", version, got, n)
			}
		}
	})
}

// What is beyond a limit of handshakes is not shaken hands with.
func TestLimitedHandshakes(t *testing.T) {
	t.Parallel()
	const n = 5
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b := newBench(t)
		cert, config := certificate(t, t.TempDir(), "shop.example.jp")
		config.ServerName = "shop.example.jp"
		at := b.freeAddr(x.Client)
		s := b.service("shop", at, shared(servertest.HTTP(t, x.Backend, http.HandlerFunc(nothing))), withTLS(cert))
		s.Limits = few(limit.Handshakes, n)
		b.serve(s)
		for i := range 2 * n {
			c := tls.Client(connect(t, at.AddrPort).TCPConn, config)
			if err := c.HandshakeContext(t.Context()); (err == nil) != (i < n) {
				t.Errorf("handshake %d: %v", i, err)
			}
			c.Close()
		}
	})
}

// A flood of requests from all over one /48 uses up what that has, and nothing of what another subscriber has.
func TestFlood48(t *testing.T) {
	t.Parallel()
	const n, flood, floods = 20, 1000, 4
	for _, server := range []ip.Family{ip.V4, ip.V6} {
		b := newBench(t)
		var served atomic.Int64
		var attack atomic.Bool // who connects belongs to the flood
		b.from = func(c *relay.Conn) {
			from := netip.MustParseAddr("2001:db8:1:2::3").As16()
			if attack.Load() {
				from = netip.MustParseAddr("2001:db8:bad::").As16()
				rand.Read(from[6:])
			}
			c.SetAddrs(netip.AddrPortFrom(netip.AddrFrom16(from), c.Remote().Port()), c.Local())
		}
		at := b.freeAddr(ip.V6)
		s := b.service("shop", at, shared(servertest.HTTP(t, server, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			served.Add(1)
		}))), defaults())
		s.Limits = few(limit.Requests, n)
		b.serve(s)
		url := "http://" + at.AddrPort.String()

		victim := newClient2(t)
		if got, _, _ := get(t, victim, url); got != 200 { // is connected before the flood
			t.Fatalf("got %d", got)
		}
		attack.Store(true)
		var wg sync.WaitGroup
		var refused atomic.Int64
		for range floods {
			wg.Go(func() {
				c := newClient(t)
				c.Transport.(*http.Transport).DisableKeepAlives = true // each request comes from another address
				for range flood / floods {
					if got, _, _ := get(t, c, url); got == 429 {
						refused.Add(1)
					}
				}
			})
		}
		for i := range n - 1 {
			if got, _, _ := get(t, victim, url); got != 200 {
				t.Errorf("request %d of the subscriber: got %d", i, got)
			}
		}
		wg.Wait()
		const again = n // what may be asked anew while this goes on
		if most := int64(16*n + n + again); served.Load() > most || refused.Load() < flood-most {
			t.Errorf("%d were served, %d of the flood refused", served.Load(), refused.Load())
		}
	}
}
