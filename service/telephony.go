// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"net/netip"
	"time"
)

// ErrNoCall means that no call has this id.
var ErrNoCall = errors.New("no such call")

// Telephony is what a protocol knows of calls and subscribers. Its functions may be called from anywhere but a loop.
type Telephony struct {
	Calls         func(keep func(*Call) bool, limit int) []Call // those under way that are kept, limit at most
	Drop          func(id string) error                         // ends a call. Returns ErrNoCall
	Explain       func(key string) (*Explanation, error)        // of a call, by its ID or a Call-ID. Returns ErrNoCall
	Registrations func(keep func(*Registration) bool, limit int) []Registration
}

// Call is a call under way.
type Call struct {
	Service  string     `json:"service"`
	ID       string     `json:"id"`
	State    string     `json:"state"` // "calling", "ringing" or "answered"
	Start    time.Time  `json:"start"`
	Answer   *time.Time `json:"answer,omitempty"`
	From     string     `json:"from"`
	To       string     `json:"to"`
	Withheld bool       `json:"withheld,omitempty"` // the called side is not shown who calls
	Caller   CallLeg    `json:"caller"`
	Called   *CallLeg   `json:"called,omitempty"` // nil before somebody is tried
	Media    string     `json:"media,omitempty"`  // how they go
}

// Explanation is why a call under way goes as it does. Steps are sentences, in order.
type Explanation struct {
	Call     Call     `json:"call"`
	Dialled  string   `json:"dialled"`
	Number   []string `json:"number"`   // why it goes where it goes, by the number plan and the routes
	Branches []Branch `json:"branches"` // to each device; of a call that is answered only that to who has it
}

// Branch is the way of a call to one device.
type Branch struct {
	State  string   `json:"state"` // "calling", "ringing", "answered", "failed with 486", or what it waits for
	Called CallLeg  `json:"called"`
	Steps  []string `json:"steps"` // why media go as they do
}

// CallLeg is one end of it.
type CallLeg struct {
	Network string         `json:"network"`
	Family  string         `json:"family"`
	Peer    string         `json:"peer"` // a trunk, or the subscriber
	Address netip.AddrPort `json:"address"`
	CallID  string         `json:"call-id"`
}

// Registration is one address at which a subscriber is reached.
type Registration struct {
	Service   string         `json:"service"`
	Name      string         `json:"name"`
	Contact   string         `json:"contact"`
	Network   string         `json:"network"`
	Family    string         `json:"family"`
	Transport string         `json:"transport"`
	Address   netip.AddrPort `json:"address"`
	Expires   time.Time      `json:"expires"`
	Agent     string         `json:"user-agent,omitempty"`
	Instance  string         `json:"instance,omitempty"`
	Path      string         `json:"path,omitempty"`
}
