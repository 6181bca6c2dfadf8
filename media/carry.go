// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package media

// Hot path: no allocation per packet.

import (
	"encoding/binary"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/media/control"
)

const (
	packetSize = 1984 // a longer packet is dropped. An odd number of cache lines: buffers do not compete for the same ones
	bundle     = 64   // packets in one recvmmsg(2)
	packets    = 256  // of a round that wait to be sent
	infoSize   = 40   // one IPV6_PKTINFO
	classSize  = 24   // one IPV6_TCLASS
)

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	header unix.Msghdr
	length uint32
	_      [4]byte
}

// arena is where the packets of a round are, from receiving to sending.
type arena struct {
	used    int
	packets [packets][packetSize]byte
}

// incoming is what a shared socket is read with.
type incoming struct {
	messages [bundle]mmsghdr
	iovs     [bundle]unix.Iovec
	names    [bundle]unix.RawSockaddrInet6
	infos    [bundle][infoSize]byte
}

func newIncoming() *incoming {
	b := new(incoming)
	for i := range b.messages {
		h := &b.messages[i].header
		h.Name, h.Iov, h.Iovlen = (*byte)(unsafe.Pointer(&b.names[i])), &b.iovs[i], 1
		h.Control = &b.infos[i][0]
	}
	return b
}

// outgoing is what waits to be sent by a shared socket.
type outgoing struct {
	n        int
	messages [packets]mmsghdr
	iovs     [packets]unix.Iovec
	names    [packets]unix.RawSockaddrInet6
	controls [packets][infoSize + classSize]byte
}

func newOutgoing() *outgoing {
	b := new(outgoing)
	for i := range b.messages {
		h := &b.messages[i].header
		h.Name, h.Namelen = (*byte)(unsafe.Pointer(&b.names[i])), unix.SizeofSockaddrInet6
		h.Iov, h.Iovlen = &b.iovs[i], 1
		c := &b.controls[i]
		h.Control = &c[0]
		info, class := (*unix.Cmsghdr)(unsafe.Pointer(&c[0])), (*unix.Cmsghdr)(unsafe.Pointer(&c[infoSize]))
		*info = unix.Cmsghdr{Level: unix.IPPROTO_IPV6, Type: unix.IPV6_PKTINFO}
		info.SetLen(unix.CmsgLen(unix.SizeofInet6Pktinfo))
		*class = unix.Cmsghdr{Level: unix.IPPROTO_IPV6, Type: unix.IPV6_TCLASS}
		class.SetLen(unix.CmsgLen(4))
	}
	return b
}

// readable reads a bundle; what is left brings another event, or is read in even.
func (w *wide) readable() { w.read() }

// read reads a bundle, and returns how many packets it was.
func (w *wide) read() int {
	h := w.shard
	room, b := h.room(bundle), h.in
	for i := range b.messages {
		b.iovs[i] = unix.Iovec{Base: &room[i][0], Len: packetSize}
		m := &b.messages[i].header
		m.Namelen, m.Controllen = unix.SizeofSockaddrInet6, infoSize
	}
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVMMSG, uintptr(w.fd), uintptr(unsafe.Pointer(&b.messages)), bundle,
		unix.MSG_DONTWAIT, 0, 0)
	if errno != 0 {
		return 0 // nothing is there any more
	}
	w.got += int(n)
	waiting := false
	for i := range int(n) {
		m := &b.messages[i]
		to := b.infos[i][unix.SizeofCmsghdr:]
		pair := *h.pairs.at(binary.BigEndian.Uint64(to[8:]))
		if pair == nil || m.header.Flags&unix.MSG_TRUNC != 0 || pair.addr != netip.AddrFrom16([16]byte(to[:16])) {
			h.count.Dropped[control.Unused]++
			continue
		}
		waiting = h.pass(&pair.seats[w.at], from6(&b.names[i]), room[i][:m.length]) || waiting
	}
	if waiting {
		h.arena.used += int(n)
	}
	return int(n)
}

// room returns where n packets can be received.
func (h *shard) room(n int) [][packetSize]byte {
	if h.arena.used+n > packets {
		h.flush()
	}
	if !h.ending {
		h.ending = true
		h.loop.AtEnd(h.end)
	}
	return h.arena.packets[h.arena.used : h.arena.used+n]
}

// read reads one packet of a port that has a socket of its own; another brings another event.
func (s *seat) read() {
	h := s.pair.call.shard
	h.own++
	p := &h.room(1)[0]
	size := uint32(unix.SizeofSockaddrAny)
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(s.fd), uintptr(unsafe.Pointer(p)), packetSize,
		unix.MSG_DONTWAIT|unix.MSG_TRUNC, uintptr(unsafe.Pointer(&h.name)), uintptr(unsafe.Pointer(&size)))
	if errno != 0 {
		return
	}
	if n > packetSize {
		h.count.Dropped[control.Unused]++
		return
	}
	var from netip.AddrPort
	if h.name.Addr.Family == unix.AF_INET {
		a := (*unix.RawSockaddrInet4)(unsafe.Pointer(&h.name))
		from = netip.AddrPortFrom(netip.AddrFrom4(a.Addr), order(a.Port))
	} else {
		from = from6((*unix.RawSockaddrInet6)(unsafe.Pointer(&h.name)))
	}
	if h.pass(s, from, p[:n]) {
		h.arena.used++
	}
}

