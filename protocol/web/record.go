// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

// Hot path: no allocation per packet.

import (
	"net/netip"
	"time"

	"github.com/kyozon/kyozon/accesslog"
	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/protocol/web/http1"
	"github.com/kyozon/kyozon/relay"
)

// record is an exchange as it will stand in the access log. The exchange tells it what happens, as it happens, since
// the bytes of a request do not stay:
//
//	begin ─▶ asked ─▶ reached ─▶ heard ─▶ answered ─▶ end
//	            └─ failed, from anywhere ───────────────┘
//
// It is part of the exchange and pooled with it. While the log is off it does nothing.
type record struct {
	log   *accesslog.Log // nil if there will be no line
	loop  *relay.Loop
	began int64 // on the loop's clock
	line  accesslog.Record
}

// begin begins a line for a client whose request has begun to come. version is that of TLS; 0 means none.
func (r *record) begin(log *accesslog.Log, l *relay.Loop, client netip.AddrPort, version uint16) {
	if !log.On() {
		r.log = nil
		return
	}
	r.log, r.loop, r.began = log, l, l.Now()
	r.line = accesslog.Record{Request: true, TLS: version, Client: client}
}

// asked notes the request, whose head has come over a version of HTTP: 10, 11 or 20.
func (r *record) asked(q *http1.Request, version uint8) {
	if r.log == nil {
		return
	}
	r.line.Version = version
	r.line.SetRequest(q.Method, q.Host(), q.Target)
}

// routed notes the service that the request belongs to.
func (r *record) routed(service string) {
	if r.log != nil {
		r.line.Service = service
	}
}

// reached notes the backend that will answer. reused says that its connection has carried another exchange.
func (r *record) reached(f *backend.Flow, reused bool) {
	if r.log == nil {
		return
	}
	f.Describe(&r.line)
	r.line.Reused, r.line.Wait = reused, r.age() // the flow may have been there before the request
}

// heard notes that the backend has begun to answer.
func (r *record) heard() {
	if r.log != nil {
		r.line.First = r.age()
	}
}

// answered notes the status that the client is told.
func (r *record) answered(status int) {
	if r.log != nil {
		r.line.Status = uint16(status)
	}
}

// failed notes why the exchange comes to nothing.
func (r *record) failed(why metrics.Reason) {
	if r.log != nil {
		r.line.Reason = why
	}
}

// again notes that the request is sent once more: what was noted of the first time counts no longer.
func (r *record) again() {
	if r.log != nil {
		r.line.Retries++
		r.line.Reason, r.line.First = metrics.Fine, 0
	}
}

// end writes the line, once.
func (r *record) end(c metrics.Counts) {
	if r.log == nil {
		return
	}
	r.line.At, r.line.Total, r.line.Counts = r.loop.Now(), r.age(), c
	r.log.Add(r.loop.ID(), &r.line)
	r.log = nil
}

// age returns how long ago the request began to come.
func (r *record) age() time.Duration { return time.Duration(r.loop.Now() - r.began) }
