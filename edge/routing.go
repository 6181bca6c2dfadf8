// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/service"
)

// What the edge adds to the machine's routing, so that answers to addresses which are not on an interface reach its
// sockets. It is removed when the edge stops.
//
//	stand-ins, embedded clients   a local route for the whole prefix (AnyIP): ip route add local 100.64.0.0/11 dev lo
//	clients' own addresses        a rule that what comes from a backend's port is for this machine, whoever it is for:
//	                              ip rule add from 10.0.1.11 ipproto tcp sport 80 lookup 5264
const (
	transparentTable = 5264
	rulePriority     = 5264
)

// routing is what was added.
type routing struct {
	adopt  bool // what is there already was made by the process that this one replaces
	routes []netlink.Route
	rules  []netlink.Rule
}

// add makes what cfg needs and is not there. Without CAP_NET_ADMIN it says what to type.
func (r *routing) add(cfg *config.Config) error {
	var errs []error
	if l := cfg.Addresses.Ledger; l != nil {
		for _, p := range []netip.Prefix{l.Pool, l.Embed} {
			if p.IsValid() && !p.Addr().IsLoopback() {
				errs = append(errs, r.addLocal(p, unix.RT_TABLE_LOCAL))
			}
		}
	}
	for _, s := range cfg.Services {
		for _, b := range transparentBackends(s) {
			errs = append(errs, r.addRule(s, b))
		}
	}
	return errors.Join(errs...)
}

// addLocal makes a prefix local.
func (r *routing) addLocal(p netip.Prefix, table int) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	route := netlink.Route{LinkIndex: lo.Attrs().Index, Dst: ipNet(p), Type: unix.RTN_LOCAL, Table: table,
		Scope: netlink.SCOPE_HOST, Family: netlinkFamily(ip.FamilyOf(p.Addr()))}
	switch err := netlink.RouteAdd(&route); {
	case err == nil || r.adopt && errors.Is(err, unix.EEXIST):
		r.routes = append(r.routes, route)
	case errors.Is(err, unix.EPERM):
		if is, err := isLocal(p.Addr()); err == nil && is {
			return nil
		}
		return fmt.Errorf("no local route for %v, and no right to add it (CAP_NET_ADMIN): ip route add local %v dev lo", p, p)
	case !errors.Is(err, unix.EEXIST):
		return fmt.Errorf("add local route for %v: %w", p, err)
	}
	return nil
}

// isLocal says whether the kernel takes packets to a for its own.
func isLocal(a netip.Addr) (bool, error) {
	routes, err := netlink.RouteGet(net.IP(a.AsSlice()))
	if err != nil {
		return false, err
	}
	return len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL, nil
}

// addRule has the answers of a backend to clients' own addresses delivered here.
func (r *routing) addRule(s *service.Service, b netip.AddrPort) error {
	every := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	bits := 32
	if b.Addr().Is6() {
		every, bits = netip.PrefixFrom(netip.IPv6Unspecified(), 0), 128
	}
	if err := r.addLocal(every, transparentTable); err != nil {
		return err
	}
	protocol := unix.IPPROTO_TCP
	if s.Listen[0].Transport == listen.UDP {
		protocol = unix.IPPROTO_UDP
	}
	rule := netlink.NewRule()
	rule.Family = netlinkFamily(ip.FamilyOf(b.Addr()))
	rule.Priority = rulePriority
	rule.Table = transparentTable
	rule.Src = ipNet(netip.PrefixFrom(b.Addr(), bits))
	rule.IPProto = protocol
	rule.Sport = netlink.NewRulePortRange(b.Port(), b.Port())
	switch err := netlink.RuleAdd(rule); {
	case err == nil || r.adopt && errors.Is(err, unix.EEXIST):
		r.rules = append(r.rules, *rule)
	case !errors.Is(err, unix.EEXIST):
		return fmt.Errorf("add rule for answers from %v to clients' own addresses: %w", b, err)
	}
	return nil
}

// remove takes away what add has made.
func (r *routing) remove() {
	for i := range r.rules {
		netlink.RuleDel(&r.rules[i]) // it may be gone already, which is what we want
	}
	for i := range r.routes {
		netlink.RouteDel(&r.routes[i])
	}
	r.rules, r.routes = nil, nil
}

// keep leaves what was made to the process that replaces this one.
func (r *routing) keep() { r.rules, r.routes = nil, nil }

// transparentBackends returns the backends that see clients' own addresses.
func transparentBackends(s *service.Service) (all []netip.AddrPort) {
	for _, p := range s.Pools {
		if p.Source != backend.SourceClient {
			continue
		}
		for _, f := range families(s) {
			for _, b := range p.Servers {
				if b.Family() == f && !b.Addr.Addr().IsLoopback() {
					all = append(all, b.Addr)
				}
			}
		}
	}
	return all
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func netlinkFamily(f ip.Family) int {
	if f == ip.V4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
