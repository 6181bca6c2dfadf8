// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"cmp"
	"slices"
	"strings"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/phone/location"
	"github.com/kyozon/kyozon/protocol/phone/plan"
	"github.com/kyozon/kyozon/protocol/phone/sdp"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// destination is where a call goes.
type destination struct {
	address string // of record, or of a number on the trunk
	peer    string // the name of the subscriber, or of the trunk
	devices []location.Device
	trunk   *trunk // nil if it is a subscriber's
	number  plan.Number
	terms   terms

	announce *announcement // what is heard instead, or nil
}

// reach returns where a caller's call goes, or why it goes nowhere.
func (e *exchange) reach(by *caller) (*destination, *sip.Answer) {
	to, refusal := e.find(by)
	if refusal == nil && schemeOf(e.message.Target()) == sip.SIPS && to.announce == nil && !to.secure() {
		return nil, &sip.Answer{Status: 480, Phrase: "Not Reached In TLS"}
	}
	if refusal == nil && e.looped(to.address) {
		return nil, &sip.Answer{Status: 482}
	}
	if refusal == nil {
		refusal = to.over(to.terms.family, by, e)
	}
	if refusal == nil {
		refusal = e.admit(by, to)
	}
	return to, refusal
}

// find returns where a caller's call goes by its number, or why it goes nowhere.
func (e *exchange) find(by *caller) (*destination, *sip.Answer) {
	target, err := sip.ParseURI(e.message.Target())
	switch {
	case err != nil:
		return nil, &sip.Answer{Status: err.Status}
	case target.Scheme != sip.TEL && target.Host.Addr != e.transaction.Way.Local.Addr() &&
		!strings.EqualFold(string(target.Host.Name), e.settings.options.Domain):
		return nil, &sip.Answer{Status: 404, Phrase: "Not Of This Domain"}
	}
	dialled := number(&target)
	if e.settings.plan == nil {
		e.record.Dialled, e.record.To, e.record.Withheld = dialled, dialled, by.Withheld()
		return e.subscriber(dialled)
	}
	d := e.settings.plan.Look(dialled, by.Who())
	by.Prefix = d.Privacy // from now on it is the caller's wish, and not part of the number
	e.routed(dialled, by, &d)
	route := e.settings.plan.Route(&d)
	switch {
	case d.Kind == plan.Incomplete: // RFC 3261 §21.4.22
		return nil, &sip.Answer{Status: 484}
	case route == nil:
		return nil, &sip.Answer{Status: 404}
	case route.Deny != "":
		return nil, &sip.Answer{Status: 403, Phrase: route.Deny}
	case route.Announce != "":
		return &destination{address: "sip:" + d.Number.String() + "@" + e.settings.options.Domain, announce: e.settings.announcements[route.Announce]}, nil
	case route.Via == viaSubscribers:
		to, refusal := e.subscriber(d.Number.String())
		if to != nil {
			to.number, to.terms = d.Number, termsOf(route, &d, by)
		}
		return to, refusal
	case by.trunk != nil && !slices.Contains(by.trunk.onward, route.Via): // not at our expense
		return nil, &sip.Answer{Status: 404, Phrase: "Not A Number Of Ours"}
	}
	t := e.settings.trunks[route.Via] // checked
	n := t.number(d.Number)
	return &destination{address: t.address(n), peer: t.name, devices: t.devices(e.agent, n), trunk: t,
		number: d.Number, terms: termsOf(route, &d, by)}, nil
}

// schemeOf returns the scheme of a URI that has one.
func schemeOf[T string | []byte](uri T) sip.Scheme {
	if len(uri) > 5 && strings.EqualFold(string(uri[:5]), "sips:") {
		return sip.SIPS
	}
	return sip.SIP
}

// secure leaves only what is reached by a SIPS URI, over TLS, as a call to one must be. RFC 3261 §26.2.2. It says whether
// there is any.
func (d *destination) secure() bool {
	var all []location.Device
	for _, one := range d.devices {
		var left []location.Binding
		for _, b := range one.Bindings {
			if b.Way.Transport == sip.TLS && schemeOf(b.Contact) == sip.SIPS {
				left = append(left, b)
			}
		}
		if len(left) > 0 {
			one.Bindings = left
			all = append(all, one)
		}
	}
	d.devices = all
	return len(all) > 0
}

// subscriber returns where the subscriber of a name is reached.
func (e *exchange) subscriber(name string) (*destination, *sip.Answer) {
	called := e.settings.subscriber(name)
	if called == nil {
		return nil, &sip.Answer{Status: 404}
	}
	devices := e.agent.core.places.Look(called.address, now())
	if len(devices) == 0 {
		return nil, &sip.Answer{Status: 480}
	}
	e.prefer(devices)
	return &destination{address: called.address, peer: name, devices: devices}, nil
}

// prefer has devices that are reached over both families tried first over that in which the caller offers his media: then they go
// directly, and else they would be relayed.
func (e *exchange) prefer(devices []location.Device) {
	var offered ip.Family // 0 while nobody has asked
	for _, d := range devices {
		if len(d.Bindings) < 2 {
			continue
		}
		if offered == 0 {
			offered = e.offered()
		}
		near := func(b *location.Binding) int {
			if e.settings.networks[b.Way.Local] == e.network && ip.FamilyOf(b.Way.Remote.Addr()) == offered {
				return 1
			}
			return 0
		}
		slices.SortStableFunc(d.Bindings, func(a, b location.Binding) int {
			return cmp.Or(int(b.Quality)-int(a.Quality), near(&b)-near(&a))
		})
	}
}

// offered returns the family of the media that the caller offers, or of his signalling, if he offers none.
func (e *exchange) offered() ip.Family {
	s := &e.agent.described
	if describes(e.message) && s.Parse(descriptionOf(e.message), &sdp.Limits{}) == nil {
		for i := range s.Len() {
			if m := s.Media(i); m.Live() {
				return m.Family
			}
		}
	}
	return ip.FamilyOf(e.transaction.Way.Remote.Addr())
}

// unbounded says whether a request is never refused because there are too many: an emergency call, or one that a gateway
// brings, which has bounds of its own.
func (e *exchange) unbounded() bool {
	s := e.settings
	if s.plan == nil || !e.message.Is("INVITE") {
		return false
	}
	if s.gatewayOf(e.transaction.Way) != nil {
		return true
	}
	return s.emergency(e.message)
}

// emergency says whether a request is a call for help.
func (s *settings) emergency(m *sip.Message) bool {
	if s.plan == nil || !m.Is("INVITE") {
		return false
	}
	target, err := sip.ParseURI(m.Target())
	if err != nil {
		return false
	}
	d := s.plan.Look(number(&target), "")
	return d.Emergency
}
