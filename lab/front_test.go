// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// leave stops the edge in front in every way there is. Afterwards nothing of its routes and rules is left.
func leave(t *testing.T, l *Lab) {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	edge := l.Host("edge")
	text := readSite(t, "front.yaml") + "drain: 1s\n" // UDP flows never end by themselves
	site := Server{Kyozon: &Kyozon{Inline: text}}
	reload(ctx, t, l, text)
	running := edgeRoutes(t, edge)
	if len(running) == 0 {
		t.Fatal("the edge in front has neither rules nor routes")
	}
	largePackets(ctx, t, l)

	ask(ctx, t, l, "stop")
	await(t, "nothing is left after a stop", func() bool { return len(edgeRoutes(t, edge)) == 0 })

	p, err := edge.Serve(ctx, site)
	if err != nil {
		t.Fatal(err)
	}
	ask(ctx, t, l, "upgrade")
	<-p.Done()
	if got := edgeRoutes(t, edge); len(got) != len(running) {
		t.Errorf("after an upgrade: %d rules and routes, want %d\n%s", len(got), len(running), strings.Join(got, "\n"))
	}
	largePackets(ctx, t, l)
	for _, a := range l.file.Try {
		if a.Get != "" {
			if r := l.Try(ctx, a); !r.OK {
				t.Errorf("after an upgrade: %s from %s to %s: %s", a.Crossing, a.From, a.to(), r.Detail)
			}
		}
	}
	ask(ctx, t, l, "stop")
	await(t, "nothing is left after an upgrade and a stop", func() bool { return len(edgeRoutes(t, edge)) == 0 })

	if p, err = edge.Serve(ctx, site); err != nil {
		t.Fatal(err)
	}
	p.Signal(syscall.SIGKILL)
	<-p.Done()
	if _, err := edge.Serve(ctx, site); err != nil {
		t.Fatal(err)
	}
	reload(ctx, t, l, withoutService(text, "shop"))
	await(t, "the rule of a server that the site has no more is gone", func() bool {
		return len(edgeRoutes(t, edge)) == len(running)-1
	})
	ask(ctx, t, l, "stop")
	await(t, "nothing is left after a kill and a stop", func() bool { return len(edgeRoutes(t, edge)) == 0 })
}

// largePackets: answers that come in fragments, of which only the first has ports, find the edge too.
func largePackets(ctx context.Context, t *testing.T, l *Lab) {
	t.Helper()
	for _, a := range l.file.Try {
		if a.Ask == "" {
			continue
		}
		a.Send = strings.Repeat("large ", 500)
		a.Want.Body = a.Send + "$"
		if r := l.Try(ctx, a); !r.OK {
			t.Errorf("%s from %s to %s, in fragments: %s", a.Crossing, a.From, a.to(), r.Detail)
		}
	}
}

