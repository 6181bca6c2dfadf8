// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

// Hot path: no allocation per packet.

import (
	"github.com/kyozon/kyozon/protocol/web/http1"
	"github.com/kyozon/kyozon/relay"
)

// gather collects what of p goes on of a body in one piece: a part of p, or, where more has to be put together, what it
// has appended to space. It returns how much of p that is. If some is left, more of it may go on in another piece.
func gather(b *http1.Body, p, space []byte) (n int, data []byte, err error) {
	const line = 18 // the longest piece that is not of p
	for n < len(p) && !b.Done() {
		if len(data) > 0 {
			if len(data)+len(p)-n+line > cap(space) {
				break
			}
			if len(space) == 0 { // before Next makes another line of ours
				space = append(space, data...)
			}
		}
		k, forward, err := b.Next(p[n:])
		if err != nil {
			return n, data, err
		}
		if len(data) > 0 {
			space = append(space, forward...)
			data = space
		} else {
			data = forward
		}
		if k == 0 {
			break
		}
		n += k
	}
	return n, data, nil
}

// piece is a piece of a body as it is written to a connection of HTTP/1.1.
type piece struct {
	data     []byte
	end      bool
	chunks   bool // it has no framing yet, and is to have that
	trailers []byte
}

// write writes what is in out, which is scratch, and after it the piece, in as few writes as is cheap. It returns how
// many bytes that were.
func (b *piece) write(c *relay.Conn, out []byte) uint64 {
	if b.chunks && len(b.data) > 0 {
		out = http1.AppendChunkSize(out, len(b.data))
	}
	before := 0
	if len(out)+len(b.data) > cap(out) {
		before = len(out) + len(b.data)
		c.Write(out)
		c.Write(b.data)
		out = out[:0]
	} else {
		out = append(out, b.data...)
	}
	if b.chunks && len(b.data) > 0 {
		out = append(out, "\r\n"...)
	}
	if b.chunks && b.end {
		out = http1.AppendLastChunk(out, b.trailers)
	}
	if len(out) > 0 {
		c.Write(out)
	}
	return uint64(before + len(out))
}
