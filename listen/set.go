// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrTransport means that a TCP address was asked for packets, or a UDP address for a stream.
var ErrTransport = errors.New("listen: wrong transport")

// ErrClosed means that the set has been closed.
var ErrClosed = errors.New("listen: set is closed")

// Options say how sockets are opened. Inherited ones stay as they are.
type Options struct {
	FreeBind      bool // also addresses that this machine does not have yet: IP_FREEBIND, ip(7)
	ReceiveBuffer int  // of UDP, in bytes; 0 leaves it to the kernel
	SendBuffer    int
}

// Set owns every listening socket of the process. It keeps a socket when its last lease is closed, so that a
// generation can close its leases before or after the next one takes its own; Sweep then closes what nobody uses:
//
//	generation 1: Stream ──▶ lease ─────────────────▶ Close
//	                ║ the kept socket, and the clients that wait in it
//	generation 2:   ╚══ Stream ──▶ lease ──────────────────────────▶ …      then Sweep
type Set struct {
	options Options

	mu     sync.Mutex
	kept   map[Addr]*socket
	closed bool
}

// socket is a kept socket.
type socket struct {
	fd     int
	leases int
}

// NewSet returns an empty set.
func NewSet(o Options) *Set { return &Set{options: o, kept: make(map[Addr]*socket)} }

// Stream lends the TCP socket at a, and opens it if the set does not have it. Port 0 always opens a new one; ask the
// lease which port it got, and lend it again under that. Returns ErrTransport or ErrClosed; other errors say what to do.
func (s *Set) Stream(a Addr) (*Lease, error) { return s.lend(a, TCP) }

// Packet is Stream for UDP.
func (s *Set) Packet(a Addr) (*Lease, error) { return s.lend(a, UDP) }

func (s *Set) lend(a Addr, t Transport) (*Lease, error) {
	if a.Transport != t {
		return nil, fmt.Errorf("lend %v as %v: %w", a, t, ErrTransport)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, ErrClosed
	}
	k := s.kept[a]
	if k == nil {
		var err error
		if a, k, err = s.openLocked(a); err != nil {
			return nil, err
		}
	}
	fd, err := unix.FcntlInt(uintptr(k.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("lend %v: %w", a, os.NewSyscallError("fcntl", err))
	}
	k.leases++
	return &Lease{set: s, addr: a, kept: k, fd: fd}, nil
}

// openLocked opens a socket and keeps it under its actual address.
func (s *Set) openLocked(a Addr) (Addr, *socket, error) {
	fd, err := s.options.open(a)
	if err != nil {
		return a, nil, explain(a, err)
	}
	if a.AddrPort.Port() == 0 {
		if a, err = addrOf(fd); err != nil {
			unix.Close(fd)
			return a, nil, err
		}
	}
	k := &socket{fd: fd}
	s.kept[a] = k
	return a, k, nil
}

// Sweep closes the sockets that nobody leases. Clients that wait in them are refused.
func (s *Set) Sweep() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for a, k := range s.kept {
		if k.leases == 0 {
			unix.Close(k.fd)
			delete(s.kept, a)
		}
	}
}

// Close closes every kept socket and lends no more. A socket that is leased lives until its last lease is closed.
func (s *Set) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for a, k := range s.kept {
		unix.Close(k.fd)
		delete(s.kept, a)
	}
}

// Lease is a kept socket lent to one generation: a descriptor of its own for the same socket, hence the same queue.
type Lease struct {
	set  *Set
	addr Addr
	kept *socket

	mu sync.Mutex
	fd int // -1 when closed
}

// FD returns the descriptor. It is non-blocking, and the lease's: it is closed by Close.
func (l *Lease) FD() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fd
}

// Addr returns the address of the socket, with its actual port.
func (l *Lease) Addr() Addr { return l.addr }

// Close gives the socket back. It may be called more than once.
func (l *Lease) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fd < 0 {
		return
	}
	unix.Close(l.fd)
	l.fd = -1
	l.set.mu.Lock()
	defer l.set.mu.Unlock()
	l.kept.leases--
}