// edgeRoutes lists what an edge has added to a host: rules to its table, the table, and local routes for prefixes.
func edgeRoutes(t *testing.T, h *Host) (all []string) {
	t.Helper()
	err := h.Do(func() error {
		for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
			rules, err := netlink.RuleList(family)
			if err != nil {
				return err
			}
			for _, r := range rules {
				if r.Table == 5264 {
					all = append(all, r.String())
				}
			}
			routes, err := netlink.RouteListFiltered(family, new(netlink.Route), netlink.RT_FILTER_TABLE)
			if err != nil {
				return err
			}
			for _, r := range routes {
				if r.Table == 5264 || r.Dst != nil && slices.Contains([]string{"100.64.0.0/11", "2001:db8:100:64::/96"}, r.Dst.String()) {
					all = append(all, r.String())
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// withoutService returns a site file without one of its services.
func withoutService(site, name string) string {
	_, rest, _ := strings.Cut(site, "\n  "+name+":")
	part, _, _ := strings.Cut(rest, "\n\n")
	return strings.Replace(site, "\n  "+name+":"+part+"\n", "", 1)
}

const proofLab = `
lab: proof
links: {access: {}, servers: {}}
hosts:
  subscriber: {links: {access: "2001:db8:100::2/64"}}
  edge: {links: {access: "2001:db8:100::10/64", servers: 10.0.1.5/24}}
  web1:
    links: {servers: 10.0.1.11/24}
    routes: [{to: 100.64.0.0/11, via: 10.0.1.5}]
    servers: [{nginx: {listen: "0.0.0.0:80", body: "web1 $remote_addr"}}]
  web2: {links: {servers: 10.0.1.12/24}, servers: [{nginx: {listen: 10.0.1.12:80, body: "web2 $remote_addr"}}]}
  web3: {links: {servers: 10.0.1.13/24}, servers: [{nginx: {listen: 10.0.1.13:80, body: "web3 $remote_addr"}}]}
`

// proofSite has services with a way back (proved, partly), without (lost), with no server that answers (silent), and
// one that needs none (plain). 10.0.1.14 does not exist.
const proofSite = `
site: proof
addresses: {ledger: {pool: 100.64.0.0/11}}
services:
  proved: {protocol: tcp, listen: ["[2001:db8:100::10]:8001"], clients: {ipv6: web},
    pools: {web: {servers: ["10.0.1.11:80"], source: client}}}
  lost: {protocol: tcp, listen: ["[2001:db8:100::10]:8002"], clients: {ipv6: web},
    pools: {web: {servers: ["10.0.1.12:80"], source: client}}}
  partly: {protocol: tcp, listen: ["[2001:db8:100::10]:8003"], clients: {ipv6: web},
    pools: {web: {servers: ["10.0.1.11:80", "10.0.1.14:80"], source: client}}}
  silent: {protocol: tcp, listen: ["[2001:db8:100::10]:8004"], clients: {ipv6: web},
    pools: {web: {servers: ["10.0.1.14:80"], source: client}}}
  plain: {protocol: tcp, listen: ["[2001:db8:100::10]:8005"], clients: {ipv6: web},
    pools: {web: {servers: ["10.0.1.12:80"]}}}
`

// TestProof: a service whose servers cannot answer to stand-ins stays shut, says why, and opens when they can.
func TestProof(t *testing.T) {
	l := up(t, proofLab)
	l.options.Kyozon = build(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	edge := l.Host("edge")
	for path, text := range map[string]string{sitePath: proofSite, "/var/lib/kyozon/.lab": ""} {
		if err := edge.WriteFile(path, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	admin := netip.MustParseAddrPort("127.0.0.1:8464")
	if _, err := edge.Start(ctx, Daemon{Name: "kyozon", Argv: []string{l.options.Kyozon, "run", sitePath},
		Ready: AnswersHTTP(admin, "/healthz")}); err != nil {
		t.Fatal(err)
	}

	const standIn = ` 100\.(6[4-9]|[78]\d|9[0-5])\.\d+\.\d+$`
	for range 4 {
		asks(ctx, t, l, 8001, "^web1"+standIn)
		asks(ctx, t, l, 8003, "^web1"+standIn)
	}
	asks(ctx, t, l, 8005, `^web2 10\.0\.1\.5$`)
	for _, port := range []int{8002, 8004} {
		began := time.Now()
		out, err := get(client(l.Host("subscriber")), request(ctx, t, page(port)))
		if err == nil || !strings.Contains(err.Error(), "refused") || time.Since(began) > time.Second {
			t.Errorf("port %d is not refused at once but after %v: %v %s", port, time.Since(began), err, out)
		}
	}
	services := ask(ctx, t, l, "services")
	for _, want := range []string{"ip route add 100.64.0.0/11 via 10.0.1.5", "no answer on TCP from 10.0.1.14:80"} {
		if !strings.Contains(services, want) {
			t.Errorf("services do not say %q:\n%s", want, services)
		}
	}

	// The missing route opens the service, a server that answers the other one. Nobody reloads.
	route(t, l.Host("web2"))
	address(t, l.Host("web1"), "10.0.1.14/24")
	await(t, "lost is open", func() bool { return answers(ctx, t, l, 8002, "^web2"+standIn) })
	await(t, "silent is open", func() bool { return answers(ctx, t, l, 8004, "^web1"+standIn) })

	// A new server without a way back waits; the service goes on, also in the process that takes over.
	reload(ctx, t, l, strings.Replace(proofSite, `["10.0.1.12:80"], source`, `["10.0.1.12:80", "10.0.1.13:80"], source`, 1))
	for range 8 {
		asks(ctx, t, l, 8002, "^web2"+standIn)
	}
	ask(ctx, t, l, "upgrade")
	for range 8 {
		asks(ctx, t, l, 8002, "^web2"+standIn)
	}
	if out := ask(ctx, t, l, "backends"); !strings.Contains(out, "10.0.1.13:80 answers to the edge, but not to 100.64.0.1") {
		t.Errorf("backends do not say what 10.0.1.13 lacks:\n%s", out)
	}
	route(t, l.Host("web3"))
	await(t, "web3 takes part", func() bool { return answers(ctx, t, l, 8002, "^web3"+standIn) })
}

func page(port int) string { return fmt.Sprintf("http://[2001:db8:100::10]:%d/", port) }

// answers says whether the subscriber gets a matching answer from a service.
func answers(ctx context.Context, t *testing.T, l *Lab, port int, pattern string) bool {
	t.Helper()
	r := request(ctx, t, page(port))
	r.Close = true
	body, err := get(client(l.Host("subscriber")), r)
	return err == nil && match(pattern, body)
}

func asks(ctx context.Context, t *testing.T, l *Lab, port int, pattern string) {
	t.Helper()
	r := request(ctx, t, page(port))
	r.Close = true
	if body, err := get(client(l.Host("subscriber")), r); err != nil || !match(pattern, body) {
		t.Errorf("port %d: got %q, %v; want %s", port, body, err, pattern)
	}
}

// route gives a server the route that it lacks.
func route(t *testing.T, h *Host) {
	t.Helper()
	to, err := netlink.ParseIPNet("100.64.0.0/11")
	if err == nil {
		err = h.Do(func() error {
			return netlink.RouteAdd(&netlink.Route{Dst: to, Gw: netip.MustParseAddr("10.0.1.5").AsSlice()})
		})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// address gives a server one more address.
func address(t *testing.T, h *Host, prefix string) {
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

// ask has the edge of a lab say or do something.
func ask(ctx context.Context, t *testing.T, l *Lab, words ...string) string {
	t.Helper()
	out, err := l.Host("edge").Command(ctx, append([]string{l.options.Kyozon}, words...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("kyozon %v: %v\n%s", words, err, out)
	}
	return string(out)
}

// await waits until done says so, which must be within ten seconds on an idle machine.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	look := time.NewTicker(50 * time.Millisecond)
	defer look.Stop()
	began := time.Now()
	for ; !done(); <-look.C {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("waited in vain until %s", what)
		}
	}
	t.Logf("%s after %v", what, time.Since(began).Round(time.Millisecond))
}
