// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

// Hot path: no allocation per packet.

import (
	"time"

	"github.com/kyozon/kyozon/metrics"
)

// The ways in which an exchange ends, or begins anew, other than with the backend's whole response.

// refuse answers the client's fault.
func (x *exchange) refuse(status int, r metrics.Reason) {
	x.record.failed(r)
	if x.flow != nil {
		x.drop(r)
	} else if x.site != nil {
		x.site.route.Count(r)
	} else if s := x.table.fallback; s != nil {
		s.route.Count(r)
	}
	x.asker.fail(status)
}

// fault answers the backend's fault.
func (x *exchange) fault(status int, r metrics.Reason) {
	x.drop(r)
	x.asker.fail(status)
}

// drop cuts the backend's side of the exchange.
func (x *exchange) drop(r metrics.Reason) {
	x.record.failed(r)
	x.answerer.drop()
	x.flow.End(x.counts, r)
	x.answerer, x.flow = nil, nil
}

// abandon ends the exchange because the client has gone.
func (x *exchange) abandon(r metrics.Reason) {
	x.record.failed(r)
	if x.flow != nil {
		x.drop(r)
	}
	x.free()
}

// cut ends the flow because the drain deadline has passed.
func (x *exchange) cut(r metrics.Reason) { x.fault(503, r) }

// mayRepeat says whether the request may be sent once more if the backend goes without a word. It may have closed a
// connection that had been kept before the request came (RFC 9110 §9.2.2), or has refused to look at it (RFC 9113 §8.7).
func (x *exchange) mayRepeat(refused bool) bool {
	return x.complete && !x.repeated && (x.reused && x.request.Verb.Idempotent() || refused && x.upstream != nil)
}

// broken is called when the backend is gone before the response has come to its end. refused says that it has not looked
// at the request.
func (x *exchange) broken(refused bool) {
	if x.heard || len(x.saved) == 0 || !x.mayRepeat(refused) {
		x.fault(502, metrics.ServerReset)
		return
	}
	x.drop(metrics.Fine)
	x.deadline(0)
	x.counts, x.reused, x.sent, x.repeated = metrics.Counts{}, false, false, true
	x.record.again()
	x.dial(false)
}

// timeout is called when nothing has got on for the time that was given.
func (x *exchange) timeout() {
	switch {
	case x.asker.full():
		x.stalled()
	case !x.complete && !x.answerer.full(): // else the client waits for the backend to take what it has sent
		x.refuse(408, metrics.ClientTimeout)
	default:
		if x.upstream != nil {
			x.upstream.doubt(x.patience())
		}
		x.fault(504, metrics.ServerTimeout)
	}
}

// patience is how long the backend may say nothing.
func (x *exchange) patience() time.Duration {
	if x.complete && !x.headed {
		return x.site.response
	}
	return x.site.idle
}

// stalled gives the client up if it has taken nothing of the response since the last time, or less than it must.
func (x *exchange) stalled() {
	taken, least := x.asker.taken(), max(1, int64(x.site.idle.Seconds()*float64(x.site.rate)))
	if !x.stalls || taken-x.lastTaken >= least {
		x.stalls, x.lastTaken = true, taken
		x.deadline(x.site.idle)
		return
	}
	if x.flow != nil {
		x.drop(metrics.ClientTimeout)
	}
	x.record.failed(metrics.ClientTimeout)
	x.asker.fail(408)
}
