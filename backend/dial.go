// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/probe"
	"github.com/kyozon/kyozon/proxyproto"
	"github.com/kyozon/kyozon/relay"
)

// The errors of Dial, beside ErrNoneUp and ErrFull.
var (
	ErrDenied    = errors.New("backend: client not allowed")
	ErrNoStandIn = errors.New("backend: no stand-in for the client")
	ErrConnect   = errors.New("backend: no backend could be reached")
	ErrTimeout   = errors.New("backend: connect timed out")
)

// Reason returns the reason by which an error of Dial is counted.
func Reason(err error) metrics.Reason {
	for _, k := range []struct {
		err    error
		reason metrics.Reason
	}{
		{ErrDenied, metrics.Denied}, {ErrNoneUp, metrics.NoneUp}, {ErrFull, metrics.Full},
		{ErrNoStandIn, metrics.NoStandIn}, {ErrTimeout, metrics.ConnectTimeout},
	} {
		if errors.Is(err, k.err) {
			return k.reason
		}
	}
	return metrics.ConnectFailed
}

// attempt is one Dial under way.
type attempt struct {
	route   *Route
	loop    *relay.Loop
	client  Client
	key     uint64
	tried   Tried
	began   int64 // on the loop's clock
	pool    *Pool
	backend *Backend
	last    error // of the backend tried last
	done    func(*Flow, error)
}

// Dial picks a backend and connects to it on the loop, trying the others of the client's pools in turn, and calls done
// there, perhaps before it returns. It never blocks: a stand-in that must first be written to the ledger holds up only
// this flow. The connection has no handler yet; what the pool's handover says by a PROXY header has been written and,
// where the pool has TLS, the handshake behind it is done.
// The caller must End the flow. A failure has been counted.
//
// With reuse, the flow of a Shared pool may get a connection that another flow has kept. Its backend may have closed
// it without anyone knowing yet.
func (r *Route) Dial(l *relay.Loop, client Client, reuse bool, done func(*Flow, error)) {
	if !r.Allows(client.Addr.Addr()) {
		r.fault(ErrDenied)
		done(nil, ErrDenied)
		return
	}
	var tried Tried
	key := ip.Key(client.Addr.Addr())
	b, pool, err := r.Next(key, l.Now(), &tried)
	if err != nil {
		r.fault(err)
		done(nil, err)
		return
	}
	if reuse && pool.Shared() {
		if f := r.reuse(pool, b, client, l); f != nil {
			f.begin()
			done(f, nil)
			return
		}
	}
	a := &attempt{route: r, loop: l, client: client, key: key, tried: tried, began: l.Now(), pool: pool, backend: b, done: done}
	a.begin()
}

// reuse returns a flow on a connection that another has kept, or nil. A client whose stand-in must be named to the
// backend, and who has none yet, gets none: to lease one takes time.
func (r *Route) reuse(p *Pool, b *Backend, client Client, l *relay.Loop) *Flow {
	var known netip.Addr
	if p.Spec.Carry == CarryStandIn && client.Addr.Addr().Is6() && b.Family() == ip.V4 {
		var ok bool
		if known, ok = r.StandIns.Find(client.Addr.Addr()); !ok {
			return nil
		}
	}
	c := b.tally.idle.take(l, b.secure)
	if c == nil {
		return nil
	}
	return &Flow{Conn: c, Client: client, Backend: b, Pool: p, Reused: true, known: known, route: r, loop: l}
}

// next tries the next backend.
func (a *attempt) next() {
	b, pool, err := a.route.Next(a.key, a.loop.Now(), &a.tried)
	if err != nil {
		a.fail(a.last)
		return
	}
	a.backend, a.pool = b, pool
	a.begin()
}

// begin finds the address that the client is known by, and connects.
func (a *attempt) begin() {
	b := a.backend
	a.route.know(a.pool, b, a.client, a.route.lease, a.loop, func(known netip.Addr, err error) {
		if err != nil {
			b.Released()
			a.fail(err)
			return
		}
		a.connect(known)
	})
}

func (a *attempt) connect(known netip.Addr) {
	b, source := a.backend, a.pool.bindTo(known)
	o := relay.DialOptions{Remote: b.Addr, Timeout: a.route.Timeouts.Connect, Transparent: transparent(a.client, source)}
	if source.IsValid() {
		o.Source = netip.AddrPortFrom(source, 0)
	}
	began := a.loop.Now()
	a.loop.Dial(o, func(c *relay.Conn, err error) {
		if err != nil {
			a.failed(err)
			return
		}
		f := &Flow{Conn: c, Client: a.client, Source: source, Backend: b, Pool: a.pool, known: known, route: a.route, loop: a.loop}
		f.writeProxy()
		a.shake(f, time.Duration(a.loop.Now()-began))
	})
}

// shake speaks TLS to the backend, if it is to, for as long as is left to the connect.
func (a *attempt) shake(f *Flow, took time.Duration) {
	if a.backend.offer == nil {
		a.succeed(f)
		return
	}
	if limit := a.route.Timeouts.Connect; limit > 0 {
		f.Conn.SetTimeout(max(limit-took, 1))
	}
	f.Conn.StartClientTLS(a.backend.offer, func(_ tls.ConnectionState, err error) {
		if err != nil {
			a.failed(fmt.Errorf("tls: %w", probe.Explain(err)))
			return
		}
		a.succeed(f)
	})
}

