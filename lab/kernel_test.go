// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// kernelLab is clients and servers of one family each, and an edge between them that forwards.
const kernelLab = `
lab: kernel
links: {access: {}, servers: {}}
hosts:
  client4: {links: {access: 198.51.100.2/24}, gateway: 198.51.100.1}
  client6: {links: {access: "2001:db8:200:6::2/64"}, gateway: "2001:db8:200:6::1"}
  edge: {forward: true, links: {access: [198.51.100.1/24, "2001:db8:200:6::1/64"], servers: [10.0.1.5/24, "fd00:1::5/64"]}}
  server4: {links: {servers: 10.0.1.11/24}, gateway: 10.0.1.5}
  server6: {links: {servers: "fd00:1::21/64"}, gateway: "fd00:1::5"}
`

// kernelSite has a service for each transport and family of servers, whose servers see their clients, and one whose
// servers see the edge.
const kernelSite = `
site: kernel
addresses: {ledger: {pool: 100.64.0.0/11, embed: "fd00:46::/96"}}
services:
  tcp-four: {protocol: tcp, listen: ["198.51.100.1:8004", "[2001:db8:200:6::1]:8004"], clients: {ipv4: all, ipv6: all},
    pools: {all: {servers: ["10.0.1.11:7"], source: client}}, plane: PLANE}
  tcp-six: {protocol: tcp, listen: ["198.51.100.1:8006", "[2001:db8:200:6::1]:8006"], clients: {ipv4: all, ipv6: all},
    pools: {all: {servers: ["[fd00:1::21]:7"], source: client}}, plane: PLANE}
  udp-four: {protocol: udp, listen: ["198.51.100.1:8004", "[2001:db8:200:6::1]:8004"], clients: {ipv4: all, ipv6: all},
    pools: {all: {servers: ["10.0.1.11:7"], source: client}}, plane: PLANE}
  udp-six: {protocol: udp, listen: ["198.51.100.1:8006", "[2001:db8:200:6::1]:8006"], clients: {ipv4: all, ipv6: all},
    pools: {all: {servers: ["[fd00:1::21]:7"], source: client}}, plane: PLANE}
  web-four: {protocol: web, listen: ["198.51.100.1:8444", "[2001:db8:200:6::1]:8444"], clients: {ipv4: all, ipv6: all},
    pools: {all: {servers: ["10.0.1.11:7"], source: client}}, plane: PLANE, web: {tls: {pass-through: true}}}
  web-six: {protocol: web, listen: ["198.51.100.1:8446", "[2001:db8:200:6::1]:8446"], clients: {ipv4: all, ipv6: all},
    pools: {all: {servers: ["[fd00:1::21]:7"], source: client}}, plane: PLANE, web: {tls: {pass-through: true}}}
  mail-four: {protocol: mail, listen: {imaps: ["198.51.100.1:8554", "[2001:db8:200:6::1]:8554"]}, clients: {ipv4: all, ipv6: all},
    pools: {all: {servers: ["10.0.1.11:7"], source: client}}, plane: PLANE, mail: {tls: {pass-through: true}}}
  mail-six: {protocol: mail, listen: {imaps: ["198.51.100.1:8556", "[2001:db8:200:6::1]:8556"]}, clients: {ipv4: all, ipv6: all},
    pools: {all: {servers: ["[fd00:1::21]:7"], source: client}}, plane: PLANE, mail: {tls: {pass-through: true}}}
  edge-four: {protocol: tcp, listen: ["198.51.100.1:9004", "[2001:db8:200:6::1]:9004"], clients: {ipv4: all, ipv6: all},
    pools: {all: ["10.0.1.11:7"]}, plane: PLANE}
  edge-six: {protocol: tcp, listen: ["198.51.100.1:9006", "[2001:db8:200:6::1]:9006"], clients: {ipv4: all, ipv6: all},
    pools: {all: ["[fd00:1::21]:7"]}, plane: PLANE}
drain: 1s
`

