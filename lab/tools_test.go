// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
)

// system is one of the mission's set-ups, as the tools use it.
type system struct {
	name      string
	fronts    map[ip.Family]netip.Addr // of the edge
	clients   map[ip.Family]string     // hosts
	servers   map[ip.Family]spot
	crossings []ip.Crossing
	source    string // what the IPv4 servers see
	web       bool
}

// spot is a server and the link by which the edge reaches it.
type spot struct {
	host, link string
	addr       netip.Addr
}

func systems() []system {
	at := netip.MustParseAddr
	new1 := spot{"new1", "servers", at("fd00:1::21")}
	return []system{
		{name: "s1", web: true, source: "client", crossings: []ip.Crossing{crossing(ip.V6, ip.V4), crossing(ip.V6, ip.V6)},
			fronts:  map[ip.Family]netip.Addr{ip.V6: at("2001:db8:100::10")},
			clients: map[ip.Family]string{ip.V6: "subscriber6"},
			servers: map[ip.Family]spot{ip.V4: {"web1", "servers", at("10.0.1.11")}, ip.V6: new1}},
		{name: "s2", web: true, source: "edge", crossings: []ip.Crossing{crossing(ip.V4, ip.V4), crossing(ip.V4, ip.V6), crossing(ip.V6, ip.V4), crossing(ip.V6, ip.V6)},
			fronts:  map[ip.Family]netip.Addr{ip.V4: at("203.0.113.10"), ip.V6: at("2001:db8:100::10")},
			clients: map[ip.Family]string{ip.V4: "subscriber4", ip.V6: "subscriber6"},
			servers: map[ip.Family]spot{ip.V4: {"web3", "servers", at("10.0.1.13")}, ip.V6: new1}},
		{name: "s16", source: "client", crossings: []ip.Crossing{crossing(ip.V6, ip.V4), crossing(ip.V4, ip.V6), crossing(ip.V6, ip.V6)},
			fronts:  map[ip.Family]netip.Addr{ip.V4: at("203.0.113.60"), ip.V6: at("2001:db8:100::60")},
			clients: map[ip.Family]string{ip.V4: "player4", ip.V6: "player6"},
			servers: map[ip.Family]spot{ip.V4: {"game1", "idc", at("203.0.113.61")}, ip.V6: {"game6", "servers", at("fd00:6::21")}}},
	}
}

// The ports of a server. At the edge the family of the server is added to each.
const (
	portMeasure = 5200 // iperf3
	portEcho    = 7000 // datagrams come back
	portClosed  = 7100 // nobody is there
)

// site adds services for the tools to the system's site file, and puts all its services into a plane.
func (s *system) site(t *testing.T, plane string) string {
	text := readSite(t, s.name+".yaml")
	if s.web && plane == "kernel" {
		text = streams(text)
	}
	var b strings.Builder
	add := func(name, protocol string, family ip.Family, port int) {
		var listens, clients []string
		for f, a := range s.fronts {
			if !slices.Contains(s.crossings, crossing(f, family)) {
				continue
			}
			listens = append(listens, fmt.Sprintf("%q", netip.AddrPortFrom(a, uint16(port+int(family)))))
			clients = append(clients, fmt.Sprintf("ipv%d: all", f))
		}
		source := "edge"
		if family == ip.V4 {
			source = s.source
		}
		fmt.Fprintf(&b, "  %s%d: {protocol: %s, plane: %s, listen: [%s], clients: {%s}, health: {every: never},\n    pools: {all: {servers: [%q], source: %s}}}\n",
			name, family, protocol, plane, strings.Join(listens, ", "), strings.Join(clients, ", "),
			netip.AddrPortFrom(s.servers[family].addr, uint16(port)), source)
	}
	for family := range s.servers {
		add("measure", "tcp", family, portMeasure)
		add("measure-udp", "udp", family, portMeasure)
		add("echo", "udp", family, portEcho)
		add("closed", "udp", family, portClosed)
	}
	return strings.Replace(text, "services:\n", "services:\n"+b.String(), 1)
}

// TestTools carries what curl, iperf3 and a UDP echo do over the systems of S1, S2 and S16, on both planes, and has tcpdump
// verify the checksum of each packet. The cards of a lab are none: what a sender leaves to its card (a checksum, the
// cutting of a large packet) is done where a packet leaves an interface that does not promise to do it.
//
//	edge  the edge's interfaces promise nothing: what it sends is done by then, out of what the others left to it. Only the
//	      kernel plane has that
//	all   nobody's do: all packets are checked, those that come to the edge too
func TestTools(t *testing.T) {
	needRoot(t)
	binary := servertest.Kyozon(t)
	for _, plane := range []string{"kernel", "user"} {
		for _, s := range systems() {
			t.Run(plane+"/"+s.name, func(t *testing.T) {
				for _, tool := range []string{"curl", "iperf3", "tcpdump", "ethtool"} {
					needTool(t, tool)
				}
				u := &tools{system: s, t: t, plane: plane}
				u.Lab = upInKernel(t, binary, s.name+"-lab.yaml", s.site(t, plane), []Attempt{}...)
				u.serve()
				froms := []string{"edge", "all"}
				if plane == "user" {
					froms = froms[1:]
				}
				for _, from := range froms {
					u.t = t
					u.offload(from)
					for _, c := range s.crossings {
						t.Run(from+"/"+c.String(), func(t *testing.T) { u.carry(t, c, from == "all") })
					}
				}
			})
		}
	}
}

