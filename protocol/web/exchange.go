// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

// Hot path: no allocation per packet.

import (
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/protocol/web/http1"
	"github.com/kyozon/kyozon/relay"
)

// lingerTime is how long a connection that is closed early waits for what the client is still sending.
const lingerTime = 2 * time.Second

// maxInterim is how many interim responses one request may get. RFC 9110 §15.2 sets no limit; a flood of them would
// keep an exchange alive for ever.
const maxInterim = 64

// exchange is one request and its response, between an asker and an answerer, neither of whom knows which version of
// HTTP the other speaks. What passes between them are heads as package http1 has parsed them, and pieces of bodies.
//
//	asker ── ask(head) ─▶ site, limits, backend ─▶ reach ──▶ answerer
//	      ── upload(piece, end) ────────────────────────────▶ send
//	 send ◀───────────────────────────── download(piece, end) ──
//	 done ◀─────────────────────────────────────────── finish ──
//	 fail ◀── refuse, fault, cut ── from anywhere
//
// It is pooled. Who is called by it, or calls it with what can end it, must not use it any more when it is over.
type exchange struct {
	peer     *peer
	asker    asker
	answerer answerer // nil until a backend has been reached
	table    *table
	site     *site
	flow     *backend.Flow

	request  http1.Request
	asked    http1.Exchange
	response http1.Response
	toServer http1.Body // the request's, if it comes over HTTP/1.1
	toClient http1.Body // the response's, likewise

	// Trailers that go on behind a body that has not kept its framing, as lines.
	trailersToServer, trailersToClient []byte

	framed   bool // both sides speak HTTP/1.1: bodies keep their framing on the way
	complete bool // the request has come whole
	reused   bool // the backend's connection has carried another exchange
	repeated bool // the request is sent once more
	sent     bool // the request's head has been sent
	heard    bool // the backend has said something
	headed   bool // the response's head has come
	answered bool // and has been sent
	last     bool // and has told the client that its connection closes
	over     bool
	pins     int8 // how many there are who will still look at it: see unpin

	interims  uint8  // interim responses so far
	due       int64  // on the loop's clock: when the client is given up, if it sends no more of the request
	stalls    bool   // the deadline has passed while the client took nothing or little of the response,
	lastTaken int64  // which was this much then
	saved     []byte // the request's head, while the request may have to be sent later, or once more
	counts    metrics.Counts
	timer     relay.Timer
	record    record

	client     *client2 // of HTTP/2; nil if it speaks another version
	asking     stream2  // its stream
	unread     []byte   // what has come of the request while there is no backend
	unreadEnds bool     // and it is all
	upstream   *upstream
	answering  stream2 // the backend's stream of HTTP/2, if it speaks that

	// Methods as values, which are made once because to make them allocates.
	onDialed func(*backend.Flow, error)
	onCounts func() metrics.Counts
	onCut    func(metrics.Reason)
}

// asker is the client's side of an exchange.
type asker interface {
	// interim sends the response, which is an interim one.
	interim()

	// send sends a piece of the response's body, before the first one the head, after the last one, if end, the
	// trailers. It takes all of p.
	send(p []byte, end bool)

	// full says that the client takes no more at the moment; taken returns how much it has taken, in bytes from any
	// number on.
	full() bool
	taken() int64

	// resume asks for more of the request.
	resume()

	// done ends the exchange, whose response has been sent to its end. The backend is no longer part of it.
	done()

	// fail ends the exchange with an answer of our own, or, if another has begun, so that the client sees that it is not
	// whole. The backend is no longer part of it.
	fail(status int)
}

// answerer is the backend's side of an exchange.
type answerer interface {
	// send sends a piece of the request's body, before the first one the head, after the last one, if end, the
	// trailers. It takes all of p.
	send(p []byte, end bool)

	// full says that the backend takes no more at the moment.
	full() bool

	// resume asks for more of the response.
	resume()

	// settle gives up the backend after the response. surplus says that it has sent more than that.
	settle(surplus bool)

	// drop cuts the backend off.
	drop()
}

// exchanges is the unused ones of a loop. An idle connection has none.
type exchanges struct{ unused []*exchange }

