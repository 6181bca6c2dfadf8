// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bytes"
	"math/rand/v2"
	"net/netip"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/protocol/phone/cause"
	"github.com/kyozon/kyozon/protocol/phone/sdp"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/transaction"
	"github.com/kyozon/kyozon/service"
)

// media is how the media of a call go between the caller and one device: directly, or by the relay. Each offer decides that
// anew, and its answer makes it true.
//
//	description of one end ─▶ pass ─▶ Policy.Decide ─▶ direct: it goes to the other end as it is
//	                                       └─▶ relayed: with addresses of the relay, once there are some
//
// Whoever is told to wait comes again with the same description when he is called. It lives on the loop of its call.
type media struct {
	agent *agent
	ends  [2]end   // by control.Side
	terms terms    // of the route
	path  sdp.Path // of the last answer
	asked sdp.Path // of the offer that is not answered
	open  bool     // there is such an offer
	owed  *end     // who has answered an offer of direct media, and must be offered those of the relay
	users int      // those for whom it is kept: the branch, and each leg

	made    []decision // the last ones
	parted  sdp.Path   // why an offer was not carried: the ends are apart
	live    bool       // the call is answered, and not over
	carrier carrier    // that is counted; see carry

	// The relay, as far as there is one.
	id      control.ID
	call    control.Call // once it has its addresses
	held    control.Spec // what is used of it
	busy    bool         // what was asked for is not there yet
	fault   error        // why it will not be
	waiting []func()
	ended   func() // the relay has given up what is no call of two legs
	leg     *leg   // of the call, once it is answered
	parts   int    // of the call that are over, and of which the relay has not said yet what it carried
	settled func() // what is to be done when it has, once the call is over
}

// end is what is known of one end.
type end struct {
	network *network
	local   netip.AddrPort // of the listen, while the network is not known
	signal  netip.Addr     // where its signalling comes from
	behind  bool           // a NAT, as its registration says
	family  ip.Family      // of its media, by the description that holds; 0 if it has none
	offered ip.Family      // by the one that is not answered
	text    []byte         // its description that holds
	offer   []byte         // its description that is not answered

	// What it was shown last. Once that was not what the other end has said, its o= is kept but for the version.
	shown       []byte
	origin      []byte // of the first that it was shown; nil while nothing was changed
	id, version uint64 // of o=, where it is ours
}

// What pass answers beside the status of a refusal.
const (
	passed  = 0 // go on
	patient = 1 // wait: see later
)

// The refusals of a call for its media, beside 503: the relay is not there. RFC 3261 §20.43.
const unrelayed = 488

// typeSDP is the type of descriptions.
const typeSDP = "application/sdp"

// newMedia returns the media between the caller and a device, for one user.
func (a *agent) newMedia(caller, device end) *media {
	m := &media{agent: a, ends: [2]end{caller, device}, users: 1}
	for i := range m.ends {
		m.ends[i].id = rand.Uint64() >> 2
	}
	return m
}

// pass returns what the other end is to be told of a description, and passed; or patient, or the status of a refusal.
func (m *media) pass(from control.Side, text []byte, answer bool) ([]byte, int) {
	for i := range m.ends {
		if e := &m.ends[i]; e.network == nil { // of a call that was taken up
			e.network = m.agent.core.settings.Load().networkAt(e.local)
		}
	}
	s := &m.agent.described
	if err := s.Parse(text, &sdp.Limits{}); err != nil {
		return nil, unrelayed
	}
	if answer {
		if m.forbids(from, s, m.asked) {
			return nil, unrelayed
		}
		return m.answered(from, s, text)
	}
	path := m.decide(from, s)
	switch {
	case path == sdp.Loop:
		m.note(from, path, byRule)
		return nil, unrelayed
	case m.forbids(from, s, path):
		m.note(from, path, byRoute)
		return nil, unrelayed
	}
	m.owed = nil
	if path != sdp.Direct {
		if status := m.reserve(from, s); status != passed {
			if status != patient {
				m.note(from, path, byRelay)
			}
			return nil, status
		}
	}
	m.note(from, path, byNobody)
	m.ends[from].offer, m.ends[from].offered, m.asked, m.open = bytes.Clone(text), familyOf(s), path, true
	if path == sdp.Direct {
		return m.unchanged(from, s, m.ends[from].offer), passed
	}
	if m.ends[1-from].text == nil { // media may come to him before he is answered
		m.update(m.remotes(from, s, nil))
	}
	return m.rewrite(from, s)
}

// decide says how media go after an offer.
func (m *media) decide(from control.Side, s *sdp.Session) sdp.Path {
	set := m.agent.core.settings.Load()
	other := &m.ends[1-from]
	far := sdp.Leg{Network: other.network.name, Source: other.signal}
	if o := &m.agent.counterpart; other.says() != nil && o.Parse(other.says(), &sdp.Limits{}) == nil {
		far.Media = o
	}
	path := set.policy.Decide(sdp.Leg{Network: m.ends[from].network.name, Source: m.ends[from].signal, Media: s}, far)
	if path == sdp.Direct && other.behind && other.says() == nil {
		path = sdp.BehindNAT
	}
	switch path {
	case sdp.OtherNetwork, sdp.OtherFamily, sdp.Loop:
		return path
	}
	switch here := &m.ends[from]; {
	case other.network.media != [2]bool{}:
		return path
	case here.signal.Is4() != other.signal.Is4():
		return sdp.OtherFamily
	}
	return sdp.Direct // nothing is relayed there: perhaps they find each other
}

