// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/lab"
)

// mutes is a client, the edge, and servers whose filters drop TCP without a word, and which are reached on UDP: one
// answers pings; one drops them and answers any datagram; one drops them and has nobody at the port; and one drops them
// and answers only what it understands.
const mutes = `
lab: mutes
links: {access: {}, servers: {}}
hosts:
  client: {links: {access: [198.51.100.4/24, "2001:db8:200:6::4/64"]}}
  edge:
    forward: true
    links: {access: [198.51.100.1/24, "2001:db8:200:6::1/64"], servers: [10.0.1.1/24, "fd00:1::1/64"]}
  ping:    {links: {servers: [10.0.1.11/24, "fd00:1::11/64"]}}
  answer:  {links: {servers: [10.0.1.12/24, "fd00:1::12/64"]}}
  refusal: {links: {servers: [10.0.1.13/24, "fd00:1::13/64"]}}
  nothing: {links: {servers: [10.0.1.14/24, "fd00:1::14/64"]}}
`

const (
	dropTCP   = "meta l4proto tcp drop"
	dropPings = "icmp type echo-request drop; icmpv6 type echo-request drop"
	question  = "who am I?"
)

// mute is one of the servers.
type mute struct {
	name    string
	at      [2]string // by family
	filter  []string
	answers func(question string) bool // nil if nobody is at the port
}

func mutesOf() []mute {
	understands := func(q string) bool { return q == question }
	return []mute{
		{"ping", [2]string{"10.0.1.11:53", "[fd00:1::11]:53"}, []string{dropTCP}, understands},
		{"answer", [2]string{"10.0.1.12:53", "[fd00:1::12]:53"}, []string{dropTCP, dropPings}, func(string) bool { return true }},
		{"refusal", [2]string{"10.0.1.13:53", "[fd00:1::13]:53"}, []string{dropTCP, dropPings}, nil},
		{"nothing", [2]string{"10.0.1.14:53", "[fd00:1::14]:53"}, []string{dropTCP, dropPings}, understands},
	}
}

// TestWayBackUDP: a server on UDP that drops TCP proves its way back by whatever comes back. Without a way each of its
// services is shut and says why; and so is one of a server from which nothing can come back.
func TestWayBackUDP(t *testing.T) {
	t.Parallel()
	l := upLab(t, mutes)
	e, client := l.Host("edge"), l.Host("client")
	for _, m := range mutesOf() {
		h := l.Host(m.name)
		filter(t, h, m.filter)
		for _, at := range m.at {
			if m.answers != nil {
				tellOnUDP(t, h, at, m.answers)
			}
		}
	}
	site, doors := mutesSite()
	runSite(t, e, site)
	const lost, silent = " answers to the edge, but not to ", " to a ping, on UDP or on TCP, neither to "
	awaitStates(t, e, len(doors), func(name string, s edge.ServiceStatus) bool {
		if strings.HasPrefix(name, "nothing") {
			return s.State == "shut" && strings.Contains(s.Reason, silent) && strings.Contains(s.Reason, ": let it answer pings from ")
		}
		return s.State == "shut" && strings.Contains(s.Reason, lost) && strings.Contains(s.Reason, "; let the server answer pings from ")
	})

	for _, m := range mutesOf() {
		for _, r := range [][2]string{{"100.64.0.0/16", "10.0.1.1"}, {"2001:db8:64::/96", "fd00:1::1"}, {"0.0.0.0/0", "10.0.1.1"},
			{"::/0", "fd00:1::1"}} {
			addRoute(t, l.Host(m.name), r[0], r[1])
		}
	}
	awaitStates(t, e, len(doors), func(name string, s edge.ServiceStatus) bool {
		if strings.HasPrefix(name, "nothing") {
			return s.State == "shut" && strings.Contains(s.Reason, silent)
		}
		return s.State == "open"
	})
	for _, d := range doors {
		if d.server == "refusal" || d.server == "nothing" {
			continue
		}
		if a, err := sawOnUDP(t, client, d.at); err != nil || !netip.MustParsePrefix(d.want).Contains(a) {
			t.Errorf("%s, %v: the server saw %v, want %s: %v", d.server, d.crossing, a, d.want, err)
		}
	}

	filter(t, l.Host("nothing"), []string{dropTCP}) // what the reason asks for
	awaitStates(t, e, len(doors), func(_ string, s edge.ServiceStatus) bool { return s.State == "open" })
}

