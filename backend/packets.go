// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"errors"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/relay"
)

// OpenPackets picks a backend for a client's packets and connects the flow to it, or refuses it. It is Dial for UDP;
// since nothing answers a UDP connect, a backend that is not there shows only in its health.
func (r *Route) OpenPackets(p *relay.PacketFlow, idle time.Duration) {
	client := Client{Addr: p.Client, Dialled: p.Dialled}
	if fd, server, ok := p.Inherited(); ok {
		r.resumePackets(p, client, fd, server, idle)
		return
	}
	if !r.Allows(client.Addr.Addr()) {
		r.fault(ErrDenied)
		p.Refuse()
		return
	}
	var tried Tried
	b, pool, err := r.Next(ip.Key(client.Addr.Addr()), p.Loop().Now(), &tried)
	if err != nil {
		r.fault(err)
		p.Refuse()
		return
	}
	r.know(b, client, r.leaseUnproven, p.Loop(), func(known netip.Addr, err error) {
		f := &Flow{Client: client, Source: pool.bindTo(known), Backend: b, Pool: pool, known: known, route: r, loop: p.Loop()}
		switch {
		case p.Ended(): // it has given way to others while the ledger was written
			b.Released()
			return
		case err == nil:
			err = r.connectPackets(p, f, idle)
		}
		if err != nil {
			b.Released()
			r.fault(err)
			p.Refuse()
		}
	})
}

// resumePackets goes on with a flow that another process has carried. If the site no longer has its server, the flow
// ends; the client's next packet gets another.
func (r *Route) resumePackets(p *relay.PacketFlow, client Client, fd int, server netip.AddrPort, idle time.Duration) {
	for _, pool := range r.Pools() {
		for i := range pool.backends {
			b := &pool.backends[i]
			if b.Addr != server || !b.take() {
				continue
			}
			source := relay.LocalAddr(fd).Addr()
			f := &Flow{Client: client, Source: source, Backend: b, Pool: pool, known: pool.bindTo(source), route: r, loop: p.Loop()}
			if r.sharesPort(f.known, b) {
				f.use = Use{From: relay.LocalAddr(fd), To: b.Addr}
				r.Ports.Take(f.use) // it may be taken still: for the process before
			}
			if r.attachPackets(p, f, fd, idle) != nil {
				b.Released()
				p.Refuse()
			}
			return
		}
	}
	unix.Close(fd)
	p.Refuse()
}

func (r *Route) connectPackets(p *relay.PacketFlow, f *Flow, idle time.Duration) error {
	fd, err := packetSocket(f)
	if err != nil {
		return err
	}
	return r.attachPackets(p, f, fd, idle)
}

func (r *Route) attachPackets(p *relay.PacketFlow, f *Flow, fd int, idle time.Duration) error {
	o := relay.ConnectOptions{Idle: idle, Done: f.End}
	if f.Source.IsValid() && f.Client.Addr.Addr().Is6() && f.Source.Is4() {
		o.Prove = func() { r.StandIns.Prove(f.Client.Addr.Addr()) }
	}
	f.Counts, f.Cut = p.Counts, p.Cut
	if r.Ports != nil {
		f.datagrams = true
		f.takeClient()
	}
	f.begin()
	if err := p.Connect(fd, f.Backend.Addr, o); err != nil {
		f.cancel()
		return err
	}
	if r.Ports != nil {
		f.local = relay.LocalAddr(fd)
	}
	return nil
}

// packetSocket makes a UDP socket that comes from the flow's source, from the client's own port if that is free:
// servers of games and calls tell their peers by it.
func packetSocket(f *Flow) (int, error) {
	if !f.Source.IsValid() {
		return relay.Socket(unix.SOCK_DGRAM, f.Backend.Addr, netip.AddrPort{}, false)
	}
	if f.route.sharesPort(f.Source, f.Backend) {
		return sharedSocket(f)
	}
	opaque := transparent(f.Client, f.Source)
	fd, err := relay.Socket(unix.SOCK_DGRAM, f.Backend.Addr, netip.AddrPortFrom(f.Source, f.Client.Addr.Port()), opaque)
	if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EACCES) {
		fd, err = relay.Socket(unix.SOCK_DGRAM, f.Backend.Addr, netip.AddrPortFrom(f.Source, 0), opaque)
	}
	return fd, err
}

// sharedSocket is packetSocket where the port must be taken.
func sharedSocket(f *Flow) (fd int, err error) {
	err = syscall.EADDRINUSE
	for try := 0; try < portTries; {
		u := f.route.takePort(f.Source, f.Backend, f.Client, &try)
		if !u.From.IsValid() {
			break
		}
		fd, err = relay.Socket(unix.SOCK_DGRAM, f.Backend.Addr, u.From, transparent(f.Client, f.Source))
		if err == nil {
			f.use = u
			return fd, nil
		}
		f.route.give(u)
		if !inUse(err) {
			break
		}
	}
	return -1, err
}
