// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bytes"
	"maps"
	"net/netip"

	"github.com/kyozon/kyozon/protocol/phone/sdp"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/target"
	"github.com/kyozon/kyozon/resolve"
)

// hop is where requests within a dialog go next: where its route set begins or, without one, to its target. RFC 3261
// §12.2.1.1.
func (l *leg) hop() string {
	if routes := l.session.Routes; len(routes) > 0 {
		return routes[0]
	}
	return l.session.Target
}

// home is the way by which a leg has begun, on which its gateway is known.
func (l *leg) home() sip.Way {
	if l.begun.Remote.IsValid() {
		return l.begun
	}
	return l.way
}

// aim has requests to an end that is a gateway go to the next hop of its dialog, whenever that is another. A telephone is
// reached by the flow that it has registered over, and no other way.
//
// A hop that we cannot reach changes nothing: then they go where the INVITE went or came from, and so they do until the DNS
// has answered.
func (l *leg) aim() {
	next := l.hop()
	if next == l.aimed {
		return
	}
	l.aimed = next
	home, s := l.home(), l.agent.core.settings.Load()
	if s.gatewayOf(home) == nil {
		return
	}
	l.begun, l.way = home, home
	a := l.agent
	a.hop = append(a.hop[:0], next...)
	if u, err := hopURI(a.hop); err != nil || !leadsHome(&u, home) {
		l.seek(next)
	}
}

// leadsHome says whether a hop is named by the address that a leg has begun with, as gateways mostly do: there is nothing to find
// out.
func leadsHome(u *sip.URI, home sip.Way) bool {
	if u.Host.Addr != home.Remote.Addr() || u.Host.Port != home.Remote.Port() {
		return false
	}
	_, said := u.Param("transport")
	_, elsewhere := u.Param("maddr")
	return !said && !elsewhere
}

// seek finds where a hop is, and turns there unless another is next by then.
func (l *leg) seek(next string) {
	u, err := hopURI([]byte(next))
	if err != nil {
		return
	}
	s := l.agent.core.settings.Load()
	l.agent.locate(&u, s.networkAt(l.begun.Local).reach(), s.directory.Load().answers, mostSteps, func(found []target.Target) {
		if !l.gone && l.aimed == next {
			l.turn(&u, found)
		}
	})
}

// hopURI reads a hop: a Route in brackets, or a URI.
func hopURI(hop []byte) (sip.URI, *sip.Error) {
	if bytes.IndexByte(hop, '<') < 0 {
		return sip.ParseURI(hop)
	}
	first, _, err := sip.ParseAddress(hop)
	if err != nil {
		return sip.URI{}, err
	}
	return sip.ParseURI(first.URI)
}

// turn takes the way to one of the places that a hop was found at: that of the gateway if it is among them, else the first. One
// that is reached over connections, and does not say so in its Contact, may name the port of one that it has opened.
func (l *leg) turn(u *sip.URI, found []target.Target) {
	home, s := l.home(), l.agent.core.settings.Load()
	_, said := u.Param("transport")
	for _, t := range found {
		same := t.Addr == home.Remote && (t.Transport == home.Transport || !said)
		if same || t.Addr.Addr() == home.Remote.Addr() && home.Transport.Reliable() && !said {
			return
		}
	}
	n := s.networkAt(home.Local)
	for _, t := range found {
		w := sip.Way{Transport: t.Transport, Local: n.local(t.Transport, t.Addr.Addr()), Remote: t.Addr}
		if w.Local.IsValid() && s.leads(home, w) {
			l.way = w
			return
		}
	}
}

// leads says whether requests of a dialog that has begun on one way may go another. They do not come back to us, do not go
// behind the NAT of a gateway, which does not know its own address then, and in TLS they go to the gateway alone, of which we
// know whom it must prove to be.
func (s *settings) leads(from, to sip.Way) bool {
	kind := sdp.KindOf(to.Remote.Addr())
	switch {
	case s.networks[to.Remote] != nil, kind == sdp.Unspecified, kind == sdp.Multicast:
		return false
	case kind == sdp.Private && sdp.KindOf(from.Remote.Addr()) == sdp.Global:
		return false
	}
	return to.Transport != sip.TLS || s.gatewayOf(to) != nil && s.gatewayOf(to).trunk == s.gatewayOf(from).trunk
}

// locate finds where a URI leads, by what is known and then by the DNS, and calls done on the loop of a: at once, if nobody has
// to be asked.
func (a *agent) locate(u *sip.URI, r target.Reach, known *target.Answers, steps int, done func([]target.Target)) {
	found, missing, err := target.Locate(u, r, known)
	resolver := a.core.resolver.Load()
	if err != nil || len(missing) == 0 || steps == 0 || resolver == nil {
		done(found)
		return
	}
	more := &target.Answers{Naptr: maps.Clone(known.Naptr), Srv: maps.Clone(known.Srv), Addr: maps.Clone(known.Addr)}
	if more.Addr == nil {
		more = &target.Answers{Naptr: make(map[string][]target.Naptr), Srv: make(map[string][]target.Srv), Addr: make(map[target.Question][]netip.Addr)}
	}
	left := len(missing)
	for _, q := range missing {
		resolver.Ask(resolve.Question{Name: q.Name, Type: typeOf(q)}, func(got resolve.Answer) {
			a.loop.Post(func() {
				add(more, q, &got, nil)
				if left--; left == 0 {
					a.locate(u, r, more, steps-1, done)
				}
			})
		})
	}
}
