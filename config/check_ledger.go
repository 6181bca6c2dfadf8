// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"

	"github.com/kyozon/kyozon/ip"
)

// ledger checks the addresses that stand for clients of the other family: that hosts can have them, and that nothing
// else has them, or a server would take a stranger for whoever else does.
func (c *checker) ledger() {
	f := c.file.Addresses.Ledger
	if f == nil {
		return
	}
	if n := f.Prefix.node; n != nil && !n.bad && f.Prefix.value != 64 && f.Prefix.value != 56 && f.Prefix.value != 48 {
		c.fail(n, "must be 64, 56 or 48, not %d", f.Prefix.value)
	}
	if n := f.Pool.node; n != nil && !n.bad && c.poolForm(f.Pool) {
		c.overlap(f.Pool)
	}
	if n := f.Embed.node; n != nil && !n.bad && c.embedForm(f.Embed) {
		c.overlap(f.Embed)
	}
}

// poolForm checks the pool of stand-ins alone.
func (c *checker) poolForm(pool network) bool {
	p := pool.value
	switch {
	case !p.Addr().Is4():
		c.fail(pool.node, "stand-ins are IPv4 addresses; write an IPv4 network, not %s", p)
	case p.Bits() < 8 || p.Bits() > 30:
		c.fail(pool.node, "must be from /8 to /30, not /%d", p.Bits())
	case in(p, thisNetwork4, linkLocal4, multicast4):
		c.fail(pool.node, "no host can have an address of %s; use another network", p)
	case in(p, loopback4) && !c.config.Demo:
		c.fail(pool.node, "stand-ins in %s reach servers on this machine only; they are for the demo", loopback4)
	default:
		c.poolWarning(pool)
		return true
	}
	return false
}

// poolWarning says what to make sure of.
func (c *checker) poolWarning(pool network) {
	switch p := pool.value; {
	case in(p, loopback4, benchmark4):
	case in(p, subscribers4):
		c.warn(pool.node, "%s is in %s (RFC 6598); make sure that no subscriber reaches your servers from it", p, subscribers4)
	case isPrivate(p):
		c.warn(pool.node, "%s is private (RFC 1918); make sure that none of your hosts is in it", p)
	case in(p, reserved4):
		c.warn(pool.node, "%s is in %s; make sure that your routers and servers accept such addresses", p, reserved4)
	default:
		c.warn(pool.node, "%s is global; make sure that it is yours and that none of your hosts is in it", p)
	}
}

// embedForm checks the prefix that IPv4 clients are embedded in alone. RFC 6052 §2.2.
func (c *checker) embedForm(embed network) bool {
	p := embed.value
	if p.Addr().Is4() || p.Bits() != 96 {
		c.fail(embed.node, "must be an IPv6 /96, not %s", p)
		return false
	}
	if p.Addr().As16()[8] != 0 {
		c.fail(embed.node, "bits 64 to 71 must be zero (RFC 6052 §2.2)")
		return false
	}
	return true
}

// taken is a part of the address space that is something already.
type taken struct {
	prefix netip.Prefix
	what   string
	node   *node
}

// overlap reports the first thing in the file that has an address of p.
func (c *checker) overlap(p network) {
	for _, t := range c.taken() {
		if t.prefix.Overlaps(p.value) {
			c.fail(p.node, "overlaps %s, %s, in line %d; use a network that nothing else is in", show(t.prefix), t.what, t.node.line)
			return
		}
	}
}

// show writes an address without its length.
func show(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// taken returns all addresses and networks of the file but those of the ledger.
func (c *checker) taken() []taken {
	var all []taken
	add := func(p netip.Prefix, n *node, what string) {
		if p.IsValid() && n != nil {
			all = append(all, taken{p, what, n})
		}
	}
	for _, a := range c.file.Addresses.GlobalIPv4 {
		add(prefixOf(a.value), a.node, "a global address")
	}
	for i := range c.file.Services.entries {
		f := &c.file.Services.entries[i].value
		for _, l := range f.Listen.places {
			if !l.addr.value.Addr().IsUnspecified() {
				add(prefixOf(l.addr.value.Addr()), l.addr.node, "a listen")
			}
		}
		for _, p := range f.Pools.entries {
			for _, s := range p.value.Servers {
				add(prefixOf(s.Address.value.Addr()), s.Address.node, "a server")
			}
		}
		for _, p := range f.ProxyFrom.list {
			add(p.value, p.node, "a network whose PROXY headers are believed")
		}
		for _, p := range f.Allow.list {
			if p.value.Bits() > 0 {
				add(p.value, p.node, "a network that is allowed and may be trusted")
			}
		}
	}
	return all
}

// prefixOf is host for an address that may be missing.
func prefixOf(a netip.Addr) netip.Prefix {
	if !a.IsValid() {
		return netip.Prefix{}
	}
	return host(ip.Canonical(a))
}
