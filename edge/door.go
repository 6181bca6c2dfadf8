// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/relay"
	"github.com/kyozon/kyozon/service"
)

// door is one address that clients come to. It outlives the generations: a reload changes who answers, so that
// neither a client that waits in the socket nor a UDP flow is lost.
type door struct {
	addr     listen.Addr
	lease    *listen.Lease
	guard    atomic.Pointer[guard]
	acceptor *relay.Acceptor
	packets  *relay.Packets
	world    *relay.Datagrams
}

// guard is who answers at a door, and what stands before it. It is immutable.
type guard struct {
	handler service.Handler
	proxy   ip.Prefixes       // networks whose connections begin with a PROXY header
	route   *backend.Route    // who comes in is counted by its limits
	release func(*relay.Conn) // gives back what the limits have let in
}

// newGuard returns the guard of a door at which s listens. Where several services do, they have the same limits of
// connections, and those of one count; and they believe the same networks.
func newGuard(h service.Handler, s *service.Service, route *backend.Route) *guard {
	limits := route.Limits
	return &guard{handler: h, proxy: s.Proxy, route: route,
		release: func(c *relay.Conn) { limits.Release(c.Remote().Addr()) }}
}

// lend leases the socket of a door.
func lend(set *listen.Set, a listen.Addr) (*door, error) {
	lease := set.Stream
	if a.Transport == listen.UDP {
		lease = set.Packet
	}
	l, err := lease(a)
	if err != nil {
		return nil, err
	}
	return &door{addr: a, lease: l}, nil
}

// serve begins to take clients; UDP flows of the process that this one replaces go on.
func (d *door) serve(loops *relay.Loops, g *guard, flows []relay.HandedOver) (err error) {
	d.guard.Store(g)
	switch {
	case d.addr.Transport == listen.TCP:
		d.acceptor, err = loops.Listen(d.lease.FD(), d.accept)
	case g.handler.Datagrams != nil:
		d.world, err = loops.OpenDatagrams(d.lease.FD(), g.handler.Datagrams)
	default:
		d.packets, err = loops.ResumePackets(d.lease.FD(), flows, d.open)
	}
	if err != nil {
		return fmt.Errorf("serve %v: %w", d.addr, err)
	}
	return nil
}

// change puts another guard in place of the door's. UDP flows go on, unless from now on packets form none, or did not.
func (d *door) change(loops *relay.Loops, g *guard) error {
	switch {
	case d.packets != nil && g.handler.Datagrams != nil:
		d.packets.Close(metrics.Drained)
		d.packets = nil
		return d.serve(loops, g, nil)
	case d.world != nil && g.handler.Datagrams == nil:
		d.world.Close()
		d.world = nil
		return d.serve(loops, g, nil)
	case d.world != nil:
		d.world.Redirect(g.handler.Datagrams(d.world))
	}
	d.guard.Store(g)
	return nil
}

// accept gives a client to the protocol, after its PROXY header if it comes from a network that sends one.
func (d *door) accept(c *relay.Conn) {
	g := d.guard.Load()
	if g.proxy.Contains(c.Remote().Addr()) {
		readProxy(c, g.admit)
		return
	}
	g.admit(c)
}

// admit gives a client to the protocol if his prefix may have one more connection. Who may not sees a reset, which costs
// nothing to remember. He is counted by the address that he is known by to everything behind: a PROXY header has been
// read.
func (g *guard) admit(c *relay.Conn) {
	if g.route.Limits != nil {
		client, now := c.Remote().Addr(), c.Loop().Now()
		if !g.route.Admit(limit.Connections, client, now) || !g.route.Admit(limit.Open, client, now) {
			c.Abort()
			return
		}
		c.OnClose(g.release)
	}
	g.handler.Conn(c)
}

func (d *door) open(f *relay.PacketFlow) { d.guard.Load().handler.Flow(f) }

// pause takes nothing from clients for a while: it waits in the socket.
func (d *door) pause() {
	if d.acceptor != nil {
		d.acceptor.Close()
		d.acceptor = nil
	}
	if d.packets != nil {
		d.packets.Pause()
	}
	if d.world != nil {
		d.world.Pause()
	}
}

// resume undoes pause.
func (d *door) resume(loops *relay.Loops) (err error) {
	if d.packets != nil {
		return d.packets.Resume()
	}
	if d.world != nil {
		return d.world.Resume()
	}
	d.acceptor, err = loops.Listen(d.lease.FD(), d.accept)
	return err
}

// handOver forgets the UDP flows, with which another process goes on.
func (d *door) handOver() {
	if d.packets != nil {
		d.packets.Close(metrics.Fine)
		d.packets = nil
	}
}

// shut takes nobody new. Clients that wait in the socket stay there while another lease of it lives. UDP flows go on.
func (d *door) shut() {
	if d.acceptor != nil {
		d.acceptor.Close()
		d.acceptor = nil
	}
	if d.packets != nil {
		d.packets.Redirect((*relay.PacketFlow).Refuse)
	}
}

// close shuts the door and gives back its socket. UDP flows that are left are cut.
func (d *door) close() {
	d.shut()
	if d.packets != nil {
		d.packets.Close(metrics.Drained)
		d.packets = nil
	}
	if d.world != nil {
		d.world.Close()
		d.world = nil
	}
	d.lease.Close()
}

// errNoHandler means that a protocol built no door for a listen of one of its services.
var errNoHandler = errors.New("edge: the protocol has no door")
