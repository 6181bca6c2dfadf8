// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"net/netip"
	"slices"

	"github.com/kyozon/kyozon/protocol/phone/location"
	"github.com/kyozon/kyozon/protocol/phone/plan"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// trunk is a way to another telephone network.
type trunk struct {
	name     string
	network  *network
	gateways []sip.Way
	national bool // numbers are written so
	domain   string
	country  *plan.Country
}

// resting is how many seconds a gateway that has not taken a call is asked after all others.
const resting = 60

// readTrunks makes the trunks of a service whose networks are known.
func (s *settings) readTrunks(named map[string]*network) {
	s.trunks, s.gateways = make(map[string]*trunk), make(map[gateway]*trunk)
	for name, o := range s.options.Trunks {
		t := &trunk{name: name, network: named[o.Network], national: o.Numbers == national, domain: s.options.Domain, country: s.plan.Country()}
		s.trunks[name] = t
		for _, at := range o.Gateways {
			t.gateways = append(t.gateways, sip.Way{Transport: sip.UDP, Local: t.network.locals[familyIndex(at.Addr())], Remote: at})
			s.gateways[gateway{t.network, at}] = t
		}
	}
}

// gateway is where the calls of a trunk come from.
type gateway struct {
	network *network
	at      netip.AddrPort
}

// trunkOf returns the trunk that a request came by, or nil. A gateway is known by its address and port.
func (s *settings) trunkOf(n *network, w sip.Way) *trunk {
	if w.Transport != sip.UDP {
		return nil
	}
	return s.gateways[gateway{n, w.Remote}]
}

// trusted says whether there is a gateway at an address, whose calls are bounded at its other end.
func (s *settings) trusted(a netip.Addr) bool {
	for g := range s.gateways {
		if g.at.Addr() == a {
			return true
		}
	}
	return false
}

// number returns a number in national form as the trunk has it. What is no number in the world, like 110, stays as it is:
// RFC 3966 §5.1.5 wants a phone-context with it; we write none, because a gateway is in one country.
func (t *trunk) number(n plan.Number) string {
	if !t.national {
		if global, ok := t.country.AppendGlobal(nil, n); ok {
			return string(global)
		}
	}
	return n.String()
}

// address returns the URI of a number at a host. RFC 3261 §19.1.1: user=phone says that it is one.
func (t *trunk) address(number, host string) string {
	return "sip:" + number + "@" + host + ";user=phone"
}

// devices returns the gateways as one device, for a call to a number; those that have just failed come last.
func (t *trunk) devices(c *core, number string) []location.Device {
	var well, ill []location.Binding
	for _, w := range t.gateways {
		b := location.Binding{Contact: t.address(number, w.Remote.String()), Way: w}
		if until, ok := c.failing.Load(w.Remote); ok && until.(int64) > now() { // nothing else is in the map
			ill = append(ill, b)
		} else {
			well = append(well, b)
		}
	}
	return []location.Device{{Bindings: slices.Concat(well, ill)}}
}

// failed notes that a gateway has not taken a call.
func (b *branch) failed() {
	if b.call.trunk != nil {
		b.call.agent.core.failing.Store(b.way.Remote, now()+resting)
	}
}

// again says whether a failure of the way is one for which another is tried: a device is, until it was heard; a gateway
// speaks for itself alone until somebody rings. RFC 3261 §16.7, step 6.
func (b *branch) again(status int, early bool) bool {
	if b.cancel {
		return false
	}
	if b.call.trunk == nil {
		return status == 503 && !b.heard
	}
	return (status == 503 || status == 408) && !early
}

// peer returns who calls by a trunk. RFC 3325 §5: its word counts.
func (e *exchange) peer(t *trunk) *caller {
	c := &caller{trunk: t}
	c.Trusted = true
	c.Preferred = e.told(sip.From)
	c.Asserted = e.told(sip.PAssertedIdentity)
	c.Wish = e.wish()
	return c
}

// told returns the number in a field, in national form, or "".
func (e *exchange) told(k sip.Kind) string {
	a, _, err := sip.ParseAddress(e.message.Get(k))
	if err != nil {
		return ""
	}
	u, err := a.Parse()
	if err != nil {
		return ""
	}
	n, _, ok := e.settings.plan.Country().Read(number(&u))
	if !ok {
		return ""
	}
	return n.String()
}

func familyIndex(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}
