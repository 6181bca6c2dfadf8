// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package media

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
)

// network is a Network and what is taken of it.
type network struct {
	Network
	single bool // it has one address, and ports
	high   uint64
	remove func()       // what was done for it
	used   atomic.Int64 // pairs of ports, or addresses
	rested bool         // nothing of it was in use when it was last looked at; see Plane.forget
	mu     sync.Mutex
	taken  []bool // pairs of ports
	count  int
}

func newNetwork(n Network) *network {
	w := &network{Network: n, single: n.Media.IsSingleIP(), remove: func() {}}
	if w.single {
		w.taken = make([]bool, (int(n.High)-int(n.Low)+1)/2)
		return w
	}
	a := n.Media.Masked().Addr().As16()
	w.high = binary.BigEndian.Uint64(a[:8])
	return w
}

// take returns a pair of ports that is not taken, by the first of them; or false. Which one nobody can guess.
func (n *network) take() (uint16, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.count == len(n.taken) {
		return 0, false
	}
	i := rand.IntN(len(n.taken))
	for n.taken[i] {
		i = (i + 1) % len(n.taken)
	}
	n.taken[i] = true
	n.count++
	return n.Low + uint16(2*i), true
}

// claim takes one pair.
func (n *network) claim(at uint16) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if at < n.Low || at >= n.High || (at-n.Low)%2 != 0 || n.taken[(at-n.Low)/2] {
		return false
	}
	n.taken[(at-n.Low)/2] = true
	n.count++
	return true
}

func (n *network) giveBack(at uint16) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.taken[(at-n.Low)/2] = false
	n.count--
}

// has says whether an address is one that calls can have.
func (n *network) has(a netip.AddrPort) bool {
	low, high := n.Low, n.High
	if !n.single {
		low, high = PrefixPort, PrefixPort+1
	}
	return n.Media.Contains(a.Addr()) && a.Port() >= low && a.Port() <= high
}

func (n *network) family() ip.Family { return ip.FamilyOf(n.Media.Addr()) }

// address returns the address of the prefix with this interface identifier.
func (n *network) address(id uint64) netip.Addr {
	var a [16]byte
	binary.BigEndian.PutUint64(a[:8], n.high)
	binary.BigEndian.PutUint64(a[8:], id)
	return netip.AddrFrom16(a)
}

// idOf is the reverse of address.
func (n *network) idOf(a netip.Addr) (id uint64, ok bool) {
	b := a.As16()
	return binary.BigEndian.Uint64(b[8:]), a.Is6() && binary.BigEndian.Uint64(b[:8]) == n.high
}

// addRoute makes all addresses of a prefix this machine's: ip -6 route add local PREFIX dev lo. Who may not do so needs
// somebody who has.
func addRoute(p netip.Prefix) (remove func(), err error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("find lo: %w", err)
	}
	r := &netlink.Route{LinkIndex: lo.Attrs().Index, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST,
		Dst: &net.IPNet{IP: p.Masked().Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}} //house:ok netlink has no other
	switch err := netlink.RouteAdd(r); {
	case err == nil:
		return func() { netlink.RouteDel(r) }, nil
	case errors.Is(err, unix.EEXIST), isLocal(p.Addr()):
		return func() {}, nil // left by a process that was killed, or somebody has seen to it
	default:
		return nil, fmt.Errorf("type: ip -6 route add local %v dev lo: %w", p.Masked(), err)
	}
}

// isLocal says whether packets to an address come to this machine.
func isLocal(a netip.Addr) bool {
	routes, err := netlink.RouteGet(a.AsSlice())
	return err == nil && len(routes) > 0 && routes[0].Type == unix.RTN_LOCAL
}
