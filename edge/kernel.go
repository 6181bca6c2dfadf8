// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"net/netip"
	"sync"
	"time"

	"github.com/kyozon/kyozon/accesslog"
	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/edge/plane"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/kernel"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/relay"
	"github.com/kyozon/kyozon/service"
)

// The planes, as Status writes them.
const (
	planeUser   = "user"
	planeKernel = "kernel"
)

// newPlane makes the kernel plane of an edge. It is not open.
func (e *Edge) newPlane() *plane.Plane {
	return plane.New(plane.Options{Log: e.options.Log, Registry: &e.registry, Now: e.now, Beside: e.options.Replaces,
		Adopt: e.adoptFlows, Ended: e.endedInKernel})
}

// unread returns the listens of a service at which nothing needs to be read, and why it must be at the others.
func (e *Edge) unread(s *service.Service, all []*service.Service) (listens []service.Listen, why []error) {
	for i := range e.options.Protocols {
		if p := &e.options.Protocols[i]; p.Name == s.Protocol {
			return p.Unread(s, all)
		}
	}
	return nil, nil
}

// share lets the flows of a route have what both planes share. all are the services of its generation.
func (e *Edge) share(a *backend.Access, s *service.Service, all []*service.Service) {
	transport := listen.TCP
	if len(s.Listen) > 0 {
		transport = s.Listen[0].Transport
	}
	a.Ports = e.plane.Ports(transport)
	if listens, _ := e.unread(s, all); e.ledger != nil && len(listens) > 0 && s.Plane != service.PlaneUser {
		a.StandIns = e.plane.StandIns(e.ledger, transport)
	}
}

// applyPlaneLocked has the kernel plane carry what it can of a generation.
func (e *Edge) applyPlaneLocked(g *generation) {
	shut := *e.shut.Load()
	var all []plane.Service
	for _, s := range g.config.Services {
		_, is := shut[s.Name]
		one := plane.Service{Service: s, Routes: g.routes[s.Name], Shut: is}
		one.Listens, one.Read = e.unread(s, g.config.Services)
		all = append(all, one)
	}
	e.plane.Apply(g.config, all)
}

// adoptFlows has the flows under way keep the kernel plane away from what they use.
func (e *Edge) adoptFlows() {
	if e.ctx.Err() != nil {
		return
	}
	e.loops.Do(func(l *relay.Loop) { e.book.Each(l, (*backend.Flow).Adopt) })
}

// cutInKernel ends the flows of the kernel plane whose backend none of the generations has.
func (e *Edge) cutInKernel(all ...*generation) {
	e.plane.Cut(func(name string, b netip.AddrPort) bool {
		for _, g := range all {
			if g.servesAt(name, b) {
				return true
			}
		}
		return false
	})
}

// kernelLines are flows of the kernel plane that have ended and have no line in the access log yet.
type kernelLines struct {
	mu  sync.Mutex
	all []kernel.Flow
}

// maxKernelLines is how many wait: those of a second.
const maxKernelLines = 1 << 16

// endedInKernel notes a flow for the access log.
func (e *Edge) endedInKernel(f kernel.Flow) {
	if !e.accessLog.On() {
		return
	}
	e.kernelLines.mu.Lock()
	defer e.kernelLines.mu.Unlock()
	if len(e.kernelLines.all) < maxKernelLines {
		e.kernelLines.all = append(e.kernelLines.all, f)
	}
}

// writeKernelLines writes a line for each flow that has ended in the kernel.
func (e *Edge) writeKernelLines(g *generation) {
	e.kernelLines.mu.Lock()
	all := e.kernelLines.all
	e.kernelLines.all = nil
	e.kernelLines.mu.Unlock()
	if len(all) == 0 || e.ctx.Err() != nil {
		return
	}
	e.loops.Do(func(l *relay.Loop) {
		for i := range all {
			if l.ID() == 0 {
				line := g.line(&all[i], l.Now())
				e.accessLog.Add(0, &line)
			}
		}
	})
}

// line describes a flow of the kernel plane that has ended. Its time is that of its last packet.
func (g *generation) line(f *kernel.Flow, now int64) accesslog.Record {
	r := accesslog.Record{At: now - int64(f.Idle), Service: f.Service, Client: f.Client, Backend: f.Backend, Total: f.Age - f.Idle,
		Counts: metrics.Counts{ToServer: f.ToServer.Bytes, ToClient: f.ToClient.Bytes}}
	if f.Crossing == (ip.Crossing{Client: ip.V6, Backend: ip.V4}) && g.isStandIn(f.Source.Addr()) {
		r.StandIn = f.Source.Addr()
	}
	for name, p := range g.pools[f.Service] {
		if p.Has(f.Backend.Addr()) {
			r.Pool = name
		}
	}
	return r
}

func (g *generation) isStandIn(a netip.Addr) bool {
	l := g.config.Addresses.Ledger
	return l != nil && l.Pool.Contains(a)
}

// kernelStatus describes the kernel plane, or nil if no service could use it.
func (e *Edge) kernelStatus() *KernelStatus {
	s := e.plane.Status()
	if !s.Open && s.Err == "" {
		return nil
	}
	k := &KernelStatus{Open: s.Open, Interfaces: s.Interfaces, Flows: s.Flows, Err: s.Err, Packets: []PacketStatus{}}
	e.plane.Counts(func(service string, c ip.Crossing, r kernel.Reason, t kernel.Traffic) {
		k.Packets = append(k.Packets, PacketStatus{Service: service, Crossing: c.String(), Reason: r.String(), Dropped: r.Dropped(),
			Packets: int64(t.Packets), Bytes: int64(t.Bytes)})
	})
	return k
}

// setPlane says where a service is carried, and if not as the file has it, why.
func (e *Edge) setPlane(s *ServiceStatus) {
	v := e.plane.Verdict(s.Service)
	s.Plane, s.PlaneReason = planeUser, v.Reason
	if v.Kernel {
		s.Plane, s.PlaneReason = planeKernel, v.Note
	}
	if v.Wanted && !v.Kernel && s.State == stateOpen {
		s.State, s.Reason = stateDegraded, "not in the kernel, where the file wants it"
	}
}

// kernelFlows lists flows of the kernel plane, limit at most.
func (e *Edge) kernelFlows(limit int) (all []FlowStatus) {
	now := time.Now()
	e.plane.Flows(func(f kernel.Flow) bool {
		if f.Closing {
			return true
		}
		all = append(all, FlowStatus{Service: f.Service, Client: f.Client, Source: f.Source, Backend: f.Backend,
			Crossing: f.Crossing.String(), Plane: planeKernel, Started: now.Add(-f.Age),
			ToServer: int64(f.ToServer.Bytes), ToClient: int64(f.ToClient.Bytes)})
		return len(all) < limit
	})
	return all
}

// Detach has the kernel plane removed when the edge stops: its flows end too.
func (e *Edge) Detach() { e.detach.Store(true) }