// planes is a lab with an edge, and servers that say whom they see.
type planes struct {
	*Lab
	t    *testing.T
	ctx  context.Context //house:ok it ends with the test
	edge *Process
}

func upPlanes(t *testing.T, binary, plane string) *planes {
	t.Helper()
	p := &planes{Lab: up(t, kernelLab), t: t, ctx: t.Context()}
	p.options.Kyozon = binary
	for host, at := range map[string]string{"server4": "10.0.1.11:7", "server6": "[fd00:1::21]:7"} {
		telling(t, p.Host(host), at)
	}
	p.start(strings.ReplaceAll(kernelSite, "PLANE", plane))
	return p
}

func (p *planes) start(site string) {
	p.t.Helper()
	var err error
	if p.edge, err = p.Host("edge").Serve(p.ctx, Server{Kyozon: &Kyozon{Inline: site}}); err != nil {
		p.t.Fatal(err)
	}
}

// telling answers, at a host, each line and each datagram with whom it comes from and what it says.
func telling(t *testing.T, h *Host, at string) {
	t.Helper()
	stream, err := h.Listen(t.Context(), "tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	var packets net.PacketConn
	if err := h.Do(func() (err error) {
		packets, err = net.ListenPacket("udp", at)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(func() {
		cancel()
		stream.Close()
		packets.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			c, err := stream.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				stop := context.AfterFunc(ctx, func() { c.Close() })
				defer stop()
				defer c.Close()
				for in := bufio.NewScanner(c); in.Scan(); {
					fmt.Fprintf(c, "%s %s\n", c.RemoteAddr(), in.Text())
				}
			})
		}
	})
	wg.Go(func() {
		b := make([]byte, 64<<10)
		for {
			n, from, err := packets.ReadFrom(b)
			if err != nil {
				return
			}
			packets.WriteTo(fmt.Appendf(nil, "%s %s", from, b[:n]), from)
		}
	})
}

// told is a connection, of streams or datagrams, to a server that tells.
type told struct {
	net.Conn
	in *bufio.Reader
}

// dial connects the client of a family to the service for servers of another; edge is one whose servers see the edge.
func (p *planes) dial(network string, c ip.Crossing, port int) *told {
	p.t.Helper()
	conn, err := p.try(network, c, port)
	if err != nil {
		p.t.Fatal(err)
	}
	return conn
}

func (p *planes) try(network string, c ip.Crossing, port int) (*told, error) {
	host, to := "client4", "198.51.100.1"
	if c.Client == ip.V6 {
		host, to = "client6", "2001:db8:200:6::1"
	}
	at := net.JoinHostPort(to, fmt.Sprint(port+int(c.Backend)))
	ctx, cancel := context.WithTimeout(p.ctx, 10*time.Second)
	defer cancel()
	conn, err := p.Host(host).DialContext(ctx, network, at)
	if err != nil {
		return nil, err
	}
	p.t.Cleanup(func() { conn.Close() })
	return &told{conn, bufio.NewReader(conn)}, nil
}

// says sends a word and returns whom the server saw.
func (c *told) says(word string) (saw netip.AddrPort, err error) {
	c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := fmt.Fprintln(c, word); err != nil {
		return saw, err
	}
	line, err := c.in.ReadString('\n')
	if err != nil {
		return saw, err
	}
	from, said, _ := strings.Cut(line, " ")
	if strings.TrimSpace(said) != word {
		return saw, fmt.Errorf("said %q, heard %q", word, line)
	}
	saw, err = netip.ParseAddrPort(from)
	return ip.CanonicalPort(saw), err
}

// flow is what `kyozon flows --json` says.
type flow struct {
	Service, Crossing, Plane string
	Client, Source, Backend  netip.AddrPort
}

// flows lists the flows of a plane.
func (p *planes) flows(plane string) (all []flow) {
	p.t.Helper()
	var every []flow
	if err := json.Unmarshal([]byte(ask(p.ctx, p.t, p.Lab, "flows", "--json")), &every); err != nil {
		p.t.Fatal(err)
	}
	for _, f := range every {
		if f.Plane == plane {
			all = append(all, f)
		}
	}
	return all
}

