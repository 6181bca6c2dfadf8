// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

// Hot path: no allocation per packet.

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/protocol/web/http1"
	"github.com/kyozon/kyozon/relay"
)

// lingerTime is how long a connection that is closed early waits for what the client is still sending.
const lingerTime = 2 * time.Second

// phase is what a connection waits for.
type phase uint8

const (
	idle     phase = iota // the first byte of a request
	head                  // the rest of its head
	dialling              // a backend; the head waits unread in the connection
	body                  // the rest of the request's body
	answer                // the response, or the rest of it
	over                  // nothing: the connection closes, or is somebody else's
)

// conn is a client's connection. It reads requests one after another; each is an exchange with a backend.
//
// The methods of conn itself handle the client's side, those of serverSide the backend's.
type conn struct {
	front  *front
	client *relay.Conn
	tls    *secured // nil means in clear
	phase  phase
	ended  bool // the client has ended its half
	paused bool // the client is paused

	exchange *exchange     // nil while idle
	held     *backend.Flow // between two requests: a connection to a backend that only this client may use

	origin  []byte // the forwarding fields, rendered for carried
	carried netip.Addr
	inDial  bool // Dial has not returned

	// Methods of the conn as values, which are made once because to make them allocates.
	onDialed func(*backend.Flow, error)
	onCounts func() metrics.Counts
	onCut    func(metrics.Reason)
}

// exchange is one request and its response. It is pooled.
type exchange struct {
	request  http1.Request
	response http1.Response
	x        http1.Exchange
	table    *table
	site     *site
	flow     *backend.Flow
	toServer http1.Body
	toClient http1.Body
	counts   metrics.Counts
	reused   bool   // the backend's connection has carried another exchange
	heard    bool   // the backend has said something
	answered bool   // the response's head has been sent
	last     bool   // and has told the client that its connection closes
	interim  uint8  // interim responses so far
	unsent   int    // what the client had not acknowledged when the backend's deadline last passed
	saved    []byte // the request, while it may be sent once more
	record   record
}

// exchanges keeps unused ones. An idle connection has none.
type exchanges struct{ pool sync.Pool }

func (p *exchanges) get() *exchange {
	if x, ok := p.pool.Get().(*exchange); ok {
		return x
	}
	return new(exchange)
}

// put keeps x. Nothing of a client may be left in it: a head that never came whole would begin the next client's.
func (p *exchanges) put(x *exchange) {
	x.request.Reset()
	x.response.Reset()
	x.x = http1.Exchange{}
	x.table, x.site, x.flow = nil, nil, nil
	x.counts = metrics.Counts{}
	x.reused, x.heard, x.answered, x.last = false, false, false, false
	x.interim, x.unsent = 0, 0
	x.saved = x.saved[:0]
	p.pool.Put(x)
}

// serve begins to read requests. s is nil where there is no TLS.
func (f *front) serve(c *relay.Conn, s *secured) {
	h := &conn{front: f, client: c, tls: s}
	h.onDialed, h.onCounts, h.onCut = h.dialed, h.countsNow, h.cut
	c.SetHandler(h)
	c.SetTimeout(f.current.Load().timeouts.KeepAlive)
}

// Data implements relay.Handler for the client.
func (h *conn) Data(_ *relay.Conn, p []byte) (n int) {
	for {
		before := n
		switch h.phase {
		case idle:
			if n == len(p) {
				return n
			}
			if h.client.Full() { // it asks and asks, and takes no answer
				h.pause()
				return n
			}
			h.begin()
			continue
		case head:
			n += h.readHead(p[n:])
		case body:
			n += h.readBody(p[n:])
		case dialling, answer:
			if n < len(p) || h.phase == dialling { // the head stays unread; so does the next request
				h.pause()
			}
			return n
		case over:
			return len(p)
		}
		if n == before && h.phase != dialling {
			return n
		}
	}
}

func (h *conn) pause() {
	h.paused = true
	h.client.Pause()
}

func (h *conn) resume() {
	if h.paused {
		h.paused = false
		h.client.Resume()
	}
}

// begin begins an exchange.
func (h *conn) begin() {
	h.exchange = h.front.all.exchanges.get()
	h.exchange.table = h.front.current.Load()
	h.exchange.record.begin(h.front.all.log, h.client.Loop(), h.client.Remote(), h.tls.version())
	h.phase = head
	h.client.SetTimeout(h.exchange.table.timeouts.Request)
}

// readHead reads a request's head and, when there is a backend for it, sends it on. It returns 0 as long as the head
// is not whole or the backend is being reached.
func (h *conn) readHead(p []byte) int {
	x := h.exchange
	n, err := x.request.Parse(p, &x.table.limits)
	if err != nil {
		h.refuse(statusOf(err), metrics.ClientFault)
		return len(p)
	}
	if n == 0 {
		return 0
	}
	x.x = x.request.Exchange()
	if x.flow == nil {
		x.record.asked(&x.request, 10+x.request.Minor)
		switch {
		case h.proves():
			return len(p)
		case !h.reach():
			return 0
		}
	}
	return n + h.forward(p[n:])
}

