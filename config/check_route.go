// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"math"
	"reflect"
	"slices"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/service"
)

// routes checks that each family that comes to a listen has a route, that each route has clients, and that its pools
// are there.
func (c *checker) routes(f *serviceFile) {
	if f.node == nil || f.node.get("clients") == nil || f.node.get("clients").kind != mapping {
		return
	}
	complete := f.kind != nil && !f.node.get("clients").bad // before anything is reported below
	used := make(map[string]bool)
	for _, family := range []ip.Family{ip.V4, ip.V6} {
		if complete {
			c.missingRoute(f, family)
		}
		if f.kind != nil {
			c.needlessRoute(f, family)
		}
		for _, r := range f.Clients.family(family).routes() {
			c.route(f, r)
			for _, p := range r.pools() {
				used[p.text] = true
			}
		}
	}
	if s, ok := f.service.Options.(service.Sender); ok {
		for _, name := range s.SendsTo() {
			used[name] = true
		}
	}
	for _, p := range f.Pools.entries {
		if !used[p.name] {
			c.warn(p.key, "no client is sent to the pool %q; name it in clients, or remove it", p.name)
		}
	}
}

// routes returns all routes of a family.
func (f *familyFile) routes() []*routeFile {
	var all []*routeFile
	if f.all != nil {
		all = append(all, f.all)
	}
	for i := range f.named {
		all = append(all, &f.named[i].value)
	}
	return all
}

// pools returns where the route names pools.
func (f *routeFile) pools() []*node {
	var all []*node
	for _, s := range f.Share.entries {
		all = append(all, s.key)
	}
	for _, p := range f.Fallback {
		if p.node != nil {
			all = append(all, p.node)
		}
	}
	return all
}

// missingRoute reports the listens whose clients would go nowhere.
func (c *checker) missingRoute(f *serviceFile, family ip.Family) {
	if len(f.kind.Listens) == 0 && f.Clients.family(family).named != nil {
		return // names where there are none: needlessRoute reports them
	}
	told := make(map[service.Door]bool)
	for _, l := range f.Listen.places {
		if !l.addr.value.IsValid() || ip.FamilyOf(l.addr.value.Addr()) != family {
			continue
		}
		door := service.Door{Listen: l.name, Family: family}
		if f.Clients.family(family).route(l.name) == nil && !told[door] {
			c.fail(l.addr.node, "%s clients come here but have no route; add clients.%s, or remove the listen", family, family)
		}
		told[door] = true
	}
}

// needlessRoute reports the routes that nobody takes.
func (c *checker) needlessRoute(f *serviceFile, family ip.Family) {
	r := f.Clients.family(family)
	if f.Listen.node == nil || f.Listen.node.bad || r.node == nil {
		return
	}
	if r.all != nil && !f.listensTo(family) {
		c.fail(r.node.key, "no listen has an %s address; add one, or remove this route", family)
	}
	for _, e := range r.named {
		switch {
		case len(f.kind.Listens) == 0:
			c.unknown(e.key, fieldsOf(reflect.TypeFor[routeFile]()), nil)
		case !slices.Contains(f.kind.Listens, e.name):
			c.fail(e.key, "unknown listen %q; known to %s: %s", e.name, f.kind.Name, enumerate(f.kind.Listens, "and"))
		case !slices.ContainsFunc(f.Listen.places, func(p listenPlace) bool {
			return p.name == e.name && ip.FamilyOf(p.addr.value.Addr()) == family
		}):
			c.fail(e.key, "the listen %q has no %s address; add one, or remove this route", e.name, family)
		}
	}
}

// route checks one route.
func (c *checker) route(f *serviceFile, r *routeFile) {
	for _, n := range r.pools() {
		if f.Pools.node == nil || f.Pools.node.kind != mapping || f.Pools.get(n.text) != nil {
			continue
		}
		var names []string
		for _, p := range f.Pools.entries {
			names = append(names, p.name)
		}
		c.fail(n, "unknown pool %q; pools here: %s", n.text, enumerate(names, "and"))
	}
	seen := make(map[string]bool)
	for _, p := range r.Fallback {
		if seen[p.value] && !p.node.bad {
			c.fail(p.node, "the pool %q is in this list twice", p.value)
		}
		seen[p.value] = true
	}
	sum := 0.0
	for _, s := range r.Share.entries {
		sum += float64(s.value.value)
	}
	if n := r.Share.node; n != nil && n.kind == mapping && !n.bad && math.Abs(sum-100) > 1e-6 {
		c.fail(n.name(), "the shares add up to %v, not 100%%", service.Percent(math.Round(sum*1e6)/1e6))
	}
}
