// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/lab"
)

// oneServer is a client, the edge, and a server that knows nothing beyond its link.
const oneServer = `
lab: proof
links: {access: {}, servers: {}}
hosts:
  client: {links: {access: [198.51.100.4/24, "2001:db8:200:6::4/64"]}}
  edge:
    forward: true
    links: {access: [198.51.100.1/24, "2001:db8:200:6::1/64"], servers: [10.0.1.1/24, "fd00:1::1/64"]}
  server: {links: {servers: [10.0.1.11/24, "fd00:1::11/64"]}}
`

// oneSite has a service for each crossing, whose server sees the client.
const oneSite = `site: proof
addresses: {ledger: {pool: 100.64.0.0/16, embed: "2001:db8:64::/96"}}
services:
  from4to4: {protocol: tcp, listen: "198.51.100.1:4004", pools: {existing: {servers: ["10.0.1.11:80"], source: client}}, clients: {ipv4: existing}}
  from4to6: {protocol: tcp, listen: "198.51.100.1:4006", pools: {existing: {servers: ["[fd00:1::11]:80"], source: client}}, clients: {ipv4: existing}}
  from6to4: {protocol: tcp, listen: "[2001:db8:200:6::1]:4004", pools: {existing: {servers: ["10.0.1.11:80"], source: client}}, clients: {ipv6: existing}}
  from6to6: {protocol: tcp, listen: "[2001:db8:200:6::1]:4006", pools: {existing: {servers: ["[fd00:1::11]:80"], source: client}}, clients: {ipv6: existing}}
state: {directory: /var/lib/kyozon}
admin: {listen: off}
drain: 1s
`

// TestWayBack: a service whose server cannot answer to the clients that it would see is shut, with the reason in its
// status, and opens when the server's route is there. Each crossing has a way back of its own.
func TestWayBack(t *testing.T) {
	t.Parallel()
	l := upLab(t, oneServer)
	serveTeller(t, l.Host("server"), "10.0.1.11:80")
	serveTeller(t, l.Host("server"), "[fd00:1::11]:80")
	e := l.Host("edge")
	runSite(t, e, oneSite)

	steps := []struct {
		crossing ip.Crossing
		route    string // that the server gets
		via      string
		at       string // where the client comes
		want     string // the network of the address that the server sees
	}{
		{ip.Crossing{Client: ip.V6, Backend: ip.V4}, "100.64.0.0/16", "10.0.1.1", "[2001:db8:200:6::1]:4004", "100.64.0.0/16"},
		{ip.Crossing{Client: ip.V4, Backend: ip.V6}, "2001:db8:64::/96", "fd00:1::1", "198.51.100.1:4006", "2001:db8:64::c633:6404/128"},
		{ip.Crossing{Client: ip.V4, Backend: ip.V4}, "0.0.0.0/0", "10.0.1.1", "198.51.100.1:4004", "198.51.100.4/32"},
		{ip.Crossing{Client: ip.V6, Backend: ip.V6}, "::/0", "fd00:1::1", "[2001:db8:200:6::1]:4006", "2001:db8:200:6::4/128"},
	}
	awaitStates(t, e, 4, func(name string, s edge.ServiceStatus) bool {
		return s.State == "shut" && strings.Contains(s.Reason, " answers to the edge, but not to ")
	})
	for i, step := range steps {
		for _, later := range steps[i:] {
			if _, err := saw(t, l.Host("client"), later.at); err == nil {
				t.Errorf("%v is open before there is a way back", later.crossing)
			}
		}
		addRoute(t, l.Host("server"), step.route, step.via)
		open := make(map[string]bool)
		for _, done := range steps[:i+1] {
			open[fmt.Sprintf("from%dto%d", done.crossing.Client, done.crossing.Backend)] = true
		}
		awaitStates(t, e, 4, func(name string, s edge.ServiceStatus) bool { return (s.State == "open") == open[name] })
		for _, done := range steps[:i+1] {
			a, err := saw(t, l.Host("client"), done.at)
			if err != nil || !netip.MustParsePrefix(done.want).Contains(a) {
				t.Errorf("%v: the server saw %v, want %s: %v", done.crossing, a, done.want, err)
			}
		}
	}
}

