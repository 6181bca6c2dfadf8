// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/proxyproto"
)

// asked is what a test knows after it has asked a server through the edge.
type asked struct {
	saw       netip.Addr // whom the server saw
	forwarded string     // who the server was told the client is; web only
}

// ask uses a service as its clients do.
func ask(t *testing.T, protocol string, at netip.AddrPort) (a asked) {
	t.Helper()
	switch protocol {
	case "tcp":
		s := open(t, at)
		if err := s.echo("hello"); err != nil {
			t.Fatal(err)
		}
		a.saw = s.saw.Addr()
	case "udp":
		saw, err := askPackets(dialPackets(t, at))
		if err != nil {
			t.Fatal(err)
		}
		a.saw = saw.Addr()
	case "web":
		status, body, err := get(browser(t, ip.FamilyOf(at.Addr()), true), at)
		if err != nil || status != 200 {
			t.Fatalf("got %d %q, %v", status, body, err)
		}
		saw, forwarded, _ := strings.Cut(body, " ")
		a.saw, a.forwarded = netip.MustParseAddr(saw), strings.Trim(forwarded, `"`)
	}
	return a
}

// TestServe: every protocol over every crossing, with both sources.
func TestServe(t *testing.T) {
	t.Parallel()
	server := map[string]func(*testing.T, ip.Family) netip.AddrPort{"tcp": teller, "udp": packetTeller, "web": webTeller}
	for _, protocol := range []string{"tcp", "udp", "web"} {
		for _, source := range []string{"edge", "client"} {
			t.Run(protocol+" from "+source, func(t *testing.T) {
				t.Parallel()
				iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
					if source == "client" && x == (ip.Crossing{Client: ip.V4, Backend: ip.V6}) {
						return // the embedding needs a route on the machine: the labs have it
					}
					b := newBench(t)
					transport := listen.TCP
					if protocol == "udp" {
						transport = listen.UDP
					}
					at := b.free(transport, x.Client)
					more := []string{"source: " + source}
					if protocol == "web" {
						more = append(more, "handover: header")
					}
					backend := server[protocol](t, x.Backend)
					b.serve(line("it", protocol, at, servers([]netip.AddrPort{backend}, more...)))
					a := ask(t, protocol, at)
					checkSeen(t, b, x, source, a.saw)
					if want := client(x.Client).String(); protocol == "web" && a.forwarded != want {
						t.Errorf("the server was told %q, want %q", a.forwarded, want)
					}
					checkCounted(t, b, x)
				})
			})
		}
	}
}

// checkSeen compares whom a server saw with what the source promises.
func checkSeen(t *testing.T, b *bench, x ip.Crossing, source string, saw netip.Addr) {
	t.Helper()
	switch {
	case source == "edge":
		if saw != iptest.Loopback(x.Backend) {
			t.Errorf("the server saw %v, want the edge's %v", saw, iptest.Loopback(x.Backend))
		}
	case x.Client == x.Backend:
		if saw != client(x.Client) {
			t.Errorf("the server saw %v, want the client's own %v", saw, client(x.Client))
		}
	default:
		checkStandIn(t, b, client(x.Client), saw)
	}
}

// checkStandIn reads the ledger both ways.
func checkStandIn(t *testing.T, b *bench, client, standIn netip.Addr) {
	t.Helper()
	if !netip.MustParsePrefix("127.64.0.0/10").Contains(standIn) {
		t.Fatalf("the server saw %v, which is no stand-in", standIn)
	}
	for _, a := range []netip.Addr{client, standIn} {
		var found int
		await(t, fmt.Sprintf("the ledger has %v", a), func() bool { // unproven UDP is written after an answer
			records, err := b.edge.Who(a, time.Time{})
			if err != nil {
				t.Fatal(err)
			}
			found = len(records)
			return found == 1 && records[0].StandIn == standIn && records[0].Prefix == ip.ClientPrefix(client)
		})
	}
}

// checkCounted looks for the flow in the counters.
func checkCounted(t *testing.T, b *bench, x ip.Crossing) {
	t.Helper()
	for _, s := range b.edge.Status().Services {
		for _, c := range s.Crossings {
			want := int64(0)
			if c.Crossing == x.String() {
				want = 1
			}
			if c.Opened != want || len(c.Errors) != 0 {
				t.Errorf("%s: %d flows counted, want %d; errors %v", c.Crossing, c.Opened, want, c.Errors)
			}
		}
	}
}

// TestFlows: a flow under way is listed with its ends.
func TestFlows(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b := newBench(t)
		at, server := b.free(listen.TCP, x.Client), teller(t, x.Backend)
		b.serve(line("echo", "tcp", at, servers([]netip.AddrPort{server})))
		s := open(t, at)
		if err := s.echo("12345"); err != nil {
			t.Fatal(err)
		}
		flows := b.edge.Flows(10)
		if len(flows) != 1 {
			t.Fatalf("got %d flows, want 1", len(flows))
		}
		f := flows[0]
		if f.Service != "echo" || f.Client != ip.CanonicalPort(s.LocalAddr().(*net.TCPAddr).AddrPort()) || f.Source != s.saw ||
			f.Backend != server || f.Crossing != x.String() || f.ToServer != 6 || f.ToClient < 6 {
			t.Errorf("got %+v, the server saw %v", f, s.saw)
		}
		s.Close()
		await(t, "the flow is gone", func() bool { return len(b.edge.Flows(10)) == 0 })
	})
}

