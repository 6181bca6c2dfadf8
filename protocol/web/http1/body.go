// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http1

// Hot path: no allocation per packet.

import (
	"math"
	"strconv"
)

// Body follows a body as it passes, piece by piece.
//
// Bodies of a known length and those that end with the connection go on as they come. A chunked one is checked to the
// last byte and framed anew in the one canonical way: sizes in lower case without leading zeros, no extensions, no
// trailers but harmless ones. Where the bytes that came are just that, as they nearly always are, they go on in one
// piece, over as many chunks as have come.
type Body struct {
	framing  Framing
	unframed bool    // chunks go on as their data alone
	trailers *[]byte // where those go that may go on, if not behind the last chunk
	place
	line [18]byte // a chunk-size line of ours
}

// place is how far into a body we are.
type place struct {
	state chunkState
	extra uint32 // bytes of extensions so far, or of trailers
	left  uint64 // bytes still to come: of the body, or of the data of the chunk
}

// chunkState is what comes next in a chunked body.
type chunkState uint8

const (
	chunkSize chunkState = iota
	chunkData
	chunkEnd // the CRLF after the data
	chunkTrailer
	chunkDone
)

const (
	maxDigits     = 16      // of a chunk size
	maxExtension  = 256     // bytes of one chunk's
	maxExtensions = 8 << 10 // of all together: they are not data, and nobody is known to use them
	maxTrailer    = 4 << 10 // bytes of all trailers
)

// newBody returns a body of n bytes, if that is how it is framed.
func newBody(f Framing, n int64) Body {
	if f != Length {
		n = 0
	}
	return Body{framing: f, place: place{left: uint64(n)}}
}

// Done says whether the body has ended. One that lasts until the connection is closed never has.
func (b *Body) Done() bool {
	switch b.framing {
	case Length:
		return b.left == 0
	case Chunked:
		return b.state == chunkDone
	}
	return b.framing == NoBody
}

// Next takes the first n bytes of p and returns what goes on in their place: a part of p, or a few bytes that are
// valid until the next call. If n is 0 and the body is not done, more bytes are needed than p has, never more than
// 4 KiB. After an error, always an *Error, both connections must be closed, because nobody knows where the body ends;
// its Status is for a client whose response has not begun.
func (b *Body) Next(p []byte) (n int, forward []byte, err error) {
	switch b.framing {
	case Length:
		n = int(min(uint64(len(p)), b.left))
		b.left -= uint64(n)
		return n, p[:n], nil
	case UntilClose:
		return len(p), p, nil
	case Chunked:
		n, forward, e := b.chunks(p)
		if e != nil {
			return 0, nil, e
		}
		return n, forward, nil
	}
	return 0, nil, nil
}

// End tells that no more bytes will come. Returns ErrTruncated if some should have.
func (b *Body) End() error {
	if b.framing == UntilClose || b.Done() {
		return nil
	}
	return ErrTruncated
}

// fate is what becomes of a piece of a chunked body.
type fate uint8

const (
	pass fate = iota // it goes on as it is
	drop
	ours // b.line goes on in its place
)

// chunks passes on p from the first byte that may go on as it is to the last one.
func (b *Body) chunks(p []byte) (n int, forward []byte, err *Error) {
	from, to := 0, 0
	for to < len(p) && b.state != chunkDone {
		before := b.place
		n, fate, err := b.piece(p[to:])
		switch {
		case (err != nil || fate != pass) && from < to:
			b.place = before // first what goes on; the next call comes here again
			return to, p[from:to], nil
		case err != nil:
			return 0, nil, err
		case n == 0:
			return to, p[from:to], nil
		case fate == ours:
			line := strconv.AppendUint(b.line[:0], b.left, 16)
			return to + n, append(line, '\r', '\n'), nil
		}
		to += n
		if fate == drop {
			from = to
		}
	}
	return to, p[from:to], nil
}

// piece reads one piece of the framing or the data that p begins with; n is 0 if it is not whole.
func (b *Body) piece(p []byte) (n int, f fate, err *Error) {
	switch b.state {
	case chunkData:
		n = int(min(uint64(len(p)), b.left))
		if b.left -= uint64(n); b.left == 0 {
			b.state = chunkEnd
		}
		return n, pass, nil
	case chunkEnd:
		if n, err = lineEnd(p); n > 0 {
			b.state = chunkSize
		}
	case chunkSize:
		n, f, err = b.size(p)
	case chunkTrailer:
		n, f, err = b.trailer(p)
		if b.trailers != nil && f == pass && b.state == chunkTrailer {
			*b.trailers = append(*b.trailers, p[:n]...)
		}
	}
	if b.unframed {
		f = drop
	}
	return n, f, err
}

// Unframe has chunks go on as their data alone, for who frames it in a way of his own. Trailers that may go on are
// appended to *trailers as lines like "Name: value\r\n", if that is not nil; they are as long as a body's may be, 4 KiB.
func (b *Body) Unframe(trailers *[]byte) { b.unframed, b.trailers = true, trailers }

// AppendChunkSize begins a chunk of n bytes, more than none. Behind them goes CRLF. RFC 9112 §7.1.
func AppendChunkSize(dst []byte, n int) []byte {
	dst = strconv.AppendUint(dst, uint64(n), 16)
	return append(dst, "\r\n"...)
}

