// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ledger"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/relay"
	"github.com/kyozon/kyozon/service"
)

// The states of a service.
const (
	stateOpen     = "open"
	stateDegraded = "degraded" // open, but not as the file has it
	stateShut     = "shut"
)

// Registry returns the flow counters.
func (e *Edge) Registry() *metrics.Registry { return &e.registry }

// Status returns a picture of the edge now. It may be called from anywhere, also in the middle of a reload.
func (e *Edge) Status() Status {
	s := Status{Version: e.options.Version, PID: os.Getpid(), Started: e.started, Loops: e.loops.Len(),
		Draining: int(e.draining.Load()), Services: []ServiceStatus{}, Backends: []BackendStatus{},
		Certificates: []CertificateStatus{}, Findings: []FindingStatus{}, Refusals: []RefusalStatus{}, Counts: []CountStatus{}, Queues: []QueueStatus{}}
	if text := e.reloadErr.Load(); text != nil {
		s.ReloadErr = *text
	}
	g := e.generation.Load()
	if g == nil {
		return s
	}
	s.Site, s.Generation, s.Loaded = g.config.Site, g.number, time.Unix(0, e.loaded.Load())
	s.Ledger = e.ledgerStatus()
	s.Kernel = e.kernelStatus()
	s.Queues = e.queueStatus()
	s.AccessLog = AccessLogStatus(e.accessLog.Status())
	s.Ready = e.ready.Load() && len(*e.shut.Load()) == 0
	samples := make(map[rateKey]metrics.Sample)
	for _, m := range e.registry.Samples() {
		samples[rateKey{m.Service, m.Crossing}] = m
	}
	if limited := e.limited.Load(); limited != nil {
		s.Limited = *limited
	}
	for _, svc := range g.config.Services {
		s.Backends = append(s.Backends, e.backendStatus(g, svc)...)
		for _, f := range families(svc) {
			s.Services = append(s.Services, e.serviceStatus(g, svc, f, samples))
		}
	}
	for _, server := range g.servers {
		s.addCertificates(server, time.Now())
		s.addFindings(server)
		s.addRefusals(server)
		s.addCounts(server)
	}
	slices.SortStableFunc(s.Findings, func(a, b FindingStatus) int { return cmp.Compare(b.Count, a.Count) })
	return s
}

// addCertificates adds those of a server, each once: several of its addresses may show the same.
func (s *Status) addCertificates(server service.Server, now time.Time) {
	if server.Certificates == nil {
		return
	}
	for _, i := range server.Certificates() {
		c := CertificateStatus{Source: i.Source, Names: i.Names, Algorithm: i.Algorithm, Issuer: i.Issuer, Begin: i.Begin,
			End: i.End, State: i.State(now), Reason: cmp.Or(i.Fault, i.Warning(now))}
		same := func(o CertificateStatus) bool { return o.Source == c.Source && slices.Equal(o.Names, c.Names) }
		if !slices.ContainsFunc(s.Certificates, same) {
			s.Certificates = append(s.Certificates, c)
		}
	}
}

func (s *Status) addFindings(server service.Server) {
	if server.Findings == nil {
		return
	}
	for _, f := range server.Findings() {
		s.Findings = append(s.Findings, FindingStatus{Service: f.Service, Pool: f.Pool, Field: f.Place, Address: f.Address.String(),
			Backend: f.Backend, Count: f.Count, Example: f.Example})
	}
}

func (s *Status) addRefusals(server service.Server) {
	if server.Refusals == nil {
		return
	}
	for _, r := range server.Refusals() {
		outcome := "observed"
		if r.Refused {
			outcome = "refused"
		}
		s.Refusals = append(s.Refusals, RefusalStatus{Service: r.Service, ClientFamily: r.Family.String(), Rule: r.Rule, Outcome: outcome, Count: r.Count})
	}
}

func (e *Edge) ledgerStatus() *LedgerStatus {
	l := e.ledgerNow.Load()
	if l == nil {
		return nil
	}
	st := l.Status()
	s := &LedgerStatus{Pool: st.Pool, Size: st.Size, Leased: st.Leased, Shared: st.Shared}
	if st.Err != nil {
		s.Err = st.Err.Error()
	}
	return s
}

