// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

// Hot path: no allocation per packet.

import (
	"bytes"
	"errors"

	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/protocol/web/http1"
	"github.com/kyozon/kyozon/protocol/web/http2"
	"github.com/kyozon/kyozon/relay"
)

// phase is what a connection of HTTP/1.1 waits for.
type phase uint8

const (
	idle phase = iota // the first byte of a request
	head              // the rest of its head
	busy              // the rest of the exchange
	over              // nothing: the connection closes, or is somebody else's
)

// client1 is a client's connection of HTTP/1.1. It reads requests one after another; each is an exchange.
type client1 struct {
	peer
	phase    phase
	ended    bool // the client has ended its half
	paused   bool
	exchange *exchange // nil while idle
}

// serve1 returns who reads requests of HTTP/1.1.
func (f *front) serve1(c *relay.Conn, tls *secured) *client1 {
	c.SetTimeout(f.current.Load().timeouts.KeepAlive)
	return &client1{peer: peer{front: f, conn: c, tls: tls}}
}

// greet waits for the first bytes of a client in clear, which may know that we speak HTTP/2 (RFC 9113 §3.3).
func (f *front) greet(c *relay.Conn) { c.SetHandler((*greeting)(f.serve1(c, nil))) }

// greeting is a client1 that has not said anything yet.
type greeting client1

// Data implements relay.Handler.
func (g *greeting) Data(c *relay.Conn, p []byte) int {
	h := (*client1)(g)
	switch {
	case !bytes.HasPrefix(p, []byte(http2.Preface[:min(len(p), len(http2.Preface))])):
		c.SetHandler(h)
		return h.Data(c, p)
	case len(p) < len(http2.Preface):
		c.SetTimeout(h.front.current.Load().timeouts.Request)
		return 0
	}
	return h.front.serve2(c, nil).Data(c, p)
}

// Event implements relay.Handler.
func (g *greeting) Event(c *relay.Conn, e relay.Event) { (*client1)(g).Event(c, e) }

// Closed implements relay.Handler.
func (g *greeting) Closed(c *relay.Conn, err error) { (*client1)(g).Closed(c, err) }

func (g *greeting) drain(mine map[*table]bool, last bool) { (*client1)(g).drain(mine, last) }

// Data implements relay.Handler.
func (h *client1) Data(_ *relay.Conn, p []byte) (n int) {
	for {
		switch h.phase {
		case idle:
			if n == len(p) {
				return n
			}
			if h.conn.Full() { // it asks and asks, and takes no answer
				h.pause()
				return n
			}
			h.begin()
		case head:
			k := h.readHead(p[n:])
			if k == 0 && h.phase == head {
				return n
			}
			n += k
		case busy:
			if x := h.exchange; x.answerer == nil || x.complete { // what else there is, waits unread
				if n < len(p) {
					h.pause()
				}
				return n
			}
			k := h.readBody(p[n:])
			if k == 0 {
				return n
			}
			n += k
		case over:
			return len(p)
		}
	}
}

func (h *client1) pause() {
	h.paused = true
	h.conn.Pause()
}

// resume implements asker.
func (h *client1) resume() {
	if h.paused {
		h.paused = false
		h.conn.Resume()
	}
}

// begin begins an exchange.
func (h *client1) begin() {
	h.exchange = newExchange(&h.peer, h)
	h.phase = head
	h.conn.SetTimeout(h.exchange.table.timeouts.Request)
}

// readHead reads a request's head and asks for what it wants. It returns 0 as long as the head is not whole.
func (h *client1) readHead(p []byte) int {
	x := h.exchange
	n, err := x.request.Parse(p, &x.table.limits)
	if err != nil {
		x.refuse(statusOf(err), metrics.ClientFault)
		return len(p)
	}
	if n == 0 {
		return 0
	}
	x.asked = x.request.Exchange()
	x.record.asked(&x.request, 10+x.request.Minor)
	if h.proves() {
		return len(p)
	}
	body := x.request.Body()
	x.complete = body.Done()
	h.phase = busy
	h.conn.SetTimeout(0) // what the exchange does takes the time that its deadlines give
	if x.ask(p[:n]) && x.answerer != nil {
		n += h.readBody(p[n:])
	}
	return n
}

func statusOf(err error) int {
	if e, ok := errors.AsType[*http1.Error](err); ok {
		return e.Status
	}
	return 400
}

// readBody sends on what p holds of the request's body, and before it the head if that has not gone yet.
func (h *client1) readBody(p []byte) int {
	x := h.exchange
	n, data, err := gather(&x.toServer, p, h.space())
	if err != nil {
		x.refuse(statusOf(err), metrics.ClientFault)
		return len(p)
	}
	if n > 0 || !x.sent {
		x.upload(data, x.toServer.Done())
		if x.answerer.full() && !x.complete {
			h.pause()
		}
	}
	return n
}

