// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

// Hot path: no allocation per packet.

import (
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	batchReads = 32        // receives in one submission
	slotSize   = 16 << 10  // bytes of one: a stream in bulk, which has more, is read in larger pieces
	smallWrite = 16 << 10  // a larger one is cheaper sent at once than copied
	arenaSize  = 256 << 10 // bytes that wait for the end of the round
)

// round is what a loop puts off so as to do it in one go: the receives of the sockets that have become readable, and
// the small writes of all that happens in the round. To enter the kernel costs about as much as what a small receive
// or send does there; under virtualisation, more. The two of a request to a proxy are four, and here a part of one.
//
// Without io_uring receives are not put off. Writes are all the same, so that those to one connection leave together.
type round struct {
	ring   *ring // nil if the kernel allows none
	reads  []*Conn
	slots  [][slotSize]byte
	sends  []deferred
	others []deferred // the other of the two lists that sends alternates between
	arena  []byte
}

// deferred is bytes in the arena that wait for the end of the round.
type deferred struct {
	conn     *Conn
	from, to int
}

func (r *round) init() {
	if r.ring != nil {
		r.reads = make([]*Conn, 0, batchReads)
		r.slots = make([][slotSize]byte, batchReads)
	}
	r.sends, r.others = make([]deferred, 0, ringEntries), make([]deferred, 0, ringEntries)
	r.arena = make([]byte, 0, arenaSize)
}

func (r *round) close() {
	if r.ring != nil {
		r.ring.close()
	}
}

// read puts off c's turn until receive, if all that is to be done then is to receive.
func (r *round) read(c *Conn) bool {
	const plainly = readable | paused | owed | closed | closing | connecting | bulky
	if r.ring == nil || c.flags&plainly != readable || c.in.size > 0 || c.pump != nil || c.tls != nil && !c.tls.done {
		return false
	}
	if len(r.reads) == batchReads {
		r.receive()
	}
	r.reads = append(r.reads, c)
	return true
}

// receive gives each of the connections whose turn was put off its turn.
func (r *round) receive() {
	switch len(r.reads) {
	case 0:
		return
	case 1: // alone, the plain call is cheaper
		r.reads[0].work()
		r.reads = r.reads[:0]
		return
	}
	for i, c := range r.reads {
		if c.flags&closed != 0 { // since its turn was put off: the descriptor may be another's by now
			r.reads[i] = nil
			continue
		}
		r.ring.add(opReceive, c.fd, r.slots[i][:], 0)
	}
	results := r.ring.submit()
	for i, c := range r.reads {
		if c == nil {
			continue
		}
		n := results[0]
		results = results[1:]
		if c.flags&closed == 0 {
			c.took(r.slots[i][:], int(n))
		}
	}
	clear(r.reads)
	r.reads = r.reads[:0]
}

// took goes on with c's turn after n bytes have been received into p, or, if n is below 0, an error. What others did
// in their turns before may have paused c.
func (c *Conn) took(p []byte, n int) {
	if n == len(p) {
		c.flags |= bulky
	}
	n, ok := c.received(max(n, 0), syscall.Errno(max(-n, 0)), len(p))
	switch {
	case !ok:
	case c.tls != nil:
		c.tls.feed(c, p[:n])
	case c.flags&(paused|owed) != 0:
		c.in.append(p[:n], &c.loop.all.buffers)
	default:
		c.deliver(p[:n])
	}
	c.work()
}

// write puts off the sending of p until send. It returns false if the caller must send it.
func (r *round) write(c *Conn, p []byte) bool {
	if len(p) > smallWrite || c.deferred+len(p) > BufferSize || len(r.arena)+len(p) > cap(r.arena) {
		return false
	}
	from := len(r.arena)
	switch last := len(r.sends) - 1; {
	case c.deferred > 0 && r.sends[last].conn == c:
		r.sends[last].to += len(p)
	case c.deferred > 0 || len(r.sends) == cap(r.sends):
		return false
	default:
		r.sends = append(r.sends, deferred{c, from, from + len(p)})
	}
	r.arena = append(r.arena, p...)
	c.deferred += len(p)
	return true
}

// send sends what was put off. What comes of it, as that a connection is no longer full, is told when all is sent,
// because it may make others write.
func (r *round) send() {
	if len(r.sends) == 0 {
		return
	}
	sends := slices.DeleteFunc(r.sends, func(s deferred) bool { return s.conn == nil || s.conn.flags&(closed|broken) != 0 })
	if r.ring != nil {
		for _, s := range sends {
			r.ring.add(opSend, s.conn.fd, r.arena[s.from:s.to], s.conn.more())
		}
		for i, result := range r.ring.submit() {
			s := &sends[i]
			s.conn.sentLater(r.arena[s.from:s.to], int(result))
		}
	} else {
		for _, s := range sends {
			s.conn.sendDeferred(r.arena[s.from:s.to])
		}
	}
	r.sends, r.others = r.others[:0], r.sends
	r.arena = r.arena[:0]
	for _, s := range sends {
		s.conn.settle()
	}
	clear(r.others)
}

// sendNow sends what was put off of c's, because more is to follow at once.
func (r *round) sendNow(c *Conn) {
	for i := range r.sends {
		if s := &r.sends[i]; s.conn == c {
			c.sendDeferred(r.arena[s.from:s.to])
			s.conn = nil
			return
		}
	}
}

// more is MSG_MORE if what was put off is the last that c sends: the end of our half follows in this round, and then goes
// in one packet with it.
func (c *Conn) more() uint32 {
	if c.flags&(closing|shut) != 0 && c.out.size == 0 {
		return unix.MSG_MORE
	}
	return 0
}

func (c *Conn) sendDeferred(p []byte) {
	n, errno := send(int(c.fd), p)
	if errno != 0 {
		n = -int(errno)
	}
	c.sentLater(p, n)
}

// sentLater learns that of p, which was put off, n bytes have been sent, or, if n is below 0, an error.
func (c *Conn) sentLater(p []byte, n int) {
	c.deferred = 0
	if errno := syscall.Errno(max(-n, 0)); errno != 0 && errno != syscall.EAGAIN && !again(errno) {
		c.failLater(os.NewSyscallError("write", errno))
		return
	}
	if p = p[max(n, 0):]; len(p) > 0 {
		c.out.prepend(p, &c.loop.all.buffers)
	}
}

// settle does what waited for the sends of the round.
func (c *Conn) settle() {
	if c.flags&(closed|broken) == 0 {
		c.flush()
	}
}