// maxUnused bounds them: each has some 5 KB.
const maxUnused = 128

// newExchange returns an exchange for a request that begins to come.
func newExchange(p *peer, a asker) *exchange {
	x := p.local().exchanges.get()
	x.peer, x.asker, x.table = p, a, p.front.current.Load()
	x.record.begin(p.front.all.log, p.conn.Loop(), p.conn.Remote(), p.tls.version())
	return x
}

func (e *exchanges) get() *exchange {
	if n := len(e.unused); n > 0 {
		x := e.unused[n-1]
		e.unused = e.unused[:n-1]
		return x
	}
	x := new(exchange)
	x.timer.Func = x.timeout
	x.onDialed, x.onCut, x.onCounts = x.dialed, x.cut, func() metrics.Counts { return x.counts }
	return x
}

// put keeps x. Nothing of a client may be left in it: a head that never came whole would begin the next client's.
func (e *exchanges) put(x *exchange) {
	if len(e.unused) == maxUnused {
		return
	}
	x.request.Reset()
	x.response.Reset()
	x.peer, x.asker, x.answerer, x.table, x.site, x.flow = nil, nil, nil, nil, nil, nil
	x.asked = http1.Exchange{}
	x.counts = metrics.Counts{}
	x.framed, x.complete, x.reused, x.repeated, x.sent = false, false, false, false, false
	x.heard, x.headed, x.answered, x.last, x.over = false, false, false, false, false
	x.interims, x.due, x.stalls, x.lastTaken = 0, 0, false, 0
	x.saved, x.trailersToServer, x.trailersToClient = x.saved[:0], x.trailersToServer[:0], x.trailersToClient[:0]
	x.client, x.upstream, x.unread, x.unreadEnds = nil, nil, kept(x.unread), false
	x.asking.reset()
	x.answering.reset()
	e.unused = append(e.unused, x)
}

// free ends the exchange. Its backend has been given up.
func (x *exchange) free() {
	x.over = true
	x.deadline(0)
	x.record.end(x.counts)
	if x.pins == 0 {
		x.peer.local().exchanges.put(x)
	}
}

// unpin says that one of those who pinned x has done so. It returns false if x is over.
func (x *exchange) unpin() bool {
	x.pins--
	if !x.over {
		return true
	}
	if x.pins == 0 {
		x.peer.local().exchanges.put(x)
	}
	return false
}

// deadline gives the exchange the time d to get on; 0 means for ever.
func (x *exchange) deadline(d time.Duration) {
	if d == 0 {
		x.peer.conn.Loop().StopTimer(&x.timer)
		return
	}
	x.peer.conn.Loop().SetTimer(&x.timer, d)
}

// ask gets a backend for the request, which has been parsed from head: at once, or later, when the asker is told to
// resume. It returns false if the exchange is over.
func (x *exchange) ask(head []byte) bool {
	x.site = x.table.site(x.request.Host())
	if x.site == nil || x.site.passThrough || !x.peer.tls.fits(x.site) {
		x.refuse(421, metrics.ClientFault) // RFC 9110 §15.5.20
		return false
	}
	x.record.routed(x.site.name)
	if !x.site.route.Admit(limit.Requests, x.peer.conn.Remote().Addr(), x.peer.conn.Loop().Now()) {
		x.record.failed(metrics.Limited)
		x.asker.fail(429)
		return false
	}
	x.pins++
	if f := x.peer.take(x.site.route); f != nil {
		x.reach(f, true)
	} else {
		x.dial(true)
	}
	if x.answerer == nil || x.mayRepeat(true) {
		x.saved = append(x.saved[:0], head...)
	}
	return x.unpin()
}

func (x *exchange) dial(reuse bool) {
	x.pins++
	x.site.route.Dial(x.peer.conn.Loop(), x.peer.client(), reuse, x.onDialed)
}

