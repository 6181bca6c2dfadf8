// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
)

// from is the PROXY header of the nth stranger: in IPv6 of the nth /64, with an address that nobody has had.
func from(f ip.Family, n, host int) []byte {
	a := another(f, n)
	if f == ip.V6 {
		b := a.As16()
		b[8] = byte(host) + 1
		a = netip.AddrFrom16(b)
	}
	return proxied(2, netip.AddrPortFrom(a, uint16(1000+host)))
}

// TestLimitConnections: a prefix has three connections, whichever of its addresses they come from; the fourth is
// refused, while another prefix goes on. A reload forgives nothing.
func TestLimitConnections(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		at := b.free(listen.TCP, x.Client)
		pool := servers([]netip.AddrPort{teller(t, x.Backend)})
		rule := func(burst int) string {
			return fmt.Sprintf("limits: {connections: {rate: 1/h, burst: %d}}", burst)
		}
		b.serve(line("it", "tcp", at, pool, proxyFrom, rule(3)))
		for i := range 3 {
			if err := open(t, at, from(x.Client, 1, i)...).echo("hello"); err != nil {
				t.Fatalf("connection %d: %v", i, err)
			}
		}
		for i := range 2 {
			if !refused(at, from(x.Client, 1, 3)...) {
				t.Error("the fourth connection is let in")
			}
			if err := open(t, at, from(x.Client, 2+i, 0)...).echo("hello"); err != nil {
				t.Errorf("another prefix: %v", err)
			}
			b.serve(line("it", "tcp", at, pool, proxyFrom, rule(2-i)))
		}
		if n := b.errors("it", "limited"); n != 2 {
			t.Errorf("%d are counted as limited, want 2", n)
		}
		b.serve(line("it", "tcp", at, pool, proxyFrom))
		if err := open(t, at, from(x.Client, 1, 9)...).echo("hello"); err != nil {
			t.Errorf("without limits: %v", err)
		}
	})
}

// TestLimitOpen: a prefix has three connections at once, in front of each protocol and without a PROXY header too; who
// closes one may open another, also if a reload has come between.
func TestLimitOpen(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		at := b.free(listen.TCP, x.Client)
		pool := servers([]netip.AddrPort{teller(t, x.Backend)})
		b.serve(line("it", "tcp", at, pool, "limits: {open: 3}"))
		streams := make([]*stream, 3)
		for i := range streams {
			streams[i] = open(t, at)
		}
		for _, reload := range []string{"idle: 1h", "idle: 2h", "idle: 3h"} {
			if !refused(at) {
				t.Error("a fourth connection is let in")
			}
			b.serve(line("it", "tcp", at, pool, "limits: {open: 3}", "timeouts: {"+reload+"}"))
			streams[0].Close()
			await(t, "another is let in", func() bool {
				c, err := dialFrom(client(x.Client), at)
				if err != nil {
					return false
				}
				t.Cleanup(func() { c.Close() })
				s, err := hear(c, nil)
				if err != nil {
					return false
				}
				streams = append(streams[1:], s)
				return true
			})
		}
		for _, s := range streams {
			s.Close()
		}
	})
}

// TestLimitStatus: what was refused is counted by kind and length, and the prefixes that want too much are named.
func TestLimitStatus(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		t.Parallel()
		b := newBench(t)
		at := b.free(listen.TCP, f)
		pool := servers([]netip.AddrPort{teller(t, f)})
		b.serve(line("it", "tcp", at, pool, proxyFrom, "limits: {connections: 1/h, open: 100}"))
		hello := from(f, 7, 0)
		open(t, at, hello...)
		await(t, "the prefix is named", func() bool {
			if !refused(at, hello...) {
				t.Fatal("a second connection is let in")
			}
			limited := b.edge.Status().Limited
			return len(limited) == 1 && limited[0].Service == "it" && limited[0].Kind == "connections" &&
				limited[0].Prefix == ip.ClientPrefix(another(f, 7)) && limited[0].Refused > 0
		})
		bits := map[ip.Family]int{ip.V4: 32, ip.V6: 64}[f]
		for _, l := range b.edge.Status().Services[0].Limits {
			if want := l.Kind == "connections" && l.Bits == bits; want != (l.Refused > 0) {
				t.Errorf("%s of a /%d: %d refused", l.Kind, l.Bits, l.Refused)
			}
		}
		if n := b.errors("it", "limited"); n == 0 {
			t.Error("no flow is counted as limited")
		}
	})
}

// TestLimitObserved: with mode: observe the same is counted and named, and nobody is refused; what was refused before is
// another count.
func TestLimitObserved(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		t.Parallel()
		b := newBench(t)
		at := b.free(listen.TCP, f)
		pool := servers([]netip.AddrPort{teller(t, f)})
		hello := from(f, 7, 0)
		b.serve(line("it", "tcp", at, pool, proxyFrom, "limits: {connections: 1/h}"))
		open(t, at, hello...)
		if !refused(at, hello...) {
			t.Fatal("a second connection is let in")
		}
		b.serve(line("it", "tcp", at, pool, proxyFrom, "limits: {connections: 1/h, mode: observe}"))
		await(t, "the prefix is named", func() bool {
			if refused(at, hello...) {
				t.Fatal("a connection is refused")
			}
			limited := b.edge.Status().Limited
			return len(limited) == 1 && limited[0].Outcome == "observed" && limited[0].Prefix == ip.ClientPrefix(another(f, 7)) && limited[0].Refused > 0
		})
		for _, l := range b.edge.Status().Services[0].Limits {
			if l.Outcome != "observed" {
				t.Errorf("%s of a /%d: %s", l.Kind, l.Bits, l.Outcome)
			}
		}
	})
}
