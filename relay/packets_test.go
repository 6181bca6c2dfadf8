// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/metrics"
)

// listenUDP returns a UDP socket bound to addr that can be lent to a loop.
func listenUDP(t testing.TB, addr netip.Addr) (fd int, at netip.AddrPort) {
	t.Helper()
	network := "udp" + string('0'+byte(ip.FamilyOf(addr)))
	c, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0)))
	if err != nil {
		t.Fatal(err)
	}
	file, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	t.Cleanup(func() { file.Close() })
	fd = int(file.Fd())
	nonblock(t, fd)
	if addr.IsUnspecified() {
		level, opt := unix.IPPROTO_IP, unix.IP_PKTINFO
		if addr.Is6() {
			level, opt = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
		}
		if err := unix.SetsockoptInt(fd, level, opt, 1); err != nil {
			t.Fatal(err)
		}
	}
	return fd, LocalAddr(fd)
}

// forwardTo opens flows to server and tells how they end.
func forwardTo(t testing.TB, server netip.AddrPort, idle time.Duration, ends chan<- outcome) func(*PacketFlow) {
	return func(f *PacketFlow) {
		fd, err := Socket(unix.SOCK_DGRAM, server, netip.AddrPort{}, false)
		if err != nil {
			t.Errorf("open flow: %v", err)
			f.Refuse()
			return
		}
		f.Connect(fd, server, ConnectOptions{Idle: idle, Done: func(c metrics.Counts, r metrics.Reason) {
			select {
			case ends <- outcome{c, r}:
			default:
			}
		}})
	}
}

func dialUDP(t testing.TB, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func ask(t testing.TB, c *net.UDPConn, payload []byte) {
	t.Helper()
	got := make([]byte, 1<<16)
	if _, err := c.Write(payload); err != nil {
		t.Fatal(err)
	}
	n, err := c.Read(got)
	if err != nil || !bytes.Equal(got[:n], payload) {
		t.Fatalf("sent %d bytes, got %d, %v", len(payload), n, err)
	}
}

func TestPackets(t *testing.T) {
	ls := startLoops(t, 2)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		server := servertest.UDPEcho(t, x.Backend)
		for _, wildcard := range []bool{false, true} {
			bound := iptest.Loopback(x.Client)
			if wildcard {
				bound = netip.IPv6Unspecified()
				if x.Client == ip.V4 {
					bound = netip.IPv4Unspecified()
				}
			}
			fd, at := listenUDP(t, bound)
			ends := make(chan outcome, 100)
			p, err := ls.OpenPackets(fd, forwardTo(t, server, time.Minute, ends))
			if err != nil {
				t.Fatal(err)
			}
			at = netip.AddrPortFrom(iptest.Loopback(x.Client), at.Port())
			var clients []*net.UDPConn
			for range 40 {
				clients = append(clients, dialUDP(t, at))
			}
			for round := range 5 {
				for i, c := range clients {
					ask(t, c, []byte(fmt.Sprintf("round %d client %d", round, i)))
				}
			}
			ask(t, clients[0], nil)
			ask(t, clients[0], make([]byte, 60_000))
			if n := p.Len(); n != len(clients) {
				t.Errorf("wildcard %v: %d flows, want %d", wildcard, n, len(clients))
			}
			p.Close(metrics.Drained)
			if o := <-ends; o.reason != metrics.Drained {
				t.Errorf("got %v, want drained", o.reason)
			}
		}
	})
}

// A reload changes where new flows go and leaves those that there are.
func TestPacketsRedirect(t *testing.T) {
	ls := startLoops(t, 1)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		fd, at := listenUDP(t, iptest.Loopback(x.Client))
		p, err := ls.OpenPackets(fd, forwardTo(t, servertest.UDPEcho(t, x.Backend), time.Minute, nil))
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close(metrics.Drained)
		old := dialUDP(t, at)
		ask(t, old, []byte("before"))
		p.Redirect(func(f *PacketFlow) { f.Refuse() })
		ask(t, old, []byte("after"))
		late := dialUDP(t, at)
		late.Write([]byte("refused"))
		waitFor(t, func() bool { return p.Refused() > 0 })
	})
}

func TestPacketsIdle(t *testing.T) {
	ls := startLoops(t, 1)
	fd, at := listenUDP(t, iptest.Loopback(ip.V6))
	ends := make(chan outcome, 1)
	p, err := ls.OpenPackets(fd, forwardTo(t, servertest.UDPEcho(t, ip.V4), 100*time.Millisecond, ends))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(metrics.Drained)
	ask(t, dialUDP(t, at), []byte("hello"))
	if o := <-ends; o != (outcome{metrics.Counts{ToServer: 5, ToClient: 5}, metrics.Fine}) {
		t.Errorf("got %+v", o)
	}
}

// A flood of packets that nobody answers displaces its own flows, not the one that lives.
func TestPacketsFlood(t *testing.T) {
	ls := startLoops(t, 1)
	fd, at := listenUDP(t, iptest.Loopback(ip.V6))
	live := servertest.UDPEcho(t, ip.V4)
	silent, _ := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(iptest.Loopback(ip.V4), 0)))
	defer silent.Close()
	server := live
	p, err := ls.OpenPackets(fd, func(f *PacketFlow) { forwardTo(t, server, time.Minute, nil)(f) })
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(metrics.Drained)
	c := dialUDP(t, at)
	ask(t, c, []byte("one"))
	ask(t, c, []byte("two")) // sent after an answer: proven
	p.loop.do(func() {
		server = silent.LocalAddr().(*net.UDPAddr).AddrPort()
		for i := range maxUnproven + 500 {
			p.carry(flowKey{netip.AddrPortFrom(netip.MustParseAddr("2001:db8::1"), uint16(i+1)), at}, []byte("x"))
		}
	})
	if n := p.Len(); n != maxUnproven+1 {
		t.Errorf("%d flows, want %d", n, maxUnproven+1)
	}
	ask(t, c, []byte("three"))
}

func TestPacketAllocations(t *testing.T) {
	ls := startLoops(t, 1)
	fd, at := listenUDP(t, iptest.Loopback(ip.V6))
	p, err := ls.OpenPackets(fd, forwardTo(t, servertest.UDPEcho(t, ip.V4), time.Minute, nil))
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close(metrics.Drained)
	c := dialUDP(t, at)
	payload, answer := []byte("sixteen bytes 16"), make([]byte, 100)
	ask(t, c, payload)
	if n := testing.AllocsPerRun(200, func() {
		c.Write(payload)
		c.Read(answer)
	}); n >= 1 { // the echo server's and the client's own are none
		t.Errorf("%v allocations a packet", n)
	}
}
