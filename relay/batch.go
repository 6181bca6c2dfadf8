// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

// Hot path: no allocation per packet.

import (
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
)

const (
	packetBatchSize = 32
	maxPacket       = 64 << 10 // no UDP payload is longer
	controlSize     = 64       // one IP_PKTINFO or IPV6_PKTINFO
)

// packetBatch is packets for one recvmmsg(2) or sendmmsg(2). Its memory is touched only as far as packets are long.
type packetBatch struct {
	n        int // packets to send
	messages [packetBatchSize]mmsghdr
	iovs     [packetBatchSize]unix.Iovec
	names    [packetBatchSize]unix.RawSockaddrAny
	controls [packetBatchSize][controlSize]byte
	payloads [packetBatchSize][maxPacket]byte
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	header unix.Msghdr
	length uint32
	_      [4]byte
}

func newPacketBatch() *packetBatch {
	b := new(packetBatch)
	for i := range b.messages {
		b.iovs[i].Base = &b.payloads[i][0]
		h := &b.messages[i].header
		h.Name = (*byte)(unsafe.Pointer(&b.names[i]))
		h.Iov = &b.iovs[i]
		h.Iovlen = 1
	}
	return b
}

// receive fills the batch with what waits in fd, and with the addresses it was sent to if told is set.
func (b *packetBatch) receive(fd int, told bool) (int, syscall.Errno) {
	for i := range b.messages {
		h := &b.messages[i].header
		h.Namelen = unix.SizeofSockaddrAny
		b.iovs[i].Len = maxPacket
		h.Control, h.Controllen = nil, 0
		if told {
			h.Control, h.Controllen = &b.controls[i][0], controlSize
		}
	}
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.messages)),
		packetBatchSize, unix.MSG_DONTWAIT, 0, 0)
	return int(n), errno
}

func (b *packetBatch) from(i int) netip.AddrPort { return addrPort(&b.names[i]) }

func (b *packetBatch) payload(i int) []byte { return b.payloads[i][:b.messages[i].length] }

// dialled returns the address that a received packet was sent to.
func (b *packetBatch) dialled(i int) netip.Addr {
	h := (*unix.Cmsghdr)(unsafe.Pointer(&b.controls[i]))
	data := b.controls[i][unix.SizeofCmsghdr:]
	switch {
	case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO:
		return netip.AddrFrom4((*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0])).Addr)
	case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO:
		return ip.Canonical(netip.AddrFrom16((*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0])).Addr))
	}
	return netip.Addr{}
}

// room is where the payload of the next packet to send goes.
func (b *packetBatch) room() []byte { return b.payloads[b.n][:] }

// add makes the first n bytes of room a packet. It comes from our address from, if the socket has several; if from is
// zero too, the kernel chooses.
func (b *packetBatch) add(n int, to netip.AddrPort, from netip.Addr) {
	i := b.n
	b.n++
	b.iovs[i].Len = uint64(n)
	h := &b.messages[i].header
	h.Namelen = uint32(sockaddr(&b.names[i], to))
	h.Controllen = 0
	if !from.IsValid() {
		return
	}
	c := (*unix.Cmsghdr)(unsafe.Pointer(&b.controls[i]))
	data := b.controls[i][unix.SizeofCmsghdr:]
	if from.Is4() {
		*c = unix.Cmsghdr{Level: unix.IPPROTO_IP, Type: unix.IP_PKTINFO}
		c.SetLen(unix.CmsgLen(unix.SizeofInet4Pktinfo))
		*(*unix.Inet4Pktinfo)(unsafe.Pointer(&data[0])) = unix.Inet4Pktinfo{Spec_dst: from.As4()}
		h.Controllen = uint64(unix.CmsgSpace(unix.SizeofInet4Pktinfo))
		return
	}
	*c = unix.Cmsghdr{Level: unix.IPPROTO_IPV6, Type: unix.IPV6_PKTINFO}
	c.SetLen(unix.CmsgLen(unix.SizeofInet6Pktinfo))
	*(*unix.Inet6Pktinfo)(unsafe.Pointer(&data[0])) = unix.Inet6Pktinfo{Addr: from.As16()}
	h.Controllen = uint64(unix.CmsgSpace(unix.SizeofInet6Pktinfo))
}

// send sends the packets of the batch and empties it. A packet that cannot be sent is lost, as packets may be; the
// others are sent.
func (b *packetBatch) send(fd int, told bool, r *ring) {
	for i := range b.n {
		h := &b.messages[i].header
		h.Control = nil
		if told {
			h.Control = &b.controls[i][0]
		} else {
			h.Controllen = 0
		}
	}
	if r != nil && b.n > 1 {
		for i := range b.n {
			r.push(submission{opcode: opSendMessage, fd: int32(fd), addr: address(&b.messages[i].header), len: 1, flags: unix.MSG_DONTWAIT})
		}
		r.submit()
		b.n = 0
		return
	}
	for i := 0; i < b.n; {
		n, _, errno := syscall.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.messages[i])),
			uintptr(b.n-i), unix.MSG_DONTWAIT, 0, 0)
		if errno != 0 {
			n = 1 // the first one failed: go on with the next
		}
		i += int(n)
	}
	b.n = 0
}