func statusOf(err error) int {
	if e, ok := errors.AsType[*http1.Error](err); ok {
		return e.Status
	}
	return 400
}

// reach gets a backend for the exchange. It returns false if that takes time, or failed.
func (h *conn) reach() bool {
	x := h.exchange
	x.site = x.table.site(x.request.Host())
	if x.site == nil || x.site.passThrough || !h.tls.fits(x.site) {
		h.refuse(421, metrics.ClientFault) // RFC 9110 §15.5.20
		return false
	}
	x.record.routed(x.site.name)
	if f := h.held; f != nil {
		h.held = nil
		if f.Route() == x.site.route {
			x.flow, x.reused = f, true
			x.record.reached(f, true)
			return true
		}
		h.release(f)
	}
	h.phase, h.inDial = dialling, true
	h.client.SetTimeout(0) // how long it takes now is not the client's fault
	x.site.route.Dial(h.client.Loop(), client(h.client), true, h.onDialed)
	h.inDial = false
	return h.phase == head // x may be gone: after a failure it is kept for another client
}

// dialed is called when a backend has been reached, or none can be.
func (h *conn) dialed(f *backend.Flow, err error) {
	if h.phase != dialling && err == nil { // the client has gone
		f.Requests = true
		f.Conn.Abort()
		f.End(metrics.Counts{}, metrics.ClientReset)
		return
	}
	if h.phase != dialling {
		return
	}
	x := h.exchange
	if err != nil {
		x.record.failed(backend.Reason(err))
		h.answerError(statusOfDial(err))
		return
	}
	x.flow, x.reused, f.Requests = f, f.Reused, true
	x.record.reached(f, f.Reused)
	f.Conn.SetHandler((*serverSide)(h))
	f.Counts, f.Cut = h.onCounts, h.onCut
	if len(x.saved) > 0 {
		h.phase = answer
		h.send(x.saved)
		return
	}
	h.phase = head
	if !h.inDial {
		h.resume()
	}
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

// forward sends the request's head, with as much of its body as is in p, of which it returns how much it took.
func (h *conn) forward(p []byte) int {
	x := h.exchange
	f := http1.Forward{}
	if len(x.request.Authority()) == 0 { // HTTP/1.0
		f.Host = h.dialledHost()
	}
	if x.flow.Pool.Spec.Handover == backend.HandoverHeader {
		f.Origin, f.Certificates = h.forwardingFields(), h.tls.fieldsFor(x.site)
	}
	out := http1.AppendRequest(h.scratch(), &x.request, f)
	x.toServer = x.request.Body()
	if x.reused && x.request.Verb.Idempotent() && x.toServer.Done() {
		x.saved = append(x.saved[:0], out...) // RFC 9110 §9.2.2: may be repeated if the connection turns out to be dead
	}
	h.phase = body
	return h.stream(out, p)
}

// forwardingFields renders who the client is, once for as long as that is the same.
func (h *conn) forwardingFields() []byte {
	a := h.exchange.flow.Carried().Addr()
	if a != h.carried {
		h.carried = a
		h.origin = http1.AppendOrigin(h.origin[:0], http1.Origin{Client: a, Port: h.client.Local().Port(), TLS: h.tls != nil})
	}
	return h.origin
}

// dialledHost is what a client that named no host gets for one: RFC 9112 §3.2 wants one in every request.
func (h *conn) dialledHost() []byte { return h.client.Local().AppendTo(nil) }

// readBody sends on more of the request's body.
func (h *conn) readBody(p []byte) int { return h.stream(h.scratch(), p) }

// stream sends what is in out and then what of p belongs to the request's body.
func (h *conn) stream(out, p []byte) int {
	x := h.exchange
	s := x.flow.Conn
	n, sent, err := copyBody(&x.toServer, s, out, p)
	x.counts.ToServer += uint64(sent)
	switch {
	case err != nil:
		h.refuse(statusOf(err), metrics.ClientFault)
		return len(p)
	case x.toServer.Done():
		h.phase = answer
		h.client.SetTimeout(0)
		s.SetTimeout(x.site.response)
	default:
		h.client.SetTimeout(x.site.idle)
		if s.Full() {
			h.pause()
		}
	}
	return n
}

// send sends a whole request once more.
func (h *conn) send(request []byte) {
	x := h.exchange
	x.flow.Conn.Write(request)
	x.flow.Conn.SetTimeout(x.site.response)
	x.counts.ToServer += uint64(len(request))
	x.saved = x.saved[:0]
}

// copyBody writes out, and after it what of p belongs to the body, to c, in as few writes as is cheap. It returns how
// much of p the body has and how much was written.
func copyBody(b *http1.Body, c *relay.Conn, out, p []byte) (n, sent int, err error) {
	for n < len(p) && !b.Done() {
		k, forward, err := b.Next(p[n:])
		if err != nil {
			return n, sent, err
		}
		if len(out)+len(forward) > cap(out) {
			c.Write(out)
			c.Write(forward)
			sent += len(out) + len(forward)
			out = out[:0]
		} else {
			out = append(out, forward...)
		}
		if k == 0 {
			break
		}
		n += k
	}
	if len(out) > 0 {
		c.Write(out)
		sent += len(out)
	}
	return n, sent, nil
}

func (h *conn) scratch() []byte { return h.front.all.scratch[h.client.Loop().ID()].out[:0] }

// Event implements relay.Handler for the client.
func (h *conn) Event(_ *relay.Conn, e relay.Event) {
	switch e {
	case relay.Drained:
		if h.exchange != nil && h.exchange.flow != nil {
			h.exchange.flow.Conn.Resume()
		}
		if h.phase == idle {
			h.resume()
		}
	case relay.Ended:
		h.ended = true
		if h.phase != answer && !h.retrying() { // a client may end its half and still wait for the response
			h.abandon(metrics.ClientReset)
		}
	case relay.Timeout:
		h.timeout()
	}
}

// retrying says whether a whole request waits for another backend connection.
func (h *conn) retrying() bool { return h.phase == dialling && len(h.exchange.saved) > 0 }

func (h *conn) timeout() {
	switch {
	case h.phase == idle:
		h.end()
	case h.phase == body && h.exchange.flow.Conn.Full(): // the client waits for the backend to take what it has sent
		h.drop(metrics.ServerTimeout)
		h.answerError(504)
	case h.phase == head, h.phase == body:
		h.refuse(408, metrics.ClientTimeout)
	default:
		h.abandon(metrics.ClientTimeout)
	}
}

// Closed implements relay.Handler for the client.
func (h *conn) Closed(*relay.Conn, error) { h.abandon(metrics.ClientReset) }

// refuse answers the client's fault, if no answer has begun, and ends the connection: what else it sends means nothing.
func (h *conn) refuse(status int, r metrics.Reason) {
	x := h.exchange
	x.record.failed(r)
	if x.flow != nil {
		h.drop(r)
	} else if x.site != nil {
		x.site.route.Count(r)
	} else if s := x.table.fallback; s != nil {
		s.route.Count(r)
	}
	h.answerError(status)
}

// answerError answers with an error of ours and ends the connection. The exchange has no flow any more.
func (h *conn) answerError(status int) {
	x := h.exchange
	h.letGo()
	if !x.answered {
		x.record.answered(status)
		h.client.Write(http1.AppendError(h.scratch(), status, http1.Exchange{Verb: x.x.Verb, Minor: x.x.Minor}))
		h.finishExchange()
		h.phase = over
		h.client.Linger(lingerTime)
		return
	}
	h.finishExchange()
	h.phase = over
	h.client.Abort()
}

// abandon ends everything at once, because the client has gone. A response that is cut off must not look whole to one
// that has not: a reset shows it, whatever the framing.
func (h *conn) abandon(r metrics.Reason) {
	if x := h.exchange; x != nil {
		x.record.failed(r)
		if x.flow != nil {
			h.drop(r)
		}
		if x.answered {
			h.client.Abort()
		}
	}
	h.end()
}

// end closes the connection, which has no flow.
func (h *conn) end() {
	if h.exchange != nil {
		h.finishExchange()
	}
	h.letGo()
	h.phase = over
	h.client.Close()
}

// drop cuts the backend's side of the exchange.
func (h *conn) drop(r metrics.Reason) {
	x := h.exchange
	x.record.failed(r)
	x.flow.Conn.Abort()
	x.flow.End(x.counts, r)
	x.flow = nil
}

// letGo gives up the connection that was kept for the client's next request.
func (h *conn) letGo() {
	if h.held != nil {
		h.release(h.held)
		h.held = nil
	}
}

// release ends a flow whose connection was held.
func (h *conn) release(f *backend.Flow) {
	f.Conn.Close()
	f.End(metrics.Counts{}, metrics.Fine)
}

func (h *conn) finishExchange() {
	h.exchange.record.end(h.exchange.counts)
	h.front.all.exchanges.put(h.exchange)
	h.exchange = nil
}

// cut ends the flow because the drain deadline has passed.
func (h *conn) cut(r metrics.Reason) {
	if h.held != nil {
		h.letGo()
		return
	}
	h.drop(r)
	h.answerError(503)
}

func (h *conn) countsNow() metrics.Counts {
	if h.exchange == nil {
		return metrics.Counts{}
	}
	return h.exchange.counts
}

// drain is called when a generation is replaced: see drain of the server.
func (h *conn) drain(mine map[*table]bool, last bool) {
	t := h.front.current.Load()
	if last || mine[t] {
		t.ending.Store(true)
		if h.phase == idle {
			h.end()
		}
		return
	}
	if f := h.held; f != nil && !t.has(f.Route()) {
		h.held = nil
		h.release(f)
	}
}

// has says whether a route is one of the table's.
func (t *table) has(r *backend.Route) bool {
	if t.fallback != nil && t.fallback.route == r {
		return true
	}
	for _, sites := range [2]map[string]*site{t.hosts, t.wild} {
		for _, s := range sites {
			if s.route == r {
				return true
			}
		}
	}
	return false
}
