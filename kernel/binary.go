// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"net/netip"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/listen"
)

// port turns the number of a port into its form on the wire, or back.
func port(n uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], n)
	return binary.NativeEndian.Uint16(b[:])
}

func protocolOf(t listen.Transport) uint8 {
	if t == listen.UDP {
		return protocolUDP
	}
	return protocolTCP
}

func transportOf(protocol uint8) listen.Transport {
	if protocol == protocolUDP {
		return listen.UDP
	}
	return listen.TCP
}

const (
	protocolTCP = 6
	protocolUDP = 17
)

func addrPort(a [16]uint8, p uint16) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a).Unmap(), port(p))
}

// tuple is what a packet from one address to another says of itself.
func tuple(t listen.Transport, from, to netip.AddrPort) forwardTuple {
	return forwardTuple{
		Saddr: from.Addr().As16(), Daddr: to.Addr().As16(), Sport: port(from.Port()), Dport: port(to.Port()),
		Protocol: protocolOf(t),
	}
}

// turned is the tuple of the packets that answer those that leave by a path.
func turned(p *forwardPath, protocol uint8) forwardTuple {
	return forwardTuple{Saddr: p.Daddr, Daddr: p.Saddr, Sport: p.Dport, Dport: p.Sport, Protocol: protocol}
}

func clientOf(a netip.Addr) forwardClient {
	b := a.As16()
	return forwardClient{Prefix: [8]uint8(b[:8])}
}

func crossingOf(p *forwardPath) ip.Crossing { return ip.Crossings()[p.Crossing&3] }
