// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

// Hot path: no allocation per packet.

import (
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	acceptBatch = 64                     // connections taken in one go, so that others get their turn
	acceptPause = 100 * time.Millisecond // when the process has no descriptors left
)

// Acceptor takes clients from a listening socket onto the loops.
type Acceptor struct {
	loops    *Loops
	accept   func(*Conn)
	doors    []*door
	failures atomic.Int64
}

// door is the listening socket as one loop sees it.
type door struct {
	*Acceptor
	loop  *Loop
	fd    int
	local netip.AddrPort // zero if the socket is bound to all addresses
	many  int            // clients that are taken in one go
	plain bool           // they are taken one by one
	retry Timer
}

// Listen takes clients from the non-blocking listening socket fd and calls accept for each, on the loop that it will
// live on. accept must set a Handler. The caller keeps fd open until Close has returned, and closes it. It must not be
// called on a loop.
func (ls *Loops) Listen(fd int, accept func(*Conn)) (*Acceptor, error) {
	a := &Acceptor{loops: ls, accept: accept}
	local := LocalAddr(fd)
	if local.Addr().IsUnspecified() {
		local = netip.AddrPort{}
	}
	for _, l := range ls.loops {
		d := &door{Acceptor: a, loop: l, fd: fd, local: local}
		d.retry.Func = d.open
		a.doors = append(a.doors, d)
	}
	errs := make([]error, len(ls.loops))
	ls.Do(func(l *Loop) { errs[l.id] = a.doors[l.id].watch() })
	for _, err := range errs {
		if err != nil {
			a.Close()
			return nil, err
		}
	}
	return a, nil
}

// Failures returns how often a client had to wait because the process had no descriptors left.
func (a *Acceptor) Failures() int64 { return a.failures.Load() }

// Close stops taking clients. Those that wait in the socket stay there. It must not be called on a loop.
func (a *Acceptor) Close() {
	a.loops.Do(func(l *Loop) {
		d := a.doors[l.id]
		l.StopTimer(&d.retry)
		d.leave()
	})
}

// watch waits for clients; of several loops that wait the kernel wakes one. EPOLLEXCLUSIVE, epoll_ctl(2).
func (d *door) watch() error { return d.loop.watch(d.fd, d, unix.EPOLLIN|unix.EPOLLEXCLUSIVE) }

func (d *door) leave() {
	unix.EpollCtl(d.loop.epfd, unix.EPOLL_CTL_DEL, d.fd, nil) // fails only if the socket is not there
	d.loop.forget(d.fd)
}

func (d *door) open() {
	if d.watch() != nil {
		d.loop.SetTimer(&d.retry, acceptPause)
	}
}

func (d *door) ready(uint32) {
	errno := syscall.Errno(0)
	if d.loop.round.ring == nil || d.plain {
		errno = d.takeEach()
	} else {
		errno = d.takeSome()
	}
	switch errno {
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM:
		d.failures.Add(1)
		d.leave()
		d.loop.SetTimer(&d.retry, acceptPause)
	default: // nobody is left, or a client has given up already: accept(2), "Error handling"
	}
}

// takeEach takes clients one by one and returns why it has stopped.
func (d *door) takeEach() syscall.Errno {
	for range acceptBatch {
		fd, remote, errno := accept(d.fd)
		switch errno {
		case 0:
			d.place(fd, remote)
		case syscall.EAGAIN, syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM:
			return errno
		}
	}
	return 0
}

// takeSome takes clients in one go: as many as the last time, or, if all of those were there, twice as many. Of others
// that wait, epoll tells again. It returns what went wrong.
func (d *door) takeSome() (errno syscall.Errno) {
	callers := d.loop.callers[:max(d.many, 1)]
	for i := range callers {
		c := &callers[i]
		c.size = unix.SizeofSockaddrAny
		d.loop.round.ring.push(submission{opcode: opAccept, fd: int32(d.fd), priority: acceptDontWait, addr: address(&c.addr),
			offset: address(&c.size), flags: unix.SOCK_NONBLOCK | unix.SOCK_CLOEXEC})
	}
	for i, result := range d.loop.round.ring.submit() {
		if callers[i].fd = result; result < 0 {
			errno = syscall.Errno(-result)
		}
	}
	n := 0
	for i := range callers {
		if c := &callers[i]; c.fd >= 0 {
			d.place(int(c.fd), addrPort(&c.addr))
			n++
		}
	}
	if d.many = n; n == len(callers) {
		d.many = min(2*n, maxCallers)
	}
	switch {
	case errno == syscall.EINVAL: // this kernel would have waited
		d.plain = true
	case again(errno): // was not made
		return d.takeEach()
	}
	return errno
}

// caller is where the kernel writes who is accepted.
type caller struct {
	addr unix.RawSockaddrAny
	size uint32
	fd   int32 // or below 0 an errno
}

// maxCallers is how many clients are accepted in one go.
const maxCallers = 16

// place gives a client to this loop, or to the one with the fewest connections if that has clearly fewer.
func (d *door) place(fd int, remote netip.AddrPort) {
	l := d.loop
	least := l
	for _, other := range d.loops.loops {
		if other.conns.Load() < least.conns.Load() {
			least = other
		}
	}
	if few := least.conns.Load(); least != l && l.conns.Load() > few+2+few/8 {
		least.Post(func() { d.doors[least.id].admit(fd, remote) })
		return
	}
	d.admit(fd, remote)
}

func (d *door) admit(fd int, remote netip.AddrPort) {
	c, err := d.loop.newConn(fd, nobody{})
	if err != nil { // the loop has stopped, or the kernel has no memory
		d.failures.Add(1)
		return
	}
	c.remote, c.local = remote, d.local
	d.accept(c)
}

func accept(fd int) (int, netip.AddrPort, syscall.Errno) {
	var sa unix.RawSockaddrAny
	size := uint32(unix.SizeofSockaddrAny)
	n, _, errno := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&sa)),
		uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	if errno != 0 {
		return -1, netip.AddrPort{}, errno
	}
	return int(n), addrPort(&sa), 0
}
