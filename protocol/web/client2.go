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
	away    bool  // the client has been told to open no more streams,
	told    int64 // on the loop's clock, then
	over    bool  // the connection closes
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
	now := h.conn.Loop().Now()
	if h.away && now-h.told > int64(lingerTime) {
		h.http2.Leave()
	}
	n, err := h.http2.Read(p, h, now)
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
func (h *client2) flush() { h.conn.Write(h.http2.AppendOutput(h.scratch())) }

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
	x.asker, x.client, s.Owner = a, h, a
	x.asking.conn, x.asking.http2, x.asking.stream = h.conn, h.http2, s
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
	if !h.away {
		h.away, h.told = true, h.conn.Loop().Now()
	}
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
		x.asking.stream = nil
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

// Answered implements http2.Owner. Only clients are told.
func (a *asker2) Answered(*http2.Stream, []byte, bool) {}

// Data implements http2.Owner.
func (a *asker2) Data(_ *http2.Stream, p []byte) {
	x := (*exchange)(a)
	x.asking.owed += len(p)
	switch {
	case x.answerer != nil:
	case x.headed: // the answer has come whole, and waits for the client
		x.asking.consume()
		return
	default:
		x.unread = append(x.unread, p...) // as much as the stream's window at most
		return
	}
	x.upload(p, false)
	a.consume()
}

// consume lets the client send as much more as the backend has taken.
func (a *asker2) consume() {
	if !a.answerer.full() {
		a.asking.consume()
	}
}

// Ended implements http2.Owner.
func (a *asker2) Ended(_ *http2.Stream, trailers []byte) {
	x := (*exchange)(a)
	x.trailersToServer = append(x.trailersToServer[:0], trailers...)
	if x.answerer == nil {
		x.unreadEnds = true
		return
	}
	x.upload(nil, true)
}

// Reset implements http2.Owner.
func (a *asker2) Reset(*http2.Stream, http2.Code) {
	a.asking.stream = nil
	(*exchange)(a).abandon(metrics.ClientReset)
}

// Writable implements http2.Owner.
func (a *asker2) Writable(*http2.Stream) {
	x := (*exchange)(a)
	x.counts.ToClient += a.asking.writable(x.peer.scratch(), x.trailersToClient)
	switch {
	case a.asking.ended:
		a.gone()
	default:
		x.drained()
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
	s := &a.asking
	s.conn.Write(s.http2.AppendResponse(a.peer.scratch(), s.stream, &a.response, a.asked, false))
}

// send implements asker.
func (a *asker2) send(p []byte, end bool) {
	s, out := &a.asking, a.peer.scratch()
	if !a.answered {
		a.answered = true
		s.ended = end && len(p) == 0 && len(a.trailersToClient) == 0
		out = s.http2.AppendResponse(out, s.stream, &a.response, a.asked, s.ended)
	}
	if s.ended {
		a.counts.ToClient += uint64(len(out))
		s.conn.Write(out)
	} else {
		a.counts.ToClient += s.send(out, p, end, a.trailersToClient)
	}
	if s.ended {
		s.stream = nil
	}
}

// full implements asker.
func (a *asker2) full() bool { return a.asking.full() }

// taken implements asker. A stream whose window has no room has taken what has been written, whatever becomes of the
// others.
func (a *asker2) taken() int64 {
	if len(a.asking.rest) > 0 {
		return int64(a.counts.ToClient)
	}
	return int64(a.counts.ToClient) - int64(a.asking.conn.Unsent())
}

// resume implements asker.
func (a *asker2) resume() {
	x := (*exchange)(a)
	if len(x.unread) > 0 || x.unreadEnds {
		x.upload(x.unread, x.unreadEnds)
		x.unread, x.unreadEnds = x.unread[:0], false
	}
	a.consume()
	a.asking.flush(x.peer.scratch())
}

// done implements asker.
func (a *asker2) done() {
	if a.asking.ended { // else see Writable
		a.gone()
	}
}

// gone ends the exchange, whose stream has gone.
func (a *asker2) gone() {
	c := a.client
	(*exchange)(a).free()
	c.rest()
}

// fail implements asker.
func (a *asker2) fail(status int) {
	s, out := &a.asking, a.peer.scratch()
	switch {
	case s.stream == nil:
	case a.answered:
		s.http2.ResetStream(s.stream, http2.InternalError)
	default:
		a.record.answered(status)
		out = s.http2.AppendError(out, s.stream, status, a.asked)
	}
	s.stream = nil
	s.flush(out)
	a.gone()
}
