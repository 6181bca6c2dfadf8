// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
)

// linkTime is how long a cable may take to be noticed.
const linkTime = 10 * time.Second

// connect joins the hosts by their links, then gives them addresses and routes. No interface ever appears outside
// the lab: both ends of each are made where they belong.
//
//	two hosts on a link    host ══ veth ══ host
//	more, or one           host ══ veth ══ bridge in the switch, a namespace of its own ══ veth ══ host …
func (l *Lab) connect(ctx context.Context, f *File) error {
	for _, h := range l.sorted() {
		if err := h.Do(h.setSysctls); err != nil {
			return fmt.Errorf("set up host %s: %w", h.name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.Links)) {
		if err := l.link(name, f.Links[name]); err != nil {
			return fmt.Errorf("make link %s: %w", name, err)
		}
	}
	for _, h := range l.sorted() {
		if err := h.setAddresses(); err != nil {
			return fmt.Errorf("set up host %s: %w", h.name, err)
		}
	}
	for _, h := range append(l.sorted(), l.bridges) {
		if err := h.awaitLinks(ctx); err != nil {
			return fmt.Errorf("set up host %s: %w", h.name, err)
		}
	}
	return nil
}

// awaitLinks waits until the kernel has noticed that the cables are in, which it does up to a second late. Before,
// a bridge forwards nothing and IPv6 sends nothing.
func (h *Host) awaitLinks(ctx context.Context) error {
	n, err := netlink.NewHandleAt(netns.NsHandle(h.net.Fd()))
	if err != nil {
		return err
	}
	defer n.Close()
	ctx, cancel := context.WithTimeout(ctx, linkTime)
	defer cancel()
	again := time.NewTicker(askEvery)
	defer again.Stop()
	for {
		late, err := notUp(n)
		if err != nil || late == "" {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", late, ctx.Err())
		}
	}
}

// notUp returns the name of an interface that is not up yet, or "".
func notUp(n *netlink.Handle) (string, error) {
	links, err := n.LinkList()
	if err != nil {
		return "", fmt.Errorf("list interfaces: %w", err)
	}
	for _, link := range links {
		a := link.Attrs()
		if a.Flags&net.FlagLoopback == 0 && a.Flags&net.FlagUp != 0 && a.OperState != netlink.OperUp {
			return a.Name, nil
		}
	}
	return "", nil
}

// link makes the Ethernet called name between all hosts that are on it.
func (l *Lab) link(name string, spec Link) error {
	var on []*Host
	for _, h := range l.sorted() {
		if _, ok := h.spec.Links[name]; ok {
			on = append(on, h)
		}
	}
	if len(on) == 2 {
		return veth(on[0].net, name, on[1].net, name, spec.MTU, nil)
	}
	n, err := netlink.NewHandleAt(netns.NsHandle(l.bridges.net.Fd()))
	if err != nil {
		return err
	}
	defer n.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, spec.MTU
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := n.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add bridge: %w", err)
	}
	if err := n.LinkSetUp(bridge); err != nil {
		return fmt.Errorf("set bridge up: %w", err)
	}
	for i, h := range on {
		// A port's name need only be unlike the others: 15 bytes do not hold both names.
		port := fmt.Sprintf("p%d-%d", bridge.Index, i)
		if err := veth(l.bridges.net, port, h.net, name, spec.MTU, bridge); err != nil {
			return err
		}
	}
	return nil
}

// veth makes a cable from a to b. The end in a goes into the bridge, if there is one, and is set up.
func veth(a *os.File, nameA string, b *os.File, nameB string, mtu int, bridge *netlink.Bridge) error {
	n, err := netlink.NewHandleAt(netns.NsHandle(a.Fd()))
	if err != nil {
		return err
	}
	defer n.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = nameA, mtu
	if bridge != nil {
		attrs.MasterIndex = bridge.Index
	}
	v := netlink.NewVeth(attrs)
	v.PeerName, v.PeerNamespace, v.PeerMTU = nameB, netlink.NsFd(b.Fd()), uint32(mtu)
	if err := n.LinkAdd(v); err != nil {
		return fmt.Errorf("add veth: %w", err)
	}
	if err := n.LinkSetUp(v); err != nil {
		return fmt.Errorf("set veth up: %w", err)
	}
	return nil
}

