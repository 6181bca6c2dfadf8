// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/target"
)

// errPlace means that a text is not where a gateway can be.
var errPlace = errors.New(`write an address with its port, like 10.0.5.11:5060, or a URI, like "sip:10.0.5.11;transport=tcp" or "sip:carrier.example.jp"`)

// Place is where a gateway is.
type Place struct {
	text string
	uri  sip.URI
}

// UnmarshalText reads an address with its port, which is reached over UDP, or a URI.
func (p *Place) UnmarshalText(text []byte) error {
	if p.text = string(text); p.read(text) != nil {
		return placeError(p.text)
	}
	return nil
}

// placeError says what is to be written in the place of a text.
func placeError(text string) error {
	bare, err := netip.ParseAddr(strings.Trim(text, "[]"))
	host, port, found := cutPort(text)
	switch {
	case found && err == nil && len(port) > 3: // 2001:db8::11:5060 is an address too, but hardly one that was meant
		return fmt.Errorf(`write "%s"`, netip.AddrPortFrom(host, sip.UDP.Port()).String())
	case err == nil:
		return fmt.Errorf(`there is no port; write "%s"`, netip.AddrPortFrom(bare, sip.UDP.Port()))
	case found:
		return fmt.Errorf(`%s is no port; write one from 1 to 65535, like "%s"`, port, netip.AddrPortFrom(host, sip.UDP.Port()))
	}
	return errPlace
}

// cutPort takes a text apart that looks like an address and a number.
func cutPort(text string) (netip.Addr, string, bool) {
	at := strings.LastIndexByte(text, ':')
	if at < 0 || strings.Trim(text[at+1:], "0123456789") != "" {
		return netip.Addr{}, "", false
	}
	host, err := netip.ParseAddr(strings.Trim(text[:at], "[]"))
	return host, text[at+1:], err == nil
}

func (p *Place) read(text []byte) error {
	if at, err := netip.ParseAddrPort(p.text); err == nil {
		at = netip.AddrPortFrom(ip.Canonical(at.Addr()), at.Port())
		if at.Port() == 0 || at.Addr().Zone() != "" || at.Addr().IsUnspecified() {
			return errPlace
		}
		text = append(sip.AppendHost([]byte("sip:"), at.Addr(), at.Port()), ";transport=udp"...)
	}
	u, err := sip.ParseURI(slices.Clone(text))
	if err != nil || u.Scheme == sip.TEL || len(u.User) > 0 || !u.Host.Addr.IsValid() && !isDomain(string(u.Host.Name)) {
		return errPlace
	}
	if _, ok := u.Param("maddr"); ok {
		return errPlace // it would be reached elsewhere than it says
	}
	p.uri = u
	return nil
}

// MarshalText returns the text that was read.
func (p Place) MarshalText() ([]byte, error) { return []byte(p.text), nil }

// where returns what tells it from other places.
func (p *Place) where() string {
	t := sip.UDP
	if p.isTLS() {
		t = sip.TLS
	}
	return hostPort(&p.uri.Host, cmp.Or(p.uri.Host.Port, t.Port()))
}

// isTLS says whether it is reached in TLS, whatever the DNS says.
func (p *Place) isTLS() bool {
	v, _ := p.uri.Param("transport")
	return p.uri.Scheme == sip.SIPS || strings.EqualFold(string(v), "tls")
}

// isName says whether its addresses are the DNS's to say.
func (p *Place) isName() bool { return !p.uri.Host.Addr.IsValid() }

// domain returns its host.
func (p *Place) domain() string {
	if p.isName() {
		return strings.ToLower(string(p.uri.Host.Name))
	}
	return p.uri.Host.Addr.String()
}

// host returns the host of URIs by which it is asked, with what follows: what was resolved is what is asked for.
func (p *Place) host(t *trunk) string {
	text := hostPort(&p.uri.Host, p.uri.Host.Port) + t.phone()
	if v, ok := p.uri.Param("transport"); ok && p.isURI() {
		text += ";transport=" + string(v)
	}
	return text
}

func hostPort(h *sip.Host, port uint16) string {
	if h.Addr.IsValid() {
		return string(sip.AppendHost(nil, h.Addr, port))
	}
	if port == 0 {
		return strings.ToLower(string(h.Name))
	}
	return strings.ToLower(string(h.Name)) + ":" + strconv.Itoa(int(port))
}

// isURI says whether it was written as a URI.
func (p *Place) isURI() bool { return strings.HasPrefix(strings.ToLower(p.text), "sip") }

// UnmarshalText reads where it is.
func (g *Gateway) UnmarshalText(text []byte) error { return g.At.UnmarshalText(text) }

// gateway is one of a trunk, at one address.
type gateway struct {
	trunk  *trunk
	target target.Target
	way    sip.Way // of requests to it
	scheme string  // of the URIs by which it is asked
	host   string  // and their host, with what follows
	domain string  // that host alone
	named  bool    // it is a name
}

