// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"log/slog"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/l4"
	"github.com/kyozon/kyozon/service"
)

// TestPaths: what is added for each crossing, in the words in which it would be typed.
func TestPaths(t *testing.T) {
	t.Parallel()
	const (
		pool  = "ip route add local 100.64.0.0/11 dev lo"
		embed = "ip route add local 2001:db8:64::/96 dev lo"
		tail  = ", clients: {ipv4: web, ipv6: web}}\n"
	)
	for _, tt := range []struct {
		name, service string
		want          []string
	}{
		{"edge's own address", `{protocol: tcp, listen: ["203.0.113.1:80", "[2001:db8::1]:80"], pools: {web: ["10.0.1.11:80", "[fd00::21]:80"]}` + tail,
			[]string{pool, embed}},
		{"both families, tcp", `{protocol: tcp, listen: ["203.0.113.1:80", "[2001:db8::1]:80"],
    pools: {web: {servers: ["10.0.1.11:80", "10.0.1.12:80", "[fd00::21]:80"], source: client}}` + tail, []string{pool, embed,
			"ip rule add from 10.0.1.11 ipproto tcp sport 80 lookup 5264",
			"ip rule add from 10.0.1.12 ipproto tcp sport 80 lookup 5264",
			"ip -6 rule add from fd00::21 ipproto tcp sport 80 lookup 5264"}},
		{"only other families", `{protocol: tcp, listen: ["203.0.113.1:80", "[2001:db8::1]:80"], clients: {ipv4: new, ipv6: old},
    pools: {old: {servers: ["10.0.1.11:80"], source: client}, new: {servers: ["[fd00::21]:80"], source: client}}}` + "\n",
			[]string{pool, embed}},
		{"fallback, udp", `{protocol: udp, listen: ["203.0.113.1:53"], clients: {ipv4: {share: {a: 100%}, fallback: [b]}},
    pools: {a: ["10.0.1.11:53"], b: {servers: ["10.0.1.12:53"], source: client}}}` + "\n", []string{pool, embed,
			"a rule of the packet filter that tracks connections (nft: ct state), for large UDP answers to ipv4 clients",
			"ip rule add from 10.0.1.12 ipproto udp sport 53 lookup 5264",
			"ip rule add from 10.0.1.12 to 192.0.2.1 ipproto tcp sport 53 lookup 5264",
			"ip rule add from 10.0.1.12 to 192.0.2.1 ipproto icmp lookup 5264"}},
		{"IPv6, two ports, udp", `{protocol: udp, listen: ["[2001:db8::1]:53"], clients: {ipv6: a},
    pools: {a: {servers: ["[fd00::21]:53", "[fd00::21]:54"], source: client}}}` + "\n", []string{pool, embed,
			"a rule of the packet filter that tracks connections (nft: ct state), for large UDP answers to ipv6 clients",
			"ip -6 rule add from fd00::21 ipproto udp sport 53 lookup 5264",
			"ip -6 rule add from fd00::21 ipproto udp sport 54 lookup 5264",
			"ip -6 rule add from fd00::21 to 2001:db8::1 ipproto tcp sport 53 lookup 5264",
			"ip -6 rule add from fd00::21 to 2001:db8::1 ipproto tcp sport 54 lookup 5264",
			"ip -6 rule add from fd00::21 to 2001:db8::1 ipproto ipv6-icmp lookup 5264"}},
		{"loopback", `{protocol: tcp, listen: ["203.0.113.1:80"], clients: {ipv4: web}, pools: {web: {servers: ["127.0.0.1:80"], source: client}}}` + "\n",
			[]string{pool, embed}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := "site: test\naddresses: {ledger: {pool: 100.64.0.0/11, embed: \"2001:db8:64::/96\"}}\nservices:\n  web: " + tt.service
			cfg, err := config.Parse("site.yaml", []byte(text), []service.Protocol{l4.TCP(), l4.UDP()}, config.Options{})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range pathsOf(cfg) {
				got = append(got, p.String())
			}
			slices.Sort(got)
			want := slices.Clone(tt.want)
			slices.Sort(want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestProofsOfOneBackend: a backend that clients of both families come to waits for both ways, in whichever order
// they are proved.
func TestProofsOfOneBackend(t *testing.T) {
	t.Parallel()
	pool := backend.NewPool(backend.PoolOptions{Service: "web", Book: backend.NewBook(1), Spec: backend.Spec{Name: "web",
		Servers: []backend.Server{{Addr: netip.MustParseAddrPort("10.0.1.11:80")}}}})
	defer pool.Close()
	b := pool.Backends()[0]
	ways := []way{{backend: b.Addr, source: anyClient(ip.V4)}, {backend: b.Addr, source: netip.MustParseAddr("100.64.0.1")}}
	for _, order := range [][]way{{ways[0], ways[1]}, {ways[1], ways[0]}} {
		p := newProofs(slog.New(slog.DiscardHandler), nil)
		p.waiting = map[*backend.Backend][]way{b: ways}
		for _, w := range ways {
			p.known[w] = new(proof)
		}
		p.weighLocked(b)
		if b.Available(0) {
			t.Error("available before it was asked")
		}
		p.settle(order[0], proof{proved: true})
		p.settle(order[1], proof{missing: true, reason: "no route"})
		if b.Available(0) || p.open()[0] != order[1] {
			t.Errorf("available with one way of two, or %v is not asked again", order[1])
		}
		p.settle(order[1], proof{proved: true})
		if !b.Available(0) || len(p.open()) != 0 {
			t.Error("not available with both ways")
		}
	}
}
