// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/service"
)

// table is the source ports of another plane, which has the clients' own ports already.
type table struct {
	mu      sync.Mutex
	taken   map[backend.Use]bool
	refused int
}

func (s *table) Shares(netip.AddrPort) bool { return true }

func (s *table) Take(u backend.Use) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !u.Client && s.refused%3 != 2 { // of three ports, two are the other plane's
		s.refused++
		return false
	}
	if !u.Client {
		s.refused++
	}
	s.taken[u] = true
	return true
}

func (s *table) Give(u backend.Use) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.taken, u)
}

func (s *table) has(u backend.Use) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.taken[u]
}

func (s *table) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.taken)
}

// everybody is a ledger in which all have one stand-in.
type everybody struct{}

func standIn() netip.Addr { return netip.AddrFrom4([4]byte{127, 64, 0, 9}) }

func (everybody) Find(netip.Addr) (netip.Addr, bool)                       { return standIn(), true }
func (everybody) Lease(_ netip.Addr, done func(netip.Addr, error))         { done(standIn(), nil) }
func (everybody) LeaseUnproven(_ netip.Addr, done func(netip.Addr, error)) { done(standIn(), nil) }
func (everybody) Prove(netip.Addr)                                         {}

// TestPorts: a flow to a server that another plane has flows to leaves from a port that it has taken, and gives all back when
// it has ended. The crossing that is not here, 4→6, needs a prefix that is local: package lab has it.
func TestPorts(t *testing.T) {
	t.Parallel()
	for _, x := range []ip.Crossing{{Client: ip.V4, Backend: ip.V4}, {Client: ip.V6, Backend: ip.V4}, {Client: ip.V6, Backend: ip.V6}} {
		for _, p := range []service.Protocol{TCP(), UDP()} {
			t.Run(fmt.Sprint(x, " ", p.Name), func(t *testing.T) {
				t.Parallel()
				b := newBench(t)
				ports := &table{taken: make(map[backend.Use]bool)}
				b.ports, b.standIns = ports, everybody{}
				saw := make(chan netip.AddrPort, 10)
				spec := to(sees(t, p.Transports[0], x.Backend, saw))
				spec.Source = backend.SourceClient
				at := b.serve(t, p, x.Client, spec, func(s *service.Service) { s.Timeouts.Idle = time.Second })
				for range 4 {
					c, err := net.Dial(p.Transports[0].String(), at.String())
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					c.SetDeadline(time.Now().Add(patience))
					if _, err := c.Write([]byte("hello")); err != nil {
						t.Fatal(err)
					}
					from := <-saw
					if !ports.has(backend.Use{From: from, To: spec.Servers[0].Addr}) {
						t.Errorf("the server sees %v, which was not taken: %v", from, ports.taken)
					}
					client, err := netip.ParseAddrPort(c.LocalAddr().String())
					if kept := ports.has(backend.Use{From: client, To: at, Client: true}); err != nil || kept != (p.Transports[0] == listen.UDP) {
						t.Errorf("the datagrams of %v are kept from the other plane: %v", client, kept)
					}
					c.Close()
				}
				b.waitFor("all is given back", func() bool { return ports.len() == 0 })
			})
		}
	}
}

// sees is a server that tells from where it was sent something.
func sees(t *testing.T, transport listen.Transport, f ip.Family, saw chan<- netip.AddrPort) netip.AddrPort {
	t.Helper()
	if transport == listen.TCP {
		return servertest.TCP(t, f, func(c *net.TCPConn) {
			b := make([]byte, 100)
			if _, err := c.Read(b); err == nil {
				saw <- ip.CanonicalPort(c.RemoteAddr().(*net.TCPAddr).AddrPort())
			}
			c.Read(b)
		})
	}
	network := map[ip.Family]string{ip.V4: "udp4", ip.V6: "udp6"}[f]
	loopback := map[ip.Family]netip.Addr{ip.V4: netip.AddrFrom4([4]byte{127, 0, 0, 1}), ip.V6: netip.IPv6Loopback()}[f]
	c, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.AddrPortFrom(loopback, 0)))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		b := make([]byte, 100)
		for {
			_, from, err := c.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			saw <- ip.CanonicalPort(from)
		}
	})
	t.Cleanup(func() {
		c.Close()
		wg.Wait()
	})
	return ip.CanonicalPort(c.LocalAddr().(*net.UDPAddr).AddrPort())
}