// muteDoor is a service for one server and crossing.
type muteDoor struct {
	server   string
	crossing ip.Crossing
	at       string
	want     string // the network of the address that the server sees
}

func mutesSite() (site string, doors []muteDoor) {
	var b strings.Builder
	b.WriteString("site: mutes\naddresses: {ledger: {pool: 100.64.0.0/16, embed: \"2001:db8:64::/96\"}}\nservices:\n")
	want := []string{"198.51.100.4/32", "2001:db8:64::c633:6404/128", "100.64.0.0/16", "2001:db8:200:6::4/128"}
	for _, m := range mutesOf() {
		for i, x := range ip.Crossings() {
			door, server := "198.51.100.1", m.at[0]
			if x.Client == ip.V6 {
				door = "2001:db8:200:6::1"
			}
			if x.Backend == ip.V6 {
				server = m.at[1]
			}
			d := muteDoor{m.name, x, netip.AddrPortFrom(netip.MustParseAddr(door), uint16(7000+len(doors))).String(), want[i]}
			fmt.Fprintf(&b, "  %s%dto%d: {protocol: udp, listen: %q, pools: {existing: {servers: [%q], source: client}}, clients: {%v: existing}}\n",
				m.name, x.Client, x.Backend, d.at, server, x.Client)
			doors = append(doors, d)
		}
	}
	b.WriteString("state: {directory: /var/lib/kyozon}\nadmin: {listen: off}\ndrain: 1s\n")
	return b.String(), doors
}

// filter has a host drop packets, and no others.
func filter(t *testing.T, h *lab.Host, rules []string) {
	t.Helper()
	text := "table inet mute\ndelete table inet mute\ntable inet mute {\n chain input {\n  type filter hook input priority 0;\n  " +
		strings.Join(rules, "\n  ") + "\n }\n}\n"
	if err := h.WriteFile("/run/filter.nft", []byte(text)); err != nil {
		t.Fatal(err)
	}
	if out, err := h.Command(t.Context(), "nft", "-f", "/run/filter.nft").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// tellOnUDP runs a server on a host that says whom it sees to those whose question it answers.
func tellOnUDP(t *testing.T, h *lab.Host, at string, answers func(question string) bool) {
	t.Helper()
	a := netip.MustParseAddrPort(at)
	network := map[bool]string{true: "udp4", false: "udp6"}[a.Addr().Is4()]
	var c *net.UDPConn
	if err := h.Do(func() (err error) {
		c, err = net.ListenUDP(network, net.UDPAddrFromAddrPort(a))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	go func() {
		for p := make([]byte, 100); ; {
			n, from, err := c.ReadFromUDPAddrPort(p)
			if err != nil {
				return
			}
			if answers(string(p[:n])) {
				c.WriteToUDPAddrPort([]byte(ip.Canonical(from.Addr()).String()), from)
			}
		}
	}()
}

// sawOnUDP asks from a host and returns whom the server behind the edge saw. Packets may be lost: it asks again.
func sawOnUDP(t *testing.T, from *lab.Host, at string) (netip.Addr, error) {
	t.Helper()
	c, err := from.DialContext(t.Context(), "udp", at)
	if err != nil {
		return netip.Addr{}, err
	}
	defer c.Close()
	p := make([]byte, 100)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if _, err = c.Write([]byte(question)); err != nil {
			return netip.Addr{}, err
		}
		c.SetReadDeadline(time.Now().Add(time.Second))
		var n int
		if n, err = c.Read(p); err == nil {
			return netip.ParseAddr(string(p[:n]))
		}
	}
	return netip.Addr{}, err
}