// setSysctls prepares the host's network before it has interfaces: addresses can be used at once, nothing comes by
// router advertisement, and the kernel's own filter of source addresses is off unless the file turns it on.
func (h *Host) setSysctls() error {
	set := map[string]string{
		"net.ipv4.ping_group_range": "0 2147483647",
	}
	for _, dev := range []string{"all", "default"} {
		set["net.ipv4.conf."+dev+".rp_filter"] = "0"
		set["net.ipv6.conf."+dev+".accept_dad"] = "0"
		set["net.ipv6.conf."+dev+".accept_ra"] = "0"
		set["net.ipv6.conf."+dev+".disable_ipv6"] = "1"
		if h.spec.families()[ip.V6] {
			set["net.ipv6.conf."+dev+".disable_ipv6"] = "0"
		}
	}
	if h.spec.Forward {
		set["net.ipv4.ip_forward"] = "1"
		set["net.ipv6.conf.all.forwarding"] = "1"
	}
	maps.Copy(set, h.spec.Sysctls)
	for _, key := range slices.Sorted(maps.Keys(set)) {
		path := "/proc/sys/" + strings.ReplaceAll(key, ".", "/")
		if err := os.WriteFile(path, []byte(set[key]), 0o644); err != nil {
			return fmt.Errorf("set sysctl %s: %w", key, err)
		}
	}
	return nil
}

// setAddresses gives the host's interfaces their addresses and sets them up, then adds its routes.
func (h *Host) setAddresses() error {
	n, err := netlink.NewHandleAt(netns.NsHandle(h.net.Fd()))
	if err != nil {
		return err
	}
	defer n.Close()
	lo, err := n.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := n.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(h.spec.Links)) {
		link, err := n.LinkByName(name)
		if err != nil {
			return fmt.Errorf("find %s: %w", name, err)
		}
		for _, p := range h.spec.Links[name] {
			a, err := inNetlink(p)
			if err != nil {
				return err
			}
			if !p.Addr().Is4() {
				a.Flags = unix.IFA_F_NODAD
			}
			if err := n.AddrAdd(link, a); err != nil {
				return fmt.Errorf("add %s to %s: %w", p, name, err)
			}
		}
		if err := n.LinkSetUp(link); err != nil {
			return fmt.Errorf("set %s up: %w", name, err)
		}
	}
	return h.addRoutes(n, lo.Attrs().Index)
}

func (h *Host) addRoutes(n *netlink.Handle, lo int) error {
	routes := slices.Clone(h.spec.Routes)
	for _, g := range h.spec.Gateway {
		all, _ := g.Prefix(0)
		routes = append(routes, Route{To: all, Via: g})
	}
	for _, r := range routes {
		to, err := inNetlink(r.To.Masked())
		if err != nil {
			return err
		}
		if err := n.RouteAdd(&netlink.Route{Dst: to.IPNet, Gw: r.Via.AsSlice()}); err != nil {
			return fmt.Errorf("add route to %s via %s: %w", r.To, r.Via, err)
		}
	}
	for _, p := range h.spec.Local {
		to, err := inNetlink(p.Masked())
		if err != nil {
			return err
		}
		r := &netlink.Route{Dst: to.IPNet, LinkIndex: lo, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL,
			Scope: netlink.SCOPE_HOST}
		if err := n.RouteAdd(r); err != nil {
			return fmt.Errorf("add local route %s: %w", p, err)
		}
	}
	return nil
}

// inNetlink returns p as the library writes it.
func inNetlink(p netip.Prefix) (*netlink.Addr, error) {
	a, err := netlink.ParseAddr(p.String())
	if err != nil {
		return nil, fmt.Errorf("read prefix %s: %w", p, err)
	}
	return a, nil
}

// etcHosts is what every host finds in /etc/hosts: its own loopback and the names of the file. Only the family of
// an address decides who can use it.
func etcHosts(f *File) []byte {
	var b strings.Builder
	b.WriteString("127.0.0.1 localhost\n::1 localhost\n")
	for _, name := range slices.Sorted(maps.Keys(f.Names)) {
		for _, a := range f.Names[name] {
			b.WriteString(a.String() + " " + name + "\n")
		}
	}
	return []byte(b.String())
}

// port returns the port of a as text.
func port(a netip.AddrPort) string { return strconv.Itoa(int(a.Port())) }