// serviceStatus describes one service for one client family.
func (e *Edge) serviceStatus(g *generation, svc *service.Service, f ip.Family, samples map[rateKey]metrics.Sample) ServiceStatus {
	s := ServiceStatus{Service: svc.Name, Protocol: svc.Protocol, ClientFamily: f.String(), State: stateOpen}
	for _, l := range svc.Listen {
		if at := named(l); l.Family() == f && !slices.Contains(s.Listen, at) { // one address may be listened to by TCP and UDP
			s.Listen = append(s.Listen, at)
		}
	}
	seen := make(map[*backend.Pool]bool)
	for _, d := range doorsOf(svc, f) {
		spec := svc.Routes[d]
		for _, share := range spec.Shares {
			s.Pools = append(s.Pools, prefixed(d.Listen)+share.Pool+" "+strconv.FormatFloat(share.Percent, 'f', -1, 64)+"%")
		}
		for _, name := range spec.Fallback {
			s.Pools = append(s.Pools, prefixed(d.Listen)+name+" (fallback)")
		}
		for _, p := range g.routes[svc.Name][d].Pools() {
			if !seen[p] {
				seen[p] = true
				s.addPool(p, e.now())
			}
		}
	}
	switch reason, shut := (*e.shut.Load())[svc.Name]; {
	case shut:
		s.State, s.Reason = stateShut, reason
	case len(s.Pools) == 0: // its protocol has no servers
	case s.Up == 0:
		s.State, s.Reason = stateDegraded, "no backend is up"
	case s.Up < s.Backends:
		s.State, s.Reason = stateDegraded, fmt.Sprintf("%d of %d backends are up", s.Up, s.Backends)
	}
	e.setPlane(&s)
	if l := g.limits[svc.Name]; l != nil {
		s.Limits, s.Forgotten = limitStatus(l, f), l.Table().Forgotten()
	}
	for _, b := range []ip.Family{ip.V4, ip.V6} {
		k := rateKey{svc.Name, ip.Crossing{Client: f, Backend: b}}
		s.Crossings = append(s.Crossings, crossingStatus(samples[k], k.crossing, e.rates.of(k)))
	}
	return s
}

// addPool adds what one of its pools says to a service's row.
func (s *ServiceStatus) addPool(p *backend.Pool, now int64) {
	s.Source = merge(s.Source, p.Spec.Source.String())
	s.Handover = merge(s.Handover, p.Spec.Handover.String())
	for _, b := range p.Status(now) {
		s.Backends++
		if b.Available() {
			s.Up++
		}
	}
}

// merge writes down what pools differ in.
func merge(so, also string) string {
	if so == "" || so == also {
		return also
	}
	return so + ", " + also
}

func prefixed(listen string) string {
	if listen == "" {
		return ""
	}
	return listen + ": "
}

// named writes a listen: "smtp [2001:db8::25]:25".
func named(l service.Listen) string {
	if l.Name == "" {
		return l.AddrPort.String()
	}
	return l.Name + " " + l.AddrPort.String()
}

// doorsOf returns the doors of a service for one client family, in the order of their names.
func doorsOf(svc *service.Service, f ip.Family) (all []service.Door) {
	for d := range svc.Routes {
		if d.Family == f {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b service.Door) int { return cmp.Compare(a.Listen, b.Listen) })
	return all
}

func crossingStatus(m metrics.Sample, c ip.Crossing, rate float64) CrossingStatus {
	s := CrossingStatus{Crossing: c.String(), Active: m.Active, Opened: m.Opened, Requests: m.Requests, Rate: rate,
		ToServer: m.ToServer, ToClient: m.ToClient}
	for r, n := range m.Errors {
		if s.Errors == nil {
			s.Errors = make(map[string]int64)
		}
		s.Errors[r.String()] = n
	}
	return s
}

// backendStatus lists the backends of a service, by pool.
func (e *Edge) backendStatus(g *generation, svc *service.Service) (all []BackendStatus) {
	names := make([]string, 0, len(svc.Pools))
	for name := range svc.Pools {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		for _, b := range g.pools[svc.Name][name].Status(e.now()) {
			all = append(all, BackendStatus{Service: b.Service, Pool: b.Pool, Address: b.Address.String(),
				Family: b.Family.String(), State: b.State, Reason: b.Reason, Since: b.Since, Checked: b.Checked,
				Weight: b.Weight, Flows: b.Flows, Cap: b.Cap})
		}
	}
	return all
}

// now is the clock of the loops.
func (e *Edge) now() int64 { return e.keeper.Now() }

// Flows returns flows under way, the newest first, limit at most.
func (e *Edge) Flows(limit int) []FlowStatus {
	perLoop := make([][]FlowStatus, e.loops.Len())
	if e.ctx.Err() != nil {
		return []FlowStatus{}
	}
	e.loops.Do(func(l *relay.Loop) {
		e.book.Each(l, func(f *backend.Flow) {
			if len(perLoop[l.ID()]) < limit {
				perLoop[l.ID()] = append(perLoop[l.ID()], flowStatus(f))
			}
		})
	})
	all := append([]FlowStatus{}, slices.Concat(perLoop...)...) // never nil: in JSON no flows are [], not null
	all = append(all, e.kernelFlows(limit)...)
	slices.SortFunc(all, func(a, b FlowStatus) int { return b.Started.Compare(a.Started) })
	return all[:min(limit, len(all))]
}

func flowStatus(f *backend.Flow) FlowStatus {
	s := FlowStatus{Service: f.Service(), Client: f.Client.Addr, Backend: f.Backend.Addr,
		Crossing: f.Crossing().String(), Plane: planeUser, Started: time.Now().Add(-f.Age())}
	s.Source = netip.AddrPortFrom(f.Source, 0)
	if f.Conn != nil {
		s.Source = f.Conn.Local()
	}
	if f.Counts != nil {
		c := f.Counts()
		s.ToServer, s.ToClient = int64(c.ToServer), int64(c.ToClient)
	}
	return s
}

// Who reads the ledger: which prefix a stand-in stood for, or which stand-in a prefix had, at a time (zero means now).
func (e *Edge) Who(a netip.Addr, at time.Time) ([]ledger.Record, error) {
	l := e.ledgerNow.Load()
	if l == nil {
		return nil, errNoLedger
	}
	return l.Who(a, at)
}
