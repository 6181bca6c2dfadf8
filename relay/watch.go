// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

// Hot path: no allocation per packet.

import "golang.org/x/sys/unix"

// read is what reads a descriptor that is not the relay's own.
type read func()

func (f read) ready(uint32) { f() }

// last is what is done at the end of a round for somebody else.
type last func()

func (f last) flush() { f() }

// Watch has fn called on the loop, which is the caller's, whenever something waits in the non-blocking descriptor fd, as
// long as something does. Unwatch it before it is closed.
func (l *Loop) Watch(fd int, fn func()) error { return l.watch(fd, read(fn), unix.EPOLLIN) }

// Unwatch ends Watch, on the loop.
func (l *Loop) Unwatch(fd int) {
	unix.EpollCtl(l.epfd, unix.EPOLL_CTL_DEL, fd, nil) // fails only if the descriptor is not there
	l.forget(fd)
}

// AtEnd has fn called once at the end of this round of the loop, which is the caller's.
func (l *Loop) AtEnd(fn func()) { l.atEnd(last(fn)) }
