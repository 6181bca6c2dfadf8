// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"slices"
	"strings"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/protocol/phone/location"
	"github.com/kyozon/kyozon/protocol/phone/plan"
	"github.com/kyozon/kyozon/protocol/phone/sdp"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// terms are what the route of a call says of its media. The zero value relays whatever must be.
type terms struct {
	family ip.Family // the only one of telephones; 0: either
	apart  string    // what becomes of a call whose ends are apart: refuse, or a trunk; "" relays it
	phones [2]bool   // which ends are telephones, by control.Side
	out    string    // the trunk that the call goes out by because they were apart
	why    sdp.Path  // how
}

// termsOf returns what a route says of the media of a call. Whoever calls for help is carried as can be; and a call that has come
// from another network, perhaps because it has gone out to there, is not sent there again.
func termsOf(r *plan.Route, d *plan.Decision, by *caller) terms {
	if d.Emergency {
		return terms{}
	}
	t := terms{family: familyNamed(r.Family), apart: r.Apart, phones: [2]bool{by.trunk == nil, r.Via == viaSubscribers}}
	if t.apart == plan.Relay || r.Via != viaSubscribers || by.trunk != nil {
		t.apart = ""
	}
	return t
}

// familyNamed returns the family of a word of the file, which was checked; 0 for none.
func familyNamed(word string) ip.Family {
	for _, f := range [...]ip.Family{ip.V4, ip.V6} {
		if f.String() == word {
			return f
		}
	}
	return 0
}

// unspoken is the answer to a call in a family in which it is not to be carried. RFC 3261 §20.43.
func unspoken(f ip.Family) *sip.Answer {
	return &sip.Answer{Status: unrelayed, Phrase: "Only Over " + phrase(f),
		Lines: []byte(`Warning: 301 kyozon "calls to this number are carried over ` + phrase(f) + ` alone"` + "\r\n")}
}

func phrase(f ip.Family) string { return "IP" + strings.TrimPrefix(f.String(), "ip") }

// over leaves only the telephones, and the ways to them, that are reached over a family, and says why a call cannot go there.
// Gateways may have any: they join families.
func (d *destination) over(f ip.Family, by *caller, e *exchange) *sip.Answer {
	if f == 0 {
		return nil
	}
	if by.trunk == nil && ip.FamilyOf(e.transaction.Way.Remote.Addr()) != f {
		return unspoken(f)
	}
	if d.trunk != nil {
		return nil
	}
	var left []location.Device
	for _, one := range d.devices {
		one.Bindings = slices.DeleteFunc(slices.Clone(one.Bindings), func(b location.Binding) bool {
			return ip.FamilyOf(b.Way.Remote.Addr()) != f
		})
		if len(one.Bindings) > 0 {
			left = append(left, one)
		}
	}
	if d.devices = left; len(left) == 0 {
		return &sip.Answer{Status: 480, Phrase: "Not Reached Over " + phrase(f)}
	}
	return nil
}

// forbids says whether the route of the call does not let media go as they would.
func (m *media) forbids(from control.Side, s *sdp.Session, path sdp.Path) bool {
	t := &m.terms
	if f := familyOf(s); t.family != 0 && t.phones[from] && f != 0 && f != t.family {
		return true
	}
	if t.apart == "" || path != sdp.OtherNetwork && path != sdp.OtherFamily {
		return false
	}
	m.parted = path
	return true
}

// unheard says the same before anything is said of media: by where signalling comes from.
func (m *media) unheard() bool {
	path := m.decide(control.Caller, nil)
	if path == sdp.Direct && m.ends[control.Caller].signal.Is4() != m.ends[control.Callee].signal.Is4() {
		path = sdp.OtherFamily
	}
	return m.forbids(control.Caller, nil, path)
}

// detour sends a call whose ends are apart out by the trunk that its route names for it, if no device has answered for itself. It
// returns false if the call has failed.
func (c *call) detour() bool {
	set := c.agent.core.settings.Load()
	t := set.trunks[c.terms.apart]
	if m := &c.agent.other; t == nil || m.Parse(c.invite, nil) != nil || schemeOf(m.Target()) == sip.SIPS {
		return false
	}
	i := slices.IndexFunc(c.branches, func(b *branch) bool { return b.media != nil && b.media.parted != sdp.Direct })
	if i < 0 || slices.ContainsFunc(c.branches, func(b *branch) bool { return b.said }) {
		return false
	}
	c.terms = terms{out: t.name, why: c.branches[i].media.parted} // the gateway is in another network, as it must be
	s, o := &c.agent.core.seats, set.options.Trunks[t.name]
	s.free(c.record.ID)
	all := []seat{seatOf(c.caller.trunk, c.caller.Who()), seatOf(t, t.name)}
	_, ok := s.take(c.record.ID, all, func(one seat) int {
		if one.trunk {
			return o.Channels
		}
		return 0 // the caller has had his seat already
	}, false)
	if !ok || !s.calm(t.name, o.Rate, time.Now()) {
		c.unanswered(503, byEdge)
		c.refuseBusy()
		return true
	}
	n := t.number(c.number)
	c.trunk, c.peer, c.called = t, t.name, t.address(n)
	c.branches = nil
	for _, d := range t.devices(c.agent, n) {
		c.branches = append(c.branches, &branch{call: c, bindings: d.Bindings})
	}
	for _, b := range slices.Clone(c.branches) {
		b.try()
	}
	return true
}

// refuseBusy answers the caller that a trunk has no room.
func (c *call) refuseBusy() {
	c.over = true
	delete(c.agent.calls, c)
	c.reply(busyTrunk())
}
