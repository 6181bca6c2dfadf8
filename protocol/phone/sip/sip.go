// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package sip reads and writes SIP messages. It does no I/O, starts no goroutine, has no clock and keeps no buffer.
//
//	datagram ──────────────▶ Message.Parse ─▶ Check ─▶ Abilities.Check ─▶ whoever answers
//	bytes ─▶ Stream.Next ─▶        │            │              │
//	                               │            └──────────────┴────────▶ Answer.Append ─▶ 400, 420, 501, …
//	                               ├─▶ Field, Values ─▶ ParseVia, ParseAddress, ParseURI, ParseCSeq
//	                               └─▶ Editor.Append ─▶ the same message with some fields changed
//
// A message is indexed, not taken apart: its fields keep the bytes and the order in which they came, and a value is
// read when somebody asks for it. So what nobody touches goes on byte by byte, and what a value means does not spoil
// the index: a request with a broken field is still answered.
//
// What each message of the torture tests comes to is in docs/sip-torture.md.
//
// RFC 3261 (SIP), RFC 3581 (rport), RFC 3966 (tel), RFC 5626 §4.4.1 (pings of connections), RFC 4475 and RFC 5118
// (torture tests).
package sip

// Limits bound what a peer may send. A zero field means its default.
type Limits struct {
	Head   int // bytes of a head, at most 32 KiB; default 16 KiB
	Body   int // bytes of a body that comes over a stream; default 48 KiB
	Fields int // at most MaxFields; default 128
}

// MaxFields is how many fields a message can have.
const MaxFields = 192

const (
	maxHead     = 32 << 10 // offsets are uint16
	defaultHead = 16 << 10
	defaultBody = 48 << 10
	defaultMany = 128
)

func (l *Limits) head() int {
	if l == nil || l.Head == 0 {
		return defaultHead
	}
	return min(l.Head, maxHead)
}

func (l *Limits) body() int {
	if l == nil || l.Body == 0 {
		return defaultBody
	}
	return l.Body
}

func (l *Limits) fields() int {
	if l == nil || l.Fields == 0 {
		return defaultMany
	}
	return min(l.Fields, MaxFields)
}
