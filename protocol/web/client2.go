// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

// Hot path: no allocation per packet.

import (
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/protocol/web/http2"
	"github.com/kyozon/kyozon/relay"
)

// client2 is a client's connection of HTTP/2: each of its streams is an exchange.
type client2 struct {
	peer
	http2   *http2.Conn
	reading bool // Read has not returned
	paused  bool
	away    bool // the client has been told to open no more streams
	over    bool // the connection closes
}

// serve2 begins to read requests of HTTP/2.
func (f *front) serve2(c *relay.Conn, tls *secured) *client2 {
	h := &client2{peer: peer{front: f, conn: c, tls: tls}}
	h.http2 = http2.NewServer(h.local().http2, &http2.Limits{Head: f.current.Load().limits})
	c.SetHandler(h)
	h.flush()
	h.rest()
	return h
}

// Data implements relay.Handler.
func (h *client2) Data(_ *relay.Conn, p []byte) int {
	h.reading = true
	n, err := h.http2.Read(p, h, h.conn.Loop().Now())
	h.reading = false
	h.flush()
	switch {
	case err != nil:
		h.count(metrics.ClientFault)
		h.end(metrics.ClientFault)
		return len(p)
	case h.conn.Full(): // it asks and asks, and takes no answer
		h.paused = true
		h.conn.Pause()
	}
	h.rest()
	return n
}

// flush sends what the connection owes its client.
func (h *client2) flush() { h.write(h.http2.AppendOutput(h.scratch())) }

func (h *client2) write(out []byte) {
	if len(out) > 0 {
		h.conn.Write(out)
	}
}

// rest gives a connection that has no stream a deadline, or closes it if there will be none. Where there is one, the
// exchange has a deadline.
func (h *client2) rest() {
	switch {
	case h.over || h.reading:
	case h.http2.Done():
		h.end(metrics.Fine)
	case h.http2.Streams() > 0:
		h.conn.SetTimeout(0)
	case h.away:
		h.conn.SetTimeout(lingerTime)
	default:
		h.conn.SetTimeout(h.front.current.Load().timeouts.KeepAlive)
	}
}

// Opened implements http2.Handler.
func (h *client2) Opened(s *http2.Stream, head []byte, end bool) {
	x := newExchange(&h.peer, nil)
	a := (*asker2)(x)
	x.asker, x.client, x.stream, s.Owner = a, h, s, a
	n, err := x.request.Parse(head, &x.table.limits)
	if err != nil || n < len(head) {
		x.refuse(statusOf(err), metrics.ClientFault)
		return
	}
	x.asked = x.request.Exchange()
	x.record.asked(&x.request, 20)
	x.complete = end
	if x.ask(head) && x.answerer != nil {
		x.upload(nil, end)
	}
}

// Refused implements http2.Handler.
func (h *client2) Refused(*http2.Error) { h.count(metrics.ClientFault) }

// GoingAway implements http2.Handler. The client opens no more streams; rest looks for the end of the last.
func (h *client2) GoingAway(uint32, http2.Code) {}

// count counts a fault that belongs to no exchange.
func (h *client2) count(r metrics.Reason) {
	if s := h.front.current.Load().fallback; s != nil {
		s.route.Count(r)
	}
}

// Event implements relay.Handler.
func (h *client2) Event(_ *relay.Conn, e relay.Event) {
	switch e {
	case relay.Drained:
		h.http2.Each(func(s *http2.Stream) { (*exchange)(s.Owner.(*asker2)).drained() })
		if h.paused {
			h.paused = false
			h.conn.Resume()
		}
	case relay.Ended:
		h.end(metrics.ClientReset)
	case relay.Timeout:
		if h.away { // it has been told, and has had time to hear
			h.end(metrics.Fine)
			return
		}
		h.goAway()
	}
}

// goAway tells the client to open no more streams. The connection ends when those that there are have ended.
func (h *client2) goAway() {
	h.away = true
	h.http2.GoAway(http2.NoError)
	h.flush()
	h.rest()
}

// Closed implements relay.Handler.
func (h *client2) Closed(*relay.Conn, error) { h.end(metrics.ClientReset) }

// end ends the connection and all exchanges on it.
func (h *client2) end(r metrics.Reason) {
	h.over = true
	h.http2.Each(func(s *http2.Stream) {
		x := (*exchange)(s.Owner.(*asker2))
		x.stream = nil
		x.abandon(r)
	})
	h.letGo()
	h.conn.Linger(lingerTime)
}

// drain is called when a generation is replaced: see drain of the server.
func (h *client2) drain(mine map[*table]bool, last bool) {
	t := h.front.current.Load()
	if last || mine[t] {
		t.ending.Store(true)
		h.goAway()
		return
	}
	h.keepTo(t)
}

// asker2 is an exchange as the owner of a stream of the client's, and as its asker.
type asker2 exchange

// stream2 is what an exchange has for a client of HTTP/2.
type stream2 struct {
	client *client2
	stream *http2.Stream // nil when it has gone
	unread []byte        // of the request, while there is no backend
	ended  bool          // behind it the request ends
	owed   int           // bytes of the request for which the client may not send others yet
	rest   []byte        // of the response, for which the client's window has no room
	closes bool          // behind it the response ends
}