// headerServer is a server on TCP that reads a PROXY header and says what was in it, and whom it sees.
func headerServer(t *testing.T, f ip.Family) netip.AddrPort {
	t.Helper()
	return servertest.TCP(t, f, func(c *net.TCPConn) {
		c.SetDeadline(time.Now().Add(patience))
		var p []byte
		for next := make([]byte, 1); ; p = append(p, next...) {
			h, n, err := proxyproto.Parse(p)
			if err != nil {
				fmt.Fprintf(c, "%v\n", err)
				return
			}
			if n > 0 {
				fmt.Fprintf(c, "v%d %v > %v, peer %v\n", h.Version, h.Client, h.Dest,
					ip.Canonical(c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()))
				io.Copy(c, c)
				return
			}
			if _, err := io.ReadFull(c, next); err != nil {
				return
			}
		}
	})
}

// stranger is a client that the test is not, named by a PROXY header.
func stranger(f ip.Family) netip.AddrPort {
	if f == ip.V4 {
		return netip.MustParseAddrPort("192.0.2.7:4321")
	}
	return netip.MustParseAddrPort("[2001:db8:7:1::7]:4321")
}

// another is the nth of many strangers: each has another address, and in IPv6 another /64.
func another(f ip.Family, n int) netip.Addr {
	if f == ip.V4 {
		return netip.AddrFrom4([4]byte{192, 0, 2, byte(n)})
	}
	return netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 6: byte(n >> 8), 7: byte(n), 15: 1})
}

// dialled is the address that the stranger has connected to.
func dialled(f ip.Family) netip.AddrPort {
	if f == ip.V4 {
		return netip.MustParseAddrPort("203.0.113.1:443")
	}
	return netip.MustParseAddrPort("[2001:db8::1]:443")
}

// proxied is the header of a client.
func proxied(version int, client netip.AddrPort) []byte {
	h := proxyproto.Header{Client: client, Dest: dialled(ip.FamilyOf(client.Addr()))}
	if version == 1 {
		return proxyproto.AppendV1(nil, h)
	}
	return proxyproto.AppendV2(nil, h)
}

const proxyFrom = `proxy-from: ["127.0.0.5", "::1"]`

// readLine returns what the server says first.
func readLine(t *testing.T, c net.Conn, hello []byte) string {
	t.Helper()
	c.Write(hello)
	var said []byte
	for next := make([]byte, 1); ; said = append(said, next...) {
		if _, err := io.ReadFull(c, next); err != nil {
			return fmt.Sprintf("%s(%v)", said, err)
		}
		if next[0] == '\n' {
			return string(said)
		}
	}
}

// TestProxyHeader: whom a trusted load balancer names reaches the server, in either version, over every crossing.
func TestProxyHeader(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		for out := 1; out <= 2; out++ {
			b := newBench(t)
			at := b.free(listen.TCP, x.Client)
			pool := servers([]netip.AddrPort{headerServer(t, x.Backend)}, fmt.Sprintf("handover: proxy-v%d", out))
			b.serve(line("it", "tcp", at, pool, proxyFrom))
			for in := 1; in <= 2; in++ {
				hello := proxied(in, stranger(x.Client))
				want := fmt.Sprintf("v%d %v > %v, peer %v", out, stranger(x.Client), dialled(x.Client), iptest.Loopback(x.Backend))
				if got := readLine(t, dial(t, at), hello); got != want {
					t.Errorf("v%d in: the server says %q, want %q", in, got, want)
				}
				c := dial(t, at) // the same, a byte at a time
				for _, one := range hello[:len(hello)-1] {
					c.Write([]byte{one})
				}
				if got := readLine(t, c, hello[len(hello)-1:]); got != want {
					t.Errorf("v%d in, in pieces: the server says %q, want %q", in, got, want)
				}
			}
		}
	})
}

// TestProxyHeaderMissing: who is trusted to name clients and does not is cut off; who is not trusted cannot name any.
func TestProxyHeaderMissing(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		trusted, plain := b.free(listen.TCP, x.Client), b.free(listen.TCP, x.Client)
		pool := servers([]netip.AddrPort{teller(t, x.Backend)})
		b.serve(line("trusted", "tcp", trusted, pool, proxyFrom), line("plain", "tcp", plain, pool, `proxy-from: ["192.0.2.0/24"]`))
		for _, hello := range []string{"GET / HTTP/1.1\r\n\r\n", "PROXY UNKNOWN\r\n", "PROXY TCP4 1.2.3.4\r\n"} {
			if got := readLine(t, dial(t, trusted), []byte(hello)); !strings.Contains(got, "reset") && !strings.Contains(got, "EOF") {
				t.Errorf("%q from a trusted sender: got %q", hello, got)
			}
		}
		s := open(t, plain)
		header := strings.TrimSpace(string(proxied(1, stranger(x.Client))))
		if err := s.echo(header); err != nil { // carried as it is
			t.Errorf("a header from a stranger: %v", err)
		}
	})
}

