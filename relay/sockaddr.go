// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

// Hot path: no allocation per packet.

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
)

// addrPort reads what the kernel wrote. The result is canonical.
func addrPort(sa *unix.RawSockaddrAny) netip.AddrPort {
	switch sa.Addr.Family {
	case unix.AF_INET:
		a := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), networkOrder(a.Port))
	case unix.AF_INET6:
		a := (*unix.RawSockaddrInet6)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(ip.Canonical(netip.AddrFrom16(a.Addr)), networkOrder(a.Port))
	}
	return netip.AddrPort{}
}

// sockaddr writes a for the kernel and returns its length.
func sockaddr(sa *unix.RawSockaddrAny, a netip.AddrPort) uintptr {
	if a.Addr().Is4() {
		p := (*unix.RawSockaddrInet4)(unsafe.Pointer(sa))
		*p = unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: a.Addr().As4(), Port: networkOrder(a.Port())}
		return unix.SizeofSockaddrInet4
	}
	p := (*unix.RawSockaddrInet6)(unsafe.Pointer(sa))
	*p = unix.RawSockaddrInet6{Family: unix.AF_INET6, Addr: a.Addr().As16(), Port: networkOrder(a.Port())}
	return unix.SizeofSockaddrInet6
}

// networkOrder swaps between the order of the network and that of the machine.
func networkOrder(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}

func domain(f ip.Family) int {
	if f == ip.V4 {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// LocalAddr returns the address that a socket is bound to; the zero value if there is none.
func LocalAddr(fd int) netip.AddrPort { return socketAddr(unix.SYS_GETSOCKNAME, fd) }

func peerAddr(fd int) netip.AddrPort { return socketAddr(unix.SYS_GETPEERNAME, fd) }

func socketAddr(call uintptr, fd int) netip.AddrPort {
	var sa unix.RawSockaddrAny
	size := uint32(unix.SizeofSockaddrAny)
	if _, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&sa)),
		uintptr(unsafe.Pointer(&size))); errno != 0 {
		return netip.AddrPort{}
	}
	return addrPort(&sa)
}