// Event implements relay.Handler.
func (h *client1) Event(_ *relay.Conn, e relay.Event) {
	x := h.exchange
	switch e {
	case relay.Drained:
		if x != nil && x.answerer != nil {
			x.answerer.resume()
		}
		if h.phase == idle {
			h.resume()
		}
	case relay.Ended:
		h.ended = true
		if h.phase != busy || !x.complete { // a client may end its half and still wait for the response
			h.abandon(metrics.ClientReset)
		}
	case relay.Timeout:
		if h.phase == head {
			x.refuse(408, metrics.ClientTimeout)
			return
		}
		h.end()
	}
}

// Closed implements relay.Handler.
func (h *client1) Closed(*relay.Conn, error) { h.abandon(metrics.ClientReset) }

// abandon ends everything at once, because the client has gone. A response that is cut off must not look whole to one
// that has not: a reset shows it, whatever the framing.
func (h *client1) abandon(r metrics.Reason) {
	if x := h.exchange; x != nil {
		if x.answered {
			h.conn.Abort()
		}
		h.exchange = nil
		x.abandon(r)
	}
	h.end()
}

// end closes the connection, which has no exchange.
func (h *client1) end() {
	h.letGo()
	h.phase = over
	h.conn.Close()
}

// interim implements asker.
func (h *client1) interim() {
	x := h.exchange
	h.write(http1.AppendResponse(h.scratch(), &x.response, x.asked, false))
}

// send implements asker.
func (h *client1) send(p []byte, end bool) {
	x := h.exchange
	out := h.scratch()
	if !x.answered {
		x.answered = true
		x.last = x.table.ending.Load() || h.ended || !x.complete
		out = http1.AppendResponse(out, &x.response, x.asked, x.last)
	}
	b := piece{data: p, end: end, chunks: !x.framed && x.response.Chunks(x.asked), trailers: x.trailersToClient}
	x.counts.ToClient += b.write(h.conn, out)
}

// full implements asker.
func (h *client1) full() bool { return h.conn.Full() }

// taken implements asker.
func (h *client1) taken() int64 { return int64(h.exchange.counts.ToClient) - int64(h.conn.Unsent()) }

// done implements asker.
func (h *client1) done() {
	x := h.exchange
	persists := x.complete && !x.last && x.response.Persists(x.asked) && !x.table.ending.Load() && !h.ended
	whole, keepAlive := x.complete, x.table.timeouts.KeepAlive
	h.finishExchange()
	switch {
	case persists:
		h.phase = idle
		h.conn.SetTimeout(keepAlive)
		h.resume()
	case whole && !h.paused:
		h.end()
	default: // the client has sent more than we have read
		h.letGo()
		h.phase = over
		h.conn.Linger(lingerTime)
	}
}

// fail implements asker. What else the client sends means nothing: the connection ends.
func (h *client1) fail(status int) {
	x := h.exchange
	answered := x.answered
	if !answered {
		x.record.answered(status)
		h.conn.Write(http1.AppendError(h.scratch(), status, http1.Exchange{Verb: x.asked.Verb, Minor: x.asked.Minor}))
	}
	h.finishExchange()
	h.letGo()
	h.phase = over
	if answered {
		h.conn.Abort()
		return
	}
	h.conn.Linger(lingerTime)
}

func (h *client1) finishExchange() {
	x := h.exchange
	h.exchange = nil
	x.free()
}

// tunnel hands both connections over, because the backend has switched to another protocol, in which rest is the first
// that it says. RFC 9110 §7.8.
func (h *client1) tunnel(rest []byte) {
	x := h.exchange
	f, idle := x.flow, x.site.idle
	h.write(append(http1.AppendResponse(h.scratch(), &x.response, x.asked, false), rest...))
	f.Metrics().Request()
	f.Metrics().Add(x.counts)
	x.record.answered(101)
	f.Requests = false // from here on it is a flow, and has a line of its own
	h.finishExchange()
	h.letGo()
	h.phase = over
	h.paused = false
	p := relay.Splice(h.conn, f.Conn, idle, f.End)
	f.Counts, f.Cut = p.Counts, p.Cut
}

// drain is called when a generation is replaced: see drain of the server.
func (h *client1) drain(mine map[*table]bool, last bool) {
	t := h.front.current.Load()
	if last || mine[t] {
		t.ending.Store(true)
		if h.phase == idle {
			h.end()
		}
		return
	}
	h.keepTo(t)
}

func (h *client1) write(out []byte) {
	if len(out) > 0 {
		h.conn.Write(out)
		h.exchange.counts.ToClient += uint64(len(out))
	}
}
