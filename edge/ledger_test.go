// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/state"
)

// TestStandIns: clients of one /64 are one client to the server, and clients of two are two; the ledger tells who they
// are, both ways and at any time, also after a restart.
func TestStandIns(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	server := teller(t, ip.V4)
	run := func(b *bench, who string) netip.Addr {
		at := b.edge.Status().Services[0].Listen[0]
		return open(t, netip.MustParseAddrPort(at), proxied(2, netip.MustParseAddrPort(who))...).saw.Addr()
	}
	site := func(b *bench) string {
		return line("tcp", "tcp", b.free(listen.TCP, ip.V6), servers([]netip.AddrPort{server}, "source: client"), proxyFrom)
	}
	b.serve(site(b))
	before := time.Now().Add(-time.Minute)
	seen := map[string]netip.Addr{}
	for _, who := range []string{"[2001:db8:1:1::1]:1000", "[2001:db8:1:1::2]:1000", "[2001:db8:1:1:ffff::1]:1000", "[2001:db8:1:2::1]:1000",
		"[2001:db8:2:1::1]:1000"} {
		seen[who] = run(b, who)
	}
	one := seen["[2001:db8:1:1::1]:1000"]
	for who, saw := range seen {
		client := netip.MustParseAddrPort(who).Addr()
		if same := ip.ClientPrefix(client) == netip.MustParsePrefix("2001:db8:1:1::/64"); same != (saw == one) {
			t.Errorf("the server saw %v for %s and %v for 2001:db8:1:1::1", saw, who, one)
		}
		checkStandIn(t, b, client, saw)
		for _, a := range []netip.Addr{client, saw} {
			if records, err := b.edge.Who(a, before); len(records) != 0 || err != nil {
				t.Errorf("the ledger says that it had %v before it had: %v, %v", a, records, err)
			}
		}
	}
	if s := b.edge.Status().Ledger; s.Leased != 3 || s.Shared != 0 || s.Err != "" {
		t.Errorf("got %+v, want 3 leased", s)
	}
	b.stop()

	again := newBench(t)
	again.dir = b.dir
	again.serve(site(again))
	for who, saw := range seen {
		if now := run(again, who); now != saw {
			t.Errorf("after a restart the server saw %v for %s, before %v", now, who, saw)
		}
	}
}

// TestOneWriter: two edges cannot have one ledger.
func TestOneWriter(t *testing.T) {
	t.Parallel()
	a, b := newBench(t), newBench(t)
	b.dir = a.dir
	server := teller(t, ip.V4)
	start := func(e *bench) error {
		return e.start(e.parse(line("tcp", "tcp", e.free(listen.TCP, ip.V6), servers([]netip.AddrPort{server}, "source: client"))))
	}
	if err := start(a); err != nil {
		t.Fatal(err)
	}
	if err := start(b); !errors.Is(err, state.ErrLocked) {
		t.Errorf("the second got %v, want %v", err, state.ErrLocked)
	}
}
