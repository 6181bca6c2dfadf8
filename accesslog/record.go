// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package accesslog

// Hot path: no allocation per packet.

import (
	"net/netip"
	"time"

	"github.com/kyozon/kyozon/metrics"
)

// Record is what a line says. What is zero is left out of the line, but for the bytes and the total time. It refers
// to nothing that a client has sent: it may be kept as long as one likes.
type Record struct {
	At      int64 // when it ended, on the loops' clock in nanoseconds
	Request bool  // a request, and not a flow
	TLS     uint16
	Service string
	Client  netip.AddrPort
	StandIn netip.Addr // whom the backend knows an IPv6 client as
	Pool    string
	Backend netip.AddrPort
	Reused  bool // the backend's connection has carried something before
	Retries uint8
	Reason  metrics.Reason
	Counts  metrics.Counts

	Wait  time.Duration // until there was a backend
	First time.Duration // until its first byte
	Total time.Duration

	Version uint8  // of HTTP: 10, 11 or 20
	Status  uint16 // of the response; 0 if there was none

	method, host, path text
	space              [textSize]byte
}

// The texts of a request are cut to these lengths, in bytes; a cut one ends in "…".
const (
	maxMethod = 16
	maxHost   = 112
	maxPath   = 256
	textSize  = maxMethod + maxHost + maxPath
)

// text is a part of a record's space.
type text struct {
	length uint16
	cut    bool
}

// SetRequest copies what a client asked for: path is the request target, with its query. Any bytes will do.
func (r *Record) SetRequest(method, host, path []byte) {
	r.method = keep(r.space[:maxMethod], method)
	r.host = keep(r.space[maxMethod:maxMethod+maxHost], host)
	r.path = keep(r.space[maxMethod+maxHost:], path)
}

func keep(space, p []byte) text {
	return text{uint16(copy(space, p)), len(p) > len(space)}
}

// texts returns where the texts are.
func (r *Record) texts() (method, host, path []byte) {
	return r.space[:r.method.length], r.space[maxMethod:][:r.host.length], r.space[maxMethod+maxHost:][:r.path.length]
}
