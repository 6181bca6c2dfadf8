// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

// Hot path: no allocation per packet.

import (
	"errors"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// The errors that a Conn ends with.
var (
	ErrStopped = errors.New("relay: stopped")
	ErrTimeout = errors.New("relay: timed out")
	errFull    = errors.New("relay: handler consumed nothing of a full buffer")
)

// Event is something that happens on a Conn beside bytes.
type Event uint8

// The events.
const (
	Ended   Event = iota // the peer has ended its half: no more Data will come
	Drained              // a Conn that was Full has been emptied
	Timeout              // the time given to SetTimeout has passed
)

// Handler is told what happens on a Conn, on its loop. It may call any method of the Conn, Close too; after Close it
// is told nothing more.
type Handler interface {
	// Data is shown the bytes that have arrived and not been consumed, and returns how many it consumes. It is called
	// again when more have come, or after Resume. What it is shown is valid until it returns.
	Data(c *Conn, p []byte) int

	// Event is told of everything else.
	Event(c *Conn, e Event)

	// Closed is told that the connection broke. It has been closed already.
	Closed(c *Conn, err error)
}

// flags of a Conn
const (
	connecting uint16 = 1 << iota
	readable          // the socket may hold bytes that were not read
	paused            // the handler wants no Data
	queued            // on the ready list
	eof               // the peer's half has ended
	eofTold           // and the handler knows
	hangup            // the peer's half ends, or urgent data cuts reads short: read once more even after a short one
	shut              // our half ends when the output is sent
	shutDone          // it has ended
	closing           // close when the output is sent
	closed
	full   // there was more output than HighWater; Drained is owed
	owed   // held bytes must be shown again: the handler was paused, or is a new one
	broken // a write has failed
	bulky  // the last receive took all that it had room for
)

// readBudget is how much one connection may read before the others get their turn.
const readBudget = 4

// Conn is one socket on an event loop: bytes arrive, bytes are sent, halves end separately. Its methods are called on
// its loop only. TLS is inside it (see StartServerTLS). A Conn that is closed ignores what it is told.
type Conn struct {
	loop      *Loop
	fd        int32
	flags     uint16
	deaf      uint8 // events that epoll does not tell of now: see heed
	handler   Handler
	in        queue // bytes the handler has not consumed; beyond one buffer only while it is paused
	out       queue // bytes the kernel has not taken
	deferred  int   // bytes that go before them at the end of the round
	pump      *pump // moves what arrives by splice(2), if set
	feeder    *Conn // the connection whose pump fills this one
	tls       *tlsState
	nextReady *Conn
	timer     Timer
	unsent    int                // what Unsent was when a closing connection last looked
	dial      func(*Conn, error) // while connecting
	onClose   func(*Conn)

	remote, local netip.AddrPort
}

// Loop returns the loop that c lives on.
func (c *Conn) Loop() *Loop { return c.loop }

// Remote returns the address of the peer.
func (c *Conn) Remote() netip.AddrPort { return c.remote }

// Local returns our address: of an accepted connection the one that the client dialled.
func (c *Conn) Local() netip.AddrPort {
	if !c.local.IsValid() && c.flags&closed == 0 {
		c.local = LocalAddr(int(c.fd))
	}
	return c.local
}

// SetAddrs replaces the addresses with those that a trusted peer has named.
func (c *Conn) SetAddrs(remote, local netip.AddrPort) { c.remote, c.local = remote, local }

// SetHandler makes h the one who is told what happens from now on. What the last one left is shown to h after Resume.
func (c *Conn) SetHandler(h Handler) { c.handler = h }

// OnClose has fn called when c is closed, whoever closes it. It is for who must know but has no part in what c carries;
// fn must not touch c but for its addresses. There is one: the next replaces it.
func (c *Conn) OnClose(fn func(*Conn)) { c.onClose = fn }

// Handler returns who is told.
func (c *Conn) Handler() Handler { return c.handler }

// Buffered returns how many bytes wait to be sent.
func (c *Conn) Buffered() int { return c.out.size + c.deferred }

// Full says whether the writer should wait for Drained.
func (c *Conn) Full() bool { return c.Buffered() >= HighWater }

// Unsent returns how many bytes the peer has not acknowledged: those in the kernel too. It asks the kernel, and is
// for deadlines: a peer that reads slowly is not one that is gone.
func (c *Conn) Unsent() int {
	if c.flags&closed != 0 {
		return 0
	}
	n, err := unix.IoctlGetInt(int(c.fd), unix.SIOCOUTQ)
	if err != nil {
		n = 0
	}
	return c.Buffered() + n
}

// IsClosed says whether c is closed, or will be when its output is sent.
func (c *Conn) IsClosed() bool { return c.flags&(closed|closing) != 0 }

// HasEnded says whether the peer has ended its half and nothing of it is left.
func (c *Conn) HasEnded() bool { return c.flags&eofTold != 0 }

// newConn registers fd, which it owns from now on, also if it fails.
func (l *Loop) newConn(fd int, h Handler) (*Conn, error) {
	c := &Conn{loop: l, fd: int32(fd), handler: h}
	e, err := l.own(fd, c, connEvents)
	if err == nil {
		err = l.chores.watch(c, e)
	}
	if err != nil {
		l.forget(fd)
		unix.Close(fd)
		return nil, err
	}
	l.conns.Add(1)
	return c, nil
}

func (c *Conn) ready(events uint32) {
	if events&(unix.EPOLLIN|unix.EPOLLPRI|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		if c.pump != nil && c.flags&paused != 0 {
			c.pump.mute(c)
		}
		c.flags |= readable
		if events&(unix.EPOLLPRI|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
			c.flags |= hangup
		}
	}
	if c.flags&connecting != 0 { // what the peer said first may have come with this event, and no other will tell
		c.connected()
		return
	}
	if events&unix.EPOLLOUT != 0 {
		if c.out.size > 0 {
			c.flush()
		} else if c.feeder != nil {
			c.feeder.Resume()
		}
	}
	if !c.loop.round.read(c) {
		c.work()
	}
}

// work delivers what is held back and reads what has come, as far as the handler and the budget allow.
func (c *Conn) work() {
	for turn := 0; ; turn++ {
		if c.flags&(owed|paused|closed|closing) == owed { // also if this turn has made it so: first what came first
			c.flags &^= owed
			c.redeliver()
		}
		if c.flags&(readable|paused|closed|closing|connecting) != readable {
			break
		}
		if turn == readBudget {
			c.loop.runnable.push(c)
			return
		}
		switch {
		case c.pump != nil:
			c.pump.run(c)
		case c.tls != nil:
			c.tls.read(c)
		default:
			c.read()
		}
	}
	c.tellEnd()
}

// read reads once and delivers what came.
func (c *Conn) read() {
	p := c.space(c.loop.scratch[:])
	if n, ok := c.receive(p); ok {
		c.arrive(p[:n])
	}
}

// space returns where to read to: into the buffer behind what is held back, so that the handler sees both in one
// piece, or, if nothing is, the loop's space p.
func (c *Conn) space(p []byte) []byte {
	if c.in.size == 0 {
		return p
	}
	c.in.last.compact()
	return c.in.last.room() // there is some: see tooMuch
}

// arrive delivers p, which has been read to space.
func (c *Conn) arrive(p []byte) {
	if c.in.size == 0 {
		c.deliver(p)
		return
	}
	c.in.last.end += len(p)
	c.in.size += len(p)
	c.show()
}

// receive reads into p. It returns false if there is nothing to deliver.
func (c *Conn) receive(p []byte) (n int, ok bool) {
	n, errno := recv(int(c.fd), p)
	if n < slotSize {
		c.flags &^= bulky
	}
	return c.received(n, errno, len(p))
}

// received takes note of what a receive of n bytes into room for some has told. It returns false if there is nothing
// to deliver.
func (c *Conn) received(n int, errno syscall.Errno, room int) (int, bool) {
	switch {
	case errno == syscall.EAGAIN:
		c.flags &^= readable
		return 0, false
	case again(errno):
		return 0, false
	case errno != 0:
		c.fail(os.NewSyscallError("read", errno))
		return 0, false
	case n == 0:
		c.flags &^= readable
		c.flags |= eof
		return 0, false
	case n < room && c.flags&hangup == 0:
		c.flags &^= readable // a short read of a stream means that it is empty: epoll(7), question 9
	}
	return n, true
}

// deliver shows p to the handler, while nothing is held back, and holds back what it does not consume.
func (c *Conn) deliver(p []byte) {
	n := c.handler.Data(c, p)
	if n == len(p) || c.flags&closed != 0 {
		return
	}
	c.in.append(p[n:], &c.loop.all.buffers)
	c.tooMuch()
}

// redeliver delivers what is held back.
func (c *Conn) redeliver() {
	if c.tls == nil {
		c.show()
		return
	}
	if !c.tls.done {
		c.tls.takeHeld(c)
		return
	}
	c.show()
	c.tls.drain(c)
}

// show shows the handler what is held back, until it has had all or wants more in one piece than there is.
func (c *Conn) show() {
	pool := &c.loop.all.buffers
	for c.in.size > 0 && c.flags&(paused|owed|closed|closing) == 0 {
		p := c.in.first.bytes()
		n := c.handler.Data(c, p)
		if c.flags&closed != 0 {
			return
		}
		c.in.drop(n, pool)
		if n < len(p) && !c.in.join(pool) {
			c.tooMuch()
			return
		}
	}
}

// tooMuch fails c if the handler is not paused and yet has not consumed a full buffer.
func (c *Conn) tooMuch() {
	if c.in.size >= BufferSize && c.flags&(paused|owed|closing) == 0 {
		c.fail(errFull)
	}
}

// tellEnd tells the handler that the peer's half has ended, once it has had all bytes.
func (c *Conn) tellEnd() {
	if c.tls != nil && !c.tls.done { // the handshake learns it, and there may be bytes behind it
		return
	}
	if c.flags&(eof|eofTold|paused|owed|closed|closing|broken) == eof {
		c.flags |= eofTold
		c.handler.Event(c, Ended)
	}
}

// Pause stops Data, and with it Ended, until Resume.
func (c *Conn) Pause() { c.flags |= paused }

// Resume undoes Pause. What was held back is delivered later in this round.
func (c *Conn) Resume() {
	if c.flags&closed == 0 {
		c.flags = c.flags&^paused | owed
		c.loop.runnable.push(c)
	}
}

// Write sends p, or keeps a copy of what the kernel does not take now. A write error comes to Closed, later.
func (c *Conn) Write(p []byte) {
	if c.flags&(closed|closing|shut) != 0 || len(p) == 0 {
		return
	}
	if c.tls != nil {
		c.tls.write(c, p)
		return
	}
	c.transmit(p)
}

func (c *Conn) transmit(p []byte) {
	if c.out.size == 0 && c.flags&connecting == 0 {
		if c.loop.round.write(c, p) {
			return
		}
		if c.deferred > 0 && len(p) > smallWrite {
			c.loop.round.sendNow(c)
		}
	}
	if c.Buffered() == 0 && c.flags&(connecting|broken) == 0 {
		n, errno := send(int(c.fd), p)
		switch {
		case errno == 0:
			p = p[n:]
		case errno != syscall.EAGAIN && !again(errno):
			c.failLater(os.NewSyscallError("write", errno))
			return
		}
	}
	if len(p) > 0 && c.flags&broken == 0 {
		c.out.append(p, &c.loop.all.buffers)
		c.heed()
		if c.Full() {
			c.flags |= full
		}
	}
}

// flush sends what waits.
func (c *Conn) flush() {
	if c.deferred > 0 { // goes first
		return
	}
	for c.out.size > 0 {
		n, errno := send(int(c.fd), c.out.first.bytes())
		if errno == syscall.EAGAIN {
			c.heed()
			return
		}
		if again(errno) {
			continue
		}
		if errno != 0 {
			c.failLater(os.NewSyscallError("write", errno))
			return
		}
		c.out.drop(n, &c.loop.all.buffers)
	}
	c.sent()
}

// sent does what waited for the output to be sent.
func (c *Conn) sent() {
	switch {
	case c.flags&closing != 0:
		c.release()
	case c.flags&(shut|shutDone) == shut:
		c.shutdown()
	}
	if c.flags&full != 0 && c.flags&closed == 0 {
		c.flags &^= full
		c.handler.Event(c, Drained)
	}
}
