// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

// Hot path: no allocation per packet.

import (
	"github.com/kyozon/kyozon/protocol/web/http2"
	"github.com/kyozon/kyozon/relay"
)

// stream2 is a stream of HTTP/2 as an exchange uses it, on either side.
type stream2 struct {
	conn   *relay.Conn
	http2  *http2.Conn
	stream *http2.Stream // nil if there is none, or it has gone
	rest   []byte        // what has been sent here, but the peer's window had no room for
	closes bool          // behind it our half ends
	ended  bool          // it has
	owed   int           // bytes that have come, for which the peer may not send others yet
}

// maxKept is how much of a buffer is kept for the next exchange.
const maxKept = 64 << 10

func (s *stream2) reset() { *s = stream2{rest: kept(s.rest)} }

// kept returns an empty buffer, p's if it is not large.
func kept(p []byte) []byte {
	if cap(p) > maxKept {
		return nil
	}
	return p[:0]
}

// send sends what is in out, which is scratch, then p and, if end, the trailers and the end of our half, as far as the
// peer's window has room; the rest waits for writable. It returns how many bytes went.
func (s *stream2) send(out, p []byte, end bool, trailers []byte) (sent uint64) {
	s.closes = end
	if len(s.rest) > 0 {
		s.rest = append(s.rest, p...)
		p = nil
	}
	return s.write(out, p, trailers)
}

// writable goes on with what waits.
func (s *stream2) writable(out, trailers []byte) (sent uint64) {
	rest := s.rest
	s.rest = s.rest[:0]
	return s.write(out, rest, trailers)
}

func (s *stream2) write(out, p, trailers []byte) (sent uint64) {
	const most = 32 << 10 // so that out need not grow
	for len(p) > 0 {
		n, part := 0, p[:min(len(p), most)]
		last := s.closes && len(trailers) == 0 && len(part) == len(p)
		out, n = s.http2.AppendData(out, s.stream, part, last)
		sent += uint64(len(out))
		s.conn.Write(out)
		out, p = out[:0], p[n:]
		if n < len(part) {
			s.rest = append(s.rest, p...)
			return sent
		}
		if last {
			s.ended = true
			return sent
		}
	}
	if s.closes && len(s.rest) == 0 {
		out = s.http2.AppendTrailers(out, s.stream, trailers)
		s.ended = true
	}
	s.conn.Write(out)
	return sent + uint64(len(out))
}

// full says that the peer takes no more at the moment.
func (s *stream2) full() bool { return len(s.rest) > 0 || s.conn.Full() }

// consume lets the peer send as much as has come and gone on.
func (s *stream2) consume() {
	if s.owed > 0 && s.stream != nil {
		s.http2.Consumed(s.stream, s.owed)
	}
	s.owed = 0
}

// flush sends what the connection owes its peer.
func (s *stream2) flush(out []byte) { s.conn.Write(s.http2.AppendOutput(out)) }
