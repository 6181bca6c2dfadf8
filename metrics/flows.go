// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package metrics counts flows. A counter is bound to its labels when a generation is built, so that counting a
// flow is a few atomic adds; a scrape, the status page and `kyozon flows` read the same atomics.
//
//	generation ── Registry.Flows(service, crossing) ──▶ *Flows ◀── flow.Begin, flow.End
//	                                                      ▲
//	                            scrape, status ───────────┘
package metrics

import (
	"sync"
	"sync/atomic"

	"github.com/kyozon/kyozon/ip"
)

// Reason says why a flow did not come about or ended early. A flow that ended well has none.
type Reason uint8

// The reasons, each a label value of kyozon_flow_errors_total.
const (
	Fine           Reason = iota
	Denied                // the service's allow and deny prefixes refuse the client
	Limited               // the client's prefix has used up what it may have
	NoneUp                // no pool of the client's route has a backend that is up
	Full                  // every backend that is up has reached its cap
	NoStandIn             // the ledger could not give the client's prefix a stand-in
	ConnectFailed         // every backend tried refused or could not be reached
	ConnectTimeout        // the last backend tried did not answer in time
	ClientTimeout         // the client was silent too long
	ServerTimeout         // the backend was silent too long
	ClientFault           // the client broke its protocol's rules
	ServerFault           // the backend broke its protocol's rules
	ClientReset           // the client went away in the middle
	ServerReset           // the backend went away in the middle
	Drained               // the drain deadline passed
	LoginFailed           // the backend did not let the user in
	TLSRefused            // we took nothing of what the client offered in its TLS handshake, or not its certificate
	TLSRejected           // the client did not take our certificate, or what we chose, and has said so
	TLSFault              // what came in place of a TLS handshake was none
	TLSTimeout            // the client was silent too long in its TLS handshake
	TLSReset              // the client went away in its TLS handshake
	TLSBusy               // as many TLS handshakes were under way as may be
	reasons
)

var reasonNames = [reasons]string{"fine", "denied", "limited", "none-up", "full", "no-stand-in", "connect-failed",
	"connect-timeout", "client-timeout", "server-timeout", "client-fault", "server-fault", "client-reset",
	"server-reset", "drained", "login-failed", "tls-refused", "tls-rejected", "tls-fault", "tls-timeout", "tls-reset",
	"tls-busy"}

// String returns the label value of r.
func (r Reason) String() string { return reasonNames[r] }

// Reasons returns all reasons but Fine.
func Reasons() []Reason {
	all := make([]Reason, 0, reasons-1)
	for r := Denied; r < reasons; r++ {
		all = append(all, r)
	}
	return all
}

// Counts is what one flow, or many, have carried: payload bytes towards the server and towards the client.
type Counts struct{ ToServer, ToClient uint64 }

// Flows counts the flows of one service over one crossing since the process started.
type Flows struct {
	opened, active, requests, toServer, toClient atomic.Int64

	_      [24]byte // the error counters have cache lines of their own
	errors [reasons]atomic.Int64

	kernel struct{ opened, active, toServer, toClient atomic.Int64 } // see SetKernel
}

// Begin counts a flow that has reached its backend. End it with End.
func (f *Flows) Begin() {
	f.opened.Add(1)
	f.active.Add(1)
}

// Cancel takes back Begin for a flow that did not come about.
func (f *Flows) Cancel() {
	f.opened.Add(-1)
	f.active.Add(-1)
}

// End takes back what Begin counted and adds what the flow has carried since the last Add.
func (f *Flows) End(c Counts, r Reason) {
	f.active.Add(-1)
	f.Add(c)
	f.Fail(r)
}

// Add counts bytes of a flow that goes on.
func (f *Flows) Add(c Counts) {
	f.toServer.Add(int64(c.ToServer))
	f.toClient.Add(int64(c.ToClient))
}

// SetKernel says what the kernel plane carries and has carried, all of it. Its bytes are those of packets, with their
// headers.
func (f *Flows) SetKernel(active, opened int64, c Counts) {
	f.kernel.active.Store(active)
	f.kernel.opened.Store(opened)
	f.kernel.toServer.Store(int64(c.ToServer))
	f.kernel.toClient.Store(int64(c.ToClient))
}

// Request counts one request of a protocol that has several in a flow.
func (f *Flows) Request() { f.requests.Add(1) }

// Fail counts a reason; Fine is not counted.
func (f *Flows) Fail(r Reason) {
	if r != Fine {
		f.errors[r].Add(1)
	}
}

// Sample is a reading of one Flows.
type Sample struct {
	Service  string
	Crossing ip.Crossing

	Opened, Active, Requests, ToServer, ToClient int64
	Kernel                                       int64            // of Active
	Errors                                       map[Reason]int64 // only those that are not zero
}

// Registry holds the counters of all services. They outlive generations: a counter never goes back.
type Registry struct {
	mu       sync.Mutex
	services map[string]*[4]Flows
	order    []string
}

// Flows returns the counters of a service and crossing. Call it when a generation is built, not per flow.
func (r *Registry) Flows(service string, c ip.Crossing) *Flows {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.services == nil {
		r.services = make(map[string]*[4]Flows)
	}
	s := r.services[service]
	if s == nil {
		s = new([4]Flows)
		r.services[service] = s
		r.order = append(r.order, service)
	}
	return &s[c.Index()]
}

// Samples reads all counters, in the order in which the services first came.
func (r *Registry) Samples() []Sample {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Sample
	for _, name := range r.order {
		for i, c := range ip.Crossings() {
			all = append(all, r.services[name][i].sample(name, c))
		}
	}
	return all
}

func (f *Flows) sample(service string, c ip.Crossing) Sample {
	s := Sample{Service: service, Crossing: c, Opened: f.opened.Load(), Active: f.active.Load(),
		Requests: f.requests.Load(), ToServer: f.toServer.Load(), ToClient: f.toClient.Load()}
	s.Kernel = f.kernel.active.Load()
	s.Active += s.Kernel
	s.Opened += f.kernel.opened.Load()
	s.ToServer += f.kernel.toServer.Load()
	s.ToClient += f.kernel.toClient.Load()
	for r := Denied; r < reasons; r++ {
		if n := f.errors[r].Load(); n != 0 {
			if s.Errors == nil {
				s.Errors = make(map[Reason]int64)
			}
			s.Errors[r] = n
		}
	}
	return s
}
