// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/service"
)

const (
	// transparentTable has one route: every address is local.
	transparentTable = 5264

	// firstPriority is that of what the edge adds. A process that replaces another takes the next that is free, so
	// that each has its own and removes no more than that, whichever of them ends first.
	firstPriority = 5264
	priorities    = 8
)

// routing is what the edge adds to the machine's routing, so that answers to addresses which are not on an interface
// reach its sockets:
//
//	stand-ins, embedded clients   local routes (AnyIP):  ip route add local 100.64.0.0/11 dev lo
//	clients' own addresses        what comes from a backend's port is for this machine, whoever it is addressed to:
//	                              ip rule add from 10.0.1.11 ipproto tcp sport 80 lookup 5264
//	                              and, for UDP, fragments are put together first
//
// Everything is there as long as a generation needs it.
type routing struct {
	replaces bool // another process, whose routes may still be there

	mu   sync.Mutex
	have map[path]*held
}

// path is one thing that the edge adds: a route, or a rule, or that fragments are put together.
type path struct {
	fragments ip.Family // of this family

	prefix netip.Prefix // whose addresses are taken for our own

	backend  netip.AddrPort // whose answers are taken; without a port, those to pings
	protocol int            // of the answers: unix.IPPROTO_TCP, …UDP, …ICMP or …ICMPV6
	to       netip.Addr     // only answers to it; zero means to everyone
}

// held is a path that generations need.
type held struct {
	generations int
	remove      func() // nil if it could not be added
}

// String is what to type instead.
func (p path) String() string {
	switch {
	case p.fragments != 0:
		return "a rule of the packet filter that tracks connections (nft: ct state), for large UDP answers to " +
			p.fragments.String() + " clients"
	case p.prefix.IsValid():
		return fmt.Sprintf("ip route add local %v dev lo", p.prefix)
	}
	rule, to, sport := "ip rule add", "", ""
	if p.backend.Addr().Is6() {
		rule = "ip -6 rule add"
	}
	if p.to.IsValid() {
		to = " to " + p.to.String()
	}
	if p.backend.Port() != 0 {
		sport = fmt.Sprintf(" sport %d", p.backend.Port())
	}
	return fmt.Sprintf("%s from %v%s ipproto %s%s lookup %d", rule, p.backend.Addr(), to, protocolName(p.protocol), sport,
		transparentTable)
}

// protocolName returns what ip(8) calls a protocol.
func protocolName(protocol int) string {
	switch protocol {
	case unix.IPPROTO_TCP:
		return "tcp"
	case unix.IPPROTO_UDP:
		return "udp"
	case unix.IPPROTO_ICMP:
		return "icmp"
	}
	return "ipv6-icmp"
}

// pathsOf returns what a configuration needs, each once.
func pathsOf(cfg *config.Config) (all []path) {
	need := func(p path) {
		if !slices.Contains(all, p) {
			all = append(all, p)
		}
	}
	if l := cfg.Addresses.Ledger; l != nil {
		for _, p := range []netip.Prefix{l.Pool, l.Embed} {
			if p.IsValid() && !p.Addr().IsLoopback() {
				need(path{prefix: p.Masked()})
			}
		}
	}
	for _, s := range cfg.Services {
		for _, b := range transparentBackends(s) {
			if s.Listen[0].Transport == listen.TCP {
				need(path{backend: b, protocol: unix.IPPROTO_TCP})
				continue
			}
			need(path{fragments: ip.FamilyOf(b.Addr())})
			need(path{backend: b, protocol: unix.IPPROTO_UDP})
			need(path{backend: b, protocol: unix.IPPROTO_TCP, to: anyClient(ip.FamilyOf(b.Addr()))}) // the proof's
			need(pathOfPings(b.Addr()))
		}
	}
	return all
}

// pathOfPings returns what takes the answers to the pings of the proof.
func pathOfPings(server netip.Addr) path {
	p := path{backend: netip.AddrPortFrom(server, 0), protocol: unix.IPPROTO_ICMPV6, to: anyClient(ip.FamilyOf(server))}
	if server.Is4() {
		p.protocol = unix.IPPROTO_ICMP
	}
	return p
}

// transparentBackends returns the backends that see clients' own addresses.
func transparentBackends(s *service.Service) (all []netip.AddrPort) {
	for door, route := range s.Routes {
		for _, name := range poolsOf(route) {
			pool := s.Pools[name]
			if pool.Source != backend.SourceClient {
				continue
			}
			for _, b := range pool.Servers {
				if b.Family() == door.Family && !b.Addr.Addr().IsLoopback() {
					all = append(all, b.Addr)
				}
			}
		}
	}
	slices.SortFunc(all, netip.AddrPort.Compare)
	return slices.Compact(all)
}

