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
	use     Use   // the port taken at the backend
	ports   int   // tried there
	only    bool  // no other backend will do: see DialTo
	asks    bool  // it is no client's: see Reach
	done    func(*Flow, error)
}

// Dial picks a backend and connects to it on the loop, trying the others of the client's pools in turn, and calls done
// there, perhaps before it returns. It never blocks: a stand-in that must first be written to the ledger holds up only
// this flow. The connection has no handler yet; what the pool's handover says by a PROXY header has been written and,
// where the pool has TLS from the beginning, the handshake behind it is done.
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
	tried := Tried{byKey: client.User != 0}
	key := client.key()
	b, pool, err := r.nextFor(&client, key, l.Now(), &tried)
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

// DialTo is Dial to a backend that the caller has picked, for a client whom the route need not allow: what he has brought
// was taken before. If b may get no flow, done is told ErrNoneUp or ErrFull.
func (r *Route) DialTo(l *relay.Loop, b *Backend, client Client, done func(*Flow, error)) {
	err := ErrNoneUp
	if b.Up() {
		if b.take() {
			a := &attempt{route: r, loop: l, client: client, began: l.Now(), pool: b.pool, backend: b, only: true, done: done}
			a.begin()
			return
		}
		err = ErrFull
	}
	r.fault(err)
	done(nil, err)
}

// reuse returns a flow on a connection that another has kept, or nil. A client whose stand-in must be named to the
// backend, and who has none yet, gets none: to lease one takes time.
func (r *Route) reuse(p *Pool, b *Backend, client Client, l *relay.Loop) *Flow {
	var known netip.Addr
	if b.Told().Carry == CarryStandIn && client.Addr.Addr().Is6() && b.Family() == ip.V4 {
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
	if a.only {
		a.fail(a.last)
		return
	}
	b, pool, err := a.route.nextFor(&a.client, a.key, a.loop.Now(), &a.tried)
	if err != nil {
		a.fail(a.last)
		return
	}
	a.backend, a.pool, a.ports = b, pool, 0
	a.begin()
}

// begin finds the address that the client is known by, and connects.
func (a *attempt) begin() {
	b := a.backend
	a.route.know(b, a.client, a.route.lease, a.loop, func(known netip.Addr, err error) {
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
	if a.route.sharesPort(source, b) {
		if a.use = a.route.takePort(source, b, a.client, &a.ports); !a.use.From.IsValid() {
			a.failed(syscall.EADDRINUSE)
			return
		}
		o.Source = a.use.From
	}
	began := a.loop.Now()
	a.loop.Dial(o, func(c *relay.Conn, err error) {
		if err != nil && a.use.From.IsValid() && inUse(err) {
			a.giveBack()
			a.connect(known)
			return
		}
		if err != nil {
			a.failed(err)
			return
		}
		f := &Flow{Conn: c, Client: a.client, Source: source, Backend: b, Pool: a.pool, known: known, route: a.route, loop: a.loop, use: a.use}
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

func (a *attempt) giveBack() {
	a.route.give(a.use)
	a.use = Use{}
}

// failed goes on to the next backend.
func (a *attempt) failed(err error) {
	a.giveBack()
	if ours(err) {
		a.backend.Released()
	} else {
		a.backend.Failed(a.loop.Now())
	}
	a.last = dialError(a.backend, err)
	a.next()
}

func (a *attempt) succeed(f *Flow) {
	if t := a.pool.Spec.TLS; !t.Asks() || t.Start == probe.Offered {
		a.backend.Connected() // else it is that when TLS is spoken
	}
	f.wait = a.loop.Now() - a.began
	f.asks = a.asks
	f.begin()
	a.done(f, nil)
}

func (a *attempt) fail(err error) {
	if !a.asks {
		a.route.fault(err)
	}
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
func (r *Route) know(b *Backend, client Client, lease leaser, l *relay.Loop, done func(netip.Addr, error)) {
	a := client.Addr.Addr()
	if b.pool.Spec.Source == SourceEdge && b.Told().Carry == CarryClient {
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
	if f.Backend.Told().Carry == CarryStandIn && a.Addr().Is6() && f.known.Is4() {
		return netip.AddrPortFrom(f.known, a.Port())
	}
	return a
}

// Dialled returns the address that a handover names beside Carried: the one that the client dialled, or ours beside a
// stand-in, which is IPv4.
func (f *Flow) Dialled() netip.AddrPort {
	if f.Carried() == f.Client.Addr {
		return f.Client.Dialled
	}
	return netip.AddrPortFrom(f.Conn.Local().Addr(), f.Client.Dialled.Port())
}

// writeProxy begins the connection with a PROXY header, if that is the pool's handover.
func (f *Flow) writeProxy() {
	h := proxyproto.Header{Client: f.Carried(), Dest: f.Dialled()}
	var space [256]byte
	switch f.Backend.Told().Handover {
	case HandoverProxyV1:
		f.Conn.Write(proxyproto.AppendV1(space[:0], h))
	case HandoverProxyV2:
		f.Conn.Write(proxyproto.AppendV2(space[:0], h))
	}
}