// AppendLastChunk writes the end of a chunked body with trailers, which are lines like "Name: value\r\n".
func AppendLastChunk(dst, trailers []byte) []byte {
	dst = append(dst, "0\r\n"...)
	dst = append(dst, trailers...)
	return append(dst, "\r\n"...)
}

// lineEnd reads the CRLF after the data of a chunk.
func lineEnd(p []byte) (n int, err *Error) {
	switch {
	case p[0] != '\r' || len(p) > 1 && p[1] != '\n':
		return 0, ErrChunkEnd
	case len(p) == 1:
		return 0, nil
	}
	return 2, nil
}

// size reads a chunk-size line. RFC 9112 §7.1 and §7.1.1.
func (b *Body) size(p []byte) (n int, f fate, err *Error) {
	size, upper := uint64(0), false
	for n < len(p) && n <= maxDigits {
		d := hex(p[n])
		if d > 15 {
			break
		}
		size = size<<4 | uint64(d)
		upper = upper || p[n] < 'a' && d > 9
		n++
	}
	switch {
	case n > maxDigits || size > math.MaxInt64:
		return 0, pass, ErrChunkSize
	case n == len(p):
		return 0, pass, nil
	case n == 0:
		return 0, pass, ErrChunkSize
	}
	if upper || p[0] == '0' && n > 1 {
		f = ours
	}
	switch p[n] {
	case '\r':
		if n+1 == len(p) {
			return 0, pass, nil
		}
		if p[n+1] != '\n' {
			return 0, pass, ErrChunkSize
		}
		n += 2
	case ';':
		if n, err = b.extension(p, n); n == 0 || err != nil {
			return 0, pass, err
		}
		f = ours
	default:
		return 0, pass, ErrChunkSize
	}
	b.left, b.state = size, chunkData
	if size == 0 {
		b.state, b.extra = chunkTrailer, 0
	}
	return n, f, nil
}

// extension reads the chunk extension at p[at:] and returns where its line ends. Its syntax does not matter, because
// it does not go on; that it holds no control byte does.
func (b *Body) extension(p []byte, at int) (n int, err *Error) {
	limit := at + maxExtension
	end := control(p[:min(len(p), limit)], at)
	switch {
	case end == limit:
		return 0, ErrExtension
	case end == len(p):
		return 0, nil
	case p[end] != '\r' || end+1 < len(p) && p[end+1] != '\n':
		return 0, ErrExtension
	case end+1 == len(p):
		return 0, nil
	}
	if b.extra += uint32(end - at); b.extra > maxExtensions {
		return 0, ErrExtension
	}
	return end + 2, nil
}

// trailer reads a trailer, or the empty line after the last. RFC 9112 §7.1.2 lets us leave any of them out.
func (b *Body) trailer(p []byte) (n int, f fate, err *Error) {
	limit := max(0, maxTrailer-int(b.extra))
	end := control(p[:min(len(p), limit)], 0)
	switch {
	case end == limit:
		return 0, pass, ErrLongTrailer
	case end == len(p), end+1 == len(p) && p[end] == '\r':
		return 0, pass, nil
	case p[end] == '\n':
		return 0, pass, ErrBareLF
	case p[end] != '\r':
		return 0, pass, ErrControl
	case p[end+1] != '\n':
		return 0, pass, ErrBareCR
	case end == 0:
		b.state = chunkDone
		return 2, pass, nil
	}
	var line field
	if err := line.parse(p, 0, end); err != nil {
		return 0, pass, err
	}
	b.extra += uint32(end + 2)
	return trailerFate(p, &line, end+2)
}

// trailerFate refuses trailers that would change the framing or the host for somebody, and leaves out those that
// decide where a message goes, who may do what, or how the body is to be read. RFC 9110 §6.5.1.
func trailerFate(p []byte, line *field, n int) (int, fate, *Error) {
	switch line.kind {
	case kindLength, kindCoding, kindHost, kindConnection:
		return 0, pass, ErrTrailer
	case endToEnd:
		if line.plain && !line.under && !isHeaderOnly(p[:line.colon]) {
			return n, pass, nil
		}
	}
	return n, drop, nil
}

// isHeaderOnly says whether a field that means nothing to the proxy must not come as a trailer.
func isHeaderOnly(name []byte) bool {
	has := func(prefix string) bool { return len(name) >= len(prefix) && fold(name[:len(prefix)], prefix) }
	switch name[0] | 0x20 {
	case 'a':
		return has("authorization") || has("age")
	case 'c':
		return has("content-") || has("cookie") || has("cache-control")
	case 'd':
		return has("date")
	case 'i':
		return has("if-")
	case 'l':
		return has("location")
	case 'm':
		return has("max-forwards")
	case 'p':
		return has("pragma") || has("proxy-")
	case 'r':
		return has("range") || has("retry-after")
	case 's':
		return has("set-cookie") || has("sec-")
	case 'v':
		return has("vary")
	case 'e':
		return has("expires") || has("early-data")
	case 'w':
		return has("www-authenticate") || has("warning")
	}
	return false
}
