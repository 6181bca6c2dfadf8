// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/kernel"
)

// ways knows by which interfaces clients and servers are reached. It is found out for each generation, and again when
// interfaces come and go.
type ways struct {
	clients  []string           // interfaces
	given    bool               // by the file: no others are used
	servers  map[netip.Addr]way // ways to servers
	indices  map[string]int     // of all of them that are there; one that has come again has another
	attached []string           // those that have the program
	refused  map[string]error   // those that cannot have it, and why
}

// way is how a server is reached.
type way struct {
	iface  string
	source netip.Addr // of this machine, as the server sees it
	err    error      // why the kernel plane cannot reach it
}

func (w way) same(was way) bool {
	return w.iface == was.iface && w.source == was.source && fmt.Sprint(w.err) == fmt.Sprint(was.err)
}

// forget has find look anew.
func (w *ways) forget() { *w = ways{} }

// find finds the interfaces that the services need.
func (w *ways) find(site *config.Config, services []Service) error {
	if w.servers != nil {
		return nil
	}
	w.servers, w.refused, w.indices = make(map[netip.Addr]way), make(map[string]error), make(map[string]int)
	w.clients, w.given = slices.Clone(site.Kernel.Interfaces), len(site.Kernel.Interfaces) > 0
	for i := range services {
		s := &services[i]
		if s.never() != nil {
			continue
		}
		for _, route := range s.Routes {
			for _, pool := range route.Pools() {
				for _, b := range pool.Backends() {
					w.look(b.Addr.Addr())
				}
			}
		}
	}
	if !w.given {
		var err error
		if w.clients, err = clientInterfaces(services); err != nil {
			return err
		}
	}
	for _, name := range w.all() {
		if link, err := netlink.LinkByName(name); err == nil {
			w.indices[name] = link.Attrs().Index
		}
	}
	return nil
}

// all returns the names of the interfaces.
func (w *ways) all() []string {
	all := slices.Clone(w.clients)
	for _, one := range w.servers {
		if one.err == nil && !w.given {
			all = append(all, one.iface)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// same says whether what has been found is what was found before.
func (w *ways) same(was *ways) bool {
	return slices.Equal(w.clients, was.clients) && maps.Equal(w.indices, was.indices) && maps.EqualFunc(w.servers, was.servers, way.same)
}

// look finds the way to a server.
func (w *ways) look(server netip.Addr) {
	if _, ok := w.servers[server]; ok {
		return
	}
	w.servers[server] = wayTo(server)
}

func wayTo(server netip.Addr) way {
	routes, err := netlink.RouteGet(server.AsSlice())
	if err != nil || len(routes) == 0 {
		return way{err: fmt.Errorf("there is no route to %v: %w", server, err)}
	}
	r := routes[0]
	link, err := netlink.LinkByIndex(r.LinkIndex)
	switch {
	case err != nil:
		return way{err: fmt.Errorf("find the way to %v: %w", server, err)}
	case r.Type == unix.RTN_LOCAL:
		return way{err: fmt.Errorf("the server %v is this machine", server)}
	}
	source, ok := netip.AddrFromSlice(r.Src)
	if !ok {
		return way{err: fmt.Errorf("the route to %v has no source", server)}
	}
	return way{iface: link.Attrs().Name, source: ip.Canonical(source)}
}

// to returns the way to a server by an interface that has the program.
func (w *ways) to(server netip.Addr) (way, error) {
	one := w.servers[server]
	if one.err != nil {
		return one, one.err
	}
	if err := w.refused[one.iface]; err != nil {
		return one, err
	}
	if !slices.Contains(w.attached, one.iface) {
		return one, fmt.Errorf("the server %v is reached by %s, which kernel.interfaces does not name", server, one.iface)
	}
	return one, nil
}

// attach puts the program on the interfaces. It fails if none by which clients come can have it; without wanted nobody
// needs one.
func (w *ways) attach(k *kernel.Plane, wanted bool) error {
	if w.attached != nil || !wanted {
		return nil
	}
	for _, name := range w.all() {
		err := alone(name)
		if err == nil {
			err = k.Attach(name)
		}
		if err != nil {
			w.refused[name] = err
			continue
		}
		w.attached = append(w.attached, name)
	}
	for _, name := range w.clients {
		if slices.Contains(w.attached, name) {
			return nil
		}
	}
	for _, name := range w.clients {
		return w.refused[name]
	}
	return errNoClients
}

// alone returns an error if an interface is a part of another: the packets of a bridge are for others too.
func alone(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	master := link.Attrs().MasterIndex
	if master == 0 {
		return nil
	}
	whole, err := netlink.LinkByIndex(master)
	if err != nil {
		return fmt.Errorf("interface %s: %w", name, err)
	}
	return fmt.Errorf("interface %s is a part of %s", name, whole.Attrs().Name)
}

// clientInterfaces returns the interfaces by which clients come, as far as routes and addresses tell: those of the
// default routes and those that have an address of a listen.
func clientInterfaces(services []Service) ([]string, error) {
	indices := make(map[int]bool)
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		routes, err := netlink.RouteListFiltered(family, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, r := range routes {
			if r.Dst == nil || isDefault(r.Dst) {
				indices[r.LinkIndex] = true
				for _, hop := range r.MultiPath {
					indices[hop.LinkIndex] = true
				}
			}
		}
	}
	addresses, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	for _, a := range addresses {
		own, _ := netip.AddrFromSlice(a.IP)
		if listensAt(services, ip.Canonical(own)) {
			indices[a.LinkIndex] = true
		}
	}
	return ethernets(indices)
}

func isDefault(n *net.IPNet) bool { //house:ok netlink has no other
	ones, _ := n.Mask.Size()
	return ones == 0
}

func listensAt(services []Service, a netip.Addr) bool {
	for i := range services {
		for _, l := range services[i].Listens {
			if l.AddrPort.Addr() == a && services[i].never() == nil {
				return true
			}
		}
	}
	return false
}

// ethernets returns the names of the interfaces that are none of the machine's inner ones.
func ethernets(indices map[int]bool) (names []string, err error) {
	for index := range indices {
		if index == 0 {
			continue
		}
		link, err := netlink.LinkByIndex(index)
		if err != nil {
			return nil, fmt.Errorf("find interface: %w", err)
		}
		if a := link.Attrs(); a.Flags&net.FlagLoopback == 0 && link.Type() != "dummy" {
			names = append(names, a.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return !errors.Is(err, fs.ErrNotExist)
}