// answered takes the answer of an end. What both have said holds from now on.
func (m *media) answered(from control.Side, s *sdp.Session, text []byte) ([]byte, int) {
	offerer := &m.ends[1-from]
	if m.open && offerer.offer != nil && m.asked == sdp.Direct && m.turns(from, s) == patient {
		return nil, patient
	}
	moved, was := [2]bool{}, m.path
	if m.open && offerer.offer != nil {
		moved[1-from] = offerer.text != nil && !bytes.Equal(offerer.text, offerer.offer)
		offerer.text, offerer.offer, offerer.family = offerer.offer, nil, offerer.offered
		m.path, m.held, m.open = m.asked, m.call.Spec, false
	}
	moved[from] = m.ends[from].text != nil && !bytes.Equal(m.ends[from].text, text)
	m.ends[from].text, m.ends[from].family = bytes.Clone(text), familyOf(s)
	m.carry()
	other := &m.agent.counterpart
	known := other.Parse(offerer.text, &sdp.Limits{}) == nil
	switch {
	case m.path == sdp.Direct && known && !sdp.SameFamily(other, s): // he could send it nothing
		return nil, unrelayed
	case m.path == sdp.Direct:
		m.part(was)
		return m.unchanged(from, s, m.ends[from].text), passed
	case !known:
		return nil, unrelayed
	}
	remotes := append(m.remotes(from, s, other), m.remotes(1-from, other, s)...)
	for i := range remotes {
		remotes[i].Learn = moved[remotes[i].Side]
	}
	m.update(remotes)
	return m.rewrite(from, s)
}

// says returns what an end says of its media: what is not answered yet, or what holds.
func (e *end) says() []byte {
	if e.offer != nil {
		return e.offer
	}
	return e.text
}

// refused forgets an offer that was not taken.
func (m *media) refused() {
	if !m.open {
		return
	}
	m.open = false
	for i := range m.ends {
		m.ends[i].offer = nil
	}
	switch {
	case m.path == sdp.Direct:
		m.leave() // it has carried nothing
	case m.call.Spec != m.held:
		m.ask(m.held)
	}
}

// unchanged returns a description for the other end with where its media go: it is as it came, text, unless another was shown before.
func (m *media) unchanged(from control.Side, s *sdp.Session, text []byte) []byte {
	e := &m.ends[1-from]
	if e.origin == nil {
		e.shown = text
		return text
	}
	return e.show(&sdp.Rewrite{Origin: e.origin}, func(r *sdp.Rewrite) []byte { return s.AppendOrigin(nil, r) })
}

// rewrite returns a description with the addresses of the relay for the other end.
func (m *media) rewrite(from control.Side, s *sdp.Session) ([]byte, int) {
	to := 1 - from
	local, e := m.call.Local[to], &m.ends[to]
	if len(local) == 0 {
		return nil, unrelayed
	}
	e.pin()
	r := sdp.Rewrite{Addr: local[0].RTP.Addr(), Media: make([]sdp.Endpoint, s.Len()), ID: e.id, Origin: e.origin}
	for i := range r.Media {
		if i < len(local) && s.Media(i).Transport != sdp.Other && s.Media(i).Ports == 1 {
			r.Media[i] = endpoint(local[i])
		}
	}
	out := e.show(&r, func(r *sdp.Rewrite) []byte {
		out, _ := s.Append(nil, r) // there is an endpoint for each m-line, and an address
		return out
	})
	if e.origin == nil {
		var told sdp.Session
		if told.Parse(out, &sdp.Limits{}) != nil {
			return nil, unrelayed
		}
		e.origin = bytes.Clone(told.Origin())
	}
	return out, passed
}

// pin keeps the o= that an end was shown as the other had said it. RFC 3264 §8: it is one session, wherever its media go.
func (e *end) pin() {
	var told sdp.Session
	if e.origin == nil && len(e.shown) > 0 && told.Parse(e.shown, &sdp.Limits{}) == nil {
		e.origin, e.version = told.Origin(), told.Version()
	}
}

// show returns what an end is shown. The version of o= grows by one if anything else is new. RFC 3264 §8.
func (e *end) show(r *sdp.Rewrite, write func(*sdp.Rewrite) []byte) []byte {
	r.Version = max(e.version, 1)
	out := write(r)
	if e.shown != nil && !bytes.Equal(out, e.shown) {
		r.Version++
		out = write(r)
	}
	e.shown, e.version = out, r.Version
	return out
}

