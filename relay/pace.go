// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

// Hot path: no allocation per packet.

import (
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	paceEvery  = int64(8 * time.Millisecond)  // how long packets may wait at a busy socket
	paceWindow = int64(32 * time.Millisecond) // over which they are counted
	paceFrom   = 2000                         // packets a second, from which a socket is busy
	paceUntil  = 1000                         // below which it is so no more
)

// pace says whether a socket is busy, by what has come lately.
//
// Nobody is told when something has come to a socket that is: the loop looks at it every 8 ms. To be woken for two or three
// packets costs about as much as they do, and a network card is not listened to packet by packet either.
type pace struct {
	busy  bool
	since int64 // when the window began
	seen  int64 // packets since then
	next  int64 // when a busy socket is looked at
}

// count notes that n packets were read, and says whether that has changed busy.
func (p *pace) count(n int, now int64) (changed bool) {
	p.seen += int64(n)
	took := now - p.since
	if took < paceWindow {
		return false
	}
	rate := p.seen * int64(time.Second) / took
	p.since, p.seen = now, 0
	was := p.busy
	p.busy = rate >= paceFrom || was && rate >= paceUntil
	return p.busy != was
}

// counted does what follows from n packets having been read.
func (d *Datagrams) counted(n int) {
	l := d.loop
	if d.pace.count(n, l.now) {
		if d.pace.busy {
			l.change(d.fd, 0)
			l.paced = append(l.paced, d)
		} else {
			l.unpace(d)
			l.change(d.fd, unix.EPOLLIN)
		}
	}
	d.pace.next = l.now
	if n < packetBatchSize { // else there may be more
		d.pace.next += paceEvery
	}
}

// unpace forgets that a socket is looked at.
func (l *Loop) unpace(d *Datagrams) {
	for i, other := range l.paced {
		if other == d {
			l.paced[i] = l.paced[len(l.paced)-1]
			l.paced[len(l.paced)-1] = nil
			l.paced = l.paced[:len(l.paced)-1]
			break
		}
	}
	d.pace = pace{}
}

// lookAround looks at the busy sockets whose time has come.
func (l *Loop) lookAround() {
	for _, d := range slices.Backward(l.paced) { // a socket that is busy no more is replaced by one that has been looked at
		if d.pace.next <= l.now {
			d.read()
		}
	}
}

// untilLook returns how many milliseconds may pass before a busy socket must be looked at; not more than most.
func (l *Loop) untilLook(most int) int {
	for _, d := range l.paced {
		rest := max(d.pace.next-l.now, 0)
		most = min(most, int((rest+int64(time.Millisecond)-1)/int64(time.Millisecond)))
	}
	return most
}
