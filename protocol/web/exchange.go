// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

// Hot path: no allocation per packet.

import (
	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/protocol/web/http1"
	"github.com/kyozon/kyozon/relay"
)

// maxInterim is how many interim responses one request may get. RFC 9110 §15.2 sets no limit; a flood of them would
// keep an exchange alive for ever.
const maxInterim = 64

// serverSide is a conn as the handler of its backend's connection.
type serverSide conn

// Data implements relay.Handler for the backend.
func (s *serverSide) Data(c *relay.Conn, p []byte) int {
	h := (*conn)(s)
	x := h.exchange
	if x == nil || x.flow == nil || x.flow.Conn != c { // a held connection: nobody has asked
		h.lost(c)
		return len(p)
	}
	if !x.heard {
		x.heard = true
		x.record.heard()
	}
	n, out := 0, h.scratch()
	for !x.answered {
		k, err := x.response.Parse(p[n:], x.x, &x.table.answers)
		switch {
		case err != nil || x.interim > maxInterim:
			h.drop(metrics.ServerFault)
			h.answerError(502)
			return len(p)
		case k == 0:
			if h.write(out); h.client.Full() {
				c.Pause()
			}
			return n
		}
		n += k
		if x.response.Status == 101 {
			h.tunnel(out, p[n:])
			return len(p)
		}
		if x.answered = !x.response.Interim(); !x.answered {
			x.interim++
		}
		x.last = x.table.ending.Load() || h.ended || !x.toServer.Done()
		out = http1.AppendResponse(out, &x.response, x.x, x.last)
	}
	if n > 0 {
		x.toClient = x.response.Body(x.x)
		x.record.answered(x.response.Status)
		x.site.literals.look(&x.response, x.flow.Pool, x.request.Host())
	}
	return n + h.respond(out, p[n:])
}

// respond sends the client what is in out and then what of p belongs to the response's body.
func (h *conn) respond(out, p []byte) int {
	x := h.exchange
	n, sent, err := copyBody(&x.toClient, h.client, out, p)
	x.counts.ToClient += uint64(sent)
	switch {
	case err != nil:
		h.drop(metrics.ServerFault)
		h.answerError(502) // the head has gone out: the client is cut off, and so sees that the response is not whole
		return len(p)
	case x.toClient.Done():
		h.finish(len(p) > n)
		return len(p)
	}
	x.flow.Conn.SetTimeout(x.site.idle)
	if h.client.Full() {
		x.unsent = 0
		x.flow.Conn.Pause()
	}
	return n
}

func (h *conn) write(out []byte) {
	if len(out) > 0 {
		h.client.Write(out)
		h.exchange.counts.ToClient += uint64(len(out))
	}
}

// finish ends an exchange whose response has been sent whole. Bytes beyond the response make the backend's connection
// useless.
func (h *conn) finish(surplus bool) {
	x := h.exchange
	f := x.flow
	f.Metrics().Request()
	sent := x.toServer.Done()
	persists := sent && !x.last && x.response.Persists(x.x) && !x.table.ending.Load() && !h.ended
	switch {
	case surplus || !sent || !x.response.KeepAlive || f.Conn.HasEnded():
		f.Conn.Close()
		f.End(x.counts, metrics.Fine)
	case f.Pool.Shared():
		f.Keep(x.counts)
	case persists && h.serves(f):
		f.Metrics().Add(x.counts)
		f.Conn.SetTimeout(0)
		h.held = f
	default:
		f.Conn.Close()
		f.End(x.counts, metrics.Fine)
	}
	keepAlive := x.table.timeouts.KeepAlive
	h.finishExchange()
	switch {
	case persists:
		h.phase = idle
		h.client.SetTimeout(keepAlive)
		h.resume()
	case sent && !h.paused:
		h.phase = over
		h.client.Close()
	default: // the client has sent more than we have read
		h.phase = over
		h.client.Linger(lingerTime)
	}
}

// serves says whether the front would choose f's route also for another request.
func (h *conn) serves(f *backend.Flow) bool {
	t := h.front.current.Load()
	return t == h.exchange.table || t.has(f.Route())
}

// tunnel hands both connections over, because the backend has switched to another protocol. RFC 9110 §7.8.
func (h *conn) tunnel(out, rest []byte) {
	x := h.exchange
	f := x.flow
	out = append(http1.AppendResponse(out, &x.response, x.x, false), rest...)
	h.write(out)
	f.Metrics().Request()
	f.Metrics().Add(x.counts)
	x.record.answered(101)
	f.Requests = false // from here on it is a flow, and has a line of its own
	idle := x.site.idle
	h.finishExchange()
	h.phase = over
	h.paused = false
	p := relay.Splice(h.client, f.Conn, idle, f.End)
	f.Counts, f.Cut = p.Counts, p.Cut
}

// Event implements relay.Handler for the backend.
func (s *serverSide) Event(c *relay.Conn, e relay.Event) {
	h := (*conn)(s)
	x := h.exchange
	switch {
	case e == relay.Drained:
		h.resume()
	case x == nil || x.flow == nil || x.flow.Conn != c:
		h.lost(c)
	case e == relay.Timeout && h.client.Full():
		h.stalled()
	case e == relay.Timeout:
		h.drop(metrics.ServerTimeout)
		h.answerError(504)
	case x.answered && x.toClient.End() == nil:
		h.finish(true)
	default:
		h.broken(metrics.ServerReset)
	}
}

// stalled gives the client up if it has taken nothing of the response since the last time, rather than little.
func (h *conn) stalled() {
	x := h.exchange
	left := h.client.Unsent()
	if left == x.unsent {
		h.abandon(metrics.ClientTimeout)
		return
	}
	x.unsent = left
	x.flow.Conn.SetTimeout(x.site.idle)
}

// Closed implements relay.Handler for the backend.
func (s *serverSide) Closed(c *relay.Conn, _ error) {
	h := (*conn)(s)
	if x := h.exchange; x == nil || x.flow == nil || x.flow.Conn != c {
		h.lost(c)
		return
	}
	h.broken(metrics.ServerReset)
}

// broken is called when the backend's connection has ended before the response has. A connection that had been kept may
// have been closed by the backend before the request came; then the request is sent once more, if that is allowed.
func (h *conn) broken(r metrics.Reason) {
	x := h.exchange
	if x.heard || len(x.saved) == 0 {
		h.drop(r)
		h.answerError(502)
		return
	}
	h.drop(metrics.Fine)
	x.counts, x.reused = metrics.Counts{}, false
	x.record.again()
	h.phase = dialling
	x.site.route.Dial(h.client.Loop(), client(h.client), false, h.onDialed)
}

// lost is called when something happens on a connection that no exchange uses: it is of no use any more.
func (h *conn) lost(c *relay.Conn) {
	if h.held != nil && h.held.Conn == c {
		f := h.held
		h.held = nil
		h.release(f)
		return
	}
	c.Close()
}
