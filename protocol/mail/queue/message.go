// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/kyozon/kyozon/journal"
)

// The kinds of records.
const (
	content  journal.Kind = 1 // a piece of a message
	envelope journal.Kind = 2 // a Message: all pieces that it names are there, or it was answered for by nobody
	progress journal.Kind = 3 // what has become of one since
)

// Message is one that the edge has answered for. What is exported is set by who adds it and does not change, but for what
// the queue says of its recipients.
type Message struct {
	Service, Pool string         // where it is to go
	Client        netip.AddrPort // who has brought it
	Dialled       netip.AddrPort // to where
	Helo          []byte         // how the client has introduced itself
	Sender        []byte         // the path between the angle brackets; empty: nobody is told of anything
	EightBit      bool           // BODY=8BITMIME
	Relayed       bool           // who takes it will not end it, but bring it on
	Envid         []byte         // RFC 3461 §4.4, as it came: in xtext
	Full          bool           // RET=FULL: RFC 3461 §4.3
	Arrived       time.Time
	Size          int64
	Pieces        []journal.ID
	Recipients    []Recipient

	id       journal.ID
	state    state
	stateID  journal.ID // of the record of it, or 0
	busy     bool       // it is being delivered
	dropped  bool       // while it is
	position int        // in the heap
	held     int64      // bytes of room that it has taken
}

// destination is where m goes.
func (m *Message) destination() Destination { return Destination{m.Service, m.Pool} }

// expired says whether the time of m is up.
func (m *Message) expired(t Terms, now time.Time) bool { return !now.Before(m.Arrived.Add(t.Keep)) }

// slow says whether the sender of m is to be told that it takes long. He is told once.
func (m *Message) slow(t Terms, now time.Time) bool {
	return t.Warn > 0 && !m.state.Warned && !now.Before(m.Arrived.Add(t.Warn))
}

// Recipient is one of a message.
type Recipient struct {
	Path  []byte // between the angle brackets
	Orcpt []byte // RFC 3461 §4.2, as it came: type;xtext
	Notify
}

// Notify says of what the sender wants to be told: a set. RFC 3461 §4.1.
type Notify uint8

// The members of it. What is sent without any is told of failures and delays.
const (
	Success Notify = 1 << iota // what has been delivered
	Failure                    // what has failed
	Delay                      // what takes long
	Never                      // of nothing
)

// wants says whether an action is told of. RFC 3464 §2.3.3.
func (n Notify) wants(action string) bool {
	if n == 0 {
		n = Failure | Delay
	}
	switch action {
	case delivered, relayed:
		return n&Success != 0
	case failed:
		return n&Failure != 0
	}
	return n&Delay != 0
}

// state is what has become of a message.
type state struct {
	Of       journal.ID
	Attempts int
	Next     time.Time
	Last     string   // why it is still here
	Warned   bool     // the sender was told that it takes long
	Ends     []ending // of each recipient
}

// ending is what has become of a recipient.
type ending struct {
	Done  bool
	Reply string // the last that was said about it
}

// ID names the message in the queue.
func (m *Message) ID() journal.ID { return m.id }

// Left returns the indices of the recipients that wait.
func (m *Message) Left() (all []int) {
	for i := range m.state.Ends {
		if !m.state.Ends[i].Done {
			all = append(all, i)
		}
	}
	return all
}

// errRecord means that a record is none of ours.
var errRecord = errors.New("queue: not a record of a queue")

// encode returns a record's data: a Message or a state.
func encode(v any) []byte {
	data, _ := json.Marshal(v) // never fails
	return data
}

// decodeMessage reads a Message. Returns errRecord.
func decodeMessage(r journal.Record) (*Message, error) {
	m := &Message{id: r.ID}
	if err := json.Unmarshal(r.Data, m); err != nil {
		return nil, fmt.Errorf("%w: %v", errRecord, err)
	}
	if len(m.Recipients) == 0 || m.Pool == "" {
		return nil, fmt.Errorf("%w: it has no recipients or no pool", errRecord)
	}
	m.state = state{Of: m.id, Next: m.Arrived, Ends: make([]ending, len(m.Recipients))}
	return m, nil
}

// decodeState reads a state. Returns errRecord.
func decodeState(r journal.Record) (s state, err error) {
	if err := json.Unmarshal(r.Data, &s); err != nil {
		return s, fmt.Errorf("%w: %v", errRecord, err)
	}
	return s, nil
}
