// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

// Hot path: no allocation per packet.

import (
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/metrics"
)

const (
	// maxPacketFlows bounds the flows of one socket: each has a descriptor.
	maxPacketFlows = 65536

	// maxUnproven bounds those of them whose server has not answered, so that a flood from forged addresses displaces
	// itself and no flow that lives.
	maxUnproven = 4096

	// maxParked bounds the packets that wait while a flow is opened.
	maxParked = 8
)

// Packets carries the packets of a UDP socket. Those that come from one address to one of ours form a flow, which has
// a connected socket of its own to its server. The flows belong to the socket: a reload changes only where new ones
// go.
//
//	client ─▶ socket ─recvmmsg─▶ flow by (client, dialled) ─send─▶ server
//	client ◀─ socket ◀─sendmmsg── all flows of a round ◀─recvmmsg── server
type Packets struct {
	loop     *Loop
	fd       int
	wildcard bool
	local    netip.AddrPort
	flows    map[flowKey]*PacketFlow
	unproven flowList
	open     atomic.Pointer[func(*PacketFlow)]
	out      *packetBatch // answers that leave at the end of the round
	refused  atomic.Int64
}

type flowKey struct{ client, dialled netip.AddrPort }

// PacketFlow is one client's packets to one server. Its methods are called on its loop.
type PacketFlow struct {
	Client  netip.AddrPort
	Dialled netip.AddrPort // our address that the client sends to

	socket     *Packets
	fd         int // -1 until Connect
	idle       time.Duration
	active     int64
	timer      Timer
	parked     [][]byte
	counts     metrics.Counts
	inherited  int  // one more than the descriptor that another process has handed over
	proven     bool // the client has sent after an answer: its address is not forged
	prove      func()
	done       func(metrics.Counts, metrics.Reason)
	ended      bool
	next, prev *PacketFlow // among the unproven
}

// OpenPackets carries the packets that come to the non-blocking UDP socket fd, on one of the loops. open is called
// for the first packet of each flow and must call Connect or Refuse, now or later. The caller keeps fd open until
// Close has returned. It must not be called on a loop.
func (ls *Loops) OpenPackets(fd int, open func(*PacketFlow)) (*Packets, error) {
	return ls.ResumePackets(fd, nil, open)
}

func (ls *Loops) newPackets(fd int, open func(*PacketFlow)) *Packets {
	p := &Packets{fd: fd, local: LocalAddr(fd), flows: make(map[flowKey]*PacketFlow)}
	p.wildcard = p.local.Addr().IsUnspecified()
	p.loop = ls.loops[fd%len(ls.loops)]
	p.Redirect(open)
	return p
}

// Redirect changes where new flows go. It may be called from anywhere.
func (p *Packets) Redirect(open func(*PacketFlow)) { p.open.Store(&open) }

// Refused returns how many packets were dropped because a flow could not be had for them.
func (p *Packets) Refused() int64 { return p.refused.Load() }

// Len returns the number of flows. It must not be called on a loop.
func (p *Packets) Len() (n int) {
	p.loop.do(func() { n = len(p.flows) })
	return n
}

// Each calls fn for every flow that has a server, on the loop. It must not be called on a loop.
func (p *Packets) Each(fn func(f *PacketFlow)) {
	p.loop.do(func() {
		for _, f := range p.flows {
			if f.fd >= 0 {
				fn(f)
			}
		}
	})
}

// Close cuts the flows, counts them as ended by r, and stops. It must not be called on a loop.
func (p *Packets) Close(r metrics.Reason) {
	p.loop.do(func() {
		if p.out != nil {
			p.flush() // not at the end of the round: the descriptor may be someone else's by then
		}
		for _, f := range p.flows {
			f.end(r)
		}
		unix.EpollCtl(p.loop.epfd, unix.EPOLL_CTL_DEL, p.fd, nil) // fails only if the socket is not there
		p.loop.forget(p.fd)
	})
}

// ready reads what has come in one batch; what is left brings another event.
func (p *Packets) ready(uint32) {
	b := p.loop.packets()
	n, errno := b.receive(p.fd, p.wildcard)
	if errno != 0 {
		return // EAGAIN, or an ICMP error of an answer, which is nobody's here
	}
	for i := range n {
		client, dialled := b.from(i), p.local
		if p.wildcard {
			dialled = netip.AddrPortFrom(b.dialled(i), p.local.Port())
		}
		p.carry(flowKey{client, dialled}, b.payload(i))
	}
}

// carry sends a client's packet on.
func (p *Packets) carry(k flowKey, payload []byte) {
	f := p.flows[k]
	if f == nil {
		if len(p.flows) >= maxPacketFlows {
			p.refused.Add(1)
			return
		}
		f = p.begin(k)
		f.parked = append(f.parked, append([]byte(nil), payload...))
		(*p.open.Load())(f)
		return
	}
	f.active = p.loop.now
	if f.fd < 0 {
		if len(f.parked) < maxParked {
			f.parked = append(f.parked, append([]byte(nil), payload...))
		}
		return
	}
	if !f.proven && f.counts.ToClient > 0 {
		f.proven = true
		p.unproven.remove(f)
		if f.prove != nil {
			f.prove()
		}
	}
	f.send(payload)
}

