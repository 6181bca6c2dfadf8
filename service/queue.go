// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"time"
)

// ErrNotQueued means that there is no such message.
var ErrNotQueued = errors.New("no such message in the queue")

// Queue is what a protocol has answered for and has still to bring to servers. Its functions may be called from anywhere.
type Queue struct {
	List  func() []Queued              // the oldest first
	Retry func(id string) (int, error) // has one message tried at once, or All, and says how many. Returns ErrNotQueued
	Drop  func(id string) error        // forgets one: nobody is told. Returns ErrNotQueued
	Held  func() []Held                // by destination, those that have something
}

// All is every message.
const All = "all"

// Destination is where messages go.
type Destination struct{ Service, Pool string }

// Held is what waits for a destination.
type Held struct {
	Destination
	Messages int64
	Bytes    int64
	Stuck    string // why nothing of it can go, whatever the servers are; "" if it can
}

// Queued is a message.
type Queued struct {
	Destination
	ID         string
	Sender     string   // "" is nobody
	Recipients []string // those that wait
	Size       int64
	Arrived    time.Time
	Next       time.Time // when it is tried, if a server is there
	Attempts   int
	Busy       bool   // it is being delivered
	Last       string // what kept it
}
