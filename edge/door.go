// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/kyozon/kyozon/ip"
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
}

// guard is who answers at a door, and what stands before it. It is immutable.
type guard struct {
	handler service.Handler
	proxy   ip.Prefixes // networks whose connections begin with a PROXY header
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

// serve begins to take clients, or goes on with another guard.
func (d *door) serve(loops *relay.Loops, g *guard) (err error) {
	d.guard.Store(g)
	switch {
	case d.acceptor != nil:
	case d.packets != nil:
		d.packets.Redirect(d.open)
	case d.addr.Transport == listen.TCP:
		d.acceptor, err = loops.Listen(d.lease.FD(), d.accept)
	default:
		d.packets, err = loops.OpenPackets(d.lease.FD(), d.open)
	}
	if err != nil {
		return fmt.Errorf("serve %v: %w", d.addr, err)
	}
	return nil
}

// accept gives a client to the protocol, after its PROXY header if it comes from a network that sends one.
func (d *door) accept(c *relay.Conn) {
	g := d.guard.Load()
	if g.proxy.Contains(c.Remote().Addr()) {
		readProxy(c, g.handler.Conn)
		return
	}
	g.handler.Conn(c)
}

func (d *door) open(f *relay.PacketFlow) { d.guard.Load().handler.Flow(f) }

// pause takes nobody new for a while: they wait in the socket. UDP packets of new clients are lost, as packets may be.
func (d *door) pause() { d.shut() }

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
	d.lease.Close()
}

// errNoHandler means that a protocol built no door for a listen of one of its services.
var errNoHandler = errors.New("edge: the protocol has no door")
