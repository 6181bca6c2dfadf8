// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"regexp"
	"slices"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/probe"
)

// pools checks the servers of each pool and whether they can be told who the client is as the pool says.
func (c *checker) pools(f *serviceFile) {
	for i := range f.Pools.entries {
		name, p := f.Pools.entries[i].name, &f.Pools.entries[i].value
		c.servers(p)
		c.handover(f, p)
		c.clientTLS(f, p)
		if f.kind == nil || backend.Source(p.Source.value) != backend.SourceClient {
			continue
		}
		c.source(f, name, p, ip.Crossing{Client: ip.V6, Backend: ip.V4})
		c.source(f, name, p, ip.Crossing{Client: ip.V4, Backend: ip.V6})
		c.inFront(f, name, p, ip.V4)
		c.inFront(f, name, p, ip.V6)
	}
}

// inFront warns of what comes with clients' own addresses: answers are told from other packets of a server by its port
// alone. On loopback every address is local, and nothing is taken from anybody.
func (c *checker) inFront(f *serviceFile, name string, p *poolFile, family ip.Family) {
	server := slices.IndexFunc(p.Servers, func(s serverFile) bool {
		a := s.Address.value
		return a.IsValid() && ip.FamilyOf(a.Addr()) == family && !a.Addr().IsLoopback()
	})
	if server >= 0 && f.sends(family, name) {
		c.warn(p.Source.node, "%s clients keep their own addresses, so this machine takes all that %s sends from that port for the edge's; "+
			"who reaches it through this machine past the edge gets no answer", family, p.Servers[server].Address.value)
	}
}

func (c *checker) servers(p *poolFile) {
	first := make(map[netip.AddrPort]*node)
	for _, s := range p.Servers {
		a := s.Address.value
		if !a.IsValid() {
			continue
		}
		if why := unusable(a.Addr()); why != "" {
			c.fail(s.Address.node, "%s is %s; no server can have it", a.Addr(), why)
		}
		if a.Addr().IsUnspecified() {
			c.fail(s.Address.node, "%s is no server's address; write the address itself", a.Addr())
		}
		if before := first[a]; before != nil {
			c.fail(s.Address.node, "%s is in this pool twice; the first is in line %d", a, before.line)
			continue
		}
		first[a] = s.Address.node
	}
}

// handover checks what the protocol can do, and what it is told to carry.
func (c *checker) handover(f *serviceFile, p *poolFile) {
	h := backend.Handover(p.Handover.value)
	if n := p.Handover.node; n != nil && !n.bad && f.kind != nil &&
		h != backend.HandoverNone && !slices.Contains(f.kind.Handovers, h) {
		can := []string{p.Handover.value.words()[backend.HandoverNone]}
		for _, h := range f.kind.Handovers {
			can = append(can, p.Handover.value.words()[h])
		}
		c.fail(n, "%s cannot do %s; write %s", f.kind.Name, n.text, enumerate(can, "or"))
	}
	n := p.Carry.node
	switch {
	case n == nil || n.bad:
	case h == backend.HandoverNone && (p.Handover.node == nil || !p.Handover.node.bad):
		c.fail(n, "has no effect without a handover; add one, or remove this")
	case backend.Carry(p.Carry.value) == backend.CarryStandIn && c.file.Addresses.Ledger == nil:
		c.fail(n, "needs addresses.ledger, for that is where stand-ins come from")
	}
}

// hostName is a name that DNS and certificates can have. RFC 1123 §2.1.
var hostName = regexp.MustCompile(`^([A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9])?\.)*[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?$`)

