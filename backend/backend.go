// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

// Hot path: no allocation per packet.

import (
	"crypto/tls"
	"encoding/binary"
	"sync/atomic"

	"github.com/kyozon/kyozon/ip"
)

// Backend is one server of one pool. A flow that got it from Pick or Next has a place in it, and does one of these:
//
//	the connect fails:     Failed, which gives the place back
//	the connect succeeds:  Connected, and Released when the flow has ended
//	neither is known:      Released: the client went away, the source could not be had, an old connection was used
type Backend struct {
	Server

	pool    *Pool
	verdict *Verdict // nil if it is never asked: then it is up
	tally   *tally
	seed    uint64 // of the address: the same in every process
	held    [holders]atomic.Pointer[string]
	told    atomic.Pointer[Told] // see Pin
	secure  *tls.Config          // nil in clear; a connection that is kept for others belongs to it
	offer   *tls.Config          // secure, with what Pool.Offer says; nil if TLS does not begin at once

	_   [64]byte     // the line is written at each round-robin pick
	due atomic.Int64 // see Pool.roundRobin
	_   [56]byte
}

// Pool returns the pool that b belongs to.
func (b *Backend) Pool() *Pool { return b.pool }

// Flows returns how many flows of the service b has, in all generations.
func (b *Backend) Flows() int64 { return b.tally.flows.Load() }

// Connected says that b has taken the connection.
func (b *Backend) Connected() { b.tally.connected() }

// Failed says that b could not be reached, or not in time, and gives the place back. Enough of them in a row eject
// it: Health.Eject. now is the clock of the caller's loop.
func (b *Backend) Failed(now int64) {
	b.tally.flows.Add(-1)
	b.tally.failed(&b.pool.health, now)
}

// Released gives the place of a flow back.
func (b *Backend) Released() { b.tally.flows.Add(-1) }

// Holder is who keeps a backend from getting flows.
type Holder uint8

// The holders.
const (
	ForWay   Holder = iota // the way back has not been proved
	ForProof               // the protocol has not proved what it must
	holders
)

// Hold keeps b from getting flows until Free by the same holder, for a reason other than its health. It may be called from
// anywhere.
func (b *Backend) Hold(by Holder, reason string) { b.held[by].Store(&reason) }

// Free undoes Hold.
func (b *Backend) Free(by Holder) { b.held[by].Store(nil) }

// heldFor returns why b gets no flows; nil if it does.
func (b *Backend) heldFor() *string {
	for i := range b.held {
		if reason := b.held[i].Load(); reason != nil {
			return reason
		}
	}
	return nil
}

// Available says whether b would get a flow now: it is up, not ejected, not draining and not full.
func (b *Backend) Available(now int64) bool { return b.Up() && b.tally.ejected(now) == 0 && !b.full() }

// Up says whether b may get flows at all: it is well, not draining, and nobody holds it.
func (b *Backend) Up() bool {
	return !b.Drain && b.heldFor() == nil && (b.verdict == nil || b.verdict.up.Load() != 0)
}

func (b *Backend) full() bool { return b.Cap > 0 && b.tally.flows.Load() >= int64(b.Cap) }

// take takes a place, before the connect, so that flows which connect at the same time see each other. It fails if
// another loop has just taken the last one.
func (b *Backend) take() bool {
	if n := b.tally.flows.Add(1); b.Cap > 0 && n > int64(b.Cap) {
		b.tally.flows.Add(-1)
		return false
	}
	return true
}

// whole is a full share of one unit of weight.
const whole = 1024

// weight returns b's present weight times whole. While a recovered backend starts slowly it grows from a tenth, in a
// straight line.
func (b *Backend) weight(now int64) int64 {
	w := int64(max(1, b.Weight))
	if left := b.starting(now); left > 0 {
		slow := int64(b.pool.health.SlowStart)
		return max(1, w*((10*slow-9*left)*whole/(10*slow)))
	}
	return w * whole
}

// starting returns how much longer b starts slowly, in nanoseconds.
func (b *Backend) starting(now int64) int64 {
	slow := int64(b.pool.health.SlowStart)
	if slow == 0 || b.verdict == nil {
		return 0
	}
	return min(max(0, b.verdict.up.Load()+slow-now), slow)
}

// seed spreads a server's address over 64 bits.
func (s Server) seed() uint64 {
	a := s.Addr.Addr().As16()
	x := ip.Mix(binary.BigEndian.Uint64(a[:8]))
	x = ip.Mix(x ^ binary.BigEndian.Uint64(a[8:]))
	return ip.Mix(x ^ uint64(s.Addr.Port()))
}
