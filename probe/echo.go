// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
)

// ErrMayNotPing means that the system lets this process send no echo requests: icmp(7).
var ErrMayNotPing = errors.New("probe: this process may not ping: it needs CAP_NET_RAW, or its group in " +
	"net.ipv4.ping_group_range")

const (
	askAgain    = 400 * time.Millisecond // a packet may get lost
	nonceLength = 16                     // bytes: nobody who has not seen the question can answer it
	answerMax   = 2048                   // bytes that are read of an answer
)

// The types of echo messages. RFC 792, RFC 4443 §4.1 and §4.2.
const (
	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
)

// Echo pings the host of the target, whatever its port. It fails with ErrMayNotPing where the process has not the right.
func Echo(ctx context.Context, t Target) Result {
	r := begin(t)
	c, err := t.dialEcho(ctx)
	if err != nil {
		r.end(ctx, "echo", err)
		return r.Result
	}
	defer c.Close()
	f := ip.FamilyOf(t.Addr.Addr())
	question := echoQuestion(f)
	r.end(ctx, "echo", exchange(ctx, c, question, func(p []byte) bool { return isEchoReply(f, p, question) }))
	return r.Result
}

// UDP sends a datagram of one byte to the target, again and again, and is content with any that comes back. Few servers
// answer to that; a port at which nobody listens answers with an error, syscall.ECONNREFUSED. The byte is there because a
// server that is written carelessly takes a datagram without any for the end.
func UDP(ctx context.Context, t Target) Result {
	r := begin(t)
	d := net.Dialer{Control: t.control}
	network := "udp6"
	if t.Addr.Addr().Is4() {
		network = "udp4"
	}
	c, err := d.DialUDP(ctx, network, netip.AddrPortFrom(t.Local, 0), t.Addr)
	if err != nil {
		r.end(ctx, "answer", err)
		return r.Result
	}
	defer c.Close()
	r.end(ctx, "answer", exchange(ctx, c, []byte{0}, func([]byte) bool { return true }))
	return r.Result
}

// exchange sends a question again and again until an answer has come, the system says that none will, or ctx is done.
func exchange(ctx context.Context, c net.Conn, question []byte, answers func([]byte) bool) error {
	stop := context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	p := make([]byte, answerMax)
	for {
		if _, err := c.Write(question); err != nil {
			return err
		}
		c.SetReadDeadline(time.Now().Add(askAgain))
		if ctx.Err() != nil { // the deadline just set may have come after the one of AfterFunc
			return ctx.Err()
		}
		for {
			n, err := c.Read(p)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				break
			}
			if err != nil {
				return err
			}
			if answers(p[:n]) {
				return nil
			}
		}
	}
}

// echoQuestion returns an echo request with data that cannot be guessed. The checksum for IPv6, which needs the source
// address, is the kernel's business: RFC 3542 §3.1.
func echoQuestion(f ip.Family) []byte {
	p := make([]byte, 8+nonceLength)
	rand.Read(p[4:]) // identifier, sequence number and data; it never fails
	p[0] = echoRequest6
	if f == ip.V4 {
		p[0] = echoRequest4
		binary.BigEndian.PutUint16(p[2:], checksum(p))
	}
	return p
}

// isEchoReply says whether p answers a question: a reply returns the data. The identifier is not compared, for on a
// socket for pings it is the kernel's.
func isEchoReply(f ip.Family, p, question []byte) bool {
	reply := byte(echoReply6)
	if f == ip.V4 {
		reply = echoReply4
	}
	return len(p) >= 8 && p[0] == reply && p[1] == 0 && bytes.Equal(p[8:], question[8:])
}

// checksum returns the Internet checksum of p, whose length is even. RFC 1071 §1.
func checksum(p []byte) uint16 {
	sum := uint32(0)
	for i := 0; i < len(p); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// dialEcho opens a socket for pings, which an administrator may give to everybody, or else a raw one, which needs
// CAP_NET_RAW.
func (t *Target) dialEcho(ctx context.Context) (net.Conn, error) {
	c, err := t.dialPing()
	if !errors.Is(err, syscall.EACCES) && !errors.Is(err, syscall.EPROTONOSUPPORT) {
		return c, err
	}
	d := net.Dialer{Control: t.control}
	network := "ip6:58" // a name would be looked for in /etc/protocols
	if t.Addr.Addr().Is4() {
		network = "ip4:1"
	}
	raw, err := d.DialIP(ctx, network, t.Local, t.Addr.Addr())
	switch {
	case err == nil:
		return rawConn{raw}, nil
	case opening(err) && errors.Is(err, syscall.EPERM):
		return nil, ErrMayNotPing
	}
	return nil, err
}

// opening says whether there is not even a socket.
func opening(err error) bool {
	call, ok := errors.AsType[*os.SyscallError](err)
	return ok && call.Syscall == "socket"
}

// rawConn is a raw socket whose packets are read without the header that IPv4 ones have: raw(7).
type rawConn struct{ *net.IPConn }

// Read implements net.Conn.
func (c rawConn) Read(p []byte) (int, error) {
	n, _, err := c.ReadFrom(p)
	return n, err
}

// dialPing opens a socket that can only ping: icmp(7).
func (t *Target) dialPing() (net.Conn, error) {
	domain, protocol := unix.AF_INET6, unix.IPPROTO_ICMPV6
	var local, remote unix.Sockaddr = &unix.SockaddrInet6{Addr: as16(t.Local)}, &unix.SockaddrInet6{Addr: t.Addr.Addr().As16()}
	if t.Addr.Addr().Is4() {
		domain, protocol = unix.AF_INET, unix.IPPROTO_ICMP
		local, remote = &unix.SockaddrInet4{Addr: as4(t.Local)}, &unix.SockaddrInet4{Addr: t.Addr.Addr().As4()}
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	file := os.NewFile(uintptr(fd), "ping")
	defer file.Close()
	if t.Local.IsValid() {
		if err := t.comeFrom(fd); err != nil {
			return nil, err
		}
		if err := unix.Bind(fd, local); err != nil {
			return nil, os.NewSyscallError("bind", err)
		}
	}
	if err := unix.Connect(fd, remote); err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	c, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("open ping socket: %w", err)
	}
	return c, nil
}

// as16 is As16 for an address that may be missing.
func as16(a netip.Addr) (b [16]byte) {
	if a.IsValid() {
		b = a.As16()
	}
	return b
}

// as4 is As4 for an address that may be missing.
func as4(a netip.Addr) (b [4]byte) {
	if a.Is4() {
		b = a.As4()
	}
	return b
}
