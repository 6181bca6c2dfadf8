// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package transaction sends requests and answers until they have arrived. It does no I/O and has no clock: its owner
// shows it messages and the time, and sends what it says.
//
//	message ─▶ Table.Request, Table.Response ─▶ key ─▶ Transaction ─▶ Machine ─▶ what to do:
//	time ────▶ Table.Advance ─────────▶ wheel ─┘                        │
//	                                     ▲──────────────────────────────┤ the next timer
//	                                                                    ├ Table.Send: the message goes out, again
//	                                                                    └ the user is told, or nothing is
//
// A Machine is one of the four of RFC 3261 §17, with the states that RFC 6026 added: a few bytes and no pointer, so
// that each line of the RFC is a line of a table in the tests. A Table has those of one thread and no lock. What strangers
// can make it hold is bounded, for all and for each client prefix; beyond that they are answered with 503 and nothing
// is kept.
//
// RFC 3261 §9, §17, RFC 4320 (other requests than INVITE), RFC 6026 (INVITE).
package transaction

import "time"

// Timers are the intervals that others are made of. A zero field means its default. RFC 3261 §17.1.1.1.
type Timers struct {
	T1 time.Duration // a round trip; default 500 ms
	T2 time.Duration // the longest interval of what is sent again; default 4 s
	T4 time.Duration // how long a message may be on its way; default 5 s
}

// First returns T1 in nanoseconds.
func (t *Timers) First() int64 { return t.t1() }

// Most returns T2 in nanoseconds.
func (t *Timers) Most() int64 { return t.t2() }

func (t *Timers) t1() int64 { return or(t.T1, 500*time.Millisecond) }
func (t *Timers) t2() int64 { return or(t.T2, 4*time.Second) }
func (t *Timers) t4() int64 { return or(t.T4, 5*time.Second) }

// long is how long one waits for a message that is sent again. RFC 3261 §17.1.1.2: timers B, F, H.
func (t *Timers) long() int64 { return 64 * t.t1() }

func or(d, otherwise time.Duration) int64 {
	if d == 0 {
		d = otherwise
	}
	return int64(d)
}

const (
	timerD = int64(32 * time.Second)       // RFC 3261 §17.1.1.2: at least
	trying = int64(200 * time.Millisecond) // RFC 3261 §17.2.1: then 100 is sent for the user
)

// Kind is what a Machine does.
type Kind uint8

// The kinds. The ones for INVITE come first.
const (
	InviteClient Kind = iota
	InviteServer
	Client
	Server
)

// State is where a Machine stands. RFC 3261 §17, RFC 6026 §7.
type State uint8

// The states.
const (
	Begun      State = iota // Calling or Trying
	Proceeding              // a provisional response went
	Accepted                // a 2xx to INVITE went: it may come again, and others with it
	Completed               // another final response went, and may have to go again
	Confirmed               // and ACK came
	Ended
)

// Do is what an event asks for.
type Do uint8

// What to do.
const (
	Send    Do = 1 << iota // the request, or the last response, goes out
	Pass                   // the message is the user's
	Ack                    // ACK goes out, for a final response other than 2xx
	Trying                 // the user has not answered: 100 goes out
	Timeout                // the user is told that nobody answered
	End                    // and the transaction is forgotten
)
