// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

// Hot path: no allocation per packet.

import (
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Datagrams is a UDP socket whose packets form no flows: it talks to the world, and who says something is told by what
// he says rather than by his address. Packets are read on one loop and sent from any, in batches.
//
//	anyone ─▶ socket ─recvmmsg─▶ receive
//	anyone ◀─ socket ◀─sendmmsg── Send, all of a loop's round
type Datagrams struct {
	loop     *Loop
	fd       int
	wildcard bool
	local    netip.AddrPort
	receive  atomic.Pointer[func(Datagram)]
	out      []datagramsOut // by loop
	pace     pace
}

// Datagram is one packet.
type Datagram struct {
	From    netip.AddrPort
	To      netip.AddrPort
	Payload []byte // of who receives it, until he returns
}

// datagramsOut is what leaves the socket at the end of a loop's round.
type datagramsOut struct {
	socket *Datagrams
	loop   *Loop
	batch  *packetBatch
	closed bool
}

// receiveBuffer is how many bytes may wait in the socket: a second of a large network's messages. The kernel's default is full
// after some hundred, when all telephones come back at once after a failure of their power.
const receiveBuffer = 8 << 20

// widen asks for the room that receiveBuffer says, or for as much as the machine's limit allows whoever may not go beyond it:
// socket(7), SO_RCVBUFFORCE.
func widen(fd int) {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, receiveBuffer) != nil {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, receiveBuffer) // less is no reason not to serve
	}
}

// OpenDatagrams reads the packets that come to the non-blocking UDP socket fd, on one of the loops, and gives them to who
// open says. The caller keeps fd open until Close has returned. It must not be called on a loop.
func (ls *Loops) OpenDatagrams(fd int, open func(*Datagrams) (receive func(Datagram))) (*Datagrams, error) {
	d := &Datagrams{loop: ls.loops[fd%len(ls.loops)], fd: fd, local: LocalAddr(fd), out: make([]datagramsOut, len(ls.loops))}
	d.wildcard = d.local.Addr().IsUnspecified()
	widen(fd)
	for i := range d.out {
		d.out[i].socket, d.out[i].loop = d, ls.loops[i]
	}
	d.Redirect(open(d))
	if err := d.Resume(); err != nil {
		return nil, err
	}
	return d, nil
}

// Redirect changes who receives. It may be called from anywhere.
func (d *Datagrams) Redirect(receive func(Datagram)) { d.receive.Store(&receive) }

// Loop returns the loop that packets are received on.
func (d *Datagrams) Loop() *Loop { return d.loop }

// Local returns the address of the socket; its address part may be unspecified.
func (d *Datagrams) Local() netip.AddrPort { return d.local }

// Pause stops reading: what comes waits in the socket. It must not be called on a loop.
func (d *Datagrams) Pause() {
	d.loop.do(func() {
		d.loop.unpace(d)
		unix.EpollCtl(d.loop.epfd, unix.EPOLL_CTL_DEL, d.fd, nil) // fails only if the socket is not there
		d.loop.forget(d.fd)
	})
}

// Resume undoes Pause.
func (d *Datagrams) Resume() (err error) {
	err = ErrStopped
	d.loop.do(func() { err = d.loop.watch(d.fd, d, unix.EPOLLIN) })
	return err
}

// Close sends what waits, and stops. What is sent later is lost. It must not be called on a loop.
func (d *Datagrams) Close() {
	d.Pause()
	for i, l := range d.loop.all.loops {
		l.do(func() {
			d.out[i].flush() // not at the end of the round: the descriptor may be someone else's by then
			d.out[i].closed = true
		})
	}
}

// ready reads what has come in one batch; what is left brings another event.
func (d *Datagrams) ready(uint32) { d.read() }

func (d *Datagrams) read() {
	b := d.loop.packets()
	n, errno := b.receive(d.fd, d.wildcard)
	if errno != 0 { // EAGAIN, or an ICMP error, which names nobody here
		d.counted(0)
		return
	}
	d.counted(n)
	receive := *d.receive.Load()
	for i := range n {
		to := d.local
		if d.wildcard {
			to = netip.AddrPortFrom(b.dialled(i), d.local.Port())
		}
		receive(Datagram{From: b.from(i), To: to, Payload: b.payload(i)})
	}
}

// Send sends a copy of p's payload from p.From, which matters where the socket has several addresses, to p.To, which must
// be of its family. It leaves at the end of the round of l, which is the caller's loop. It may be lost, as packets are;
// what is longer than a packet can be is.
func (d *Datagrams) Send(l *Loop, p Datagram) {
	out := &d.out[l.id]
	if out.closed || len(p.Payload) > maxPacket {
		return
	}
	if out.batch == nil {
		out.batch = newPacketBatch()
	}
	if out.batch.n == 0 {
		l.atEnd(out)
	}
	if out.batch.n == packetBatchSize {
		out.flush()
	}
	out.batch.add(copy(out.batch.room(), p.Payload), p.To, p.From.Addr())
}

// flush sends the packets of this round.
func (o *datagramsOut) flush() {
	if o.batch != nil && o.batch.n > 0 {
		o.batch.send(o.socket.fd, o.socket.wildcard, o.loop.round.ring)
	}
}
