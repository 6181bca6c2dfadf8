// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"net/netip"

	"github.com/kyozon/kyozon/accesslog"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/metrics"
)

// Access is who may use a route, how his flows reach their backends, and where they are counted.
type Access struct {
	Service     string
	Family      ip.Family     // of the clients
	Allow, Deny ip.Prefixes   // see Allows
	Limits      *limit.Limits // see Admit; nil if there are none
	Timeouts    Timeouts
	StandIns    StandIns     // IPv6 client, IPv4 backend; nil if the site has no ledger
	Ports       Ports        // nil if there is no other plane
	Embed       netip.Prefix // IPv4 client, IPv6 backend: the /96 that his address is embedded in
	Book        *Book
	Registry    *metrics.Registry
	Log         *accesslog.Log // may be nil

	counted [2]*metrics.Flows // to IPv4 and to IPv6 backends
}

// StandIns is the ledger as a route uses it.
type StandIns interface {
	// Find returns the stand-in of a client's prefix if it has one. It does not block.
	Find(client netip.Addr) (netip.Addr, bool)

	// Lease gives the client's prefix a stand-in and calls done, soon and from anywhere, when it is on disk.
	Lease(client netip.Addr, done func(netip.Addr, error))

	// LeaseUnproven is Lease for a client whose address may be forged; Prove says that it is not.
	LeaseUnproven(client netip.Addr, done func(netip.Addr, error))
	Prove(client netip.Addr)
}

// Allows says whether a client may come in: not denied, and allowed if anyone is named.
func (a *Access) Allows(client netip.Addr) bool {
	return !a.Deny.Contains(client) && (a.Allow.IsZero() || a.Allow.Contains(client))
}

// Admit says whether a client, whose address must be canonical, may have one more of a kind, and if so takes it. now is
// the clock of the caller's loop. A refusal has been counted. It does not allocate; where the service has no limits it
// costs nothing.
func (r *Route) Admit(k limit.Kind, client netip.Addr, now int64) bool {
	if r.Limits.Allow(k, client, now) {
		return true
	}
	r.Count(metrics.Limited)
	return false
}

// Open lets flows use the route. A route that is not open only chooses.
func (r *Route) Open(a Access) {
	for _, f := range []ip.Family{ip.V4, ip.V6} {
		c := ip.Crossing{Client: a.Family, Backend: f}
		a.counted[c.Index()%2] = a.Registry.Flows(a.Service, c)
	}
	r.Access = a
}

func (a *Access) counters(backend ip.Family) *metrics.Flows {
	return a.counted[ip.Crossing{Client: a.Family, Backend: backend}.Index()%2]
}

// Count counts a reason why a client of r got no flow, under the family of the backends that he belongs to; where there
// are none, under his own.
func (r *Route) Count(reason metrics.Reason) {
	f := r.Family
	if len(r.shares) > 0 { // in a flood, this is asked for each client
		f = ip.V4
		if own := r.shares[0].pool.backends; len(own) > 0 {
			f = own[0].Family()
		}
	}
	r.counters(f).Fail(reason)
}

// fault counts and remembers why a client of r got no flow.
func (r *Route) fault(err error) {
	r.Count(Reason(err))
	r.last.Store(&err)
}

// Fault returns why a client of r got no flow, the last time that it happened since Fault was asked; nil if it did not.
func (r *Route) Fault() error {
	if err := r.last.Swap(nil); err != nil {
		return *err
	}
	return nil
}

// Active returns how many flows of r are under way.
func (r *Route) Active() int64 { return r.active.Load() }

// Shared says whether flows of different clients may use one connection after another: the backend must not tell
// clients apart by it.
func (p *Pool) Shared() bool { return p.Spec.Source == SourceEdge && p.Spec.Handover == HandoverHeader }
