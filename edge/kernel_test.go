// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"net/netip"
	"testing"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/kernel"
)

// TestKernelLine: a flow that has ended in the kernel has the line that it would have in the user plane: the stand-in where
// there is one, the pool of its server, and the time of its last packet.
func TestKernelLine(t *testing.T) {
	t.Parallel()
	servers := map[ip.Family]netip.AddrPort{ip.V4: netip.MustParseAddrPort("10.0.1.11:80"), ip.V6: netip.MustParseAddrPort("[fd00::21]:80")}
	pool := backend.NewPool(backend.PoolOptions{Service: "game", Book: backend.NewBook(1), Spec: backend.Spec{Name: "existing",
		Servers: []backend.Server{{Addr: servers[ip.V4]}, {Addr: servers[ip.V6]}}}})
	defer pool.Close()
	g := &generation{config: &config.Config{Addresses: config.Addresses{Ledger: &config.Ledger{Pool: netip.MustParsePrefix("100.64.0.0/11")}}},
		pools: map[string]map[string]*backend.Pool{"game": {"existing": pool}}}
	standIn := netip.MustParseAddrPort("100.64.0.17:40000")
	for _, c := range ip.Crossings() {
		f := kernel.Flow{Service: "game", Crossing: c, Client: netip.MustParseAddrPort("192.0.2.1:40000"), Source: standIn, Backend: servers[c.Backend],
			Age: 10 * time.Second, Idle: 4 * time.Second, ToServer: kernel.Traffic{Bytes: 5}, ToClient: kernel.Traffic{Bytes: 6}}
		if c.Client == ip.V6 {
			f.Client = netip.MustParseAddrPort("[2001:db8::1]:40000")
		}
		r := g.line(&f, int64(time.Minute))
		if r.At != int64(56*time.Second) || r.Total != 6*time.Second || r.Pool != "existing" || r.Counts.ToServer != 5 || r.Counts.ToClient != 6 {
			t.Errorf("%v: %+v", c, r)
		}
		if want := c == (ip.Crossing{Client: ip.V6, Backend: ip.V4}); r.StandIn.IsValid() != want || want && r.StandIn != standIn.Addr() {
			t.Errorf("%v: stand-in %v", c, r.StandIn)
		}
		f.Source = netip.MustParseAddrPort("10.0.1.5:40000")
		if r := g.line(&f, 0); r.StandIn.IsValid() {
			t.Errorf("%v: the edge's address is taken for a stand-in", c)
		}
	}
}