// failed goes on to the next backend.
func (a *attempt) failed(err error) {
	if ours(err) {
		a.backend.Released()
	} else {
		a.backend.Failed(a.loop.Now())
	}
	a.last = dialError(a.backend, err)
	a.next()
}

func (a *attempt) succeed(f *Flow) {
	a.backend.Connected()
	f.wait = a.loop.Now() - a.began
	f.begin()
	a.done(f, nil)
}

func (a *attempt) fail(err error) {
	a.route.fault(err)
	a.done(nil, err)
}

// ours says whether a connect failed for want of something on this machine, which is no fault of the backend.
func ours(err error) bool {
	if errors.Is(err, relay.ErrBusy) {
		return true
	}
	for _, errno := range []syscall.Errno{syscall.EADDRNOTAVAIL, syscall.EADDRINUSE, syscall.EMFILE, syscall.ENFILE,
		syscall.ENOBUFS, syscall.ENOMEM, syscall.EPERM, syscall.EACCES} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// dialError says which backend it was, and which kind of error.
func dialError(b *Backend, err error) error {
	kind := ErrConnect
	if errors.Is(err, relay.ErrTimeout) || errors.Is(err, syscall.ETIMEDOUT) {
		kind = ErrTimeout
	}
	return fmt.Errorf("%w: %v: %v", kind, b.Addr, err)
}

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
	r.know(pool, b, client, r.leaseUnproven, p.Loop(), func(known netip.Addr, err error) {
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
	f.begin()
	if err := p.Connect(fd, f.Backend.Addr, o); err != nil {
		f.cancel()
		return err
	}
	return nil
}

// packetSocket makes a UDP socket that comes from the flow's source, from the client's own port if that is free:
// servers of games and calls tell their peers by it.
func packetSocket(f *Flow) (int, error) {
	if !f.Source.IsValid() {
		return relay.Socket(unix.SOCK_DGRAM, f.Backend.Addr, netip.AddrPort{}, false)
	}
	opaque := transparent(f.Client, f.Source)
	fd, err := relay.Socket(unix.SOCK_DGRAM, f.Backend.Addr, netip.AddrPortFrom(f.Source, f.Client.Addr.Port()), opaque)
	if errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, syscall.EACCES) {
		fd, err = relay.Socket(unix.SOCK_DGRAM, f.Backend.Addr, netip.AddrPortFrom(f.Source, 0), opaque)
	}
	return fd, err
}

// leaser is how a stand-in is asked for: for good, or as long as the client is unproven.
type leaser func(client netip.Addr, done func(netip.Addr, error))

func (a *Access) lease(client netip.Addr, done func(netip.Addr, error)) {
	a.StandIns.Lease(client, done)
}

func (a *Access) leaseUnproven(client netip.Addr, done func(netip.Addr, error)) {
	a.StandIns.LeaseUnproven(client, done)
}

// know finds the address that a backend knows a client by, as source or by name, and calls done on the loop: at once
// unless the ledger must be written. It is none if the backend knows no client by an address that must be found.
func (r *Route) know(p *Pool, b *Backend, client Client, lease leaser, l *relay.Loop, done func(netip.Addr, error)) {
	a := client.Addr.Addr()
	if p.Spec.Source == SourceEdge && p.Spec.Carry == CarryClient {
		done(netip.Addr{}, nil)
		return
	}
	switch (ip.Crossing{Client: ip.FamilyOf(a), Backend: b.Family()}) {
	case ip.Crossing{Client: ip.V6, Backend: ip.V4}:
		standIn, ok := r.StandIns.Find(a)
		if ok {
			done(standIn, nil)
			return
		}
		lease(a, func(standIn netip.Addr, err error) {
			l.Post(func() {
				if err != nil {
					err = fmt.Errorf("%w: %w", ErrNoStandIn, err)
				}
				done(standIn, err)
			})
		})
	case ip.Crossing{Client: ip.V4, Backend: ip.V6}:
		done(ip.Embed(r.Embed, a), nil)
	default:
		done(a, nil)
	}
}

// bindTo returns the address that a connection comes from, for a client who is known by another: the same, or none if
// the pool's connections come from the edge.
func (p *Pool) bindTo(known netip.Addr) netip.Addr {
	if p.Spec.Source == SourceEdge {
		return netip.Addr{}
	}
	return known
}

// transparent says whether source is the client's own address, which is none of ours.
func transparent(c Client, source netip.Addr) bool {
	return source == c.Addr.Addr() && !source.IsLoopback()
}

// Carried returns the address by which a handover names the flow's client.
func (f *Flow) Carried() netip.AddrPort {
	a := f.Client.Addr
	if f.Pool.Spec.Carry == CarryStandIn && a.Addr().Is6() && f.known.Is4() {
		return netip.AddrPortFrom(f.known, a.Port())
	}
	return a
}

// writeProxy begins the connection with a PROXY header, if that is the pool's handover. The header names the address
// that the client dialled; beside a stand-in, which is IPv4, it is ours.
func (f *Flow) writeProxy() {
	h := proxyproto.Header{Client: f.Carried(), Dest: f.Client.Dialled}
	if h.Client != f.Client.Addr {
		h.Dest = netip.AddrPortFrom(f.Conn.Local().Addr(), f.Client.Dialled.Port())
	}
	var space [256]byte
	switch f.Pool.Spec.Handover {
	case HandoverProxyV1:
		f.Conn.Write(proxyproto.AppendV1(space[:0], h))
	case HandoverProxyV2:
		f.Conn.Write(proxyproto.AppendV2(space[:0], h))
	}
}
