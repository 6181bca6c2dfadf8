// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
)

// TestRush: clients that open one connection after the other, which the server ends, never get a port that the server has in TIME_WAIT
// from another client: it would answer with an ACK that is not for them, and they would have to try again a second later. Every host uses
// the same ports, in the order that is worst. RFC 9293 §3.6.1
func TestRush(t *testing.T) {
	hosts, prefixes := make([]string, 64), make([]string, 64)
	for i := range hosts {
		hosts[i], prefixes[i] = fmt.Sprintf("2001:db8:6::%x", 0x100+i), fmt.Sprintf("2001:db8:6:%x::2", 0x100+i)
	}
	for name, from := range map[string][]string{"one host": hosts[:1], "64 hosts of a prefix": hosts, "64 prefixes": prefixes} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, crossing64(), Options{Flows: 10_000, Pending: 10_000, StandIns: 100})
			l.rush(from)
		})
	}
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		l := newLab(t, c, Options{Flows: 10_000, Pending: 10_000, StandIns: 100})
		own := address(c.Backend, "10.1.0.1", "fd00:1::1")
		l.must(l.Apply([]Service{{Name: "shop", Fronts: []Front{{Addr: listen.Addr{Transport: listen.TCP, AddrPort: frontOf(c.Client)},
			Backends: []Backend{{Addr: serverOf(c.Backend), Weight: 1, Source: SourceEdge, Sources: []netip.Addr{own}}}}}}}))
		from := hosts
		if c.Client == ip.V4 {
			from = make([]string, 64)
			for i := range from {
				from[i] = fmt.Sprintf("10.6.0.%d", 100+i)
			}
		}
		l.rush(from)
	})
}

// rush opens connections from all of these addresses, and wants the server to see another client each time.
func (l *lab) rush(from []string) {
	l.t.Helper()
	const connections = 1024
	for i, a := range from {
		l.addClient(netip.MustParseAddr(a), i)
	}
	var door net.Listener
	l.within(l.server, func() (err error) {
		door, err = net.Listen(network(listen.TCP, l.c.Backend), serverOf(l.c.Backend).String())
		return err
	})
	saw := make(chan netip.AddrPort, 1)
	go func() {
		defer close(saw)
		for {
			c, err := door.Accept()
			if err != nil {
				return
			}
			saw <- addrOf(c)
			c.Close()
		}
	}()
	had, carried := make(map[netip.AddrPort]int), l.counter(Reason(forwardReasonFORWARDED_NEW))
	l.within(l.client, func() error {
		for i := range connections {
			if err := l.ask(netip.AddrPortFrom(netip.MustParseAddr(from[i%len(from)]), uint16(30_000+i/len(from)))); err != nil {
				return fmt.Errorf("connection %d: %w", i, err)
			}
			at := <-saw
			if other, ok := had[at]; ok {
				l.t.Errorf("connection %d comes from %v, as connection %d has done", i, at, other)
			}
			had[at] = i
		}
		return nil
	})
	l.must(door.Close())
	for range saw {
		l.t.Error("the server has seen more connections than there were")
	}
	if n := l.counter(Reason(forwardReasonFORWARDED_NEW)) - carried; n < connections {
		l.t.Errorf("%d of %d connections were carried; %s", n, connections, l.reasons())
	}
}

func addrOf(c net.Conn) netip.AddrPort {
	a, _ := c.RemoteAddr().(*net.TCPAddr) //house:ok the library has no other
	return ip.CanonicalPort(a.AddrPort())
}

// ask opens a connection from an address of the client's, and waits until the server ends it.
func (l *lab) ask(from netip.AddrPort) error {
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from)} //house:ok the library has no other
	c, err := d.Dial(network(listen.TCP, l.c.Client), frontOf(l.c.Client).String())
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = io.Copy(io.Discard, c)
	return err
}

// addClient gives the client another address, which the edge knows.
func (l *lab) addClient(a netip.Addr, n int) {
	l.t.Helper()
	l.neighbour(l.clients, a, clientMAC())
	l.within(l.client, func() error {
		link, err := netlink.LinkByName("clients1")
		if err != nil {
			return err
		}
		return netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())}, Flags: unix.IFA_F_NODAD})
	})
	if a.Is6() && a.As16()[6] != 0 {
		l.must(l.Lease(a, netip.AddrFrom4([4]byte{100, 64, 1, byte(n)})))
	}
}
