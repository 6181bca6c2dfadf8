// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"reflect"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/probe"
	"github.com/kyozon/kyozon/service"
)

// site decodes the whole file over its defaults.
func (d *decoder) site(root *node, f *siteFile) {
	v := reflect.ValueOf(f).Elem()
	setDefaults(v)
	d.value(root, v)
}

// complete makes the model of what was written: every name a value, every default in its place. It decodes each
// protocol's section too. What was wrong is left out, or zero.
func (d *decoder) complete(f *siteFile) *Config {
	c := &Config{
		Site:  f.Site.value,
		State: State{Directory: string(f.State.Directory.value)},
		Admin: Admin{Listen: f.Admin.Listen.value},
		Log:   Log{Access: string(f.Log.Access.value)},
		Drain: f.Drain.value,
	}
	c.Kernel = f.Kernel.kernel()
	for _, a := range f.Addresses.GlobalIPv4 {
		c.Addresses.GlobalIPv4 = append(c.Addresses.GlobalIPv4, a.value)
	}
	if l := f.Addresses.Ledger; l != nil {
		c.Addresses.Ledger = &Ledger{Pool: l.Pool.value, Bits: l.Prefix.value, Keep: l.Keep.value, Embed: l.Embed.value}
	}
	for i := range f.Networks.entries {
		e := &f.Networks.entries[i]
		n := service.Network{Name: e.name, Low: e.value.Ports.low, High: e.value.Ports.high, Plane: service.Plane(e.value.Plane.value)}
		for _, m := range e.value.Media.list {
			n.Media = append(n.Media, m.value.Masked())
		}
		c.Networks = append(c.Networks, n)
	}
	for i := range f.Services.entries {
		e := &f.Services.entries[i]
		c.Services = append(c.Services, d.service(e.name, &e.value))
		c.Services[i].Networks = c.Networks
	}
	return c
}

func (d *decoder) service(name string, f *serviceFile) *service.Service {
	s := &service.Service{
		Name:     name,
		Protocol: f.Protocol.value,
		Allow:    f.Allow.set(),
		Deny:     f.Deny.set(),
		Proxy:    f.ProxyFrom.set(),
		Limits:   f.Limits.rules(),
		Pools:    make(map[string]backend.Spec),
		Health:   f.Health.health(),
		Timeouts: backend.Timeouts{Connect: f.Timeouts.Connect.value, Idle: f.Timeouts.Idle.value},
		Plane:    service.Plane(f.Plane.value),
	}
	f.service = s
	if f.Hosting != nil {
		s.Hosting = service.Hosting(f.Hosting.words()[*f.Hosting])
	}
	for i := range f.Pools.entries {
		e := &f.Pools.entries[i]
		s.Pools[e.name] = e.value.spec(e.name)
	}
	if f.kind == nil {
		return s
	}
	for _, p := range f.Listen.places {
		if p.addr.value.IsValid() {
			for _, t := range f.kind.Transports {
				s.Listen = append(s.Listen, service.Listen{Name: p.name, Addr: listen.Addr{Transport: t, AddrPort: p.addr.value}})
			}
		}
	}
	if !f.kind.Over(listen.TCP) && f.Health.Every.node == nil {
		s.Health.Every = 0 // nothing says that a UDP server would accept a connection
	}
	s.Routes = f.routes()
	s.Options = f.kind.Options()
	d.value(f.section, reflect.ValueOf(s.Options).Elem())
	return s
}

// routes returns the route of each listen and family that has one.
func (f *serviceFile) routes() map[service.Door]backend.RouteSpec {
	routes := make(map[service.Door]backend.RouteSpec)
	for _, l := range f.service.Listen {
		if f.kind.Standalone {
			routes[service.Door{Listen: l.Name, Family: l.Family()}] = backend.RouteSpec{}
			continue
		}
		family := f.Clients.family(l.Family())
		if r := family.route(l.Name); r != nil {
			routes[service.Door{Listen: l.Name, Family: l.Family()}] = r.spec()
		}
	}
	return routes
}

// family returns the routes of one family.
func (f *clientsFile) family(family ip.Family) *familyFile {
	if family == ip.V4 {
		return &f.IPv4
	}
	return &f.IPv6
}

// route returns the route of a listen, or nil.
func (f *familyFile) route(listen string) *routeFile {
	if f.all != nil {
		return f.all
	}
	for i := range f.named {
		if f.named[i].name == listen {
			return &f.named[i].value
		}
	}
	return nil
}

func (f *routeFile) spec() backend.RouteSpec {
	var r backend.RouteSpec
	for _, s := range f.Share.entries {
		r.Shares = append(r.Shares, backend.Share{Pool: s.name, Percent: float64(s.value.value)})
	}
	for _, p := range f.Fallback {
		r.Fallback = append(r.Fallback, p.value)
	}
	return r
}

func (f *poolFile) spec(name string) backend.Spec {
	s := backend.Spec{
		Name:     name,
		Source:   backend.Source(f.Source.value),
		Handover: backend.Handover(f.Handover.value),
		Carry:    backend.Carry(f.Carry.value),
		Pick:     backend.Pick(f.Pick.value),
		TLS:      f.TLS.spec(),
	}
	for _, server := range f.Servers {
		s.Servers = append(s.Servers, backend.Server{
			Addr:   server.Address.value,
			Weight: server.Weight.value,
			Cap:    server.MaxFlows.value,
			Drain:  server.Drain.value,
		})
	}
	return s
}

func (f *clientTLSFile) spec() *backend.ClientTLS {
	if !f.on {
		return nil
	}
	return &backend.ClientTLS{
		Start:       probe.Start(f.StartTLS.value),
		Verify:      f.Verify.value == verifyFull,
		Name:        f.Name.value,
		CA:          string(f.CA.value),
		Certificate: string(f.Certificate.value),
		Key:         string(f.Key.value),
	}
}

// set returns the set of networks; `any` is the empty one.
func (f *networks) set() ip.Prefixes {
	var prefixes []netip.Prefix
	for _, p := range f.list {
		prefixes = append(prefixes, p.value)
	}
	return ip.NewPrefixes(prefixes...)
}

func (f *kernelFile) kernel() Kernel {
	k := Kernel{Flows: f.Flows.value, Pending: f.Pending.value}
	for _, name := range f.Interfaces {
		k.Interfaces = append(k.Interfaces, name.value)
	}
	return k
}

func (f *healthFile) health() backend.Health {
	return backend.Health{
		Every:     time.Duration(f.Every.value),
		Timeout:   f.Timeout.value,
		Rise:      f.Rise.value,
		Fall:      f.Fall.value,
		HTTP:      f.HTTP.value,
		Host:      f.Host.value,
		Status:    f.Status.value,
		Greeting:  probe.Greeting(f.Greeting.value),
		SIP:       probe.Asking(f.SIP.value),
		Eject:     f.Eject.value,
		EjectFor:  f.EjectFor.value,
		SlowStart: f.SlowStart.value,
	}
}