// TestCarryStandIn: a server that refuses IPv6 is told the stand-in, whatever its connections come from.
func TestCarryStandIn(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		if x.Backend == ip.V6 {
			return // it does not refuse IPv6
		}
		b := newBench(t)
		tcp, http := b.free(listen.TCP, x.Client), b.free(listen.TCP, x.Client)
		b.serve(line("tcp", "tcp", tcp, servers([]netip.AddrPort{headerServer(t, x.Backend)}, "handover: proxy-v1", "carry: stand-in")),
			line("web", "web", http, servers([]netip.AddrPort{webTeller(t, x.Backend)}, "handover: header", "carry: stand-in")))

		a := ask(t, "web", http)
		if a.saw != iptest.Loopback(x.Backend) {
			t.Errorf("the server saw %v, want the edge", a.saw)
		}
		var who, to, peer string
		said := readLine(t, dial(t, tcp), nil)
		if _, err := fmt.Sscanf(said, "v1 %s > %s peer %s", &who, &to, &peer); err != nil {
			t.Fatalf("the server says %q: %v", said, err)
		}
		named := netip.MustParseAddrPort(who).Addr()
		if named.String() != a.forwarded {
			t.Errorf("named %v by PROXY and %v by header", named, a.forwarded)
		}
		if x.Client == ip.V6 {
			checkStandIn(t, b, client(x.Client), named)
		} else if named != client(x.Client) {
			t.Errorf("named %v, want the client's own %v", named, client(x.Client))
		}
	})
}

// TestAccess: allow and deny hold for the client whom a PROXY header names.
func TestAccess(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, rule string
		in         bool
	}{
		{"anyone", `allow: [any]`, true},
		{"allowed", `allow: ["192.0.2.0/24", "2001:db8:7::/48"]`, true},
		{"not allowed", `allow: ["198.51.100.0/24", "2001:db8:8::/48"]`, false},
		{"denied", `deny: ["192.0.2.7", "2001:db8:7:1::7"]`, false},
		{"denied although allowed", `allow: [any], deny: ["192.0.2.0/24", "2001:db8:7::/48"]`, false},
		{"another denied", `deny: ["192.0.2.8", "2001:db8:7:1::8"]`, true},
	}
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		for _, test := range tests {
			b := newBench(t)
			tcp, http := b.free(listen.TCP, x.Client), b.free(listen.TCP, x.Client)
			b.serve(line("tcp", "tcp", tcp, servers([]netip.AddrPort{teller(t, x.Backend)}), test.rule, proxyFrom),
				line("web", "web", http, servers([]netip.AddrPort{webTeller(t, x.Backend)}), test.rule, proxyFrom))
			hello := proxied(2, stranger(x.Client))
			if refused(tcp, hello...) == test.in {
				t.Errorf("%s: tcp: let in: %v", test.name, !test.in)
			}
			status := readLine(t, dial(t, http), append(hello, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"...))
			want := map[bool]string{true: "HTTP/1.1 200 OK\r", false: "HTTP/1.1 403 Forbidden\r"}[test.in]
			if status != want {
				t.Errorf("%s: web: got %q, want %q", test.name, status, want)
			}
			for _, name := range []string{"tcp", "web"} {
				if denied := b.errors(name, "denied") == 1; denied == test.in {
					t.Errorf("%s: %s: counted as denied: %v", test.name, name, denied)
				}
			}
		}
	})
}

// TestCarryStandInReused: a client who is new gets his stand-in also where a connection to the server is there already
// that another client has used.
func TestCarryStandInReused(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		at := b.free(listen.TCP, x.Client)
		pool := servers([]netip.AddrPort{webTeller(t, x.Backend)}, "handover: header", "carry: stand-in")
		b.serve(line("web", "web", at, pool, proxyFrom))
		told := make(map[string]netip.Addr)
		for i := range 12 {
			who := another(x.Client, i)
			c := dial(t, at)
			c.Write(proxied(2, netip.AddrPortFrom(who, 1000)))
			r := exchange(t, c, bufio.NewReader(c), "/")
			c.Close()
			_, quoted, _ := strings.Cut(r.Header.Get("Told"), " ")
			name := strings.Trim(quoted, `"`)
			if other, taken := told[name]; taken {
				t.Errorf("%v and %v are both %s to the server", who, other, name)
			}
			told[name] = who
			if x == (ip.Crossing{Client: ip.V6, Backend: ip.V4}) {
				checkStandIn(t, b, who, netip.MustParseAddr(name))
			} else if name != who.String() {
				t.Errorf("the server was told %s, want the client's own %v", name, who)
			}
		}
	})
}
