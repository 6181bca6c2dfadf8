// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var errOwn = errors.New("it is this machine")

// route returns the route of packets of an address of this machine, by an Ethernet interface, with the MTU that holds on it.
func (s *Streams) route(from, to netip.Addr) (*netlink.Route, error) {
	routes, err := s.routes.RouteGetWithOptions(to.AsSlice(), &netlink.RouteGetOptions{SrcAddr: from.AsSlice()})
	switch {
	case err != nil:
		return nil, err
	case len(routes) == 0 || routes[0].Type != unix.RTN_UNICAST:
		return nil, errOwn
	}
	r, leaves := &routes[0], s.leaves(routes[0].LinkIndex)
	if r.MTU == 0 || r.MTU > leaves.mtu {
		r.MTU = leaves.mtu
	}
	return r, leaves.err
}

// leaving is what there is to know of an interface by which lanes are to leave.
type leaving struct {
	mtu int
	err error // they cannot
}

// leaves returns what there is to know of an interface. What it was is known until the ways are looked at again.
func (s *Streams) leaves(index int) (l leaving) {
	if known, ok := s.links.Load(index); ok {
		l, _ = known.(leaving)
		return l
	}
	link, err := s.routes.LinkByIndex(index)
	if l.err = err; err == nil {
		l = leaving{mtu: link.Attrs().MTU, err: isEthernet(link)}
	}
	s.links.Store(index, l)
	return l
}

// lookStrict notes whether an interface of this machine takes packets of IPv4 only by the way that leads back to their source. Then lanes
// do, for they are asked before the host is. RFC 3704 §2.2
func (s *Streams) lookStrict() {
	strict := false
	files, _ := filepath.Glob("/proc/sys/net/ipv4/conf/*/rp_filter") // the pattern is good
	for _, f := range files {
		value, err := os.ReadFile(f)
		strict = strict || err == nil && bytes.HasPrefix(value, []byte("1"))
	}
	s.strict.Store(strict)
}

// iif returns the interface by which packets of remote must come; 0: by any.
func (s *Streams) iif(local, remote netip.Addr) uint32 {
	if !remote.Is4() || !s.strict.Load() {
		return 0
	}
	r, err := s.route(local, remote)
	if err != nil {
		return math.MaxUint32 // there is no way back, and so none here
	}
	return uint32(r.LinkIndex)
}

// viaOf returns the gateway of a route whose family is the other one. RFC 8950
func viaOf(r *netlink.Route) (netip.Addr, bool) {
	via, ok := r.Via.(*netlink.Via)
	if !ok {
		return netip.Addr{}, false
	}
	return netip.AddrFromSlice(via.Addr)
}

// isEthernet returns an error if the frames of an interface are not those of Ethernet.
func isEthernet(l netlink.Link) error {
	if kind := l.Attrs().EncapType; kind != "ether" {
		return fmt.Errorf("%w: interface %s is of type %q, not Ethernet", ErrUnsupported, l.Attrs().Name, kind)
	}
	return nil
}

// ethernet is isEthernet for an interface by its name.
func ethernet(iface string) error {
	l, err := netlink.LinkByName(iface)
	if err != nil {
		return fmt.Errorf("%w: interface %s: %w", ErrUnsupported, iface, err)
	}
	return isEthernet(l)
}