func endpoint(l control.Local) sdp.Endpoint {
	p := sdp.Endpoint{Addr: l.RTP}
	if l.RTCP.Port() != l.RTP.Port()+1 {
		p.RTCP = l.RTCP.Port()
	}
	return p
}

// remotes returns what the relay is to know of an end, of whose description other is the counterpart, if there is one.
func (m *media) remotes(side control.Side, s, other *sdp.Session) (all []control.Remote) {
	for i := range min(s.Len(), m.call.Streams) {
		d := s.Media(i)
		r := control.Remote{Side: side, Stream: uint8(i), Signal: m.ends[side].proved(), DSCP: dscp(s.Name(i)), Mux: d.Mux, Held: d.Held(),
			Opaque: d.Transport == sdp.UDPTL, Clock: s.Clock(i)}
		if other != nil && i < other.Len() {
			r.Mux = r.Mux && other.Media(i).Mux
			r.Held = r.Held || other.Media(i).Held()
		}
		if d.Live() && (reachable(d) || r.Signal.IsValid() && d.Addr.IsValid()) {
			r.RTP = netip.AddrPortFrom(d.Addr, d.Port)
			if d.RTCP != 0 {
				r.RTCP = netip.AddrPortFrom(d.Addr, d.RTCP)
			}
		}
		all = append(all, r)
	}
	return all
}

// proved returns where the signalling of an end comes from, if its media may come from there too, and are not to go elsewhere
// before they were heard. What a gateway says is believed: its media may have an address of their own.
func (e *end) proved() netip.Addr {
	if e.network != nil && !e.network.subscribers { // nil: the call has just been taken up, and who was heard is known
		return netip.Addr{}
	}
	return e.signal
}

// reachable says whether somebody may be sent media at the address that he has named.
func reachable(d *sdp.Media) bool {
	switch d.Kind {
	case sdp.Global, sdp.Private, sdp.NAT64:
		return d.Addr.IsValid()
	}
	return false
}

// The classes of what the relay sends. RFC 4594 §4.1, §4.4.
const (
	expedited = 46
	video     = 34 // AF41
)

func dscp(name []byte) uint8 {
	if string(name) == "video" {
		return video
	}
	return expedited
}

// shape returns what the relay is asked for, or false if a network has no address for media of a family.
func (m *media) shape(from control.Side, s *sdp.Session) (control.Spec, bool) {
	spec := control.Spec{Streams: min(max(s.Len(), 1, m.call.Streams), control.MaxStreams)}
	for i := range m.ends {
		e := &m.ends[i]
		family := ip.FamilyOf(e.signal)
		described := s
		if control.Side(i) != from {
			if described = &m.agent.counterpart; e.says() == nil || described.Parse(e.says(), &sdp.Limits{}) != nil {
				described = nil
			}
		}
		if f := familyOf(described); f != 0 {
			family = f
		}
		if !e.network.media[indexOf(family)] {
			return spec, false
		}
		spec.Networks[i] = service.MediaName(e.network.name, family)
	}
	return spec, true
}

// familyOf returns the family of the first medium of a description that is used; 0 if there is none.
func familyOf(s *sdp.Session) ip.Family {
	for i := range length(s) {
		if d := s.Media(i); d.Live() {
			return d.Family
		}
	}
	return 0
}

func length(s *sdp.Session) int {
	if s == nil {
		return 0
	}
	return s.Len()
}

// offers says whether there is an offer of an end that is not answered.
func (m *media) offers(side control.Side) bool { return m.open && m.ends[side].offer != nil }

// side returns which end of the call a leg is.
func (l *leg) side() control.Side {
	if l.near {
		return control.Caller
	}
	return control.Callee
}

// wait has f look at a message again when there are addresses for media, or none.
func (l *leg) wait(m *sip.Message, f func(m *sip.Message)) {
	text := append(bytes.Clone(m.Head()), body(m)...)
	l.media.later(func() {
		if m := &l.agent.message; m.Parse(text, nil) == nil {
			f(m)
		}
	})
}

// unrelayed ends a call of which an end has offered media, in a response, that cannot come to the other.
func (l *leg) unrelayed(m, came *sip.Message, x *transaction.Transaction[user], status int) {
	a := l.agent
	first := x.User.call != nil
	if first && !x.User.call.over {
		x.User.call.end(status, byEdge)
		return
	}
	if m.Status()/100 == 2 && came.Is("INVITE") {
		l.peer.acknowledge(nil)
	}
	answer := &sip.Answer{Status: status, Tag: []byte(l.session.LocalTag)}
	a.rendered = answer.Append(a.rendered[:0], came, x.Way.Remote)
	l.sent(a.rendered)
	a.table.Answer(x, a.rendered, status, a.loop.Now())
	if !first {
		l.silent()
		return
	}
	if r := l.record; r != nil { // it was not answered after all
		l.record, l.peer.record, l.media.live = nil, nil, false
		l.media.carry()
		r.Answer, r.Status, r.Cause = nil, status, int(cause.OfStatus(status))
		a.core.close(r, byEdge, l.kept+l.peer.kept)
	}
	l.peer.hangUp()
	l.over()
}
