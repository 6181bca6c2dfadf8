// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package stream

// Hot path: no allocation per packet.

import (
	"net/netip"
	"time"

	"github.com/kyozon/kyozon/media/control"
)

// Window is how long after an offer or an answer a side may be heard from elsewhere than its description says, within the
// rules of Latch.
const Window = 10 * time.Second

// rank is how well an address fits. Higher is better.
type rank uint8

const (
	stranger  rank = iota
	signalled      // where its signalling comes from
	described      // its description names the address, with another port
	exact          // its description says so
)

// Latch decides who is heard at a port, and where packets to him go.
//
// RFC 7362 warns of latching: whoever sends the first packet to a port would hear the call, and could speak in it. Here
// a packet from a third address is never heard. Within a window after each offer and answer, the address that the
// description names may send from any port, as NATs have it, and so may the one that the signalling was proved to come
// from, in IPv6 its /64; of several the better one counts. After it, only who was heard, or exactly who was described. A
// new SSRC is no reason to listen to somebody else.
type Latch struct {
	want  place // as described; zero: nobody
	from  place // who was heard
	rank  rank  // of from
	mute  bool  // nothing is to be sent
	until int64 // end of the window
}

// Set tells who is expected. If that has not changed, who was heard stays heard; with learn he may move, and if the signalling
// has moved, who was heard by it. Where nobody is described, nothing is sent, and the rest stays as it is: hold, as RFC 2543
// had it.
func (l *Latch) Set(want netip.AddrPort, moved, learn bool, now int64) {
	l.mute = !want.IsValid() || want.Port() == 0 || want.Addr().IsUnspecified() || want.Addr().IsMulticast()
	if p := placeOf(want); !l.mute && p != l.want {
		l.want, l.from, l.rank = p, place{}, stranger
	}
	if moved && l.rank == signalled || learn && l.rank < exact {
		l.rank = stranger // he goes on being heard until somebody fits
	}
	if l.rank == stranger {
		l.until = now + int64(Window)
	}
}

// Reopen begins the window again if nobody was heard.
func (l *Latch) Reopen(now int64) {
	if l.from == (place{}) {
		l.until = now + int64(Window)
	}
}

// Hear says whether a packet from from is to be heard. signal is where the signalling comes from, if that was proved.
func (l *Latch) Hear(from netip.AddrPort, signal netip.Addr, now int64) bool {
	return l.heard(from) || l.latch(from, signal, now)
}

// heard says whether from is who was heard.
func (l *Latch) heard(from netip.AddrPort) bool {
	p := placeOf(from)
	return p == l.from && p != (place{})
}

// latch takes somebody who was not heard before.
func (l *Latch) latch(from netip.AddrPort, signal netip.Addr, now int64) bool {
	r := l.fit(from, signal)
	open := now <= l.until || r == exact && l.from == (place{})
	if r <= l.rank || !open {
		return false
	}
	l.from, l.rank = placeOf(from), r
	if r == exact {
		l.until = now
	}
	return true
}

// adopt hears somebody who was heard before, by a process that is gone.
func (l *Latch) adopt(from netip.AddrPort, signal netip.Addr) bool {
	r := l.fit(from, signal)
	if r <= l.rank {
		return false
	}
	l.from, l.rank = placeOf(from), r
	return true
}

func (l *Latch) fit(from netip.AddrPort, signal netip.Addr) rank {
	switch want := l.want.addrPort(); {
	case from == want:
		return exact
	case from.Addr() == want.Addr():
		return described
	case sameHost(from.Addr(), signal):
		return signalled
	}
	return stranger
}

// To returns where packets go: to who was heard, or to who is expected. An address that is not the signalling's is sent
// nothing before it was heard, for nobody has proved that it wants it.
func (l *Latch) To(signal netip.Addr) netip.AddrPort {
	switch {
	case l.mute:
		return netip.AddrPort{}
	case l.from != (place{}):
		return l.from.addrPort()
	case signal.IsValid() && !sameHost(l.want.addrPort().Addr(), signal):
		return netip.AddrPort{}
	}
	return l.want.addrPort()
}

// Expects says whether it is known who is to be heard: he has been described.
func (l *Latch) Expects() bool { return l.want != (place{}) }

// latching says how who is heard was found.
func (l *Latch) latching() control.Latching {
	return [...]control.Latching{signalled: control.Signalled, described: control.Near, exact: control.Exactly}[l.rank]
}

// place is a netip.AddrPort in half of its memory: of a call there are sixteen, and with their pointers the collector has nothing to look
// at. Zero is no address; nobody is heard at the unspecified one, and nothing sent there.
type place struct {
	addr [16]byte // IPv4 as a v4-mapped one
	port uint16
}

func placeOf(a netip.AddrPort) place { return place{a.Addr().As16(), a.Port()} }

func (p place) addrPort() netip.AddrPort {
	if p == (place{}) {
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(netip.AddrFrom16(p.addr).Unmap(), p.port)
}

// From returns who was heard; the zero value if nobody was.
func (l *Latch) From() netip.AddrPort { return l.from.addrPort() }

// sameHost says whether two addresses are of one host: in IPv6 it has many in its /64. RFC 8981.
func sameHost(a, b netip.Addr) bool {
	if a.Is4() || b.Is4() || !b.IsValid() {
		return a == b && b.IsValid()
	}
	x, y := a.As16(), b.As16()
	return a.Is6() && [8]byte(x[:8]) == [8]byte(y[:8])
}
