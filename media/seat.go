// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package media

import (
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/media/stream"
)

// seat is one port of one side of a stream.
type seat struct {
	pair  *pair
	fd    int32 // none if it is wide
	at    stream.Port
	side  control.Side
	index uint8  // of the stream
	dscp  uint8  // of what is sent
	wide  bool   // it shares a socket with others
	again uint8  // how often its lane was ended by what it does not count
	lane  bool   // packets of who was heard go by a lane
	wait  uint16 // packets until there may be one

	late      uint16 // packets that have come here all the same, and are to be added to what the lane counts
	lateBytes uint32
}

// pair is the two ports of one side of a stream, at one address.
type pair struct {
	network *network
	call    *call
	addr    netip.Addr
	port    uint16  // for RTP; 0 if it has none
	seats   [2]seat // by stream.Port
}

// id returns the interface identifier of the address of a pair at a prefix.
func (p *pair) id() uint64 {
	id, _ := p.network.idOf(p.addr)
	return id
}

func (p *pair) local() control.Local {
	return control.Local{RTP: netip.AddrPortFrom(p.addr, p.port), RTCP: netip.AddrPortFrom(p.addr, p.port+1)}
}

// maxTries bounds how many pairs of ports are tried, in case somebody else has opened some.
const maxTries = 64

// openPair gives a side of a stream its ports. want, if it is valid, is which.
func (h *shard) openPair(n *network, c *call, side control.Side, index int, want control.Local) (*pair, error) {
	p := &pair{network: n, call: c, addr: n.Media.Addr()}
	for at := range p.seats {
		p.seats[at] = seat{pair: p, side: side, index: uint8(index), at: stream.Port(at), fd: -1, wait: firstPackets}
	}
	if !n.single {
		return p, h.openWidePair(p, want)
	}
	if want.RTP.IsValid() {
		if want.RTP.Addr() != n.Media.Addr() || !n.claim(want.RTP.Port()) {
			return nil, control.ErrFull
		}
		return p, h.openPorts(p, want.RTP.Port())
	}
	for range maxTries {
		port, ok := n.take()
		if !ok {
			return nil, control.ErrFull
		}
		if h.openPorts(p, port) == nil {
			return p, nil
		}
	}
	return nil, control.ErrFull
}

// openPorts opens the sockets of a pair that was taken; on error it is given back.
func (h *shard) openPorts(p *pair, port uint16) error {
	p.port = port
	p.network.used.Add(1)
	for i := range p.seats {
		if err := h.openSeat(&p.seats[i]); err != nil {
			h.closePair(p)
			return err
		}
	}
	return nil
}

func (h *shard) openSeat(s *seat) error {
	fd, err := bound(netip.AddrPortFrom(s.pair.addr, s.pair.port+uint16(s.at)), false)
	if err != nil {
		return err
	}
	if err := h.loop.Watch(fd, s.read); err != nil {
		unix.Close(fd)
		return err
	}
	s.fd = int32(fd)
	h.drop(h.plane.left.at(s.local()))
	return nil
}

// closePair gives a pair of ports back.
func (h *shard) closePair(p *pair) {
	if p == nil {
		return
	}
	if p.port != 0 {
		p.network.used.Add(-1)
	}
	if !p.network.single {
		h.pairs.remove(p)
		p.port = 0
		return
	}
	for i := range p.seats {
		if s := &p.seats[i]; s.fd >= 0 {
			h.loop.Unwatch(int(s.fd))
			unix.Close(int(s.fd))
			s.fd = -1
		}
	}
	if p.port != 0 {
		p.network.giveBack(p.port)
		p.port = 0
	}
}

// mark has what is sent from the pair carry a code point.
func (p *pair) mark(dscp uint8) {
	for i := range p.seats {
		s := &p.seats[i]
		if s.dscp == dscp {
			continue
		}
		s.dscp = dscp
		if s.wide {
			continue
		}
		level, option := unix.IPPROTO_IP, unix.IP_TOS
		if p.addr.Is6() {
			level, option = unix.IPPROTO_IPV6, unix.IPV6_TCLASS
		}
		unix.SetsockoptInt(int(s.fd), level, option, int(dscp)<<2) // fails only for what is no socket
	}
}

// bound returns a socket at an address, which the machine may not have yet.
func bound(at netip.AddrPort, shared bool) (fd int, err error) {
	domain := unix.AF_INET6
	if ip.FamilyOf(at.Addr()) == ip.V4 {
		domain = unix.AF_INET
	}
	fd, err = unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	set := func(level, option int) {
		if err == nil {
			err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, option, 1))
		}
	}
	if domain == unix.AF_INET6 {
		set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		set(unix.IPPROTO_IPV6, unix.IPV6_FREEBIND)
	} else {
		set(unix.IPPROTO_IP, unix.IP_FREEBIND)
	}
	if shared {
		set(unix.SOL_SOCKET, unix.SO_REUSEPORT)
		set(unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO)
	}
	if err == nil {
		err = os.NewSyscallError("bind", unix.Bind(fd, sockaddr(at)))
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
