// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http2

// Hot path: no allocation per packet.

import "time"

// budget is what a peer may still do of something that costs us and brings nothing about. It is filled again as time
// passes, and by work that is done to its end.
type budget struct {
	spent int32
	since int64 // when it began to be filled, in nanoseconds
}

// Resets: streams that did not come to their end by the peer's doing, whether it reset them (CVE-2023-44487) or made us
// do so (CVE-2025-8671). Who leaves a page cancels all of its streams, at most a hundred, and may do so again and again:
// the budget is five such pages, and 33 a second as nghttp2 has it. A client that cancels many of very many requests,
// as gRPC does, earns one with each that it lets end. Servers have no such budget: see spendReset.
//
// Idle frames: those that bring nothing about (PING, SETTINGS, PRIORITY, WINDOW_UPDATE, empty DATA, types we do not know
// and so on; RFC 9113 §10.5). Clients send some for each piece of a body, so pieces that are worth it pay for them: Go's
// client, one of the busiest, opens two windows for every 4 KiB that it reads, perhaps long after they came: a peer may
// save what 16 MiB earn.
const (
	mostResets   = 500
	resetRefill  = 33
	mostIdle     = 1000
	idleRefill   = 100
	idlePerFrame = 4    // earned by a frame that brings something about
	worthwhile   = 256  // bytes of a DATA frame that does
	bytesPerIdle = 1024 // of a DATA frame that earn one more
	idleCredit   = 16 << 10
)

// dataEarns returns what a DATA frame with n bytes earns.
func dataEarns(n int) int32 { return idlePerFrame + int32(n/bytesPerIdle) }

// spend takes n. It returns false if that is more than most, of which perSecond come back.
func (b *budget) spend(n, most, perSecond int32, now int64) bool {
	if b.spent <= 0 {
		b.since = now
	}
	if b.spent+n > most {
		interval := int64(time.Second) / int64(perSecond)
		back := (now - b.since) / interval
		b.since += back * interval
		b.spent -= int32(min(back, int64(max(0, b.spent))))
	}
	b.spent += n
	return b.spent <= most
}

// earn gives n back, and lets at most credit be saved.
func (b *budget) earn(n, credit int32) { b.spent = max(-credit, b.spent-n) }
