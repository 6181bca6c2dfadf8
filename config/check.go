// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/service"
)

// checker finds what each value alone does not show. It changes nothing.
type checker struct {
	*decoder
	file   *siteFile
	config *Config
}

func (c *checker) check() {
	c.globalIPv4()
	c.media()
	c.listens()
	for i := range c.file.Services.entries {
		c.service(&c.file.Services.entries[i].value)
	}
	c.loops()
	c.shared()
	c.ledger()
	c.admin()
}

// service checks what concerns one service alone, and lets its protocol check the rest if all is well so far.
func (c *checker) service(f *serviceFile) {
	c.networks(f)
	c.limits(f)
	c.health(&f.Health)
	c.pools(f)
	c.routes(f)
	if f.kind == nil || f.node.bad {
		return
	}
	c.plane(f)
	for _, err := range f.service.Options.Check(f.service) {
		c.optionsError(f.node, err)
	}
}

// plane checks that the kernel plane can carry a service that must be carried there.
func (c *checker) plane(f *serviceFile) {
	switch n := f.Plane.node; {
	case n == nil || n.bad || service.Plane(f.Plane.value) == service.PlaneUser:
	case f.kind.Kernel == nil:
		c.fail(n, "%s reads what it carries, which only the user plane does; remove this", f.kind.Name)
	case service.Plane(f.Plane.value) == service.PlaneKernel:
		_, read := f.kind.Unread(f.service, c.config.Services)
		for _, err := range append(read, f.service.NotInKernel()...) {
			at, _ := errors.AsType[*service.Error](err)
			at.Err = fmt.Errorf("%w; remove this, or write plane: auto", at.Err)
			c.optionsError(f.node, at)
		}
	}
}

// optionsError reports what a protocol found, at the place that it names or, if nothing is written there, at the
// nearest above it.
func (c *checker) optionsError(n *node, err error) {
	if at, ok := errors.AsType[*service.Error](err); ok {
		n = n.find(at.Path)
		if at.Warning {
			c.warn(n.place(), "%w", err)
			return
		}
	}
	c.fail(n.place(), "%w", err)
}

// globalIPv4 checks the list of global addresses.
func (c *checker) globalIPv4() {
	seen := make(map[netip.Addr]bool)
	for _, a := range c.file.Addresses.GlobalIPv4 {
		switch {
		case !a.value.IsValid():
		case !a.value.Is4():
			c.fail(a.node, "%s is IPv6; global-ipv4 lists IPv4 addresses", a.value)
		case isPrivate(host(a.value)) || in(host(a.value), thisNetwork4, loopback4, linkLocal4, multicast4, reserved4):
			c.fail(a.node, "%s is not a global address", a.value)
		case seen[a.value]:
			c.fail(a.node, "%s is listed twice", a.value)
		}
		seen[a.value] = true
	}
}

// networks checks who may come in and whose PROXY headers are believed.
func (c *checker) networks(f *serviceFile) {
	if everyone := f.ProxyFrom.everyone(); everyone != nil {
		c.fail(everyone, "anyone could claim any address in a PROXY header; list the networks of your load balancers")
	}
	if n := f.ProxyFrom.node; n != nil && f.kind != nil && !f.kind.Over(listen.TCP) {
		c.fail(n.name(), "%s goes over UDP, where no PROXY header comes; remove it", f.kind.Name)
	}
	for _, family := range []ip.Family{ip.V4, ip.V6} {
		if f.Listen.node == nil || f.Listen.node.bad || !f.listensTo(family) {
			continue
		}
		if n := f.Allow.node; n != nil && !n.bad && !f.Allow.any && !f.Allow.has(family, 128) {
			c.fail(n, "no %s client is allowed, but the service listens to %s; allow some, or remove the listen", family, family)
		}
		if n := f.Deny.node; n != nil && !n.bad && (f.Deny.any || f.Deny.has(family, 0)) {
			c.fail(n, "every %s client is denied, but the service listens to %s; deny fewer, or remove the listen", family, family)
		}
	}
}

// listensTo says whether clients of a family can come.
func (f *serviceFile) listensTo(family ip.Family) bool {
	for _, p := range f.Listen.places {
		if p.addr.value.IsValid() && ip.FamilyOf(p.addr.value.Addr()) == family {
			return true
		}
	}
	return false
}

// has says whether one of the networks is of the family and at most so long.
func (f *networks) has(family ip.Family, bits int) bool {
	for _, p := range f.list {
		if ip.FamilyOf(p.value.Addr()) == family && p.value.Bits() <= bits {
			return true
		}
	}
	return false
}

// everyone returns the place where all clients of a family are meant, or nil.
func (f *networks) everyone() *node {
	if f.any {
		return f.node
	}
	for _, p := range f.list {
		if p.value.Bits() == 0 {
			return p.node
		}
	}
	return nil
}

func (c *checker) health(f *healthFile) {
	every := time.Duration(f.Every.value)
	if n := f.Timeout.node; n != nil && !n.bad && every > 0 && f.Timeout.value > every {
		c.fail(n, "an answer may take longer than the time until the next question, %v; make it shorter", every)
	}
	if n := f.Greeting.node; n != nil && f.HTTP.node != nil && !n.bad {
		c.fail(n, "a server is asked over HTTP, or it greets; remove one of the two")
	}
	if n := f.SIP.node; n != nil && (f.HTTP.node != nil || f.Greeting.node != nil) && !n.bad {
		c.fail(n, "a server is asked by OPTIONS, over HTTP, or it greets; leave one of them")
	}
	if n := f.HTTP.node; n != nil {
		if !n.bad && !strings.HasPrefix(f.HTTP.value, "/") {
			c.fail(n, "must be a path; write /%s", f.HTTP.value)
		}
		return
	}
	for _, n := range []*node{f.Host.node, f.Status.node} {
		if n != nil && !n.bad {
			c.fail(n, "has no effect without http, the path to ask for")
		}
	}
}

// admin checks where the status page is.
func (c *checker) admin() {
	a, n := c.config.Admin.Listen, c.file.Admin.Listen.node
	if n == nil || n.bad || !a.IsValid() {
		return
	}
	if !a.Addr().IsLoopback() {
		c.warn(n, "whoever reaches %s can read the addresses of clients and servers; let a filter keep strangers away", a)
	}
}