// poolsOf returns the pools that a route may send clients to.
func poolsOf(r backend.RouteSpec) []string {
	all := slices.Clone(r.Fallback)
	for _, share := range r.Shares {
		all = append(all, share.Pool)
	}
	return all
}

// take has everything there that a generation needs. What could not be added is in the error, with what to type.
func (r *routing) take(cfg *config.Config) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.have == nil {
		r.have = make(map[path]*held)
	}
	var errs []error
	for _, p := range pathsOf(cfg) {
		h := r.have[p]
		if h == nil {
			h = new(held)
			r.have[p] = h
		}
		h.generations++
		if h.remove != nil {
			continue
		}
		var err error
		if h.remove, err = r.add(p); err != nil {
			errs = append(errs, fmt.Errorf("%v: %w", p, err))
		}
	}
	return errors.Join(errs...)
}

// giveBack removes what no other generation needs.
func (r *routing) giveBack(cfg *config.Config) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range pathsOf(cfg) {
		h := r.have[p]
		if h == nil {
			continue
		}
		if h.generations--; h.generations > 0 {
			continue
		}
		if h.remove != nil {
			h.remove()
		}
		delete(r.have, p)
	}
}

// removeAll removes everything.
func (r *routing) removeAll() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range r.have {
		if h.remove != nil {
			h.remove()
		}
	}
	clear(r.have)
}

// add adds p and returns what removes it.
func (r *routing) add(p path) (remove func(), err error) {
	if p.fragments != 0 {
		return defragment(p.fragments)
	}
	if !r.replaces {
		for i := range priorities {
			p.remove(firstPriority + i) // left by a process that was killed
		}
	}
	for i := range priorities {
		err = p.add(firstPriority + i)
		if err == nil {
			return func() { p.remove(firstPriority + i) }, nil
		}
		if !errors.Is(err, unix.EEXIST) {
			break
		}
	}
	if errors.Is(err, unix.EPERM) && p.prefix.IsValid() {
		if is, err := isLocal(p.prefix.Addr()); err == nil && is {
			return func() {}, nil // somebody else has seen to it
		}
	}
	return nil, err
}

// add adds a route or a rule.
func (p path) add(priority int) error {
	if p.prefix.IsValid() {
		route, err := localRoute(p.prefix, unix.RT_TABLE_LOCAL)
		if err != nil {
			return err
		}
		route.Priority = priority
		return netlink.RouteAdd(route)
	}
	every, err := localRoute(everyAddress(ip.FamilyOf(p.backend.Addr())), transparentTable)
	if err == nil {
		err = netlink.RouteAdd(every)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	return p.addRule(priority)
}

// remove removes p if it is there. With the last rule, of whichever process, it removes the route that rules need.
func (p path) remove(priority int) {
	if p.prefix.IsValid() {
		if route, err := localRoute(p.prefix, unix.RT_TABLE_LOCAL); err == nil {
			route.Priority = priority
			netlink.RouteDel(route)
		}
		return
	}
	f := ip.FamilyOf(p.backend.Addr())
	if p.removeRule(priority) != nil {
		return
	}
	left, err := netlink.RuleListFiltered(netlinkFamily(f), &netlink.Rule{Table: transparentTable}, netlink.RT_FILTER_TABLE)
	if err != nil || len(left) > 0 {
		return
	}
	if every, err := localRoute(everyAddress(f), transparentTable); err == nil {
		netlink.RouteDel(every)
	}
}

// localRoute says that the addresses of a prefix are this machine's.
func localRoute(p netip.Prefix, table int) (*netlink.Route, error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find lo: %w", err)
	}
	return &netlink.Route{LinkIndex: lo.Attrs().Index, Dst: ipNet(p), Type: unix.RTN_LOCAL, Table: table,
		Scope: netlink.SCOPE_HOST, Family: netlinkFamily(ip.FamilyOf(p.Addr()))}, nil
}

// isLocal says whether the kernel takes packets to a for its own.
func isLocal(a netip.Addr) (bool, error) {
	routes, err := netlink.RouteGet(net.IP(a.AsSlice())) //house:ok netlink has no other
	if errors.Is(err, unix.ENETUNREACH) || errors.Is(err, unix.EHOSTUNREACH) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL, nil
}

func everyAddress(f ip.Family) netip.Prefix {
	if f == ip.V4 {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

func ipNet(p netip.Prefix) *net.IPNet { //house:ok netlink has no other
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())} //house:ok netlink has no other
}

func netlinkFamily(f ip.Family) int {
	if f == ip.V4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