// clientTLS checks how the servers are spoken to in TLS.
func (c *checker) clientTLS(f *serviceFile, p *poolFile) {
	t := &p.TLS
	if !t.on || t.node.bad {
		return
	}
	if f.kind != nil && !f.kind.Over(listen.TCP) {
		c.fail(t.node, "%s goes over UDP, where this TLS is not spoken; remove it", f.kind.Name)
	}
	if n := t.Name.node; n != nil {
		if _, err := netip.ParseAddr(t.Name.value); err != nil && !hostName.MatchString(t.Name.value) {
			c.fail(n, "%q is no host name and no address; write, for example, shop.example.jp", t.Name.value)
		}
	}
	if t.Certificate.node != nil && t.Key.node == nil {
		c.fail(t.Certificate.node, "a certificate needs its key; write key too")
	}
	if t.Key.node != nil && t.Certificate.node == nil {
		c.fail(t.Key.node, "a key needs its certificate; write certificate too")
	}
	if n := t.StartTLS.node; n != nil && !n.bad && t.StartTLS.value != 0 && f.kind != nil && !f.kind.StartTLS {
		c.fail(n, "%s has no STARTTLS; remove it", f.kind.Name)
	}
	c.verification(p)
}

// verification checks that servers can be told from others.
func (c *checker) verification(p *poolFile) {
	t := &p.TLS
	switch {
	case t.Verify.value == verifyNone && t.CA.node != nil:
		c.fail(t.CA.node, "has no effect with verify: none; remove one of the two")
	case probe.Start(t.StartTLS.value) == probe.Offered:
		c.warn(t.StartTLS.node, "whoever gets between this machine and the servers can take their offer of TLS away, and read and "+
			"change everything; starttls: required keeps him out")
	case t.Verify.value == verifyNone:
		c.warn(t.Verify.node, "whoever gets between this machine and the servers can read and change everything; "+
			"with ca and name, verify: full keeps him out")
	case t.Name.node == nil && t.CA.node == nil && len(p.Servers) > 0 && p.Servers[0].Address.value.IsValid():
		c.warn(t.node, "without name and ca, each server needs a certificate for its address, such as %s, from a CA that "+
			"this machine trusts", p.Servers[0].Address.value.Addr())
	}
}

// source checks that there are addresses for the clients of one crossing, if the pool has any.
func (c *checker) source(f *serviceFile, name string, p *poolFile, x ip.Crossing) {
	server := slices.IndexFunc(p.Servers, func(s serverFile) bool {
		return s.Address.value.IsValid() && ip.FamilyOf(s.Address.value.Addr()) == x.Backend
	})
	if server < 0 || !f.sends(x.Client, name) {
		return
	}
	ledger, a := c.file.Addresses.Ledger, p.Servers[server].Address.value
	switch {
	case x.Client == ip.V6 && ledger == nil:
		c.fail(p.Source.node, "needs addresses.ledger, for IPv6 clients meet the IPv4 server %s here", a)
	case x.Client == ip.V4 && (ledger == nil || ledger.Embed.node == nil):
		c.fail(p.Source.node, "needs addresses.ledger.embed, for IPv4 clients meet the IPv6 server %s here", a)
	case x.Client == ip.V4:
		c.embedding(f, ledger)
	}
}

// sends says whether clients of a family may come to a pool.
func (f *serviceFile) sends(family ip.Family, pool string) bool {
	if !f.listensTo(family) {
		return false
	}
	for _, r := range f.Clients.family(family).routes() {
		if slices.ContainsFunc(r.pools(), func(n *node) bool { return n.text == pool }) {
			return true
		}
	}
	return false
}

// embedding checks that private IPv4 addresses are not embedded in the well-known prefix. RFC 6052 §3.1.
func (c *checker) embedding(f *serviceFile, ledger *ledgerFile) {
	if ledger.Embed.node.bad || !in(ledger.Embed.value, wellKnown6) {
		return
	}
	var private []netip.Prefix
	for _, p := range f.Listen.places {
		if a := p.addr.value; a.IsValid() && isPrivate(host(a.Addr())) {
			private = append(private, host(a.Addr()))
		}
	}
	for _, p := range f.Allow.list {
		if isPrivate(p.value) {
			private = append(private, p.value)
		}
	}
	if len(private) > 0 {
		c.fail(ledger.Embed.node, "%s must not stand for private IPv4 addresses, such as clients of %s (RFC 6052 §3.1); "+
			"use a /96 of your own", wellKnown6, show(private[0]))
	}
}
