// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

// Hot path: no allocation per packet.

import (
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	// pipeSize is how much a pipe holds. With the 64 KiB of a fresh pipe, splice(2) costs more than copying.
	pipeSize = 1 << 20

	// idlePipes is how many unused pipes are kept: each may pin its size of kernel memory.
	idlePipes = 64

	// trickle is how little a turn moves when a stream no longer flows in bulk.
	trickle = 32 << 10

	// connEvents is what a loop waits for on behalf of a Conn, but for what heed takes out.
	connEvents = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLPRI | unix.EPOLLRDHUP | unix.EPOLLET
)

// pipe is a kernel buffer between two sockets.
type pipe struct{ r, w, size int }

// pipes keeps unused pipes, all of them empty.
type pipes struct {
	mu   sync.Mutex
	idle []*pipe
}

func (p *pipes) get() (*pipe, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		last := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return last, nil
	}
	var fd [2]int
	if err := unix.Pipe2(fd[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		return nil, os.NewSyscallError("pipe2", err)
	}
	size, err := unix.FcntlInt(uintptr(fd[0]), unix.F_SETPIPE_SZ, pipeSize)
	if err != nil { // an unprivileged user has only so many pages: pipe(7), pipe-user-pages-soft
		unix.Close(fd[0])
		unix.Close(fd[1])
		return nil, os.NewSyscallError("F_SETPIPE_SZ", err)
	}
	return &pipe{r: fd[0], w: fd[1], size: size}, nil
}

func (p *pipes) put(one *pipe, empty bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if empty && len(p.idle) < idlePipes {
		p.idle = append(p.idle, one)
		return
	}
	one.close()
}

func (p *pipes) close() {
	for _, one := range p.idle {
		one.close()
	}
	p.idle = nil
}

func (p *pipe) close() {
	unix.Close(p.r)
	unix.Close(p.w)
}

// pump moves what arrives on one connection to another by splice(2), without copying it through user space.
//
// What a byte costs is the kernel's work for it, the same for whoever splices, and its part of a wake-up, which costs
// as much as some hundred KB do. So the pump takes care to be woken up seldom: see heed. It takes from the sender what there
// is, at most a pipe full, and gives it to the receiver until that takes no more, which is then the one to wait for:
// it has room for a third of its buffer when the kernel says so, a megabyte or more.
type pump struct {
	to    *Conn
	pipe  *pipe
	held  int  // bytes in the pipe
	muted bool // epoll does not tell that more has come
	moved *uint64
	seen  uint64 // what moved was when the idle deadline last looked
	quiet int    // turns in a row that moved little
	stop  func()
}

// startPump has what arrives on c moved to another connection of the same loop, and counted, until it trickles; then
// stop is called and Data is again. It returns false, and nothing has changed, if there is no pipe to be had, or if
// one of the two has bytes in user space.
func (c *Conn) startPump(to *Conn, moved *uint64, stop func()) bool {
	if c.in.size > 0 || to.Buffered() > 0 || c.tls != nil || to.tls != nil {
		return false
	}
	p, err := c.loop.all.pipes.get()
	if err != nil {
		return false
	}
	c.pump = &pump{to: to, pipe: p, moved: moved, stop: stop}
	to.feeder = c
	c.heed()
	to.heed()
	return true
}

// run gives the stream one turn.
func (p *pump) run(c *Conn) {
	before := *p.moved
	if p.held < p.pipe.size && !p.fill(c) { // of a full pipe, splice(2) would say what it says of the end
		return
	}
	p.push(c)
	if c.pump != p {
		return
	}
	if c.flags&eof != 0 && p.held == 0 { // not before: the handler may be told only then
		c.flags &^= readable
	}
	if *p.moved-before >= trickle {
		p.quiet = 0
	}
}

// fill moves what has come into the pipe. It returns false if there is nothing to move on.
func (p *pump) fill(c *Conn) bool {
	n, errno := splice(int(c.fd), p.pipe.w, p.pipe.size-p.held)
	switch {
	case errno == syscall.EAGAIN && p.held == 0:
		c.flags &^= readable
		p.muted = false
		c.heed() // if some has come since, epoll tells now
		p.rest(c)
		return false
	case errno == syscall.EAGAIN, again(errno): // the pipe may have no slot left: it empties below
	case errno != 0:
		c.fail(os.NewSyscallError("splice", errno))
		return false
	case n == 0:
		c.flags |= eof
	default:
		p.held += n
	}
	return true
}

// push moves the pipe's bytes on. If the receiver takes no more, c pauses until it does.
func (p *pump) push(c *Conn) {
	for p.held > 0 {
		n, errno := splice(p.pipe.r, int(p.to.fd), p.held)
		switch {
		case errno == syscall.EAGAIN:
			c.flags |= paused
			return
		case again(errno):
		case errno != 0:
			p.to.failLater(os.NewSyscallError("splice", errno))
			c.flags |= paused
			return
		default:
			p.held -= n
			*p.moved += uint64(n)
		}
	}
}

// rest is called when nothing is left to move: a stream that trickles goes back to copying, which wakes up cheaper.
func (p *pump) rest(c *Conn) {
	if p.quiet++; p.quiet < 4 {
		return
	}
	p.close(c)
	p.stop()
}

func (p *pump) close(c *Conn) {
	c.loop.all.pipes.put(p.pipe, p.held == 0)
	c.pump = nil
	p.to.feeder = nil
	c.heed()
	p.to.heed()
}

// mute is called when something has come although c is paused. It will be found when the receiver takes more; until
// then each packet would be another wake-up.
func (p *pump) mute(c *Conn) {
	p.muted = true
	c.heed()
}

// heed has epoll tell of what there is to be done about. An edge-triggered event comes with each packet that arrives,
// even if it was read together with the one before; and then epoll tells at least that c can be written to, as it
// almost always can.
func (c *Conn) heed() {
	var deaf uint8
	if c.pump != nil && c.pump.muted {
		deaf = unix.EPOLLIN | unix.EPOLLPRI // the kernel's wake-up for bytes names both
	}
	if c.pump != nil && c.out.size == 0 && c.feeder == nil {
		deaf |= unix.EPOLLOUT
	}
	if deaf != c.deaf && c.flags&closed == 0 {
		c.deaf = deaf
		c.loop.change(int(c.fd), connEvents&^uint32(deaf))
	}
}
