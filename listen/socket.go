// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
)

// backlog is how many clients may wait. The kernel takes less if net.core.somaxconn is less: listen(2).
const backlog = 65535

// open returns a non-blocking socket that is bound, and listens if it is TCP.
func (o Options) open(a Addr) (fd int, err error) {
	domain, kind := unix.AF_INET6, unix.SOCK_STREAM
	if a.Family() == ip.V4 {
		domain = unix.AF_INET
	}
	if a.Transport == UDP {
		kind = unix.SOCK_DGRAM
	}
	fd, err = unix.Socket(domain, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	for _, opt := range o.before(a) {
		if err := unix.SetsockoptInt(fd, opt.level, opt.name, opt.value); err != nil {
			return fd, os.NewSyscallError("setsockopt "+opt.text, err)
		}
	}
	if err := unix.Bind(fd, sockaddr(a.AddrPort)); err != nil {
		return fd, os.NewSyscallError("bind", err)
	}
	if a.Transport == TCP {
		if err := unix.Listen(fd, backlog); err != nil {
			return fd, os.NewSyscallError("listen", err)
		}
	}
	return fd, nil
}

// option is one socket option.
type option struct {
	level, name, value int
	text               string
}

// before lists what is set before bind, by transport and family. What is set on a listening TCP socket is inherited by
// the connections it accepts: tcp(7).
func (o Options) before(a Addr) []option {
	var all []option
	add := func(level, name, value int, text string) { all = append(all, option{level, name, value, text}) }
	v6 := a.Family() == ip.V6
	if v6 {
		add(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1, "IPV6_V6ONLY") // every address has one family
	}
	if o.FreeBind && v6 {
		add(unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1, "IPV6_FREEBIND")
	} else if o.FreeBind {
		add(unix.IPPROTO_IP, unix.IP_FREEBIND, 1, "IP_FREEBIND")
	}
	if a.Transport == TCP {
		add(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, "SO_REUSEADDR") // beside connections in TIME-WAIT
		add(unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1, "SO_KEEPALIVE")
		add(unix.IPPROTO_TCP, unix.TCP_NODELAY, 1, "TCP_NODELAY")
		return all
	}
	// No SO_REUSEADDR: with it a second process could take the packets of the first. udp(7), socket(7).
	if o.ReceiveBuffer > 0 {
		add(unix.SOL_SOCKET, unix.SO_RCVBUF, o.ReceiveBuffer, "SO_RCVBUF")
	}
	if o.SendBuffer > 0 {
		add(unix.SOL_SOCKET, unix.SO_SNDBUF, o.SendBuffer, "SO_SNDBUF")
	}
	switch { // a wildcard socket must hear which address a packet was sent to, to answer from it
	case !a.AddrPort.Addr().IsUnspecified():
	case v6:
		add(unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1, "IPV6_RECVPKTINFO")
	default:
		add(unix.IPPROTO_IP, unix.IP_PKTINFO, 1, "IP_PKTINFO")
	}
	return all
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// errNotIP means that a descriptor is not a bound TCP or UDP socket.
var errNotIP = errors.New("listen: not a listening IP socket")

// addrOf finds out what fd listens on.
func addrOf(fd int) (Addr, error) {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return Addr{}, os.NewSyscallError("getsockopt SO_TYPE", err)
	}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		return Addr{}, os.NewSyscallError("getsockname", err)
	}
	var a Addr
	switch b := bound.(type) {
	case *unix.SockaddrInet4:
		a.AddrPort = netip.AddrPortFrom(netip.AddrFrom4(b.Addr), uint16(b.Port))
	case *unix.SockaddrInet6:
		a.AddrPort = netip.AddrPortFrom(netip.AddrFrom16(b.Addr), uint16(b.Port))
	default:
		return Addr{}, errNotIP
	}
	switch kind {
	case unix.SOCK_STREAM:
		accepts, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		if err != nil || accepts == 0 {
			return Addr{}, errNotIP
		}
	case unix.SOCK_DGRAM:
		a.Transport = UDP
	default:
		return Addr{}, errNotIP
	}
	return a, a.oneFamily(fd)
}

// oneFamily refuses a socket that takes IPv4 at an IPv6 address: that clients of one door have one family is what
// every route, counter and stand-in is built on.
func (a Addr) oneFamily(fd int) error {
	addr := a.AddrPort.Addr()
	if addr.Is4In6() {
		return fmt.Errorf("%v is an IPv4 address written as IPv6: bind %v instead", a, addr.Unmap())
	}
	if a.Family() == ip.V4 || !addr.IsUnspecified() {
		return nil
	}
	only, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	if err != nil {
		return os.NewSyscallError("getsockopt IPV6_V6ONLY", err)
	}
	if only == 0 {
		return fmt.Errorf("%v takes IPv4 too: set BindIPv6Only=ipv6-only in the socket unit, "+
			"and list the IPv4 address beside it", a)
	}
	return nil
}
