// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"crypto/x509"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/phone/digest"
	"github.com/kyozon/kyozon/protocol/phone/location"
	"github.com/kyozon/kyozon/protocol/phone/plan"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// trunk is a way to another telephone network.
type trunk struct {
	name     string
	network  *network
	written  []Gateway
	located  map[string][]*gateway // those that are written with an address, by what is written
	onward   []string              // trunks that its calls may go on to
	health   time.Duration
	national bool // numbers are written so
	domain   string
	country  *plan.Country
	plain    bool           // without user=phone
	foreign  bool           // its word does not count, and it keeps nothing to itself
	without  []string       // extensions that it is not told of
	login    *digest.Client // who we are to it, or nil

	// Of TLS: who may sign, whom the certificates must be for, and whether gateways that open a connection must show one.
	authorities *x509.CertPool
	certified   string
	proves      bool
}

// makeTrunks makes the trunks of a service whose networks and files are known.
func (s *settings) makeTrunks(named map[string]*network, from map[string]trunkFiles) error {
	s.trunks, s.partners = make(map[string]*trunk), make(map[string]partner)
	for _, name := range slices.Sorted(maps.Keys(s.options.Trunks)) {
		o := s.options.Trunks[name]
		t := &trunk{name: name, written: o.Gateways, network: named[o.Network], national: o.Numbers == national, domain: s.options.Domain,
			country: s.plan.Country(), onward: o.Onward, health: o.Health, plain: o.Plain, foreign: o.Foreign, without: o.Without}
		t.located = make(map[string][]*gateway)
		for i := range t.written {
			if at := &t.written[i].At; !at.isName() {
				t.located[at.text] = t.locate(&t.written[i], nil, nil)
			}
		}
		s.trunks[name] = t
		s.sorted = append(s.sorted, t)
		if err := s.takeLogins(t, &o, from[name]); err != nil {
			return err
		}
		if o.TLS != nil {
			t.certified, t.proves, t.authorities = o.TLS.Name, o.TLS.Require, from[name].authorities
		}
	}
	return nil
}

// number returns a number in national form as the trunk has it. What is no number in the world, like 110, stays as it is:
// RFC 3966 §5.1.5 wants a phone-context with it; we write none, because a gateway is in one country.
func (t *trunk) number(n plan.Number) string {
	if !t.national {
		var b [32]byte
		if global, ok := t.country.AppendGlobal(b[:0], n); ok {
			return string(global)
		}
	}
	return n.String()
}

// address returns the URI of a number. RFC 3261 §19.1.1: user=phone says that it is one.
func (t *trunk) address(number string) string {
	return "sip:" + number + "@" + t.domain + t.phone()
}

// phone is the parameter that says so, where the trunk has it.
func (t *trunk) phone() string {
	if t.plain {
		return ""
	}
	return ";user=phone"
}

// trim leaves out of a call what a trunk is not to be told of.
func (t *trunk) trim(e *sip.Editor, m *sip.Message) {
	if len(t.without) == 0 || !m.Has(sip.Supported) {
		return
	}
	var left []string
	for value, i := m.Field(sip.Supported, 0); value != nil; value, i = m.Field(sip.Supported, i) {
		for word := range strings.SplitSeq(string(value), ",") {
			word = strings.TrimSpace(word)
			if !slices.ContainsFunc(t.without, func(s string) bool { return strings.EqualFold(s, word) }) {
				left = append(left, word)
			}
		}
	}
	e.Replace(sip.Supported, []byte(strings.Join(left, ", ")))
}

// devices returns the gateways as one device, for a call to a number; those that have just failed come last.
func (t *trunk) devices(a *agent, number string) []location.Device {
	var d location.Device
	for _, g := range t.order(a.core, a.core.settings.Load().directory.Load().answers, a.loop.Now()) {
		d.Bindings = append(d.Bindings, location.Binding{Contact: g.scheme + ":" + number + "@" + g.host, Way: g.way})
	}
	return []location.Device{d}
}

// failed notes that a gateway has not taken a call.
func (b *branch) failed() {
	c := b.call.agent.core
	if g := c.settings.Load().gatewayOf(b.way); g != nil {
		at := g.target
		at.Transport = b.way.Transport // it may have several
		c.dead.Lock()
		c.dead.Failed(at, b.call.agent.loop.Now(), 0)
		c.dead.Unlock()
	}
}

// unsent is called when the INVITE of a branch could not be sent.
func (b *branch) unsent() {
	b.x, b.status, b.said = nil, 503, false
	b.failed()
	if !b.cancel {
		b.try()
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

// peer returns who calls by a trunk. RFC 3325 §5: its word counts, if it is one of our network.
func (e *exchange) peer(t *trunk) *caller {
	c := &caller{trunk: t}
	c.Trusted = true
	c.Preferred = e.told(sip.From)
	if !t.foreign {
		c.Asserted = e.told(sip.PAssertedIdentity)
	}
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

func familyIndex(a netip.Addr) int { return indexOf(ip.FamilyOf(a)) }

func indexOf(f ip.Family) int {
	if f == ip.V4 {
		return 0
	}
	return 1
}
