// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"net/netip"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
)

// DialOptions say whom to reach and as whom.
type DialOptions struct {
	Remote      netip.AddrPort
	Source      netip.AddrPort // the address to come from; zero leaves it to the kernel, port 0 the port alone
	Transparent bool           // Source is not an address of this machine: IP_TRANSPARENT, ip(7)
	Timeout     time.Duration
}

// Dial connects and calls done on the loop, never before it returns. The connection that done gets has no handler
// yet. Errors are of the connect, or ErrTimeout.
func (l *Loop) Dial(o DialOptions, done func(*Conn, error)) {
	fd, err := Socket(unix.SOCK_STREAM, o.Remote, o.Source, o.Transparent)
	if err == nil {
		err = l.connect(fd, o, done)
	}
	if err != nil {
		l.Post(func() { done(nil, err) })
	}
}

// Socket makes a non-blocking socket of the given type that comes from source. Stand-ins are addresses of a local
// route, not of an interface, which IPv6 binds only with IPV6_FREEBIND. The port is chosen when the socket connects,
// so that one address can reach many backends from the same port: IP_BIND_ADDRESS_NO_PORT, ip(7).
func Socket(kind int, remote, source netip.AddrPort, transparent bool) (fd int, err error) {
	f := ip.FamilyOf(remote.Addr())
	fd, err = unix.Socket(domain(f), kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if kind == unix.SOCK_STREAM {
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	if !source.IsValid() {
		return fd, nil
	}
	level, freebind, opaque := unix.IPPROTO_IP, unix.IP_FREEBIND, unix.IP_TRANSPARENT
	if f == ip.V6 {
		level, freebind, opaque = unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, unix.IPV6_TRANSPARENT
	}
	if err := unix.SetsockoptInt(fd, level, freebind, 1); err != nil {
		return fd, os.NewSyscallError("setsockopt IP_FREEBIND", err)
	}
	if transparent {
		if err := unix.SetsockoptInt(fd, level, opaque, 1); err != nil {
			return fd, os.NewSyscallError("setsockopt IP_TRANSPARENT", err)
		}
	}
	switch {
	case source.Port() == 0:
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	case kind == unix.SOCK_STREAM: // a port that is given may be that of other connections: connect sees to it that no two are the same
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	var sa unix.RawSockaddrAny
	n := sockaddr(&sa, source)
	if _, _, errno := syscall.RawSyscall(unix.SYS_BIND, uintptr(fd), uintptr(unsafe.Pointer(&sa)), n); errno != 0 {
		return fd, os.NewSyscallError("bind", errno)
	}
	return fd, nil
}

// connect begins to connect fd, which it owns, also if it fails.
func (l *Loop) connect(fd int, o DialOptions, done func(*Conn, error)) error {
	if errno := connect(fd, o.Remote); errno != 0 && errno != syscall.EINPROGRESS {
		unix.Close(fd)
		return os.NewSyscallError("connect", errno)
	}
	c, err := l.newConn(fd, nobody{})
	if err != nil {
		return err
	}
	c.flags |= connecting
	c.remote = o.Remote
	c.dial = done
	c.SetTimeout(o.Timeout)
	return nil
}

func connect(fd int, to netip.AddrPort) syscall.Errno {
	var sa unix.RawSockaddrAny
	n := sockaddr(&sa, to)
	_, _, errno := syscall.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), n)
	return errno
}

// connected is called when the kernel has something to say about a connection that is being made.
func (c *Conn) connected() {
	v, err := unix.GetsockoptInt(int(c.fd), unix.SOL_SOCKET, unix.SO_ERROR)
	switch {
	case err != nil:
		c.dialled(os.NewSyscallError("getsockopt", err))
	case v != 0:
		c.dialled(os.NewSyscallError("connect", syscall.Errno(v)))
	default:
		c.dialled(nil)
	}
}

// dialled tells the caller of Dial.
func (c *Conn) dialled(err error) {
	done := c.dial
	c.dial = nil
	c.flags &^= connecting
	c.SetTimeout(0)
	if err != nil {
		c.release()
		done(nil, err)
		return
	}
	done(c, nil)
	if c.flags&closed == 0 {
		c.flush()
		c.work()
	}
}
