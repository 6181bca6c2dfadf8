// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/lab"
)

const someServers = `
lab: later
links: {access: {}, servers: {}}
hosts:
  client: {links: {access: "2001:db8:100::2/64"}}
  edge: {links: {access: "2001:db8:100::10/64", servers: 10.0.1.5/24}}
  web1: {links: {servers: 10.0.1.11/24}, routes: [{to: 100.64.0.0/11, via: 10.0.1.5}]}
  web2: {links: {servers: 10.0.1.12/24}}
  web3: {links: {servers: 10.0.1.13/24}}
`

// someSite has services with a way back (proved, partly), without (lost), with no server that answers (silent), and one
// that needs none (plain). 10.0.1.14 does not exist.
const someSite = `
site: later
addresses: {ledger: {pool: 100.64.0.0/11}}
services:
  proved: {protocol: tcp, listen: "[2001:db8:100::10]:8001", clients: {ipv6: web}, pools: {web: {servers: ["10.0.1.11:80"], source: client}}}
  lost: {protocol: tcp, listen: "[2001:db8:100::10]:8002", clients: {ipv6: web}, pools: {web: {servers: ["10.0.1.12:80"], source: client}}}
  partly: {protocol: tcp, listen: "[2001:db8:100::10]:8003", clients: {ipv6: web},
    pools: {web: {servers: ["10.0.1.11:80", "10.0.1.14:80"], source: client}}}
  silent: {protocol: tcp, listen: "[2001:db8:100::10]:8004", clients: {ipv6: web}, pools: {web: {servers: ["10.0.1.14:80"], source: client}}}
  plain: {protocol: tcp, listen: "[2001:db8:100::10]:8005", clients: {ipv6: web}, pools: {web: {servers: ["10.0.1.12:80"]}}}
state: {directory: /var/lib/kyozon}
admin: {listen: off}
drain: 1s
`

// TestWayBackOfSome: a service opens with the servers that have a way back, and waits if one of them is known to have none.
// Of a service that is open only the new servers wait, also in a process that takes over.
func TestWayBackOfSome(t *testing.T) {
	t.Parallel()
	l := upLab(t, someServers)
	for _, name := range []string{"web1", "web2", "web3"} {
		serveTeller(t, l.Host(name), "0.0.0.0:80")
	}
	e, client := l.Host("edge"), l.Host("client")
	runSite(t, e, someSite)
	states := func(open string, why map[string]string) {
		t.Helper()
		awaitStates(t, e, 5, func(name string, s edge.ServiceStatus) bool {
			if strings.Contains(open, name) {
				return s.State != "shut"
			}
			return s.State == "shut" && strings.Contains(s.Reason, why[name])
		})
	}
	states("proved partly plain", map[string]string{"lost": "ip route add 100.64.0.0/11 via 10.0.1.5",
		"silent": "no answer on TCP from 10.0.1.14:80"})
	for range 4 {
		answered(t, client, 8001, "web1", "100.64.0.0/11")
		answered(t, client, 8003, "web1", "100.64.0.0/11")
	}
	answered(t, client, 8005, "web2", "10.0.1.5/32")
	for _, port := range []uint16{8002, 8004} { // at once, so that a client tries another address
		began := time.Now()
		if _, _, err := told(t, client, someDoor(port)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("port %d is not refused but, after %v, %v", port, time.Since(began), err)
		}
	}

	// The missing route opens one service, a server that answers the other. Nobody reloads.
	addRoute(t, l.Host("web2"), "100.64.0.0/11", "10.0.1.5")
	addAddress(t, l.Host("web1"), "10.0.1.14/24")
	awaitStates(t, e, 5, func(_ string, s edge.ServiceStatus) bool { return s.State != "shut" && s.Up > 0 })
	answered(t, client, 8002, "web2", "100.64.0.0/11")
	answered(t, client, 8004, "web1", "100.64.0.0/11")

	// A new server without a way back waits.
	more := strings.Replace(someSite, `["10.0.1.12:80"], source`, `["10.0.1.12:80", "10.0.1.13:80"], source`, 1)
	if err := e.WriteFile("/run/site.yaml", []byte(more)); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"reload", "upgrade"} {
		if out, err := kyozonOn(e, verb).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", verb, err, out)
		}
		for range 8 {
			answered(t, client, 8002, "web2", "100.64.0.0/11")
		}
	}
	if out, err := kyozonOn(e, "backends").Output(); !strings.Contains(string(out), "10.0.1.13:80 answers to the edge, but not to 100.64.0.1") {
		t.Errorf("backends do not say what 10.0.1.13 lacks: %v\n%s", err, out)
	}
	addRoute(t, l.Host("web3"), "100.64.0.0/11", "10.0.1.5")
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	for deadline := time.Now().Add(patience); ; <-look.C {
		if server, _, err := told(t, client, someDoor(8002)); err == nil && server == "web3" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("waited in vain until web3 takes part")
		}
	}
}

func someDoor(port uint16) string {
	return netip.AddrPortFrom(netip.MustParseAddr("2001:db8:100::10"), port).String()
}

// answered fails unless a server answers that has seen an address of a network.
func answered(t *testing.T, client *lab.Host, port uint16, server, saw string) {
	t.Helper()
	got, a, err := told(t, client, someDoor(port))
	if err != nil || got != server || !netip.MustParsePrefix(saw).Contains(a) {
		t.Errorf("port %d: %s saw %v, want %s and %s: %v", port, got, a, server, saw, err)
	}
}

// addAddress gives a host one more address on the link of the servers.
func addAddress(t *testing.T, h *lab.Host, prefix string) {
	t.Helper()
	a, err := netlink.ParseAddr(prefix)
	if err == nil {
		err = h.Do(func() error {
			link, err := netlink.LinkByName("servers")
			if err != nil {
				return err
			}
			return netlink.AddrAdd(link, a)
		})
	}
	if err != nil {
		t.Fatal(err)
	}
}