// maxKept is how much of a buffer is kept for the next exchange.
const maxKept = 64 << 10

func (s *stream2) reset() {
	unread, rest := s.unread[:0], s.rest[:0]
	if cap(unread)+cap(rest) > maxKept {
		unread, rest = nil, nil
	}
	*s = stream2{unread: unread, rest: rest}
}

// Answered implements http2.Owner. Only clients are told.
func (a *asker2) Answered(*http2.Stream, []byte, bool) {}

// Data implements http2.Owner.
func (a *asker2) Data(_ *http2.Stream, p []byte) {
	x := (*exchange)(a)
	x.owed += len(p)
	if x.answerer == nil {
		x.unread = append(x.unread, p...) // as much as the stream's window at most
		return
	}
	x.upload(p, false)
	a.consume()
}

// consume lets the client send as much more as the backend has taken.
func (a *asker2) consume() {
	if a.owed > 0 && !a.answerer.full() {
		a.client.http2.Consumed(a.stream, a.owed)
		a.owed = 0
	}
}

// Ended implements http2.Owner.
func (a *asker2) Ended(_ *http2.Stream, trailers []byte) {
	x := (*exchange)(a)
	x.trailersToServer = append(x.trailersToServer[:0], trailers...)
	if x.answerer == nil {
		x.ended = true
		return
	}
	x.upload(nil, true)
}

// Reset implements http2.Owner.
func (a *asker2) Reset(*http2.Stream, http2.Code) {
	a.stream = nil
	(*exchange)(a).abandon(metrics.ClientReset)
}

// Writable implements http2.Owner.
func (a *asker2) Writable(*http2.Stream) {
	x := (*exchange)(a)
	rest := x.rest
	x.rest = x.rest[:0]
	a.write(a.client.scratch(), rest)
	switch {
	case x.answerer != nil:
		x.drained()
	case x.stream == nil:
		a.gone()
	}
}

// drained has the backend go on, if the client takes more.
func (x *exchange) drained() {
	if x.answerer != nil && !x.asker.full() {
		x.answerer.resume()
	}
}

// interim implements asker.
func (a *asker2) interim() {
	c := a.client
	c.write(c.http2.AppendResponse(c.scratch(), a.stream, &a.response, a.asked, false))
}

// send implements asker.
func (a *asker2) send(p []byte, end bool) {
	c, out := a.client, a.client.scratch()
	if !a.answered {
		a.answered = true
		empty := end && len(p) == 0 && len(a.trailersToClient) == 0
		out = c.http2.AppendResponse(out, a.stream, &a.response, a.asked, empty)
		if empty {
			a.stream = nil
		}
	}
	a.closes = end
	if len(a.rest) > 0 {
		a.rest = append(a.rest, p...)
		return
	}
	a.write(out, p)
}

// write sends what is in out, then p and, if that is the last, the end of the response, as far as the client's window
// has room; the rest waits.
func (a *asker2) write(out, p []byte) {
	const most = 32 << 10 // so that out need not grow
	c, more := a.client, len(a.trailersToClient) > 0
	for len(p) > 0 {
		n, part := 0, p[:min(len(p), most)]
		last := a.closes && !more && len(part) == len(p)
		out, n = c.http2.AppendData(out, a.stream, part, last)
		a.counts.ToClient += uint64(len(out))
		c.write(out)
		out, p = out[:0], p[n:]
		if n < len(part) {
			a.rest = append(a.rest, p...)
			return
		}
		if last {
			a.stream = nil
		}
	}
	if a.closes && a.stream != nil {
		out = c.http2.AppendTrailers(out, a.stream, a.trailersToClient)
		a.stream = nil
	}
	a.counts.ToClient += uint64(len(out))
	c.write(out)
}

// full implements asker.
func (a *asker2) full() bool { return len(a.rest) > 0 || a.client.conn.Full() }

// unsent implements asker.
func (a *asker2) unsent() int {
	if len(a.rest) > 0 { // whatever becomes of other streams
		return len(a.rest)
	}
	return a.client.conn.Unsent()
}

// resume implements asker.
func (a *asker2) resume() {
	x := (*exchange)(a)
	if len(x.unread) > 0 || x.ended {
		x.upload(x.unread, x.ended)
		x.unread, x.ended = x.unread[:0], false
	}
	a.consume()
	a.client.flush()
}

// done implements asker.
func (a *asker2) done() {
	if a.stream != nil { // see Writable
		return
	}
	a.gone()
}

// gone ends the exchange, whose stream has gone.
func (a *asker2) gone() {
	c := a.client
	(*exchange)(a).free()
	c.rest()
}

// fail implements asker.
func (a *asker2) fail(status int) {
	c, out := a.client, a.client.scratch()
	switch {
	case a.stream == nil:
	case a.answered:
		c.http2.ResetStream(a.stream, http2.InternalError)
		out = c.http2.AppendOutput(out)
	default:
		a.record.answered(status)
		out = c.http2.AppendError(out, a.stream, status, a.asked)
	}
	a.stream = nil
	c.write(out)
	a.gone()
}
