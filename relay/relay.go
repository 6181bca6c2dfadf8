// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package relay is the event loop, and bytes both ways on it.
package relay

// Conn is one socket on an event loop.
type Conn struct{}

// Loops are the event loops of the process, one for each core.
type Loops struct{}
