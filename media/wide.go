// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package media

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/media/stream"
	"github.com/kyozon/kyozon/relay"
)

// wide is the socket of one loop at one port of all IPv6 addresses. Pairs are found by their addresses.
type wide struct {
	shard *shard
	at    stream.Port
	fd    int
	got   int // packets, in this round
	out   *outgoing
}

// wideBuffer is how much a shared socket can hold: half a second of five thousand streams, of which each takes some 800 bytes of the kernel, and it counts
// twice what is asked for. A virtual machine may stand still for as long. A socket of one stream holds seconds by itself.
const wideBuffer = 64 << 20

// openWide opens the sockets of all loops at a port, unless they are open. The kernel gives each the packets to addresses
// whose last byte is the loop's.
func (p *Plane) openWide(at stream.Port) error {
	if p.opened[at] {
		return nil
	}
	var all []*wide
	var err error
	for _, h := range p.shards {
		w := &wide{shard: h, at: at, out: newOutgoing()}
		if w.fd, err = bound(netip.AddrPortFrom(netip.IPv6Unspecified(), PrefixPort+uint16(at)), true); err != nil {
			break
		}
		if unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, wideBuffer) != nil {
			unix.SetsockoptInt(w.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, wideBuffer) // what the system allows of it
		}
		all = append(all, w)
	}
	if err == nil {
		err = steer(all[0].fd, len(all))
	}
	if err != nil {
		for _, w := range all {
			w.close()
		}
		return err
	}
	p.wide, p.opened[at] = append(p.wide, all...), true
	errs := make([]error, len(all))
	p.options.Loops.Do(func(l *relay.Loop) {
		w := all[l.ID()]
		w.shard.wide[at] = w
		errs[l.ID()] = l.Watch(w.fd, w.readable)
	})
	return errors.Join(errs...)
}

func (w *wide) close() { unix.Close(w.fd) }

// destinationEnd is where the last byte of the destination is in an IPv6 header. RFC 8200 §3.
const destinationEnd = 39

// steer has a group of sockets at one port each take the packets whose destination's last byte, modulo n, is its place in
// the group, which is the order in which they were bound.
func steer(fd, n int) error {
	const networkHeader = 0xfff00000 // SKF_NET_OFF
	program := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: networkHeader + destinationEnd},
		{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: uint32(n)},
		{Code: unix.BPF_RET | unix.BPF_A},
	}
	err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	if err != nil {
		return fmt.Errorf("steer packets to loops: %w", os.NewSyscallError("setsockopt", err))
	}
	return nil
}

// openWidePair gives a side of a stream an address of its own.
func (h *shard) openWidePair(p *pair, want control.Local) error {
	var id uint64
	if want.RTP.IsValid() {
		var ok bool
		if id, ok = p.network.idOf(want.RTP.Addr()); !ok || want.RTP.Port() != PrefixPort || h.plane.loopOf(id) != h.loop.ID() {
			return control.ErrFull
		}
	} else {
		for id = newID(p.call.id); !h.pairs.free(id); {
			id = newID(p.call.id)
		}
	}
	p.addr, p.port = p.network.address(id), PrefixPort
	p.network.used.Add(1)
	for at := range p.seats {
		p.seats[at].wide = true
	}
	if !h.pairs.insert(p) {
		h.closePair(p)
		return control.ErrFull
	}
	return nil
}

// newID returns a random interface identifier of a call: its last byte is that of the call's ID. So all addresses of a call
// come to its loop, however many loops there are, and a relay that is started again with more of them can have them too.
func newID(call control.ID) uint64 { return rand.Uint64()&^0xff | uint64(call)&0xff }

// loopOf returns the loop of what has this last byte: an address, or a call.
func (p *Plane) loopOf(id uint64) int { return int(id & 0xff % uint64(len(p.shards))) }

// table finds pairs by interface identifiers. These are random and ours, so that each can be chosen to have a place of its
// own: to find one is to look at one place.
type table struct {
	places []*pair
	count  int
}

const (
	minTable = 1 << 8
	maxTable = 1 << 22
)

func newTable() table { return table{places: make([]*pair, minTable)} }

func (t *table) at(id uint64) **pair { return &t.places[id>>8&uint64(len(t.places)-1)] }

// free says whether the place of an identifier is free.
func (t *table) free(id uint64) bool { return *t.at(id) == nil }

// insert adds a pair. The table grows so that half of it is free, and as long as the place is taken; it cannot be had if
// that is by the same identifier.
func (t *table) insert(p *pair) bool {
	id := p.id()
	for 2*(t.count+1) > len(t.places) || !t.free(id) {
		if other := *t.at(id); other != nil && other.id() == id || len(t.places) == maxTable {
			return false
		}
		bigger := table{places: make([]*pair, 2*len(t.places))}
		for _, p := range t.places {
			if p != nil {
				*bigger.at(p.id()) = p // two that had different places still have
			}
		}
		t.places = bigger.places
	}
	*t.at(id) = p
	t.count++
	return true
}

func (t *table) remove(p *pair) {
	if at := t.at(p.id()); *at == p {
		*at = nil
		t.count--
	}
}
