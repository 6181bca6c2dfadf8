// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"

	"github.com/kyozon/kyozon/ip"
)

// media checks where media of calls come in: that they can, and that each place is of one network.
func (c *checker) media() {
	var before []network
	for i := range c.file.Networks.entries {
		f := &c.file.Networks.entries[i].value
		ports := false
		for at, m := range f.Media.list {
			ports = ports || m.value.IsSingleIP()
			if c.mediaForm(m) {
				c.mediaTwice(m, before, f.Media.list[:at])
			}
		}
		before = append(before, f.Media.list...)
		if n := f.Ports.node; n != nil && !n.bad && !ports && len(f.Media.list) > 0 {
			c.fail(n, "at a prefix all media are at ports 5004 and 5005; remove this")
		}
	}
}

// mediaForm checks one place alone.
func (c *checker) mediaForm(m network) bool {
	p := m.value
	switch {
	case p.Addr().IsUnspecified(), in(p, multicast4, linkLocal4), p.Addr().IsMulticast(), p.Addr().IsLinkLocalUnicast():
		c.fail(m.node, "media cannot come to %s; write an address of this machine", show(p))
	case p.IsSingleIP():
		return true
	case p.Addr().Is4():
		c.fail(m.node, "must be one IPv4 address, not a network; write, for example, %s", p.Addr())
	case p.Bits() > 64:
		c.fail(m.node, "must be one address or an IPv6 prefix of /64 or shorter, not /%d", p.Bits())
	default:
		return true
	}
	return false
}

// mediaTwice checks that no other network has a place, and this one no other of its family.
func (c *checker) mediaTwice(m network, others, same []network) {
	for _, o := range others {
		if o.value.Overlaps(m.value) {
			c.fail(m.node, "overlaps %s in line %d; each network has addresses of its own", show(o.value), o.node.line)
			return
		}
	}
	for _, o := range same {
		if family := familyOf(o.value); family == familyOf(m.value) {
			c.fail(m.node, "the network has an address of %v already: %s", family, show(o.value))
			return
		}
	}
}

func familyOf(p netip.Prefix) ip.Family { return ip.FamilyOf(p.Addr()) }
