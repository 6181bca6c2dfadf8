// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

import (
	"errors"

	"github.com/kyozon/kyozon/protocol/web/http1"
)

// Shared is what the connections of one event loop have in common: tables, scratch space and unused streams. Not safe
// for concurrent use.
type Shared struct{}

// NewShared returns a Shared.
func NewShared() *Shared { return &Shared{} }

// Conn is one end of an HTTP/2 connection. Not safe for concurrent use.
//
// Methods whose name begins with Append write frames behind dst, and before them those that the connection owes its
// peer anyway (acknowledgements, windows, resets). Whatever they return must be sent in the order of the calls.
type Conn struct{}

// NewServer returns the end that a client has connected to. Its SETTINGS are owed at once: see AppendOutput.
func NewServer(shared *Shared, l *Limits) *Conn { return &Conn{} }

// NewClient returns the end that has connected to a server. Its preface and SETTINGS are owed at once.
func NewClient(shared *Shared, l *Limits) *Conn { return &Conn{} }

// Read takes frames at the start of p, tells h and the owners of streams what they mean and returns how many bytes it
// has taken. The rest, less than 16 KiB + 9, is shown again with more bytes after it. now is in nanoseconds from any
// moment. An error, always an *Error, is the connection's: send AppendOutput, which then ends with GOAWAY, and close.
// The owners of its streams are not told.
func (c *Conn) Read(p []byte, h Handler, now int64) (n int, err error) { return 0, nil }

// AppendOutput writes what the connection owes its peer. Call it after each Read.
func (c *Conn) AppendOutput(dst []byte) []byte { return dst }

// Streams returns how many streams there are.
func (c *Conn) Streams() int { return 0 }

// Each calls f for each stream, in the order in which they were opened. f may reset its stream.
func (c *Conn) Each(f func(s *Stream)) {}

// AppendResponse writes the head of r, which is the response to x; with end there is no body. Fields that belong to a
// connection are left out, names are in lower case. An interim response goes before the one that counts; 101 cannot
// be passed on and is an error of the caller's.
func (c *Conn) AppendResponse(dst []byte, s *Stream, r *http1.Response, x http1.Exchange, end bool) []byte {
	return dst
}

// AppendError writes a whole answer of our own: a status of 4xx or 5xx and one line that says what it means. The stream
// is gone.
func (c *Conn) AppendError(dst []byte, s *Stream, status int, x http1.Exchange) []byte { return dst }

// Why a client can open no stream.
var (
	ErrFull      = errors.New("http2: as many streams as the server allows")
	ErrGoingAway = errors.New("http2: the server takes no more streams")
)

// Open returns a stream for a request to the server, whose limit of concurrent streams it obeys, or ErrFull or
// ErrGoingAway. The caller sets its Owner.
func (c *Conn) Open() (*Stream, error) { return nil, ErrFull }

// AppendRequest writes the head of r as it goes on to a backend, with the fields of f; with end there is no body.
// scheme is "http" or "https". r must not ask for an upgrade.
func (c *Conn) AppendRequest(dst []byte, s *Stream, r *http1.Request, f http1.Forward, scheme string, end bool) []byte {
	return dst
}

// AppendData writes n bytes of p, as many as the peer's windows allow; with end and if that is all of p, the stream's
// half is over. If it is less, Owner.Writable tells when to go on with the rest. Of an empty p only the end is written.
func (c *Conn) AppendData(dst []byte, s *Stream, p []byte, end bool) (out []byte, n int) {
	return dst, 0
}

// AppendTrailers writes trailers, lines like "Name: value\r\n", and ends the stream's half. Without any it only ends it.
func (c *Conn) AppendTrailers(dst []byte, s *Stream, lines []byte) []byte { return dst }

// Consumed tells that n bytes which Owner.Data was told of are no longer held, so that the peer may send as many more.
func (c *Conn) Consumed(s *Stream, n int) {}

// ResetStream closes a stream at once and tells the peer why. The stream is gone; its owner is not told.
func (c *Conn) ResetStream(s *Stream, code Code) {}

// GoAway ends the connection, sooner or later. With NoError the peer is first told that no new streams will be taken;
// those that it has opened meanwhile still are, until it has heard (RFC 9113 §6.8). Close when Done says so.
// With another code no stream is taken from now on: send AppendOutput and close.
func (c *Conn) GoAway(code Code) {}

// Done says whether either end has said that it goes away, and the last stream has gone.
func (c *Conn) Done() bool { return false }
