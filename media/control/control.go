// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package control is how signalling tells the process that relays media what to relay.
//
//	protocol/phone ─▶ Client ══ Unix socket, a message a packet ══ Serve ─▶ Plane (package media)
//	     ▲  Post(done)  │                                            │
//	     └──────────────┘◀───────── answers, and calls that ended ◀──┘
//
// Nothing waits: a request is put into a queue, and its answer comes to where the caller wants it, mostly an event loop.
//
// The two processes end independently of each other. The client knows each of its calls: when it connects again it tells
// all of them, with the addresses that they had and what was known of who sends there. A relay that has gone on keeps
// them as they are; one that has started afresh makes them again. Those that no client has named are given up after a
// while.
//
// Only the user that the relay runs as, and root, may connect.
package control

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"net/netip"
	"time"
)

// DefaultPath is where the relay listens.
const DefaultPath = "/run/kyozon/media.sock"

// ID names a relayed call. The client chooses it at random.
type ID uint64

// Side is one of the two ends of a call.
type Side uint8

// The sides.
const (
	Caller Side = iota
	Callee
)

// MaxStreams bounds the streams of a call: what is beyond was not offered in earnest.
const MaxStreams = 8

// maxName bounds the name of a network.
const maxName = 255

// Spec is what a call needs.
type Spec struct {
	Networks [2]string // of each side, by the names of the site file
	Streams  int       // m-lines, 1 to MaxStreams
}

// Local is where the edge receives one stream of one side, and sends it from.
type Local struct{ RTP, RTCP netip.AddrPort }

// Call is a call that has its addresses.
type Call struct {
	ID ID
	Spec
	Local [2][]Local // by side and stream
}

// Remote is what signalling knows of one stream of one side.
type Remote struct {
	Side   Side
	Stream uint8

	// RTP is where its packets are to go, as the session description says; the zero value if they go nowhere yet, or no
	// more. Packets are heard from there, or, until somebody was heard, from another port of its address.
	RTP netip.AddrPort

	// RTCP is the same for RTCP. Zero: the port after RTP's.
	RTCP netip.AddrPort

	// Signal is where the side's signalling comes from, if that was proved. It may be heard from there too: by its address,
	// in IPv6 by its /64. Behind a NAT its description names an address that nobody else sees.
	Signal netip.Addr

	Clock  uint32 // timestamps a second; 0 means 8000
	DSCP   uint8  // of what is sent to it
	Mux    bool   // RTCP comes, and is sent, at the port for RTP. RFC 5761
	Held   bool   // silence says nothing
	Opaque bool   // it is no RTP: a fax by UDPTL
	Learn  bool   // whoever was heard may have moved, within the rules above: a re-INVITE that was proved
}

// Clip names an announcement that the relay can play: by what it says, so that the same one has the same name.
type Clip uint64

// What bounds announcements.
const (
	// MaxClip bounds the bytes of one: two minutes of G.711.
	MaxClip = 2 * 60 * 8000

	// MaxClips bounds how many there are.
	MaxClips = 256

	// ClipFrame is how many bytes of one go into a packet, each 20 ms.
	ClipFrame = 160
)

// Play is an announcement to one side.
type Play struct {
	Side   Side
	Stream uint8
	Clip   Clip
	Type   uint8 // the payload type of RTP, up to 127
	Times  uint8 // how often it is played
}

// Quality is what has come from one side in one stream.
type Quality struct {
	Packets, Bytes uint64         // of RTP, or all if it is opaque; payload of UDP
	RTCP           uint64         // packets
	Lost           uint64         // RFC 3550 §A.3
	Jitter         time.Duration  // RFC 3550 §A.8
	MOS            float32        // estimate, 1 to 4.5; 0 if nothing came
	Strangers      uint64         // packets from others, or of no known kind: dropped
	From           netip.AddrPort // who was heard; zero if nobody
	Kernel         bool           // what comes goes by the kernel now; false if the relay is one that does not say
}

// Stats is what a call has carried.
type Stats struct {
	Heard [2][]Quality // by side and stream
}

// The errors that answers carry.
var (
	ErrDown    = errors.New("control: no connection to the media relay")
	ErrFull    = errors.New("control: no media address is free")
	ErrNetwork = errors.New("control: the relay has no media address in this network")
	ErrGone    = errors.New("control: the relay knows no such call")
	ErrInvalid = errors.New("control: the relay does not take this")
	ErrStopped = errors.New("control: the relay is stopping")
)

// ClipOf names an announcement.
func ClipOf(samples []byte) Clip {
	sum := sha256.Sum256(samples)
	return Clip(binary.BigEndian.Uint64(sum[:]))
}

// failures are the errors by their number in a message, from 1.
var failures = [...]error{ErrFull, ErrNetwork, ErrGone, ErrInvalid, ErrStopped}

// Check says whether s can be asked for.
func (s *Spec) Check() error {
	for _, n := range s.Networks {
		if n == "" || len(n) > maxName {
			return ErrInvalid
		}
	}
	if s.Streams < 1 || s.Streams > MaxStreams {
		return ErrInvalid
	}
	return nil
}
