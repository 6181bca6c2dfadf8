// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

// Hot path: no allocation per packet.

import (
	"slices"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/protocol/web/http1"
	"github.com/kyozon/kyozon/protocol/web/http2"
	"github.com/kyozon/kyozon/relay"
)

// restTime is how long a connection of HTTP/2 to a backend stays without a request: less than the minute after which
// servers close theirs.
const restTime = 30 * time.Second

// upstream is a connection of HTTP/2 to a backend: each of its streams is an exchange. In a Shared pool the exchanges of
// all clients of the loop may use it at once; elsewhere it is one client's, and has one exchange at a time.
type upstream struct {
	conn    *relay.Conn
	http2   *http2.Conn
	backend *backend.Backend // at which it is shared; nil if it is one client's
	holder  *holder          // who has it while it is not used, if it is one client's
	offered bool             // others get it
	reading bool             // Read has not returned
	over    bool
	heard   int64 // on the loop's clock, when the server said something last
	silent  bool  // it has said nothing for as long as a request may take: it gets no more
	local   *local
}

// upstreamOf returns the upstream that a flow's connection is, or nil if it is one of HTTP/1.1.
func (x *exchange) upstreamOf(f *backend.Flow, reused bool) *upstream {
	if u, ok := f.Conn.Handler().(*upstream); ok {
		return u
	}
	if reused || !slices.Contains(x.site.http2, f.Pool) {
		return nil
	}
	if s := f.Conn.TLS(); s != nil && s.NegotiatedProtocol != "h2" {
		return nil
	}
	l := x.peer.local()
	u := &upstream{conn: f.Conn, local: l, heard: f.Conn.Loop().Now(), http2: http2.NewClient(l.http2, upstreamLimits(x.table.answers))}
	f.Conn.SetHandler(u)
	if f.Pool.Shared() {
		u.backend = f.Backend
	}
	return u
}

// maxStreams is how many requests one upstream carries at once, if its server takes as many.
const maxStreams = 100

// upstreamLimits are such that a client that does not read holds up nobody else: the window of the connection has room
// for all streams.
func upstreamLimits(answers http1.Limits) *http2.Limits {
	const window = 128 << 10
	return &http2.Limits{Head: answers, Window: window, ConnWindow: maxStreams * window}
}

// open gives x a stream. It returns false if the server takes no more.
func (u *upstream) open(x *exchange) bool {
	s, err := u.http2.Open()
	switch {
	case err == nil:
	case u.backend != nil:
		u.withdraw()
		return false
	default: // nobody holds it any more
		u.end()
		return false
	}
	s.Owner = (*server2)(x)
	x.answering.conn, x.answering.http2, x.answering.stream = u.conn, u.http2, s
	u.conn.SetTimeout(0)
	u.offer()
	return true
}

// offer lets others use the connection, if it is shared and has room.
func (u *upstream) offer() {
	room := !u.over && !u.silent && u.http2.Room() == nil && u.http2.Streams() < maxStreams
	switch {
	case !room:
		u.withdraw()
	case u.backend != nil && !u.offered:
		u.offered = true
		u.backend.Lend(u.conn)
	}
}

func (u *upstream) withdraw() {
	if u.offered {
		u.offered = false
		u.backend.Withdraw(u.conn)
	}
}

// rest is called when a stream has gone.
func (u *upstream) rest() {
	switch {
	case u.over || u.reading:
	case u.http2.Done():
		u.end()
	case u.silent && u.http2.Streams() == 0:
		u.leave()
	default:
		u.offer()
		if u.http2.Streams() == 0 && u.holder == nil {
			u.conn.SetTimeout(restTime)
		}
	}
}

// Data implements relay.Handler.
func (u *upstream) Data(_ *relay.Conn, p []byte) int {
	u.reading = true
	u.heard, u.silent = u.conn.Loop().Now(), false
	n, err := u.http2.Read(p, u, u.heard)
	u.reading = false
	u.flush()
	if err != nil {
		u.end()
		return len(p)
	}
	u.rest()
	return n
}

func (u *upstream) flush() { u.conn.Write(u.http2.AppendOutput(u.local.out[:0])) }

// Event implements relay.Handler.
func (u *upstream) Event(_ *relay.Conn, e relay.Event) {
	switch e {
	case relay.Drained:
		u.http2.Each(func(s *http2.Stream) { s.Owner.(*server2).drained() })
	case relay.Ended:
		u.end()
	case relay.Timeout:
		u.leave()
	}
}

// leave ends the connection, which nobody uses.
func (u *upstream) leave() {
	u.http2.GoAway(http2.NoError)
	u.flush()
	u.end()
}

// doubt is called when a request has waited for d in vain. If the server has said nothing at all meanwhile it may be
// gone, which nobody else would tell us of: the kernel sends again for a quarter of an hour before it gives up.
func (u *upstream) doubt(d time.Duration) {
	if u.conn.Loop().Now()-u.heard >= int64(d) {
		u.silent = true
		u.withdraw()
	}
}

