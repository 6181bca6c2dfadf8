// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package http2 is HTTP/2 as a proxy needs it: both ends of a connection as a machine that is shown bytes and says
// what they mean. It does no I/O, starts no goroutine and has no clock; an event loop shows it bytes and the time.
//
// The inside of the edge speaks HTTP/1.1. A request that comes over HTTP/2 is held against RFC 9113 §8 and rendered as
// the text of an HTTP/1.1 head, which http1.Request then reads like any other: each rule by which that refuses a
// request that can be understood in two ways holds for HTTP/2 too. A response leaves as HPACK, made from an
// http1.Response. Towards a backend it is the mirror image:
//
//	client bytes ─▶ Conn.Read ─▶ Handler.Opened(head) ─▶ http1.Request.Parse ─▶ AppendRequest ─▶ backend
//	             ─▶           ─▶ Owner.Data, Owner.Ended ───────────────────▶ AppendData, AppendTrailers
//	client bytes ◀─ AppendResponse ◀─ http1.Response.Parse ◀─ Owner.Answered(head) ◀─ Conn.Read ◀─ backend bytes
//	             ◀─ AppendData, AppendTrailers ◀─ Owner.Data, Owner.Ended ◀─
//
// HPACK is read by a decoder of our own, because most fields of a connection repeat: its dynamic table holds them as
// checked lines of HTTP/1.1, so that a field that comes again costs one copy, and nothing is allocated. That of
// golang.org/x/net gives strings, which cost an allocation for each literal and another look at each byte; it is the
// oracle of our tests instead.
//
// RFC 9113 (HTTP/2), RFC 7541 (HPACK), RFC 9110 (semantics). There is no push, no priority (RFC 9113 §5.3.2), no
// upgrade from HTTP/1.1: a plain port must be known to speak HTTP/2 (RFC 9113 §3.3).
package http2

import "github.com/kyozon/kyozon/protocol/web/http1"

// Limits bound what a peer may do. A zero field means its default.
type Limits struct {
	Head http1.Limits // of a head, as text; only Head and Fields are looked at here

	Streams int // at the same time, opened by the peer; default 100

	// Window is how many bytes of a body a peer may send before some have been consumed, for each stream and for all
	// streams of the connection together. Both are at least 64 KiB; default 256 KiB and 1 MiB. The first lets one
	// upload run at 20 Mbit/s over 100 ms, the second is what a connection can make us hold when backends are slow.
	Window, ConnWindow int
}

const (
	defaultStreams    = 100
	defaultWindow     = 256 << 10
	defaultConnWindow = 1 << 20
	defaultHead       = 16 << 10
	defaultFields     = 100
	minWindow         = 65535 // what each window is before anybody says otherwise. RFC 9113 §6.9.2
)

// Handler is told what happens on a connection. Its methods are called by Read only.
type Handler interface {
	// Opened tells a server of a request. head is the text of an HTTP/1.1 head, valid until Opened returns: with
	// Content-Length if the client gave one, else with Transfer-Encoding: chunked if there will be a body; Expect and
	// TE are passed on. With end there is no body, and Owner.Ended is not called. It sets s.Owner.
	Opened(s *Stream, head []byte, end bool)

	// Refused tells a server of a request that broke a rule and has been answered or reset here.
	Refused(e *Error)

	// GoingAway tells that the peer opens no stream after last (server), or takes none (client). The owners of streams
	// above last have then been told Reset with RefusedStream: they were not looked at and may be sent to another
	// connection.
	GoingAway(last uint32, code Code)
}

// Owner is told what happens on a stream. Its methods are called by Read only. They may call any method of the Conn but
// Read.
type Owner interface {
	// Answered tells a client of a response head, as text like that of a request: first of interim ones (1xx), then of
	// the one that counts. With end there is no body, and Ended is not called.
	Answered(s *Stream, head []byte, end bool)

	// Data tells of a piece of the body. Who has consumed it calls Conn.Consumed.
	Data(s *Stream, p []byte)

	// Ended tells that the peer's half is over, if no head said so. trailers are lines like "Name: value\r\n", those
	// that may go on, often none; valid until it returns.
	Ended(s *Stream, trailers []byte)

	// Reset tells that the stream has been closed by the peer, or here because the peer broke a rule. It is gone.
	Reset(s *Stream, code Code)

	// Writable tells that AppendData, which took less than was given, may take more. It is called once; who takes
	// nothing then is not called again until AppendData has again taken less than was given.
	Writable(s *Stream)
}

// Code says why a stream or a connection ends. RFC 9113 §7.
type Code uint32

// The codes.
const (
	NoError Code = iota
	ProtocolError
	InternalError
	FlowControlError
	SettingsTimeout
	StreamClosed
	FrameSizeError
	RefusedStream
	Cancel
	CompressionError
	ConnectError
	EnhanceYourCalm
	InadequateSecurity
	HTTP11Required
)

// Error is a rule that the peer broke.
type Error struct {
	Code   Code
	Reason string // for the log
}

// Error returns the reason.
func (e *Error) Error() string { return "http2: " + e.Reason }
