// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

// Hot path: no allocation per packet.

import (
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/protocol/web/http1"
	"github.com/kyozon/kyozon/relay"
)

// server1 is an exchange as the handler of its backend's connection of HTTP/1.1, and as its answerer.
type server1 exchange

// Data implements relay.Handler.
func (s *server1) Data(_ *relay.Conn, p []byte) int {
	x := (*exchange)(s)
	x.pins++
	n := s.read(p)
	x.unpin()
	return n
}

func (s *server1) read(p []byte) (n int) {
	x := (*exchange)(s)
	if !x.heard {
		x.heard = true
		x.record.heard()
	}
	if !x.headed {
		switch n = s.readHead(p); {
		case x.over:
			return len(p)
		case !x.headed:
			s.hold()
			return n
		}
	}
	return s.readBody(p, n)
}

// readHead reads responses until the one that is not interim, and returns how much of p they have. A switch to another
// protocol takes all.
func (s *server1) readHead(p []byte) (n int) {
	x := (*exchange)(s)
	for !x.headed {
		k, err := x.response.Parse(p[n:], x.asked, &x.table.answers)
		switch {
		case err != nil || x.interims > maxInterim:
			x.fault(502, metrics.ServerFault)
			return n
		case k == 0:
			return n
		}
		n += k
		if x.response.Interim() {
			x.interims++
			x.asker.interim()
			continue
		}
		x.headed = true
	}
	if x.response.Status == 101 {
		x.asker.(*client1).tunnel(p[n:]) // nobody else can ask for it
		return len(p)
	}
	x.answers()
	return n
}

// answers notes the head of the response, which has come whole.
func (x *exchange) answers() {
	x.toClient = x.response.Body(x.asked)
	if !x.framed {
		x.toClient.Unframe(&x.trailersToClient)
	}
	x.record.answered(x.response.Status)
	x.site.literals.look(&x.response, x.flow.Pool, x.request.Host())
}

// readBody sends on what p holds of the response's body from n on, and before it the head if that has not gone yet.
func (s *server1) readBody(p []byte, n int) int {
	x := (*exchange)(s)
	for {
		k, data, err := gather(&x.toClient, p[n:], x.peer.space())
		if err != nil {
			x.fault(502, metrics.ServerFault)
			return len(p)
		}
		n += k
		end := x.toClient.Done()
		if k > 0 || !x.answered {
			x.download(data, end)
		}
		switch {
		case end:
			x.finish(n < len(p))
			return len(p)
		case k == 0 || n == len(p):
			s.hold()
			return n
		}
	}
}

// hold reads no more as long as the client takes no more.
func (s *server1) hold() {
	if s.asker.full() {
		s.flow.Conn.Pause()
	}
}

// Event implements relay.Handler.
func (s *server1) Event(_ *relay.Conn, e relay.Event) {
	x := (*exchange)(s)
	switch {
	case e == relay.Drained:
		x.more()
	case e == relay.Timeout: // there is none: see exchange.deadline
	case x.headed && x.toClient.End() == nil:
		x.download(nil, true)
		x.finish(true)
	default:
		x.broken(false)
	}
}

// Closed implements relay.Handler.
func (s *server1) Closed(*relay.Conn, error) { (*exchange)(s).broken(false) }

// send implements answerer.
func (s *server1) send(p []byte, end bool) {
	x := (*exchange)(s)
	out := x.peer.scratch()
	if !x.sent {
		x.sent = true
		out = http1.AppendRequest(out, &x.request, x.forward())
	}
	b := piece{data: p, end: end, chunks: !x.framed && x.request.Framing == http1.Chunked, trailers: x.trailersToServer}
	x.counts.ToServer += b.write(x.flow.Conn, out)
}

// full implements answerer.
func (s *server1) full() bool { return s.flow.Conn.Full() }

// resume implements answerer.
func (s *server1) resume() { s.flow.Conn.Resume() }

// settle implements answerer. A connection whose request has not been sent whole is of no more use, nor is one with
// surplus.
func (s *server1) settle(surplus bool) {
	x := (*exchange)(s)
	f := x.flow
	switch {
	case surplus || !x.complete || !x.response.KeepAlive || f.Conn.HasEnded():
	case f.Pool.Shared():
		f.Keep(x.counts)
		return
	case x.serves():
		f.Metrics().Add(x.counts)
		x.peer.hold(f)
		return
	}
	f.Conn.Close()
	f.End(x.counts, metrics.Fine)
}

// drop implements answerer.
func (s *server1) drop() { s.flow.Conn.Abort() }