// pass sends a packet on that has come to a seat. True: it will be sent later, and must stay where it is.
func (h *shard) pass(s *seat, from netip.AddrPort, p []byte) (later bool) {
	c := s.pair.call
	var was netip.AddrPort
	laned := c.lanes > 0
	if laned {
		h.beside(s, from, p)
		was = h.heardBy(s)
	}
	out, to, ok := c.streams[s.index].Pass(&h.count.Counts, s.side, s.at, from, p, h.loop.Now())
	if laned && h.heardBy(s) != was {
		h.moved(s, was, p)
	}
	if !ok {
		return false
	}
	if h.plane.options.Kernel != nil {
		h.passed(s)
	}
	o := &c.pairs[1-s.side][s.index].seats[out]
	n := &h.count.carried[control.User][crossing(s.pair, o.pair)]
	n.Packets++
	n.Bytes += uint64(len(p))
	if o.wide {
		h.wide[o.at].add(o, to, p)
		return true
	}
	h.sendOwn(o, to, p)
	return false
}

// add puts a packet into the queue of a shared socket. It stays in the arena until it is sent.
func (w *wide) add(s *seat, to netip.AddrPort, p []byte) {
	b := w.out
	if b.n == packets {
		w.send()
	}
	i := b.n
	b.n++
	b.iovs[i] = unix.Iovec{Base: unsafe.SliceData(p), Len: uint64(len(p))}
	b.names[i] = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: to.Addr().As16(), Port: order(to.Port())}
	m := &b.messages[i].header
	c := &b.controls[i]
	*(*unix.Inet6Pktinfo)(unsafe.Pointer(&c[unix.SizeofCmsghdr])) = unix.Inet6Pktinfo{Addr: s.pair.addr.As16()}
	m.Controllen = infoSize
	if s.dscp != 0 {
		m.Controllen = infoSize + classSize
		*(*int32)(unsafe.Pointer(&c[infoSize+unix.SizeofCmsghdr])) = int32(s.dscp) << 2
	}
}

// send sends what waits. A packet that cannot be sent is lost, as packets may be; the others are sent.
func (w *wide) send() {
	b := w.out
	for i := 0; i < b.n; {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDMMSG, uintptr(w.fd), uintptr(unsafe.Pointer(&b.messages[i])), uintptr(b.n-i),
			unix.MSG_DONTWAIT, 0, 0)
		if errno != 0 {
			w.shard.count.Dropped[control.Unsent]++
			n = 1 // the first one failed: go on with the next
		}
		i += int(n)
	}
	b.n = 0
}

// flush sends what waits in all shared sockets, and empties the arena.
func (h *shard) flush() {
	for _, w := range h.wide {
		if w != nil && w.out.n > 0 {
			w.send()
		}
	}
	h.arena.used = 0
}

// even has shared sockets read as much as all others have in this round, if that was much. Half of all packets come to a shared socket; but when there is more than
// can be done, the kernel tells of it once where it tells of each of thousands.
func (h *shard) even() {
	for _, w := range h.wide {
		if w == nil {
			continue
		}
		for h.own >= bundle && w.got < h.own && w.read() == bundle { // what is left when it is less brings another event
		}
		w.got = 0
	}
	h.own = 0
}

// endRound is what a round in which something came ends with.
func (h *shard) endRound() {
	h.even()
	h.flush()
	h.ending = false
}

func (h *shard) sendOwn(s *seat, to netip.AddrPort, p []byte) {
	var size uintptr
	if a := to.Addr(); a.Is4() {
		*(*unix.RawSockaddrInet4)(unsafe.Pointer(&h.name)) = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: a.As4(), Port: order(to.Port())}
		size = unix.SizeofSockaddrInet4
	} else {
		*(*unix.RawSockaddrInet6)(unsafe.Pointer(&h.name)) = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: a.As16(), Port: order(to.Port())}
		size = unix.SizeofSockaddrInet6
	}
	_, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
		unix.MSG_DONTWAIT, uintptr(unsafe.Pointer(&h.name)), size)
	if errno != 0 {
		h.count.Dropped[control.Unsent]++
	}
}

// from6 reads what the kernel wrote. The sockets take no IPv4, so that nothing need be unmapped.
func from6(a *unix.RawSockaddrInet6) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr), order(a.Port))
}

// order swaps between the order of the network and that of the machine.
func order(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}