// Closed implements relay.Handler.
func (u *upstream) Closed(*relay.Conn, error) { u.end() }

// end ends the connection and all exchanges on it.
func (u *upstream) end() {
	if u.over {
		return
	}
	u.over = true
	u.withdraw()
	u.http2.Each(func(s *http2.Stream) { (*exchange)(s.Owner.(*server2)).broken(false) })
	if u.holder != nil {
		u.holder.lost(u.conn)
	}
	u.conn.Close()
}

// Opened implements http2.Handler. Only servers are told.
func (u *upstream) Opened(*http2.Stream, []byte, bool) {}

// Refused implements http2.Handler. Only servers are told.
func (u *upstream) Refused(*http2.Error) {}

// GoingAway implements http2.Handler.
func (u *upstream) GoingAway(uint32, http2.Code) { u.withdraw() }

// spare gives back the connection of a flow that no exchange has used.
func spare(f *backend.Flow) {
	if _, ok := f.Conn.Handler().(*upstream); !ok {
		f.Conn.Abort()
	}
}

// server2 is an exchange as the owner of a stream of its backend's, and as its answerer.
type server2 exchange

// Answered implements http2.Owner.
func (s *server2) Answered(_ *http2.Stream, head []byte, end bool) {
	x := (*exchange)(s)
	if !x.heard {
		x.heard = true
		x.record.heard()
	}
	n, err := x.response.Parse(head, x.asked, &x.table.answers)
	switch {
	case err != nil || n < len(head) || x.interims > maxInterim:
		x.fault(502, metrics.ServerFault)
		return
	case x.response.Interim():
		x.interims++
		x.asker.interim()
		return
	}
	x.headed = true
	x.answers()
	x.download(nil, end)
	if end {
		x.finish(false)
	}
}

// Data implements http2.Owner.
func (s *server2) Data(_ *http2.Stream, p []byte) {
	x := (*exchange)(s)
	x.download(p, false)
	x.answering.owed += len(p)
	if !x.asker.full() {
		x.answering.consume()
	}
}

// Ended implements http2.Owner.
func (s *server2) Ended(_ *http2.Stream, trailers []byte) {
	x := (*exchange)(s)
	x.trailersToClient = append(x.trailersToClient[:0], trailers...)
	x.download(nil, true)
	x.finish(false)
}

// Reset implements http2.Owner.
func (s *server2) Reset(_ *http2.Stream, code http2.Code) {
	s.answering.stream = nil
	(*exchange)(s).broken(code == http2.RefusedStream)
}

// Writable implements http2.Owner.
func (s *server2) Writable(*http2.Stream) {
	s.counts.ToServer += s.answering.writable(s.peer.scratch(), s.trailersToServer)
	s.drained()
}

// drained has the client go on, if the backend takes more.
func (s *server2) drained() {
	if !s.full() {
		(*exchange)(s).more()
	}
}

// send implements answerer.
func (s *server2) send(p []byte, end bool) {
	x, to, out := (*exchange)(s), &s.answering, s.peer.scratch()
	if !x.sent {
		x.sent = true
		x.request.Upgrade, x.asked.Upgrade = false, false // it goes as an ordinary request: RFC 9113 §8.6
		scheme := "http"
		if x.peer.tls != nil {
			scheme = "https"
		}
		to.ended = end && len(p) == 0 && len(x.trailersToServer) == 0
		out = to.http2.AppendRequest(out, to.stream, &x.request, x.forward(), scheme, to.ended)
		if to.ended {
			x.counts.ToServer += uint64(len(out))
			to.conn.Write(out)
			return
		}
	}
	x.counts.ToServer += to.send(out, p, end, x.trailersToServer)
}

// full implements answerer.
func (s *server2) full() bool { return s.answering.full() }

// resume implements answerer.
func (s *server2) resume() {
	s.answering.consume()
	s.answering.flush(s.peer.scratch())
}

// settle implements answerer.
func (s *server2) settle(bool) {
	x, u, f := (*exchange)(s), s.upstream, s.flow
	if !x.answering.ended { // the request is of no more use
		s.reset()
	}
	x.upstream, x.answering.stream = nil, nil
	switch {
	case u.backend != nil:
		f.End(x.counts, metrics.Fine)
	case x.serves() && !u.over:
		f.Metrics().Add(x.counts)
		x.peer.hold(f)
	default:
		f.Conn.Close()
		f.End(x.counts, metrics.Fine)
	}
	u.rest()
}

// drop implements answerer.
func (s *server2) drop() {
	u := s.upstream
	s.reset()
	s.upstream = nil
	if u.backend == nil {
		u.over = true
		u.conn.Abort()
	}
	u.rest()
}

// reset tells the backend that the stream is not wanted any more.
func (s *server2) reset() {
	to := &s.answering
	if to.stream != nil {
		to.http2.ResetStream(to.stream, http2.Cancel)
		to.flush(s.peer.scratch())
	}
	to.reset()
}