// point is where requests of a gateway come from, or go to.
type point struct {
	network *network
	at      netip.AddrPort
}

// locate finds the addresses of a gateway of a trunk by what the DNS has said, in the order that the dice give.
func (t *trunk) locate(o *Gateway, a *target.Answers, roll func(int) int) (all []*gateway) {
	if known, ok := t.located[o.At.text]; ok {
		return known
	}
	r := t.network.reach()
	r.Roll = roll
	found, _, err := target.Locate(&o.At.uri, r, a)
	if err != nil {
		return nil // checked, or the DNS knows nobody
	}
	for _, at := range found {
		g := &gateway{trunk: t, target: at, scheme: "sip", host: o.At.host(t), domain: o.At.domain(), named: o.At.isName()}
		g.way = sip.Way{Transport: at.Transport, Local: t.network.local(at.Transport, at.Addr.Addr()), Remote: at.Addr}
		if !g.way.Local.IsValid() {
			continue // TLS has other listens, perhaps not of both families
		}
		if o.At.uri.Scheme == sip.SIPS {
			g.scheme = "sips"
		}
		all = append(all, g)
	}
	return all
}

// reach says what a network can send to.
func (n *network) reach() target.Reach {
	var r target.Reach
	for _, f := range [...]ip.Family{ip.V6, ip.V4} { // RFC 6724 §2.1: the default table prefers IPv6
		if i := indexOf(f); n.locals[i].IsValid() || n.secures[i].IsValid() {
			r.Families = append(r.Families, f)
		}
	}
	if n.locals[0].IsValid() || n.locals[1].IsValid() {
		r.Transports = append(r.Transports, sip.UDP, sip.TCP)
	}
	if n.secures[0].IsValid() || n.secures[1].IsValid() {
		r.Transports = append(r.Transports, sip.TLS)
	}
	return r
}

// local returns our address for requests to another; it is not valid if there is none.
func (n *network) local(t sip.Transport, to netip.Addr) netip.AddrPort {
	if t == sip.TLS {
		return n.secures[familyIndex(to)]
	}
	return n.locals[familyIndex(to)]
}

// gatewayOf returns the gateway that requests on a way go to or come from, or nil. Over UDP it is known by its address and
// port, and so it is where we have opened the connection; one that it has opened comes from any port, and there the address
// must be that of one trunk only.
func (s *settings) gatewayOf(w sip.Way) *gateway {
	n := s.networks[w.Local]
	if n == nil {
		return nil
	}
	d := s.directory.Load()
	g := d.gateways[point{n, w.Remote}]
	if g == nil && w.Transport != sip.UDP {
		g = d.hosts[point{n, netip.AddrPortFrom(w.Remote.Addr(), 0)}]
	}
	if g != nil && g.trunk.proves && w.Transport != sip.TLS {
		return nil // anybody can say so in clear
	}
	return g
}

// trusted says whether there is a gateway at an address, whose calls are bounded at its other end.
func (s *settings) trusted(a netip.Addr) bool { return s.directory.Load().peers[a] }

// order returns the gateways of a trunk in the order in which a call tries them: those that have failed come last.
func (t *trunk) order(c *core, a *target.Answers, now int64) (sorted []*gateway) {
	written := t.written
	if slices.ContainsFunc(written, func(g Gateway) bool { return g.Weight > 0 }) {
		written = spreadOut(written)
	}
	var all []*gateway
	for i := range written {
		for _, g := range t.locate(&written[i], a, rand.IntN) {
			if !slices.ContainsFunc(all, func(other *gateway) bool { return other.target == g.target }) {
				all = append(all, g)
			}
		}
	}
	if len(all) < 2 {
		return all
	}
	targets := make([]target.Target, len(all))
	for i, g := range all {
		targets[i] = g.target
	}
	c.dead.Lock()
	defer c.dead.Unlock()
	c.dead.Order(targets, now)
	slices.SortStableFunc(targets, func(a, b target.Target) int { return falseFirst(c.dead.down[a], c.dead.down[b]) })
	for _, at := range targets {
		sorted = append(sorted, all[slices.IndexFunc(all, func(g *gateway) bool { return g.target == at })])
	}
	return sorted
}

func falseFirst(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// spreadOut returns gateways in an order by dice that their weights have loaded; one without a weight has 1.
func spreadOut(all []Gateway) []Gateway {
	rest, sum := slices.Clone(all), 0
	for _, g := range rest {
		sum += max(g.Weight, 1)
	}
	sorted := make([]Gateway, 0, len(rest))
	for len(rest) > 0 {
		n := rand.IntN(sum)
		i := slices.IndexFunc(rest, func(g Gateway) bool {
			n -= max(g.Weight, 1)
			return n < 0
		})
		sum -= max(rest[i].Weight, 1)
		sorted = append(sorted, rest[i])
		rest = slices.Delete(rest, i, i+1)
	}
	return sorted
}
