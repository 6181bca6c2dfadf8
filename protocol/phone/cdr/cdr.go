// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package cdr is the record of a call: a line of JSON, written when the call has ended. It does no I/O.
//
//	a call that ends ─▶ Record ─▶ Append ─▶ the journal, and from there to a file or PostgreSQL
//	a line of the journal ─▶ Parse ─▶ Record
//
// Beside what is billed it says what coexistence costs: the network and family of each leg, and why media were
// relayed.
package cdr

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Version is raised when a field changes its meaning. A new field does not raise it.
const Version = 1

// maxLine bounds a line that is read back.
const maxLine = 16 << 10

// ErrLine is wrapped by what Parse returns.
var ErrLine = errors.New("cdr: not a record")

// Record is one call, answered or not.
type Record struct {
	Version int    `json:"version"`
	ID      string `json:"id"` // of the call in this site; the same in the log

	Start  time.Time  `json:"start"`            // the INVITE came
	Ring   *time.Time `json:"ring,omitempty"`   // the first 180
	Answer *time.Time `json:"answer,omitempty"` // the 200; nil if nobody answered
	End    time.Time  `json:"end"`

	From      string `json:"from"`               // who called, in national form, also if it is withheld; "" if it is not known
	To        string `json:"to"`                 // in national form
	Dialled   string `json:"dialled"`            // as it came
	Class     string `json:"class"`              // of To, in the number plan
	Withheld  bool   `json:"withheld,omitempty"` // the called side was not shown who called
	Emergency bool   `json:"emergency,omitempty"`
	Route     string `json:"route,omitempty"` // where it is written

	Caller Leg  `json:"caller"`
	Called *Leg `json:"called,omitempty"` // nil if none was tried; of several that which answered, or the last

	Media *Media `json:"media,omitempty"` // nil if there were none

	EndedBy string `json:"ended-by"`         // "caller", "called" or "edge"
	Status  int    `json:"status,omitempty"` // of the final response, if nobody answered
	Cause   int    `json:"cause"`            // of ITU-T Q.850
	Reason  string `json:"reason,omitempty"` // in words, if the edge ended it
}

// Leg is one side of a call.
type Leg struct {
	Network string         `json:"network"`
	Family  string         `json:"family"` // of signalling: "ipv4" or "ipv6"
	Peer    string         `json:"peer"`   // a trunk, or the subscriber
	Address netip.AddrPort `json:"address"`
	CallID  string         `json:"call-id"`
	Media   string         `json:"media,omitempty"` // the family of its media
	Tried   int            `json:"tried,omitempty"` // how many were tried before it
}

// Media is how media went, at the end of the call.
type Media struct {
	Path     string `json:"path"`              // "direct", or why they were relayed
	Relayed  string `json:"relayed,omitempty"` // why they were relayed before, if Path is "direct"
	ToCaller Flow   `json:"to-caller,omitzero"`
	ToCalled Flow   `json:"to-called,omitzero"`
}

// Flow is what was relayed in one direction, in all parts of the call together.
type Flow struct {
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`

	// Of the first medium: a call's audio.
	Lost   uint64  `json:"lost,omitempty"`
	Jitter float64 `json:"jitter,omitempty"` // milliseconds, RFC 3550 §A.8
	MOS    float64 `json:"mos,omitempty"`    // estimate, 1 to 4.5

	Strangers uint64 `json:"strangers,omitempty"` // packets from others, which were dropped
}

// Add adds another part of the call. Jitter and MOS are means, by how much came.
func (f *Flow) Add(part *Flow) {
	switch n, more := float64(f.Packets), float64(part.Packets); {
	case part.MOS == 0: // no speech came
	case f.MOS == 0:
		f.Jitter, f.MOS = part.Jitter, part.MOS
	default:
		f.Jitter = (f.Jitter*n + part.Jitter*more) / (n + more)
		f.MOS = (f.MOS*n + part.MOS*more) / (n + more)
	}
	f.Packets += part.Packets
	f.Bytes += part.Bytes
	f.Lost += part.Lost
	f.Strangers += part.Strangers
}

// Duration returns how long the call lasted from the answer on; 0 if there was none.
func (r *Record) Duration() time.Duration {
	if r.Answer == nil {
		return 0
	}
	return r.End.Sub(*r.Answer)
}

func plain(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// Parse reads a line back, with or without its end. The error wraps ErrLine.
func Parse(line []byte) (*Record, error) {
	if len(line) > maxLine {
		return nil, fmt.Errorf("%w: longer than %d bytes", ErrLine, maxLine)
	}
	r := new(Record)
	if err := json.Unmarshal(line, r); err != nil {
		return nil, fmt.Errorf("%w: %v", ErrLine, err)
	}
	if r.Version < 1 || r.Version > Version {
		return nil, fmt.Errorf("%w: version %d, know 1 to %d", ErrLine, r.Version, Version)
	}
	return r, nil
}
