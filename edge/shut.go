// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"maps"
	"slices"

	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/service"
)

// unprovenLocked returns the services of g that must stay shut, and why. One that is open stays so: then only its new
// servers wait.
func (e *Edge) unprovenLocked(g *generation) map[string]string {
	shut := make(map[string]string)
	for _, s := range g.config.Services {
		if reason := e.whyShut(g, s); reason != "" && !e.isOpenLocked(s) {
			shut[s.Name] = reason
		}
	}
	return shut
}

// whyShut returns why a service must not open, or "".
func (e *Edge) whyShut(g *generation, s *service.Service) string {
	if reason := e.proofs.whyShut(g, s); reason != "" {
		return reason
	}
	for _, server := range g.servers {
		if server.Shut == nil {
			continue
		}
		if reason := server.Shut(s.Name); reason != "" {
			return reason
		}
	}
	return ""
}

// isOpenLocked says whether a service is open, here or in the process that this one replaces, which hands over the
// sockets of open services only.
func (e *Edge) isOpenLocked(s *service.Service) bool {
	if e.generation.Load() != nil {
		return e.opened[s.Name]
	}
	return e.options.Replaces && slices.ContainsFunc(s.Listen, func(l service.Listen) bool {
		return slices.Contains(e.options.Inherited, l.Addr)
	})
}

// openAddresses returns the addresses at which a service answers that is not shut.
func (g *generation) openAddresses(shut map[string]string) map[listen.Addr]bool {
	open := make(map[listen.Addr]bool)
	for _, s := range g.config.Services {
		if _, is := shut[s.Name]; is {
			continue
		}
		for _, l := range s.Listen {
			open[l.Addr] = true
		}
	}
	return open
}

// setShutLocked writes down which services are shut, and closes the doors at which nobody is left to answer.
func (e *Edge) setShutLocked(g *generation, shut map[string]string) {
	clear(e.opened)
	for _, s := range g.config.Services {
		_, is := shut[s.Name]
		e.opened[s.Name] = !is
		if is {
			e.options.Log.Error("service stays shut", "service", s.Name, "err", shut[s.Name])
		}
	}
	e.shut.Store(&shut)
	open := g.openAddresses(shut)
	for a, d := range e.doors {
		if !open[a] {
			d.close()
			delete(e.doors, a)
		}
	}
	e.sockets.Sweep()
}

// reopen opens the services whose way back has been found.
func (e *Edge) reopen() {
	e.mu.Lock()
	defer e.mu.Unlock()
	g := e.generation.Load()
	if g == nil || e.closing.Load() || e.replaced {
		return
	}
	shut := maps.Clone(*e.shut.Load())
	for _, s := range g.config.Services {
		was, is := shut[s.Name]
		if !is {
			continue
		}
		reason := e.whyShut(g, s)
		if reason == "" {
			reason = e.openLocked(g, s)
		}
		if reason != "" {
			shut[s.Name] = reason
			continue
		}
		delete(shut, s.Name)
		e.opened[s.Name] = true
		e.options.Log.Info("service opens", "service", s.Name, "was", was)
	}
	e.shut.Store(&shut)
	e.applyPlaneLocked(g)
}

// openLocked opens the doors of a service, or says why it cannot.
func (e *Edge) openLocked(g *generation, s *service.Service) (reason string) {
	for _, l := range s.Listen {
		if err := e.openDoorLocked(g, l.Addr); err != nil {
			e.options.Log.Error("service stays shut", "service", s.Name, "err", err)
			return err.Error()
		}
	}
	return ""
}

func (e *Edge) openDoorLocked(g *generation, a listen.Addr) error {
	if e.doors[a] != nil {
		return nil
	}
	d, err := lend(e.sockets, a)
	if err != nil {
		return err
	}
	if err := d.serve(e.loops, g.guards[a], e.options.Flows.take(a)); err != nil {
		d.close()
		return err
	}
	e.doors[a] = d
	return nil
}
