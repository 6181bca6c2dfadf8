// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"net/netip"
	"time"

	"github.com/kyozon/kyozon/accesslog"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/relay"
)

// writeLine writes the flow's line of the access log.
func (f *Flow) writeLine(c metrics.Counts, r metrics.Reason) {
	line := accesslog.Record{At: f.loop.Now(), Counts: c, Reason: r, Total: f.Age() + time.Duration(f.wait)}
	f.Describe(&line)
	f.route.Log.Add(f.loop.ID(), &line)
}

// Describe fills in who was served, by whom, and how long it took to get there.
func (f *Flow) Describe(line *accesslog.Record) {
	line.Service, line.Client = f.route.Service, f.Client.Addr
	line.StandIn = f.standIn()
	line.Pool, line.Backend = f.Pool.Spec.Name, f.Backend.Addr
	line.Reused, line.Wait = f.Reused, time.Duration(f.wait)
}

// standIn returns the stand-in that the backend knows the client by, if it is one.
func (f *Flow) standIn() netip.Addr {
	if f.Client.Addr.Addr().Is6() && f.known.Is4() {
		return f.known
	}
	return netip.Addr{}
}

// Refused writes the line of a client who got no flow, for the error of Dial. Who has lines for requests writes those
// instead. Refused packets have no lines: each would be one.
func (r *Route) Refused(l *relay.Loop, client Client, err error) {
	if r.Log.On() {
		r.Log.Add(l.ID(), &accesslog.Record{At: l.Now(), Service: r.Service, Client: client.Addr, Reason: Reason(err)})
	}
}
