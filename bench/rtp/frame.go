// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

const (
	headerVirtio   = 10 // struct virtio_net_hdr, before each frame: packet(7), PACKET_VNET_HDR
	headerEthernet = 14
	headerIP4      = 20
	headerIP6      = 40
	headerUDP      = 8

	stampAt  = 12 // where in a packet of RTP it is written when it was sent: in the speech
	endPort  = 4000
	hopLimit = 64
)

// frame is the packets of one direction of a stream, but for what changes from packet to packet.
type frame struct {
	head   [headerVirtio + headerEthernet + headerIP6 + headerUDP]byte
	length int    // of head
	sum    uint32 // of what the checksum of UDP is made of
	source uint32
}

// frameSize is the most that a frame can take.
const frameSize = headerVirtio + headerEthernet + headerIP6 + headerUDP + packetSize

// newFrame makes the frame of packets between two addresses of a family. Their checksum is left to the card, as sockets leave it
// on veth: no card asks the receiver's processor to look at it.
func newFrame(ethernet [headerEthernet]byte, from, to netip.AddrPort, source uint32) (f frame) {
	const udp = headerUDP + packetSize
	f.source = source
	b := append(f.head[:headerVirtio], ethernet[:]...)
	ip := len(b)
	if from.Addr().Is4() {
		b = append(b, 0x45, 0, 0, 0, 0, 0, 0x40, 0, hopLimit, unix.IPPROTO_UDP, 0, 0) // RFC 791 §3.1; may not be fragmented
		binary.BigEndian.PutUint16(b[ip+2:], headerIP4+udp)
	} else {
		b = append(b, 0x60, 0, 0, 0, 0, 0, unix.IPPROTO_UDP, hopLimit) // RFC 8200 §3
		binary.BigEndian.PutUint16(b[ip+4:], udp)
	}
	addresses := len(b)
	b = append(append(b, from.Addr().AsSlice()...), to.Addr().AsSlice()...)
	if from.Addr().Is4() {
		binary.BigEndian.PutUint16(b[ip+10:], ^folded(summed(b[ip:], 0)))
	}
	f.sum = summed(b[addresses:], unix.IPPROTO_UDP+udp) // RFC 768, and RFC 8200 §8.1
	ports := len(b)
	b = binary.BigEndian.AppendUint16(b, from.Port())
	b = binary.BigEndian.AppendUint16(b, to.Port())
	b = binary.BigEndian.AppendUint16(b, udp)
	b = binary.BigEndian.AppendUint16(b, folded(f.sum)) // of the pseudo header: the card adds the rest
	f.head[0] = unix.VIRTIO_NET_HDR_F_NEEDS_CSUM
	binary.NativeEndian.PutUint16(f.head[2:], uint16(len(b)))             // hdr_len
	binary.NativeEndian.PutUint16(f.head[6:], uint16(ports-headerVirtio)) // csum_start
	binary.NativeEndian.PutUint16(f.head[8:], headerUDP-2)                // csum_offset
	f.sum = summed(b[ports:ports+headerUDP-2], f.sum)
	f.length = len(b)
	return f
}

// write writes the packet of a number that is sent now, into p, and returns its length.
func (f *frame) write(p []byte, number, now int64) int {
	n := copy(p, f.head[:f.length])
	rtp := p[n : n+packetSize]
	rtp[0], rtp[1] = 2<<6, 0 // RFC 3550 §5.1
	binary.BigEndian.PutUint16(rtp[2:], uint16(number))
	binary.BigEndian.PutUint32(rtp[4:], uint32(number)*160)
	binary.BigEndian.PutUint32(rtp[8:], f.source)
	binary.NativeEndian.PutUint64(rtp[stampAt:], uint64(now))
	return n + packetSize
}

// check has a packet that was written have its checksum.
func (f *frame) check(p []byte) {
	sum := ^folded(summed(p[f.length:f.length+stampAt+8], f.sum)) // the rest is zero
	if sum == 0 {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(p[f.length-2:], sum)
	clear(p[:headerVirtio])
}

// summed adds words of 16 bits to a sum. RFC 1071.
func summed(b []byte, sum uint32) uint32 {
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	return sum
}

func folded(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}
