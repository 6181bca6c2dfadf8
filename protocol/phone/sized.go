// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/transaction"
	"github.com/kyozon/kyozon/protocol/phone/sip/transport"
)

const (
	// refusedFor is for how many seconds who has no TCP is not asked for it again.
	refusedFor = 600

	// mostRefusing bounds those who are remembered.
	mostRefusing = 100_000

	// tryTime is how long a telephone that has registered over UDP may take to take a connection. What keeps its flow open may let
	// none in, without a word, and somebody waits for the call.
	tryTime = time.Second
)

// refusals are those who have no TCP, until when.
type refusals struct {
	mu    sync.Mutex
	until map[netip.AddrPort]int64
}

func (r *refusals) add(at netip.AddrPort, now int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.until == nil {
		r.until = make(map[netip.AddrPort]int64)
	}
	if len(r.until) >= mostRefusing {
		maps.DeleteFunc(r.until, func(_ netip.AddrPort, until int64) bool { return until <= now })
	}
	if len(r.until) < mostRefusing {
		r.until[at] = now + refusedFor
	}
}

func (r *refusals) has(at netip.AddrPort, now int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.until[at] > now
}

// course is where requests to an end go.
type course struct {
	sip.Way
	turned bool // to where a gateway says that it is, which is not where its call began: see leg.turn
}

func (l *leg) course() course { return course{l.way, l.begun.Remote.IsValid() && l.way != l.begun} }

// ask sends a request of ours, over TCP if it is too large for a datagram. RFC 3261 §18.1.1.
func (a *agent) ask(text []byte, to course, u user) (*transaction.Transaction[user], error) {
	w := a.sized(to, text)
	if u.large = w != to.Way; u.large {
		text = retransported(text, w.Transport)
	}
	return a.table.Ask(text, w, u, a.loop.Now())
}

// carry sends a request that nobody answers: an ACK.
func (a *agent) carry(to course, text []byte) {
	w := a.sized(to, text)
	if w != to.Way {
		text = retransported(text, w.Transport)
	}
	a.core.send(a, w, text)
}

// sized returns the way for a request. To a gateway, and to where it says in a call that it is, a large one goes over TCP; to others
// if the next hop is written as the very address at which it is reached over UDP: behind a NAT, or where it says by which transport
// it is reached, there is nobody who would take a connection. RFC 3261 §18.1.1.
func (a *agent) sized(to course, text []byte) sip.Way {
	w, f := to.Way, ip.FamilyOf(to.Remote.Addr())
	by := transport.Choose(w.Transport, len(text), f)
	if by == w.Transport {
		return w
	}
	gateway := to.turned || a.core.settings.Load().gatewayOf(w) != nil
	switch {
	case !gateway && (len(a.flows) >= mostConnections/2 || !leadsTo(text, w.Remote)):
		return w
	case a.core.refusing.has(w.Remote, now()) && (!gateway || transport.Fallback(len(text), f)):
		return w
	}
	w.Transport = by
	return w
}

// leadsTo says whether the next hop of a request of ours is written as an address, and without a transport.
func leadsTo(text []byte, at netip.AddrPort) bool {
	var m sip.Message
	if m.Parse(text, nil) != nil {
		return false
	}
	hop := m.Target()
	if route := m.Get(sip.Route); route != nil {
		hop = route
	}
	u, err := hopURI(hop)
	if err != nil || u.Scheme != sip.SIP || !u.Host.Addr.IsValid() {
		return false
	}
	_, said := u.Param("transport")
	port := u.Host.Port
	if port == 0 {
		port = sip.UDP.Port()
	}
	return !said && netip.AddrPortFrom(u.Host.Addr, port) == at
}

// fallback sends a request over UDP after all, if it went over TCP for its size alone and may. RFC 3261 §18.1.1: where that was
// refused. We do it too where a telephone was silent, and whatever the size, for it was registered over UDP and is known to be
// reached by it.
func (a *agent) fallback(x *transaction.Transaction[user], err error) *transaction.Transaction[user] {
	w, text, u := x.Way, x.Request(), x.User
	if !u.large || w.Transport != sip.TCP {
		return nil
	}
	w.Transport, u.large = sip.UDP, false
	gateway := u.turned() || a.core.settings.Load().gatewayOf(w) != nil
	if gateway && (!isRefused(err) || !transport.Fallback(len(text), ip.FamilyOf(w.Remote.Addr()))) {
		return nil
	}
	a.core.refusing.add(w.Remote, now())
	again, bad := a.table.Ask(retransported(text, sip.UDP), w, u, a.loop.Now())
	if bad != nil {
		return nil
	}
	return again
}

// turned says whether a request has gone to where a gateway says that it is.
func (u *user) turned() bool {
	switch {
	case u.asked != nil:
		return u.asked.from.peer.course().turned
	case u.refresh != nil:
		return u.refresh.course().turned
	case u.bye != nil:
		return u.bye.course().turned
	}
	return false
}

// noTCP notes that a connection could not be opened: an ACK that was to go over it is lost, and goes over UDP when it is asked for
// again.
func (a *agent) noTCP(to sip.Way, err error) {
	w := to
	w.Transport = sip.UDP
	if to.Transport == sip.TCP && (isRefused(err) || a.core.settings.Load().gatewayOf(w) == nil) {
		a.core.refusing.add(to.Remote, now())
	}
}

// patienceFor is how long opening a connection may take.
func (a *agent) patienceFor(to sip.Way) time.Duration {
	w := to
	w.Transport = sip.UDP
	if s := a.core.settings.Load(); to.Transport == sip.TLS || s.gatewayOf(to) != nil || s.gatewayOf(w) != nil {
		return a.opening
	}
	return min(a.opening, tryTime)
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
