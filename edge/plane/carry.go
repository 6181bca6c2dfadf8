// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/kernel"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/service"
)

// Service is a service of a generation.
type Service struct {
	*service.Service
	Routes  map[service.Door]*backend.Route
	Listens []service.Listen // those at which nothing needs to be read
	Read    []error          // why it must be at the others
	Shut    bool             // it takes nobody
}

// Verdict is where a service is carried.
type Verdict struct {
	Kernel bool
	Reason string // why not
	Note   string // what to know about it
	Wanted bool   // the file says plane: kernel
}

// state is what the plane carries. It is immutable.
type state struct {
	verdicts   map[string]Verdict
	fronts     map[listen.Addr]bool
	backends   map[listen.Addr]bool
	interfaces []string
	fault      string
}

// note is what is to be known of each service in the kernel.
const note = "goes before the packet filter of this machine"

var (
	errNoClients = errors.New("it is not known by which interface clients come: name it in kernel.interfaces")

	errUnasked = errors.New("nobody asks for the kernel plane")
)

// Apply makes the plane carry what it can of the services: the list is complete. now and then Run does it again, as the
// backends are.
func (p *Plane) Apply(site *config.Config, services []Service) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.site, p.services = site, services
	p.ways.forget()
	p.applyLocked()
}

// Stop takes no new flows any more. Those that are there go on.
func (p *Plane) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.services = nil
	p.applyLocked()
}

// refresh applies again what depends on how the backends are.
func (p *Plane) refresh() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.open.Load() != nil && !p.gone.Load() && p.signature() != p.last {
		p.applyLocked()
	}
}

// applyLocked works out what can be carried, and applies it.
func (p *Plane) applyLocked() {
	if p.gone.Load() || p.site == nil {
		return
	}
	next, carried := p.chooseLocked()
	was := p.state.Swap(next) // from here on, new flows of the user plane ask for their ports
	if next.more(was) && p.options.Adopt != nil {
		p.options.Adopt()
	}
	k := p.open.Load()
	if k != nil {
		p.last = p.signature()
		if err := k.Apply(carried); err != nil {
			p.options.Log.Error("apply to the kernel plane", "err", err)
			next = next.allUser(fmt.Errorf("the kernel plane has refused: %w", err))
			if err := k.Apply(nil); err != nil {
				p.options.Log.Error("empty the kernel plane", "err", err)
			}
			p.state.Store(next)
		}
	}
	p.say(was, next)
}

// chooseLocked says of each service where it is carried.
func (p *Plane) chooseLocked() (*state, []kernel.Service) {
	s := &state{verdicts: make(map[string]Verdict), fronts: make(map[listen.Addr]bool), backends: make(map[listen.Addr]bool)}
	var candidates []*Service
	for i := range p.services {
		svc := &p.services[i]
		v := Verdict{Wanted: svc.Plane == service.PlaneKernel}
		switch err := svc.never(); {
		case err == nil:
			candidates = append(candidates, svc)
		case !errors.Is(err, errUnasked):
			v.Reason = err.Error()
		}
		s.verdicts[svc.Name] = v
	}
	if err := p.prepareLocked(len(candidates) > 0); err != nil {
		s.fault = why(err)
		for _, svc := range candidates {
			s.setReason(svc.Name, err)
		}
		return s, nil
	}
	s.interfaces = p.ways.attached
	var carried []kernel.Service
	for _, svc := range candidates {
		one, err := p.convert(svc)
		if err != nil {
			s.setReason(svc.Name, err)
			continue
		}
		s.verdicts[svc.Name] = Verdict{Kernel: true, Note: svc.note(), Wanted: svc.Plane == service.PlaneKernel}
		if svc.Shut {
			continue
		}
		carried = append(carried, one)
		for _, f := range one.Fronts {
			s.fronts[f.Addr] = true
			for _, b := range f.Backends {
				s.backends[listen.Addr{Transport: f.Transport, AddrPort: b.Addr}] = true
			}
		}
	}
	return s, carried
}

// why is err as it stands in a sentence about the kernel plane.
func why(err error) string {
	return strings.TrimPrefix(err.Error(), kernel.ErrUnsupported.Error()+": ")
}

func (s *state) setReason(name string, err error) {
	v := s.verdicts[name]
	v.Kernel, v.Note = false, ""
	v.Reason = why(err)
	s.verdicts[name] = v
}

// more says whether s carries something that was does not.
func (s *state) more(was *state) bool {
	for a := range s.fronts {
		if !was.fronts[a] {
			return true
		}
	}
	for a := range s.backends {
		if !was.backends[a] {
			return true
		}
	}
	return false
}