// dialed is called when a backend has been reached, or none can be.
func (x *exchange) dialed(f *backend.Flow, err error) {
	switch {
	case x.over:
		if err == nil {
			f.Requests = true
			spare(f)
			f.End(metrics.Counts{}, metrics.ClientReset)
		}
	case err != nil:
		x.record.failed(backend.Reason(err))
		x.asker.fail(statusOfDial(err))
	default:
		x.reach(f, f.Reused)
	}
	if !x.unpin() || x.answerer == nil || len(x.saved) == 0 { // without a copy, who asks has the head still
		return
	}
	x.request.Parse(x.saved, &x.table.limits) // as it was parsed before
	x.upload(nil, x.complete)
	x.asker.resume()
}

func statusOfDial(err error) int {
	switch backend.Reason(err) {
	case metrics.Denied:
		return 403
	case metrics.ConnectTimeout:
		return 504
	case metrics.ConnectFailed:
		return 502
	}
	return 503
}

// reach begins to use a backend, in the version of HTTP that its connection speaks.
func (x *exchange) reach(f *backend.Flow, reused bool) {
	f.Requests = true
	if u := x.upstreamOf(f, reused); u != nil {
		if !u.open(x) { // it has as many requests as it takes, or takes none any more
			f.End(metrics.Counts{}, metrics.Fine)
			x.dial(false)
			return
		}
		x.upstream, x.answerer = u, (*server2)(x)
	} else {
		x.answerer = (*server1)(x)
		f.Conn.SetHandler((*server1)(x))
	}
	x.flow, x.reused = f, reused
	x.record.reached(f, reused)
	f.Counts, f.Cut = x.onCounts, x.onCut
	_, from1 := x.asker.(*client1)
	x.framed = from1 && x.upstream == nil && !x.repeated // the framing of a body that has been read is gone
	x.toServer = x.request.Body()
	if !x.framed {
		x.toServer.Unframe(&x.trailersToServer)
	}
}

// upload sends more of the request.
func (x *exchange) upload(p []byte, end bool) {
	x.complete = end
	if len(p) > 0 {
		x.saved = x.saved[:0] // what goes is here no longer, so that the request cannot be sent once more
	}
	x.answerer.send(p, end)
	switch {
	case end && !x.headed:
		x.deadline(x.site.response)
	case end || x.headed || x.site.rate == 0:
		x.deadline(x.site.idle)
	default:
		x.earn(len(p))
	}
}

// earn gives the client more time for its request, as much as n bytes need that come at the least rate: else a byte now
// and then would hold a backend for ever.
func (x *exchange) earn(n int) {
	now, idle := x.peer.conn.Loop().Now(), int64(x.site.idle)
	if x.due == 0 {
		x.due = now + idle
	}
	x.due = min(x.due+int64(n)*int64(time.Second)/x.site.rate, now+idle)
	x.peer.conn.Loop().SetTimer(&x.timer, time.Duration(x.due-now)) // perhaps in the past: then it is due at once
}

// more asks the client for more of the request, because the backend takes more again. How long it did not is not the
// client's fault.
func (x *exchange) more() {
	if !x.complete {
		x.due = 0
		x.asker.resume()
	}
}

// download sends more of the response.
func (x *exchange) download(p []byte, end bool) {
	x.stalls = false
	x.deadline(x.site.idle)
	x.asker.send(p, end)
}

// finish ends an exchange whose response has come, and been given to the asker, to its end. Whatever more the backend has
// sent is surplus.
func (x *exchange) finish(surplus bool) {
	x.flow.Metrics().Request()
	x.answerer.settle(surplus)
	x.answerer, x.flow = nil, nil
	x.asker.done()
}

// forward returns what a backend is told beside the request.
func (x *exchange) forward() http1.Forward {
	f := http1.Forward{}
	if len(x.request.Authority()) == 0 { // HTTP/1.0
		f.Host = x.peer.dialled()
	}
	if x.flow.Pool.Spec.Handover == backend.HandoverHeader {
		f.Origin, f.Certificates = x.peer.forwardingFields(x.flow), x.peer.tls.fieldsFor(x.site)
	}
	return f
}

// serves says whether the front would choose the flow's route also for another request.
func (x *exchange) serves() bool {
	t := x.peer.front.current.Load()
	return t == x.table || t.has(x.flow.Route())
}
