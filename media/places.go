// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package media

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/media/stream"
)

// places are the networks of a plane. It is immutable, but for what is taken of them.
type places struct {
	current map[string]*network // of new calls
	old     []*network          // that calls still have addresses of
}

// at returns the network that has an address, or nil.
func (p *places) at(a netip.AddrPort) *network {
	for _, n := range p.current {
		if n.has(a) {
			return n
		}
	}
	for _, n := range p.old {
		if n.has(a) {
			return n
		}
	}
	return nil
}

// Renew has new calls get their addresses in these networks. Calls that there are keep theirs. On error all is as it was.
// Only one goroutine may call it.
func (p *Plane) Renew(all []Network) error {
	was := p.places.Load()
	is := &places{current: make(map[string]*network)}
	var fresh []*network
	for _, n := range all {
		if same := was.current[n.Name]; same != nil && same.Network == n {
			is.current[n.Name] = same
			continue
		}
		one := newNetwork(n)
		err := p.prepare(one)
		if err != nil {
			for _, n := range fresh {
				n.remove()
			}
			return fmt.Errorf("network %s: %w", n.Name, err)
		}
		fresh = append(fresh, one)
		is.current[n.Name] = one
	}
	is.old = slices.Clone(was.old)
	for name, n := range was.current {
		if is.current[name] != n {
			is.old = append(is.old, n)
		}
	}
	p.places.Store(is)
	return nil
}

// prepare has packets to a network come to this process.
func (p *Plane) prepare(n *network) error {
	if n.single {
		return nil
	}
	remove, err := addRoute(n.Media)
	if err != nil {
		return err
	}
	if err := errors.Join(p.openWide(stream.RTP), p.openWide(stream.RTCP)); err != nil {
		remove()
		return err
	}
	n.remove = remove
	return nil
}

// forget lets the networks go that no call has had an address of for two looks: a loop may just have been about to give one. It
// is called by who calls Renew.
func (p *Plane) forget() {
	was := p.places.Load()
	is := &places{current: was.current}
	var gone []*network
	for _, n := range was.old {
		unused := n.used.Load() == 0
		if unused && n.rested {
			gone = append(gone, n)
			continue
		}
		n.rested = unused
		is.old = append(is.old, n)
	}
	if gone == nil {
		return
	}
	p.places.Store(is)
	for _, n := range gone {
		if !is.inherits(n) {
			n.remove()
		}
	}
}

// inherits says whether another network has the prefix of one that is gone, and has that one remove the route.
func (p *places) inherits(gone *network) bool {
	heir := func(n *network) bool { return n.Media == gone.Media }
	for _, n := range p.current {
		if heir(n) {
			n.remove = gone.remove
			return true
		}
	}
	if i := slices.IndexFunc(p.old, heir); i >= 0 {
		p.old[i].remove = gone.remove
		return true
	}
	return false
}

// renew reads again which networks there are, and tells those who have asked.
func (p *Plane) renew() {
	p.mu.Lock()
	asked := p.asked
	p.asked = nil
	p.mu.Unlock()
	all, err := p.options.Renew()
	if err == nil {
		err = p.Renew(all)
	}
	p.forget()
	for _, done := range asked {
		done(control.Call{}, err)
	}
}

// ask has renew called.
func (p *Plane) ask(done func(control.Call, error)) {
	if p.options.Renew == nil {
		done(control.Call{}, control.ErrInvalid)
		return
	}
	p.mu.Lock()
	p.asked = append(p.asked, done)
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}
