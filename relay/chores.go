// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

// Hot path: no allocation per packet.

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// chores is what a connection that comes or goes leaves for the end of the round, so that it is done for all of them in
// one go: to wait for its events, and to close its descriptor.
type chores struct {
	ring   *ring // nil if the kernel allows none: nothing is put off
	comers []comer
	goers  []int32 // descriptors, which nobody owns any more
}

// comer is a connection whose events are to be waited for.
type comer struct {
	conn  *Conn
	event unix.EpollEvent // stays in place until do
}

func (h *chores) init(r *ring) {
	if h.ring = r; r != nil {
		h.comers, h.goers = make([]comer, 0, ringEntries), make([]int32, 0, ringEntries)
	}
}

// watch has c's events waited for, which come as soon as the socket has them.
func (h *chores) watch(c *Conn, event unix.EpollEvent) error {
	if h.ring == nil || len(h.comers) == cap(h.comers) {
		return add(c, &event)
	}
	h.comers = append(h.comers, comer{c, event})
	return nil
}

func add(c *Conn, event *unix.EpollEvent) error {
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(c.loop.epfd, unix.EPOLL_CTL_ADD, int(c.fd), event))
}

// close closes a descriptor.
func (h *chores) close(fd int32) {
	if h.ring == nil || len(h.goers) == cap(h.goers) {
		unix.Close(int(fd))
		return
	}
	h.goers = append(h.goers, fd)
}

// do does what was put off.
func (h *chores) do(l *Loop) {
	if len(h.comers) > 0 {
		h.watchAll(l)
	}
	if len(h.goers) > 0 {
		h.closeAll()
	}
}

func (h *chores) closeAll() {
	goers := h.goers
	if len(goers) == 1 { // alone, the plain call is cheaper
		unix.Close(int(goers[0]))
	} else {
		for _, fd := range goers {
			h.ring.push(submission{opcode: opClose, fd: fd})
		}
		for i, result := range h.ring.submit() {
			if result == -int32(unix.EINTR) { // was not made
				unix.Close(int(goers[i]))
			}
		}
	}
	h.goers = goers[:0]
}

func (h *chores) watchAll(l *Loop) {
	comers := h.comers
	for i := range comers {
		n := &comers[i]
		if n.conn.flags&closed != 0 { // has gone already, and its descriptor with it
			n.conn = nil
			continue
		}
		h.ring.push(submission{opcode: opWatch, fd: int32(l.epfd), offset: uint64(n.conn.fd), addr: address(&n.event),
			len: unix.EPOLL_CTL_ADD})
	}
	results := h.ring.submit()
	h.comers = comers[:0]
	for i := range comers {
		n := &comers[i]
		if n.conn == nil {
			continue
		}
		errno := syscall.Errno(-results[0])
		results = results[1:]
		var err error
		switch {
		case again(errno), errno == syscall.EINVAL: // was not made, or not known by this kernel
			err = add(n.conn, &n.event)
		case errno != 0:
			err = os.NewSyscallError("epoll_ctl", errno)
		}
		if err != nil {
			n.conn.failLater(err)
		}
		n.conn = nil
	}
}
