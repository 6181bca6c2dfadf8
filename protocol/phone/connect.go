// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"crypto/tls"
	"errors"
	"net/netip"
	"syscall"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/transaction"
	"github.com/kyozon/kyozon/protocol/phone/sip/transport"
	"github.com/kyozon/kyozon/relay"
)

const (
	// mostConnections bounds the connections that one loop has opened. They lead to gateways, of which there are few.
	mostConnections = 1024

	// mostWaiting bounds what waits for one to open.
	mostWaiting = 256

	// connectTime is how long opening one may take. A family that is dead must not cost a caller 64 times T1.
	connectTime = 4 * time.Second

	// refusedFor is for how many seconds who has no TCP is not asked for it again.
	refusedFor = 600
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
	o := relay.DialOptions{Remote: to.Remote, Source: netip.AddrPortFrom(to.Local.Addr(), 0), Timeout: a.opening}
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

// fallback sends a request over UDP after all, if it may. RFC 3261 §18.1.1.
func (a *agent) fallback(x *transaction.Transaction[user], err error) *transaction.Transaction[user] {
	w, text := x.Way, x.Request()
	g := a.core.settings.Load().gatewayOf(w)
	if w.Transport != sip.TCP || g == nil || g.way.Transport != sip.UDP || g.way.Remote != w.Remote || !isRefused(err) {
		return nil
	}
	a.core.refusing.Store(w.Remote, now()+refusedFor)
	w.Transport = sip.UDP
	if !transport.Fallback(len(text), ip.FamilyOf(w.Remote.Addr())) {
		return nil
	}
	again, bad := a.table.Ask(retransported(text, sip.UDP), w, x.User, a.loop.Now())
	if bad != nil {
		return nil
	}
	return again
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

// ask sends a request of ours. To a gateway it goes over TCP if it is too large for a datagram; a device is reached by the
// flow that it has registered over, and no other. RFC 3261 §18.1.1, RFC 5626 §5.3.
func (a *agent) ask(text []byte, w sip.Way, u user) (*transaction.Transaction[user], error) {
	if by := a.core.sized(w, len(text)); by != w {
		text, w = retransported(text, by.Transport), by
	}
	return a.table.Ask(text, w, u, a.loop.Now())
}

// carry sends a request that nobody answers: an ACK.
func (a *agent) carry(w sip.Way, text []byte) {
	if by := a.core.sized(w, len(text)); by != w {
		text, w = retransported(text, by.Transport), by
	}
	a.core.send(a, w, text)
}

// home returns where requests go to who has asked something: to a gateway, wherever it has asked from, as to all of them.
func (a *agent) home(w sip.Way) sip.Way {
	if g := a.core.settings.Load().gatewayOf(w); g != nil {
		return g.way
	}
	return w
}

// sized returns the way for a request of so many bytes.
func (c *core) sized(w sip.Way, size int) sip.Way {
	f := ip.FamilyOf(w.Remote.Addr())
	by := transport.Choose(w.Transport, size, f)
	if by == w.Transport || c.settings.Load().gatewayOf(w) == nil {
		return w
	}
	if until, ok := c.refusing.Load(w.Remote); ok && until.(int64) > now() && transport.Fallback(size, f) { // nothing else is in the map
		return w
	}
	w.Transport = by
	return w
}

// retransported returns a request of ours as it goes over another transport: its Via says so. RFC 3261 §18.1.1.
func retransported(text []byte, t sip.Transport) []byte {
	var m sip.Message
	if m.Parse(text, nil) != nil {
		return text // ours
	}
	var e sip.Editor
	e.Edit(&m)
	e.Replace(sip.Via, transport.Retransport(nil, m.Get(sip.Via), t))
	out, _ := e.Append(nil)
	return out
}
