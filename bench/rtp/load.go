// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/binary"
	"errors"
	"math/bits"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/bench"
	"github.com/kyozon/kyozon/lab"
)

const (
	packetsPerSecond = 50
	packetSize       = 172 // RTP with 160 bytes of speech
	tick             = time.Millisecond
	batch            = 64
	maxBehind        = 100 * time.Millisecond // what is later than this is not sent: the machine can do no more
)

// end is one end of all streams: a socket that sends for all of them and counts what comes.
type end struct {
	conn *net.UDPConn
	at   netip.AddrPort
	done chan struct{}

	received atomic.Int64
	delays   [512]atomic.Int64 // how many packets took how long; see slotOf
}

// openEnd opens a socket on a host and begins to count.
func openEnd(h *lab.Host, address string) (*end, error) {
	e := &end{done: make(chan struct{})}
	at := netip.AddrPortFrom(netip.MustParseAddr(address), 4000)
	err := h.Do(func() (err error) {
		e.conn, err = net.ListenUDP(map[bool]string{true: "udp4", false: "udp6"}[at.Addr().Is4()], net.UDPAddrFromAddrPort(at))
		return err
	})
	if err != nil {
		return nil, err
	}
	e.at = at
	raw, err := e.conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20) })
	go e.receive()
	return e, nil
}

func (e *end) close() {
	e.conn.Close()
	<-e.done
}

// receive counts what comes, and how long it was on its way.
func (e *end) receive() {
	defer close(e.done)
	c := ipv6.NewPacketConn(e.conn) // for both families: only the calls are used
	messages := make([]ipv6.Message, batch)
	for i := range messages {
		messages[i].Buffers = [][]byte{make([]byte, 2048)}
	}
	for {
		n, err := c.ReadBatch(messages, 0)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		now := time.Now().UnixNano()
		for i := range n {
			if p := messages[i].Buffers[0]; messages[i].N == packetSize {
				e.delays[slotOf(now-int64(binary.BigEndian.Uint64(p[12:])))].Add(1)
				e.received.Add(1)
			}
		}
	}
}

// slotOf returns where a delay is counted: eight slots for each power of two.
func slotOf(d int64) int {
	v := uint64(max(d, 8))
	shift := bits.Len64(v) - 4
	return min(shift*8+int(v>>shift)-8, 511)
}

// delayOf is the reverse of slotOf.
func delayOf(slot int) time.Duration { return time.Duration(uint64(slot%8+8) << (slot / 8)) }

// flow is one direction of all streams.
type flow struct {
	from *end
	to   []net.Addr
	sent atomic.Int64
}

// send sends at the pace of the streams until ctx is done: what is due, every millisecond.
func (f *flow) send(ctx context.Context) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	c := ipv6.NewPacketConn(f.from.conn)
	messages := make([]ipv6.Message, batch)
	for i := range messages {
		p := make([]byte, packetSize)
		p[0] = 0x80
		messages[i].Buffers = [][]byte{p}
	}
	rate := float64(len(f.to) * packetsPerSecond)
	began, t := time.Now(), time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		due := int64(time.Since(began).Seconds()*rate) - f.sent.Load()
		if late := time.Duration(float64(due)/rate*float64(time.Second)) - maxBehind; late > 0 {
			began = began.Add(late) // never to be made up
			due = int64(maxBehind.Seconds() * rate)
		}
		for due > 0 && ctx.Err() == nil {
			n := f.fill(messages[:min(due, batch)])
			for sent := 0; sent < n; {
				k, err := c.WriteBatch(messages[sent:n], 0)
				if err != nil && !errors.Is(err, unix.ECONNREFUSED) {
					return
				}
				sent += max(k, 1)
			}
			f.sent.Add(int64(n))
			due -= int64(n)
		}
	}
}

// fill makes the next packets: one of each stream in turn.
func (f *flow) fill(messages []ipv6.Message) int {
	now, first := time.Now().UnixNano(), f.sent.Load()
	for i := range messages {
		number, of := (first+int64(i))/int64(len(f.to)), (first+int64(i))%int64(len(f.to))
		p := messages[i].Buffers[0]
		binary.BigEndian.PutUint16(p[2:], uint16(number))
		binary.BigEndian.PutUint32(p[4:], uint32(number)*160)
		binary.BigEndian.PutUint32(p[8:], uint32(of)+1)
		binary.BigEndian.PutUint64(p[12:], uint64(now))
		messages[i].Addr = f.to[of]
	}
	return len(messages)
}

// result is what came of a load.
type result struct {
	due            int64 // what should have been sent
	sent, received int64
	cpu            time.Duration // of the whole machine
	process        time.Duration // of the relay
	p50, p99       time.Duration
	lanes          uint64 // that the kernel plane had at the end
}

// loss returns which part has not arrived; or was not sent, because the machine had no time for it.
func (r result) loss() float64 {
	lost, unsent := 1-float64(r.received)/float64(max(r.sent, 1)), 1-float64(r.sent)/float64(r.due)
	if unsent > maxUnsent {
		return max(lost, unsent)
	}
	return lost
}

// maxUnsent is how much may be sent later than the end of a measurement.
const maxUnsent = 0.02

var errNothing = errors.New("no packet has arrived")

// exert sends both ways for a while, and measures after the streams have settled. program is nil if nothing relays.
func exert(ctx context.Context, flows [2]*flow, program bench.Program, settle, d time.Duration) (r result, err error) {
	running, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for _, f := range flows {
		f.sent.Store(0)
		wg.Go(func() { f.send(running) })
	}
	if err := bench.Wait(ctx, settle); err != nil {
		return r, err
	}
	used, err := bench.Busy()
	if err != nil {
		return r, err
	}
	cpu := func() time.Duration {
		if program == nil {
			return 0
		}
		t, failed := program.CPU()
		err = errors.Join(err, failed)
		return t
	}
	before, own := count(flows), cpu()
	for _, f := range flows {
		for i := range f.from.delays {
			f.from.delays[i].Store(0)
		}
	}
	if err := bench.Wait(ctx, d); err != nil {
		return r, err
	}
	after := count(flows)
	r.process = cpu() - own
	busy, failed := used()
	r.cpu = busy
	r.due = int64(float64((len(flows[0].to)+len(flows[1].to))*packetsPerSecond) * d.Seconds())
	r.sent, r.received = after.sent-before.sent, after.received-before.received
	r.p50, r.p99 = quantile(flows, 0.5), quantile(flows, 0.99)
	if r.received == 0 {
		err = errors.Join(err, errNothing)
	}
	return r, errors.Join(err, failed)
}

func count(flows [2]*flow) (r result) {
	for _, f := range flows {
		r.sent += f.sent.Load()
		r.received += f.from.received.Load()
	}
	return r
}

// quantile returns how long a part of the packets took at most.
func quantile(flows [2]*flow, part float64) time.Duration {
	var all [512]int64
	total := int64(0)
	for i := range all {
		for _, f := range flows {
			all[i] += f.from.delays[i].Load()
		}
		total += all[i]
	}
	seen := int64(0)
	for i, n := range all {
		if seen += n; float64(seen) >= part*float64(total) {
			return delayOf(i)
		}
	}
	return 0
}