// has returns the flow of a connection, and its plane.
func (p *planes) has(c *told) (f flow, ok bool) {
	p.t.Helper()
	mine := addrOf(c.LocalAddr())
	for _, plane := range []string{"kernel", "user"} {
		for _, f := range p.flows(plane) {
			if f.Client == mine && strings.HasPrefix(f.Service, c.LocalAddr().Network()) || f.Client == mine && (strings.HasPrefix(f.Service, "edge") || strings.HasPrefix(f.Service, "web") || strings.HasPrefix(f.Service, "mail")) {
				return f, true
			}
		}
	}
	return flow{}, false
}

func addrOf(a net.Addr) netip.AddrPort {
	p, _ := netip.ParseAddrPort(a.String())
	return ip.CanonicalPort(p)
}

// wantSource is whom a server sees of a client.
func wantSource(c ip.Crossing, client netip.AddrPort) func(netip.AddrPort) bool {
	return func(saw netip.AddrPort) bool {
		switch {
		case c.Client == c.Backend:
			return saw == client
		case c.Client == ip.V4:
			return saw == netip.AddrPortFrom(ip.Embed(netip.MustParsePrefix("fd00:46::/96"), client.Addr()), client.Port())
		}
		return saw.Port() == client.Port() && netip.MustParsePrefix("100.64.0.0/11").Contains(saw.Addr())
	}
}

// wantAddr says whether a server sees a client of the other family by an address that is right.
func wantAddr(c ip.Crossing, saw netip.Addr) bool {
	pool := map[ip.Family]string{ip.V4: "100.64.0.0/11", ip.V6: "fd00:46::/96"}[c.Backend]
	return netip.MustParsePrefix(pool).Contains(saw)
}

// inPlane waits until the flows of a client are in a plane: the first flow of a prefix is in the user plane.
func (p *planes) inPlane(plane, network string, c ip.Crossing, port int) *told {
	p.t.Helper()
	var conn *told
	await(p.t, fmt.Sprintf("%s %v is in the plane %s", network, c, plane), func() bool {
		conn = p.dial(network, c, port)
		for _, word := range []string{"first", "second"} { // UDP is proven by the second
			if _, err := conn.says(word); err != nil {
				p.t.Fatal(errors.Join(err, errors.New(ask(p.ctx, p.t, p.Lab, "services"))))
			}
		}
		f, ok := p.has(conn)
		if ok && f.Plane == plane {
			return true
		}
		conn.Close()
		return false
	})
	return conn
}

// TestPlanes tries both planes with a running edge.
func TestPlanes(t *testing.T) {
	needRoot(t)
	binary := servertest.Kyozon(t)
	for _, plane := range []string{"kernel", "user"} {
		t.Run(plane, func(t *testing.T) { conform(t, upPlanes(t, binary, plane), plane) })
	}
	t.Run("reload", func(t *testing.T) { reloadPlanes(t, upPlanes(t, binary, "kernel")) })
	t.Run("killed", func(t *testing.T) { killPlanes(t, upPlanes(t, binary, "kernel")) })
	t.Run("upgrade", func(t *testing.T) { upgradePlanes(t, upPlanes(t, binary, "kernel")) })
	t.Run("detach", func(t *testing.T) { detachPlanes(t, upPlanes(t, binary, "kernel")) })
	t.Run("interfaces", func(t *testing.T) { changeInterfaces(t, upPlanes(t, binary, "kernel")) })
	t.Run("ports", func(t *testing.T) { sharePorts(t, upPlanes(t, binary, "kernel")) })
	t.Run("why not", func(t *testing.T) { explainPlanes(t, binary) })
	t.Run("access", func(t *testing.T) { refusePlanes(t, upPlanes(t, binary, "kernel")) })
}