// upLab brings up a lab that ends with the test.
func upLab(t *testing.T, text string) *lab.Lab {
	t.Helper()
	f, err := lab.Parse("lab.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	l, err := lab.Up(t.Context(), f, lab.Options{Out: t.Output()})
	if errors.Is(err, lab.ErrRoot) && os.Getenv("KYOZON_LAB") != "require" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// kyozonOn is a command of kyozon, which is this test's binary, on a host.
func kyozonOn(h *lab.Host, args ...string) *lab.Cmd {
	c := h.Command(context.Background(), append([]string{"/proc/self/exe"}, args...)...)
	self, err := os.Executable()
	if err == nil {
		c.Path, c.Args[0] = self, self
	}
	c.Env = append(c.Env, beKyozon+"=1", "KYOZON_CONTROL=/run/control.sock")
	return c
}

// runSite runs kyozon on a host until the test ends.
func runSite(t *testing.T, h *lab.Host, site string) {
	t.Helper()
	if err := h.WriteFile("/run/site.yaml", []byte(site)); err != nil {
		t.Fatal(err)
	}
	run := kyozonOn(h, "run", "/run/site.yaml")
	run.Stderr = t.Output()
	run.WaitDelay = time.Second // for a process that has taken over and has its stderr
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		run.Process.Kill()
		run.Wait()
	})
}

// awaitStates waits until there are so many services and the status of each is as is says.
func awaitStates(t *testing.T, e *lab.Host, services int, is func(name string, s edge.ServiceStatus) bool) {
	t.Helper()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	var out []byte
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); <-look.C {
		var err error
		if out, err = kyozonOn(e, "services", "--json").Output(); err != nil {
			out = []byte(err.Error())
			continue
		}
		var rows []edge.ServiceStatus
		if err := json.Unmarshal(out, &rows); err != nil {
			t.Fatal(err)
		}
		all := len(rows) == services
		for _, s := range rows {
			all = all && is(s.Service, s)
		}
		if all {
			return
		}
	}
	t.Fatalf("waited in vain; the services are %s", out)
}

// serveTeller runs a server on a host that says who it is and whom it sees, and stays for as long as its client does.
func serveTeller(t *testing.T, h *lab.Host, at string) {
	t.Helper()
	l, err := h.Listen(t.Context(), "tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				fmt.Fprintln(c, h.Name(), ip.Canonical(c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()))
				io.Copy(io.Discard, c)
			}()
		}
	}()
}

// saw connects from a host and returns whom the server behind the edge saw.
func saw(t *testing.T, from *lab.Host, at string) (netip.Addr, error) {
	t.Helper()
	_, a, err := told(t, from, at)
	return a, err
}

// told is saw with the name of the server.
func told(t *testing.T, from *lab.Host, at string) (server string, saw netip.Addr, err error) {
	t.Helper()
	c, said, err := stay(t, from, at)
	if err != nil {
		return "", netip.Addr{}, err
	}
	defer c.Close()
	server, text, _ := strings.Cut(said, " ")
	saw, err = netip.ParseAddr(text)
	return server, saw, err
}

// stay connects from a host and returns the connection, and what the server has said.
func stay(t *testing.T, from *lab.Host, at string) (c net.Conn, said string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if c, err = from.DialContext(ctx, "tcp", at); err != nil {
		return nil, "", err
	}
	c.SetDeadline(time.Now().Add(patience))
	if said, err = bufio.NewReader(c).ReadString('\n'); err != nil {
		c.Close()
	}
	return c, strings.TrimSpace(said), err
}

// addRoute gives a host a route.
func addRoute(t *testing.T, h *lab.Host, to, via string) {
	t.Helper()
	dst, err := netlink.ParseIPNet(to)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Do(func() error {
		return netlink.RouteAdd(&netlink.Route{Dst: dst, Gw: netip.MustParseAddr(via).AsSlice()})
	}); err != nil {
		t.Fatalf("add route to %s: %v", to, err)
	}
}
