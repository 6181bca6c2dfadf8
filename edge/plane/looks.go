// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/kyozon/kyozon/ip"
)

// looks remember the interfaces and addresses of this machine.
type looks struct {
	seen string
	left int // times to look at the ways, though nothing has changed since: routes come after addresses
}

// moreLooks is how often, once a second.
const moreLooks = 5

// lookAround finds the ways anew if interfaces or addresses have come or gone, and applies what has changed: an interface
// that was not there gets the program, one that is gone is let go.
func (p *Plane) lookAround() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open.Load() == nil || p.gone.Load() || p.site == nil || !p.looks.again(interfaces()) {
		return
	}
	var now ways
	if err := now.find(p.site, p.services); err != nil {
		p.options.Log.Error("look for interfaces", "err", err)
		return
	}
	if now.same(&p.ways) {
		return
	}
	was := p.ways.attached
	p.ways = now
	p.applyLocked()
	for _, name := range was {
		if _, there := now.indices[name]; there {
			continue
		}
		if err := p.open.Load().Leave(name); err != nil {
			p.options.Log.Error("leave an interface", "err", err)
		}
	}
}

// again says whether the ways must be looked at, as the machine is now.
func (l *looks) again(now string) bool {
	if now != l.seen {
		l.seen, l.left = now, moreLooks
	}
	l.left--
	return l.left >= 0
}

// interfaces describes the interfaces and addresses of this machine, so that it is seen when one is another.
func interfaces() string {
	var all []string
	links, err := netlink.LinkList()
	for _, l := range links {
		a := l.Attrs()
		all = append(all, fmt.Sprint(a.Index, a.Name, a.MasterIndex, a.Flags))
	}
	addresses, failed := netlink.AddrList(nil, netlink.FAMILY_ALL)
	for _, a := range addresses {
		own, _ := netip.AddrFromSlice(a.IP)
		all = append(all, fmt.Sprint(a.LinkIndex, ip.Canonical(own)))
	}
	slices.Sort(all)
	return fmt.Sprint(strings.Join(all, "\n"), err, failed)
}