// needTool skips or fails a test whose tool is not installed.
func needTool(t *testing.T, name string) {
	t.Helper()
	if _, err := need(name, name); err != nil {
		if os.Getenv("KYOZON_LAB") == "require" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
}

// tools is a lab in which the tools are tried.
type tools struct {
	*Lab
	system
	t     *testing.T
	plane string
	iperf map[ip.Family]*Process
	asked map[ip.Family]int // how often iperf3 was
}

// serve starts iperf3 and an echo on the servers.
func (u *tools) serve() {
	u.iperf, u.asked = make(map[ip.Family]*Process), make(map[ip.Family]int)
	for family, s := range u.servers {
		h := u.Host(s.host)
		d := Daemon{Name: "iperf3", Argv: []string{"iperf3", "-s", "--forceflush", "-B", s.addr.String(), "-p", fmt.Sprint(portMeasure)}}
		p, err := h.Start(u.t.Context(), d)
		if err != nil {
			u.t.Fatal(err)
		}
		u.iperf[family] = p
		echo(u.t, h, netip.AddrPortFrom(s.addr, portEcho))
	}
}

// echo sends each datagram back.
func echo(t *testing.T, h *Host, at netip.AddrPort) {
	t.Helper()
	var c net.PacketConn
	if err := h.Do(func() (err error) {
		c, err = net.ListenPacket(network("udp", at), at.String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		c.Close()
		<-done
	})
	go func() {
		defer close(done)
		for b := make([]byte, 64<<10); ; {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			c.WriteTo(b[:n], from)
		}
	}()
}

// offload has the interfaces of some hosts, or of all, leave nothing to a card.
func (u *tools) offload(whose string) {
	hosts := []*Host{u.Host("edge")}
	if whose == "all" {
		hosts = append(u.sorted(), u.bridges)
	}
	for _, h := range hosts {
		links, err := h.interfaces()
		if err != nil {
			u.t.Fatal(err)
		}
		for _, link := range links {
			c := h.Command(u.t.Context(), "ethtool", "-K", link, "tx", "off", "tso", "off", "gso", "off", "gro", "off")
			if out, err := c.CombinedOutput(); err != nil {
				u.t.Fatalf("ethtool on %s: %v: %s", h.Name(), err, out)
			}
		}
	}
}

// interfaces returns the names of the host's interfaces, but for lo.
func (h *Host) interfaces() (names []string, err error) {
	err = h.Do(func() error {
		all, err := net.Interfaces()
		for _, i := range all {
			if i.Flags&net.FlagLoopback == 0 {
				names = append(names, i.Name)
			}
		}
		return err
	})
	return names, err
}

// carry uses all tools over one crossing, while both its ends are watched.
func (u *tools) carry(t *testing.T, c ip.Crossing, both bool) {
	u.t = t
	client, server := u.Host(u.clients[c.Client]), u.servers[c.Backend]
	u.warm(client, c)
	before := map[string]int64{}
	services := []string{"measure", "measure-udp", "echo"}
	for i, s := range services {
		services[i] = fmt.Sprint(s, int(c.Backend))
		before[services[i]] = forwarded(t, u.Lab, services[i], c)
	}
	atClient, atServer := "ip or ip6", "ip or ip6"
	if !both { // what the edge has sent
		atClient, atServer = "src host "+u.fronts[c.Client].String(), "ether src "+u.mac(server.link)
	}
	watches := []*watch{u.watch(client, "access", atClient), u.watch(u.Host(server.host), server.link, atServer)}
	if u.web {
		u.curl(client, c)
	}
	u.iperf3(client, c)
	u.bounce(client, c)
	if u.plane == "kernel" {
		u.refused(client, c)
	}
	for _, w := range watches {
		w.verify(t)
	}
	for _, s := range services {
		if n := forwarded(t, u.Lab, s, c) - before[s]; (n > 0) != (u.plane == "kernel") {
			t.Errorf("the kernel plane has carried %d packets of %s", n, s)
		}
	}
}

func (u *tools) at(c ip.Crossing, port int) netip.AddrPort {
	return netip.AddrPortFrom(u.fronts[c.Client], uint16(port+int(c.Backend)))
}

// warm has the client's prefix known: its first flow is in the user plane.
func (u *tools) warm(client *Host, c ip.Crossing) {
	if u.plane != "kernel" {
		return
	}
	await(u.t, "the client is known", func() bool {
		u.echoes(client, c, 10, 10)
		return forwarded(u.t, u.Lab, fmt.Sprint("echo", int(c.Backend)), c) > 0
	})
}

// run runs a tool on a host and returns what it says.
func (u *tools) run(h *Host, argv ...string) []byte {
	u.t.Helper()
	ctx, cancel := context.WithTimeout(u.t.Context(), time.Minute)
	defer cancel()
	out, err := h.Command(ctx, argv...).Output()
	if err != nil {
		u.t.Fatalf("%q on %s: %v\n%.2000s\n%s", argv, h.Name(), err, out, ask(u.t.Context(), u.t, u.Lab, "flows"))
	}
	return out
}

// curl asks for pages, each by a connection of its own, and in S2 for a part of a large file.
func (u *tools) curl(client *Host, c ip.Crossing) {
	url := map[ip.Family]string{ip.V4: "http://shop.example.jp/", ip.V6: "http://blog.example.jp/"}[c.Backend]
	if c.Backend == ip.V6 && u.plane == "kernel" {
		url = "http://blog.example.jp:81/"
	}
	flag := fmt.Sprintf("-%d", c.Client)
	for range 3 {
		if got := u.run(client, "curl", "-sS", "--fail", flag, url); len(got) == 0 {
			u.t.Errorf("curl %s: an empty page", url)
		}
	}
	if u.name != "s2" || c.Backend != ip.V4 {
		return
	}
	const size = 8 << 20
	if got := u.run(client, "curl", "-sS", "--fail", flag, "-r", fmt.Sprintf("0-%d", size-1), url+"big"); !bytes.Equal(got, Numbered(size)) {
		u.t.Errorf("curl %sbig: %d bytes of %d, or others", url, len(got), size)
	}
}

// iperf3 sends bytes up and down, over TCP and UDP. How many have come when its sender has done depends on who has them
// under way; but what it sends is more than that can be.
func (u *tools) iperf3(client *Host, c ip.Crossing) {
	at := u.at(c, portMeasure)
	tcp, udp := []string{"-n", "16M"}, []string{"-u", "-b", "20M", "-l", "1201", "-n", "1M"}
	for _, args := range [][]string{tcp, append(tcp, "-R"), udp, append(udp, "-R")} {
		argv := append([]string{"iperf3", "-J", "-c", at.Addr().String(), "-p", fmt.Sprint(at.Port())}, args...)
		var report struct {
			Error string
			End   struct {
				Received struct{ Bytes int64 } `json:"sum_received"`
			}
		}
		u.asked[c.Backend]++ // between two clients it does not listen
		await(u.t, "iperf3 listens", func() bool {
			return strings.Count(u.iperf[c.Backend].Log(), "Server listening") == u.asked[c.Backend]
		})
		out := u.run(client, argv...)
		if err := json.Unmarshal(out, &report); err != nil || report.Error != "" {
			u.t.Fatalf("%q: %v\n%s", argv, err, out)
		}
		if n := report.End.Received.Bytes; args[0] == "-n" && n < 1<<20 {
			u.t.Errorf("%q: %d bytes were received", argv, n)
		}
	}
}

// bounce sends datagrams of all kinds of lengths, those that must be cut too.
func (u *tools) bounce(client *Host, c ip.Crossing) {
	u.echoes(client, c, 1, 2, 3, 8, 63, 64, 65, 1000, 1231, 1232, 1233, 1432, 4000)
}

// echoes sends datagrams of given lengths and waits for each to come back.
func (u *tools) echoes(client *Host, c ip.Crossing, sizes ...int) {
	u.t.Helper()
	at := u.at(c, portEcho)
	conn, err := client.DialContext(u.t.Context(), network("udp", at), at.String())
	if err != nil {
		u.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	answer := make([]byte, 64<<10)
	for _, size := range sizes {
		said := Numbered(size)
		if _, err := conn.Write(said); err != nil {
			u.t.Fatalf("send %d bytes: %v", size, err)
		}
		if n, err := conn.Read(answer); err != nil || !bytes.Equal(answer[:n], said) {
			u.t.Fatalf("sent %d bytes, %d came back, or others: %v", size, n, err)
		}
	}
}

// refused asks where nobody is: the server's ICMP error comes to the client, in its own family.
func (u *tools) refused(client *Host, c ip.Crossing) {
	at := u.at(c, portClosed)
	conn, err := client.DialContext(u.t.Context(), network("udp", at), at.String())
	if err != nil {
		u.t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(conn, "anybody?"); err != nil {
		u.t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 100)); !strings.Contains(fmt.Sprint(err), "connection refused") {
		u.t.Errorf("asked where nobody is: %d bytes, %v", n, err)
	}
}