// conform is the conformance of the two planes: each crossing, TCP and UDP, servers that see their clients and servers that
// see the edge.
func conform(t *testing.T, p *planes, plane string) {
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		p.t = t
		for _, network := range []string{"tcp", "udp"} {
			conn := p.inPlane(plane, network, c, 8000)
			saw, err := conn.says("hello")
			if err != nil {
				t.Fatal(err)
			}
			mine, port := addrOf(conn.LocalAddr()), plane == "kernel" || network == "udp"
			if !wantSource(c, mine)(saw) && (port || saw.Addr() == mine.Addr() && c.Client != c.Backend) {
				t.Errorf("%s: the server sees %v for %v", network, saw, mine)
			}
		}
		for _, port := range []int{8440, 8550} { // web, mail
			if saw, err := p.inPlane(plane, "tcp", c, port).says("hello"); err != nil || c.Client != c.Backend && !wantAddr(c, saw.Addr()) {
				t.Errorf("passed through at port %d: the server sees %v, %v", port, saw, err)
			}
		}
		conn := p.inPlane(plane, "tcp", c, 9000)
		want := map[ip.Family]netip.Addr{ip.V4: netip.MustParseAddr("10.0.1.5"), ip.V6: netip.MustParseAddr("fd00:1::5")}
		if saw, err := conn.says("hello"); err != nil || saw.Addr() != want[c.Backend] {
			t.Errorf("the server sees %v, %v", saw, err)
		}
	})
}

// sharePorts: flows of both planes from one port of a client, to one server, by the same stand-in or address, do not meet.
func sharePorts(t *testing.T, p *planes) {
	user := ""
	for _, transport := range []string{"tcp", "udp"} {
		for family, server := range map[int]string{4: "10.0.1.11:7", 6: "[fd00:1::21]:7"} {
			user += fmt.Sprintf(`  user-%s-%d: {protocol: %[1]s, listen: ["198.51.100.1:700%[2]d", "[2001:db8:200:6::1]:700%[2]d"], clients: {ipv4: all, ipv6: all},
    pools: {all: {servers: [%[3]q], source: client}}, plane: user}`+"\n", transport, family, server)
		}
	}
	site := strings.ReplaceAll(kernelSite, "PLANE", "kernel")
	reload(p.ctx, t, p.Lab, strings.Replace(site, "drain: 1s", user+"drain: 1s", 1))
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		p.t = t
		for i, network := range []string{"tcp", "udp"} {
			p.inPlane("kernel", network, c, 8000) // the stand-in is known
			for first, order := range [][]int{{8000, 7000}, {7000, 8000}} {
				local := 30000 + 10*c.Index() + 2*i + first
				seen := make(map[netip.AddrPort]bool)
				var conns []*told
				for _, port := range order {
					conn := p.dialFrom(local, network, c, port)
					saw, err := conn.says("hello")
					if err != nil {
						t.Fatalf("%s, port %d: %v", network, port, err)
					}
					seen[saw] = true
					conns = append(conns, conn)
				}
				if len(seen) != 2 {
					t.Errorf("%s, order %v: the server saw %v, want two", network, order, seen)
				}
				for range 3 {
					for _, conn := range conns {
						if _, err := conn.says("and on"); err != nil {
							t.Errorf("%s, order %v: %v", network, order, err)
						}
					}
				}
			}
		}
	})
}

// dialFrom is dial from a given port.
func (p *planes) dialFrom(local int, network string, c ip.Crossing, port int) *told {
	p.t.Helper()
	host, from, to := "client4", "198.51.100.2", "198.51.100.1"
	if c.Client == ip.V6 {
		host, from, to = "client6", "2001:db8:200:6::2", "2001:db8:200:6::1"
	}
	d := net.Dialer{Timeout: time.Minute, Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
	}}
	if network == "tcp" {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), uint16(local)))
	} else {
		d.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), uint16(local)))
	}
	var conn net.Conn
	if err := p.Host(host).Do(func() (err error) {
		conn, err = d.DialContext(p.ctx, network, net.JoinHostPort(to, fmt.Sprint(port+int(c.Backend))))
		return err
	}); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { conn.Close() })
	return &told{conn, bufio.NewReader(conn)}
}
