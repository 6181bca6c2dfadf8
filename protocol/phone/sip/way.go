// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sip

import "net/netip"

// Transport is what carries messages.
type Transport uint8

// The transports. TLS is over TCP.
const (
	UDP Transport = iota
	TCP
	TLS
)

// String returns the name that a Via has.
func (t Transport) String() string { return [...]string{"UDP", "TCP", "TLS"}[t] }

// Reliable says whether the transport loses nothing.
func (t Transport) Reliable() bool { return t != UDP }

// Port returns the port where none is written. RFC 3261 §18.2.2.
func (t Transport) Port() uint16 {
	if t == TLS {
		return 5061
	}
	return 5060
}

// Way is how a message came, and how its answer goes back, or how one goes: our socket, and the peer's address, which is
// of the same family. Flow tells connections apart; 0 is UDP, or a connection that is not there yet.
type Way struct {
	Transport     Transport
	Local, Remote netip.AddrPort
	Flow          uint64
}
