// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"syscall"
	"time"

	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/transaction"
	"github.com/kyozon/kyozon/relay"
)

const (
	// mostConnections bounds the connections that one loop has opened. All but half of them are for gateways, of which there are
	// few: see sized.
	mostConnections = 1024

	// mostWaiting bounds what waits for one to open.
	mostWaiting = 256

	// connectTime is how long opening one may take. A family that is dead must not cost a caller 64 times T1.
	connectTime = 4 * time.Second
)

// Why connections end.
var (
	errEnded  = errors.New("the peer has ended the connection")
	errUnread = errors.New("the peer does not read")
	errMany   = errors.New("too many connections")
)

// connect returns the connection of a way, which is opened if there is none: one for each loop, our address and the peer's,
// and transport. RFC 3261 §18.1.1.
func (a *agent) connect(to sip.Way) *flow {
	f := a.flows[to]
	if f != nil {
		return f
	}
	f = &flow{agent: a, to: to, way: to}
	f.way.Flow = a.core.lastFlow.Add(1)
	if len(a.flows) >= mostConnections {
		a.loop.Post(func() { f.over(errMany) })
		return f
	}
	a.flows[to] = f
	o := relay.DialOptions{Remote: to.Remote, Source: netip.AddrPortFrom(to.Local.Addr(), 0), Timeout: a.patienceFor(to)}
	if to.Local.Addr().IsUnspecified() {
		o.Source = netip.AddrPort{}
	}
	a.loop.Dial(o, f.connected)
	return f
}

// connected is called when a connection of ours is open, or will not be.
func (f *flow) connected(conn *relay.Conn, err error) {
	if err != nil {
		f.over(err)
		return
	}
	if f.to.Transport == sip.TLS {
		f.shake(conn)
		return
	}
	f.open(conn)
}

// shake speaks TLS to a gateway.
func (f *flow) shake(conn *relay.Conn) {
	config := f.agent.core.settings.Load().client(f.to)
	if config == nil { // a reload has taken it away meanwhile
		conn.Abort()
		f.over(errEnded)
		return
	}
	conn.SetTimeout(f.agent.opening)
	conn.StartClientTLS(config, func(_ tls.ConnectionState, err error) {
		if err != nil {
			f.agent.core.complain(f.to.Remote, err)
			f.over(err)
			return
		}
		f.open(conn)
	})
}

// complain says why a gateway is not spoken to in TLS, once in a minute.
func (c *core) complain(at netip.AddrPort, err error) {
	if until, ok := c.untold.Load(at); ok && until.(int64) > now() { // nothing else is in the map
		return
	}
	c.untold.Store(at, now()+60)
	c.log.Warn("gateway is not spoken to in TLS", "backend", at, "err", err)
}

// open sends what waits.
func (f *flow) open(conn *relay.Conn) {
	f.begin(conn)
	waiting := f.waiting
	f.waiting = nil
	for _, b := range waiting {
		f.write(b)
	}
}

// broke is called when a connection of ours has ended, or was never open: what was asked over it and has no answer has
// failed, RFC 3261 §17.1.4, unless it was open. Then the peer may have ended it because it was idle, and is asked once more:
// by the branch it knows a request that it has seen.
func (a *agent) broke(f *flow, err error) {
	if a.flows[f.to] == f {
		delete(a.flows, f.to)
	}
	if f.conn == nil {
		a.noTCP(f.to, err)
	}
	opened := f.conn != nil
	for _, x := range a.table.Unheard(f.to) {
		if opened && !f.again {
			a.core.send(a, x.Way, x.Request())
			continue
		}
		if a.table.Failed(x) {
			a.unsent(x, err)
		}
	}
	if next := a.flows[f.to]; next != nil {
		next.again = opened
	}
	a.wind()
}

// unsent is called when a request could not be sent. RFC 3261 §8.1.3.1: it is as if somebody had answered 503; but what went
// over TCP for its size alone goes over UDP to who has no TCP.
func (a *agent) unsent(x *transaction.Transaction[user], err error) {
	again := a.fallback(x, err)
	switch u := x.User; {
	case u.ping != nil && again == nil:
		u.ping.ended(err)
	case u.branch != nil && u.branch.x == x:
		if u.branch.x = again; again == nil {
			u.branch.unsent()
		}
	case u.asked != nil && u.asked.onward == x:
		if u.asked.onward = again; again == nil {
			u.asked.answer(503)
		}
	case u.refresh != nil && u.refresh.own == x:
		if u.refresh.own = again; again == nil && !u.refresh.gone {
			u.refresh.silent()
		}
	}
}

// isRefused says whether an error tells that nobody takes connections there: a reset, or an ICMP message that says so.
func isRefused(err error) bool {
	for _, e := range [...]error{syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ENOPROTOOPT, syscall.EHOSTUNREACH, syscall.ENETUNREACH} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// home returns where requests go to who has asked something: to a gateway, wherever it has asked from, as to all of them.
func (a *agent) home(w sip.Way) sip.Way {
	if g := a.core.settings.Load().gatewayOf(w); g != nil {
		return g.way
	}
	return w
}