// allUser returns s with a reason for each service that was to be carried why it is not.
func (s *state) allUser(err error) *state {
	next := &state{verdicts: maps.Clone(s.verdicts), interfaces: s.interfaces, fault: why(err)}
	for name, v := range next.verdicts {
		if v.Kernel {
			next.setReason(name, err)
		}
	}
	return next
}

// never returns why a service is not for the kernel plane, whatever machine this is; nil if it is.
func (s *Service) never() error {
	if s.Plane == service.PlaneUser {
		return errUnasked
	}
	if len(s.Listens) == 0 {
		for _, err := range s.Read {
			if !errors.Is(err, service.ErrRead) {
				return err
			}
		}
		return errUnasked
	}
	if all := s.NotInKernel(); len(all) > 0 {
		return all[0]
	}
	return nil
}

// note is what is to be known of a service in the kernel.
func (s *Service) note() string {
	all := []string{note}
	for _, err := range s.Read {
		all = append(all, "not "+err.Error())
	}
	return strings.Join(all, "; ")
}

// prepareLocked opens the plane and attaches it where services need it. If none does, it is opened only if a process
// before has left it, so that its flows are looked after.
func (p *Plane) prepareLocked(wanted bool) error {
	if !wanted && p.open.Load() == nil {
		if pin, err := Pin(); err != nil || !exists(pin) {
			return nil
		}
	}
	if err := p.ways.find(p.site, p.services); err != nil {
		return err
	}
	if err := p.openLocked(); err != nil {
		return err
	}
	return p.ways.attach(p.open.Load(), wanted)
}

// convert writes a service as the kernel plane wants it.
func (p *Plane) convert(s *Service) (kernel.Service, error) {
	out := kernel.Service{Name: s.Name, Allow: slices.Collect(s.Allow.All), Deny: slices.Collect(s.Deny.All), Idle: s.Timeouts.Idle}
	for _, l := range s.Listens {
		f, err := p.front(s, l)
		if err != nil {
			return out, err
		}
		out.Fronts = append(out.Fronts, f)
	}
	return out, nil
}

// front writes one address of a service with the backends of its route.
func (p *Plane) front(s *Service, l service.Listen) (kernel.Front, error) {
	f := kernel.Front{Addr: l.Addr}
	route := s.Routes[service.Door{Listen: l.Name, Family: l.Family()}]
	now := p.options.Now()
	index := make(map[*backend.Backend]int32)
	for _, pool := range route.Pools() {
		for _, b := range pool.Backends() {
			one, err := p.backend(s, l.Family(), b)
			if err != nil {
				return f, err
			}
			index[b] = int32(len(f.Backends))
			f.Backends = append(f.Backends, one)
		}
	}
	if !route.Sticky() {
		for _, b := range route.Serving(now) {
			share, _ := b.Share(now)
			f.Backends[index[b]].Weight = share
		}
		return f, nil
	}
	f.Sticky, f.Slots = true, make([]int32, kernel.RingSize)
	for slot := range f.Slots {
		f.Slots[slot] = -1
		if b := route.At(uint64(slot), now); b != nil {
			f.Slots[slot] = index[b]
			f.Backends[index[b]].Weight = 1
		}
	}
	return f, nil
}

// backend writes a backend as clients of a family see it.
func (p *Plane) backend(s *Service, client ip.Family, b *backend.Backend) (kernel.Backend, error) {
	one := kernel.Backend{Addr: b.Addr, Source: kernel.SourceEdge}
	way, err := p.ways.to(b.Addr.Addr())
	if err != nil {
		return one, err
	}
	if b.Pool().Spec.Source == backend.SourceEdge {
		one.Sources = []netip.Addr{way.source}
		return one, nil
	}
	one.Source = kernel.SourceClient
	if ledger := p.site.Addresses.Ledger; client == ip.V4 && b.Family() == ip.V6 && ledger != nil {
		one.Prefix = ledger.Embed
	}
	return one, nil
}

// signature is all that the tables depend on and that changes without a reload.
func (p *Plane) signature() string {
	var text strings.Builder
	now := p.options.Now()
	for i := range p.services {
		s := &p.services[i]
		if s.Plane == service.PlaneUser {
			continue
		}
		for _, l := range s.Listens {
			for _, pool := range s.Routes[service.Door{Listen: l.Name, Family: l.Family()}].Pools() {
				for _, b := range pool.Backends() {
					share, ejected := b.Share(now)
					fmt.Fprint(&text, share, ejected, " ")
				}
			}
		}
	}
	return text.String() + "." // not what was never applied
}

func sorted(all iter.Seq[string]) []string { return slices.Sorted(all) }
