// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"slices"

	"github.com/kyozon/kyozon/listen"
)

// claim is an address that clients come to and the service that listens to it.
type claim struct {
	service  string
	kind     string // the protocol
	shares   bool   // other services of the protocol may have it too
	addr     listen.Addr
	node     *node
	wildcard bool
}

// claims returns all listens that could be read, in the order of the file.
func (c *checker) claims() []claim {
	var all []claim
	for i := range c.file.Services.entries {
		e := &c.file.Services.entries[i]
		if e.value.kind == nil {
			continue
		}
		for _, p := range e.value.Listen.places {
			if !p.addr.value.IsValid() {
				continue
			}
			for _, t := range e.value.kind.Transports {
				all = append(all, claim{
					service: e.name, kind: e.value.kind.Name, shares: e.value.kind.Share != nil,
					addr:     listen.Addr{Transport: t, AddrPort: p.addr.value},
					node:     p.addr.node,
					wildcard: p.addr.value.Addr().IsUnspecified(),
				})
			}
		}
	}
	return all
}

// listens checks that each address can be listened to, and by one service alone.
func (c *checker) listens() {
	for i := range c.file.Services.entries {
		if f := &c.file.Services.entries[i].value; f.kind != nil {
			c.listenNames(f)
		}
	}
	var before []claim
	told := make(map[*node]bool) // an address may be claimed for two transports
	for _, l := range c.claims() {
		told[l.node] = told[l.node] || c.listenAddr(l) ||
			slices.ContainsFunc(before, func(b claim) bool { return c.collide(b, l) })
		before = append(before, l)
	}
	if a := c.config.Admin.Listen; a.IsValid() && c.file.Admin.Listen.node != nil {
		admin := claim{service: "admin", addr: listen.Addr{AddrPort: a}, node: c.file.Admin.Listen.node,
			wildcard: a.Addr().IsUnspecified()}
		for _, b := range before {
			if c.collide(b, admin) {
				break
			}
		}
	}
}

// listenNames checks that listens have the names that the protocol knows, or none.
func (c *checker) listenNames(f *serviceFile) {
	known, n, free := f.kind.Listens, f.Listen.node, f.kind.AnyListen
	switch {
	case n == nil || n.kind == null || n.kind == refused:
		return
	case free && n.kind != mapping:
		c.fail(n, "listens of %s have names; write a mapping from names that you choose to addresses", f.kind.Name)
		return
	case len(known) == 0 && !free && n.kind == mapping:
		c.fail(n.name(), "listens of %s have no names; write an address or a list of them", f.kind.Name)
		n.bad = true
		return
	case len(known) > 0 && n.kind != mapping:
		c.fail(n, "listens of %s have names; write a mapping from %s to addresses", f.kind.Name, enumerate(known, "or"))
		return
	case n.kind == mapping && len(n.pairs) == 0:
		c.fail(n, "must not be empty")
	}
	for _, p := range n.pairs {
		if free && !nameForm.MatchString(p.key.text) {
			c.fail(p.key, "%q cannot be a name; use letters, digits, dots, dashes and underscores, at most 63", p.key.text)
			n.bad = true
		}
		if !free && !slices.Contains(known, p.key.text) {
			c.fail(p.key, "unknown listen %q; known to %s: %s", p.key.text, f.kind.Name, enumerate(known, "and"))
			n.bad = true
		}
	}
}

// listenAddr reports an address that no server can have.
func (c *checker) listenAddr(l claim) bool {
	addr := l.addr.AddrPort.Addr()
	if why := unusable(addr); why != "" {
		c.fail(l.node, "%s is %s; nobody can listen to it", addr, why)
		return true
	}
	if l.wildcard && l.addr.Transport == listen.UDP {
		c.fail(l.node, "a UDP listen needs one address, for an answer must come from the address that was asked")
		return true
	}
	return false
}

// unusable says what an address is that no server has, or "".
func unusable(a netip.Addr) string {
	switch {
	case a.IsMulticast():
		return "a multicast address"
	case a.IsLinkLocalUnicast():
		return "a link-local address, which means nothing without a zone"
	case a.Is4() && (in(host(a), reserved4) || in(host(a), thisNetwork4) && !a.IsUnspecified()):
		return "a reserved address"
	}
	return ""
}

// collide reports two listens that cannot be at once.
func (c *checker) collide(first, second claim) bool {
	a, b := first.addr, second.addr
	switch {
	case a == b && first.service == second.service:
		c.fail(second.node, "%s is in this service twice; the first is in line %d", b.AddrPort, first.node.line)
	case a == b && first.kind == second.kind && first.shares:
		return false
	case a == b:
		c.fail(second.node, "%s is already listened to by %q, in line %d", b.AddrPort, first.service, first.node.line)
	case a.Transport != b.Transport || a.Family() != b.Family() || a.AddrPort.Port() != b.AddrPort.Port():
		return false
	case first.wildcard || second.wildcard:
		c.fail(second.node, "%s and %s of %q, in line %d, overlap; list the addresses one by one",
			b.AddrPort, a.AddrPort, first.service, first.node.line)
	default:
		return false
	}
	return true
}

// loops reports servers that are this edge itself.
func (c *checker) loops() {
	claims := c.claims()
	for i := range c.file.Services.entries {
		f := &c.file.Services.entries[i].value
		if f.kind == nil {
			continue
		}
		for _, p := range f.Pools.entries {
			for _, s := range p.value.Servers {
				c.loop(claims, listen.Addr{Transport: f.kind.Transports[0], AddrPort: s.Address.value}, s.Address.node)
			}
		}
	}
}

// loop reports a server at which a listen is.
func (c *checker) loop(claims []claim, server listen.Addr, n *node) {
	for _, l := range claims {
		covered := l.wildcard && server.AddrPort.Addr().IsLoopback() && l.addr.Transport == server.Transport &&
			l.addr.Family() == server.Family() && l.addr.AddrPort.Port() == server.AddrPort.Port()
		if n != nil && (l.addr == server || covered) {
			c.fail(n, "%s is where %q listens, in line %d: a client would go round in a circle",
				server.AddrPort, l.service, l.node.line)
			return
		}
	}
}