// begin makes a flow. If too many are unproven, the oldest of them gives way.
func (p *Packets) begin(k flowKey) *PacketFlow {
	if p.unproven.size >= maxUnproven {
		p.refused.Add(1)
		p.unproven.first.end(metrics.Full)
	}
	f := &PacketFlow{Client: k.client, Dialled: k.dialled, socket: p, fd: -1, active: p.loop.now}
	p.flows[k] = f
	p.unproven.push(f)
	return f
}

// Loop returns the loop that f lives on.
func (f *PacketFlow) Loop() *Loop { return f.socket.loop }

// Counts returns the payload bytes carried so far.
func (f *PacketFlow) Counts() metrics.Counts { return f.counts }

// Cut ends f now.
func (f *PacketFlow) Cut(r metrics.Reason) { f.end(r) }

// Ended says whether f is over: nobody waits for Connect any more.
func (f *PacketFlow) Ended() bool { return f.ended }

// ConnectOptions say how a flow goes on once it has a server.
type ConnectOptions struct {
	Idle  time.Duration                        // ends when neither side has sent for as long
	Prove func()                               // called once, when the client has sent after an answer; may be nil
	Done  func(metrics.Counts, metrics.Reason) // called when the flow ends
}

// Connect gives f a socket to its server, made by Socket, which f owns from now on, also on error. Done is called only
// if there was no error.
func (f *PacketFlow) Connect(fd int, server netip.AddrPort, o ConnectOptions) error {
	errno := connect(fd, server)
	if errno != 0 {
		unix.Close(fd)
		return os.NewSyscallError("connect", errno)
	}
	if err := f.socket.loop.watch(fd, f, unix.EPOLLIN); err != nil {
		unix.Close(fd)
		return err
	}
	f.fd, f.idle, f.prove, f.done = fd, o.Idle, o.Prove, o.Done
	f.timer.Func = f.expire
	f.socket.loop.SetTimer(&f.timer, f.idle)
	for _, payload := range f.parked {
		f.send(payload)
	}
	f.parked = nil
	return nil
}

// Refuse drops f and what waits in it. The client's next packet begins anew.
func (f *PacketFlow) Refuse() {
	f.socket.refused.Add(int64(len(f.parked)))
	f.end(metrics.Fine)
}

// send gives one packet to the server.
func (f *PacketFlow) send(payload []byte) {
	if f.ended {
		return
	}
	switch _, errno := send(f.fd, payload); errno {
	case 0:
		f.counts.ToServer += uint64(len(payload))
	case syscall.ECONNREFUSED: // an ICMP error of an earlier packet
		f.end(metrics.ConnectFailed)
	}
}

// ready reads the server's answers. They leave with those of other flows at the end of the round.
func (f *PacketFlow) ready(uint32) {
	p := f.socket
	for range 8 {
		out := p.answers()
		n, errno := recv(f.fd, out.room())
		if errno == syscall.ECONNREFUSED {
			f.end(metrics.ConnectFailed)
			return
		}
		if errno != 0 {
			return
		}
		f.active = p.loop.now
		f.counts.ToClient += uint64(n)
		out.add(n, f.Client, f.Dialled.Addr())
	}
}

// answers returns the batch that the next answer goes into.
func (p *Packets) answers() *packetBatch {
	if p.out == nil {
		p.out = newPacketBatch()
	}
	if p.out.n == 0 {
		p.loop.atEnd(p)
	}
	if p.out.n == packetBatchSize {
		p.out.send(p.fd, p.wildcard, p.loop.round.ring)
	}
	return p.out
}

// flush sends the answers of this round.
func (p *Packets) flush() { p.out.send(p.fd, p.wildcard, p.loop.round.ring) }

func (f *PacketFlow) expire() {
	loop := f.socket.loop
	if rest := f.idle - time.Duration(loop.now-f.active); rest > 0 {
		loop.SetTimer(&f.timer, rest)
		return
	}
	f.end(metrics.Fine)
}

// end forgets f and closes its socket.
func (f *PacketFlow) end(r metrics.Reason) {
	if f.ended {
		return
	}
	f.ended = true
	p := f.socket
	delete(p.flows, flowKey{f.Client, f.Dialled})
	if !f.proven {
		p.unproven.remove(f)
	}
	p.loop.StopTimer(&f.timer)
	if f.fd >= 0 {
		p.loop.forget(f.fd)
		unix.Close(f.fd)
	}
	if f.done != nil {
		f.done(f.counts, r)
	}
}

// flowList is flows in the order in which they came.
type flowList struct {
	first, last *PacketFlow
	size        int
}

func (l *flowList) push(f *PacketFlow) {
	f.prev = l.last
	if l.last == nil {
		l.first = f
	} else {
		l.last.next = f
	}
	l.last = f
	l.size++
}

func (l *flowList) remove(f *PacketFlow) {
	if f.prev == nil {
		l.first = f.next
	} else {
		f.prev.next = f.next
	}
	if f.next == nil {
		l.last = f.prev
	} else {
		f.next.prev = f.prev
	}
	f.next, f.prev = nil, nil
	l.size--
}
