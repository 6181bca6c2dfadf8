// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package http1 is HTTP/1.1 as a proxy needs it: it reads heads and bodies that strangers wrote and writes the ones
// that go on. It does no I/O, keeps no buffer and allocates nothing; an event loop shows it bytes.
//
//	client bytes ─▶ Request.Parse ─▶ AppendRequest ─▶ backend
//	             ─▶ Body.Next ─────────────────────▶
//	             ◀───────────────── AppendResponse ◀─ Response.Parse ◀─ backend bytes
//	             ◀───────────────────────────────────────  Body.Next ◀─
//
// Two rules carry it. What can be understood in two ways is refused and the connection closed, never repaired: each
// way to be refused is one of the errors in rule.go. And nothing is passed through because it was not looked at: a
// head is written anew, a chunked body is framed anew. Where bytes that were looked at already are what would be
// written, they are copied in one piece, so that rewriting costs little more than copying.
//
// RFC 9110 (semantics), RFC 9112 (HTTP/1.1), RFC 7239 (Forwarded), RFC 6455 (WebSocket).
package http1

// Verb is a method that the proxy treats in a way of its own, or Other.
type Verb uint8

// The verbs. CONNECT and TRACE are refused and so have none.
const (
	Other Verb = iota
	Get
	Head
	Post
	Put
	Delete
	Options
)

// Idempotent says whether a request may be sent again when it is not known whether a backend has acted on it.
// RFC 9110 §9.2.2.
func (v Verb) Idempotent() bool { return v != Other && v != Post }

// Framing is how the end of a body is found. RFC 9112 §6.3.
type Framing uint8

// The framings.
const (
	NoBody     Framing = iota
	Length             // Content-Length bytes
	Chunked            // the chunked transfer coding
	UntilClose         // a response that lasts until the backend closes
)

// Exchange is what must be remembered of a request to understand and send on its response. The zero value is right
// for a request that could not be understood: the answer has content, and the connection is closed after it.
type Exchange struct {
	Verb      Verb
	Minor     uint8 // of the client's HTTP version
	KeepAlive bool  // the client's connection may serve another request
	Upgrade   bool  // the client asked for a WebSocket, and the backend was asked too
}

// Limits bound what a peer may send. A zero field means its default.
type Limits struct {
	Head   int // bytes of a head, at most 32 KiB; default 16 KiB
	Line   int // bytes of a request line; default 8 KiB
	Fields int // fields of a head, at most MaxFields; default 100

	// Underscores lets '_' stand in the names of a request's fields. A CGI-like server cannot tell it from '-', so
	// that a stranger's X_Forwarded_For would stand in for ours: names that would be ours are refused nevertheless.
	Underscores bool
}

// MaxFields is how many fields a head can have.
const MaxFields = 128

const (
	maxHead     = 32 << 10 // offsets are uint16, and it is what a relay.Conn holds back
	defaultHead = 16 << 10
	defaultLine = 8 << 10
	defaultMany = 100
)

func (l *Limits) head() int {
	if l.Head == 0 {
		return defaultHead
	}
	return min(l.Head, maxHead)
}

func (l *Limits) line() int {
	if l.Line == 0 {
		return min(defaultLine, l.head())
	}
	return min(l.Line, l.head())
}

func (l *Limits) fields() int {
	if l.Fields == 0 {
		return defaultMany
	}
	return min(l.Fields, MaxFields)
}
