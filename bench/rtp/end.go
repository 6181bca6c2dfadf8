// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/lab"
)

// end is one end of all streams. What it sends it writes to its interface as it is, headers and all, and what comes is counted by a
// sink; a socket, which the streams are for, gets it when the sink is told to let it pass.
type end struct {
	at       netip.AddrPort
	conn     *net.UDPConn
	raw      int // packet(7)
	ethernet [headerEthernet]byte
	sink     *sink
	done     chan struct{}

	mu    sync.Mutex
	heard map[uint32]bool // sources of which a packet came to the socket
}

// openEnd opens an end on a host, at an interface whose other end is the edge's.
func openEnd(h, edge *lab.Host, device, address string) (e *end, err error) {
	e = &end{raw: -1, at: netip.AddrPortFrom(netip.MustParseAddr(address), endPort), heard: make(map[uint32]bool), done: make(chan struct{})}
	defer func() {
		if err != nil {
			close(e.done)
			e.close()
		}
	}()
	var theirs, own netlink.Link
	err = edge.Do(func() (err error) { theirs, err = netlink.LinkByName(device); return err })
	if err != nil {
		return nil, fmt.Errorf("find interface of edge: %w", err)
	}
	err = h.Do(func() (err error) {
		if own, err = netlink.LinkByName(device); err != nil {
			return err
		}
		if e.conn, err = net.ListenUDP(map[bool]string{true: "udp4", false: "udp6"}[e.at.Addr().Is4()], net.UDPAddrFromAddrPort(e.at)); err != nil {
			return err
		}
		if e.raw, err = openRaw(own.Attrs().Index); err != nil {
			return err
		}
		e.sink, err = openSink(own.Attrs().Index)
		return err
	})
	if err != nil {
		return nil, err
	}
	kind := []byte{unix.ETH_P_IPV6 >> 8, unix.ETH_P_IPV6 & 0xff}
	if e.at.Addr().Is4() {
		kind = []byte{unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff}
	}
	copy(e.ethernet[:], append(append(append([]byte(nil), theirs.Attrs().HardwareAddr...), own.Attrs().HardwareAddr...), kind...))
	go e.listen()
	return e, nil
}

// openRaw opens a socket that sends to an interface without a queue, and receives nothing.
func openRaw(index int) (int, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	err = errors.Join(os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1)),
		os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1)),
		os.NewSyscallError("bind", unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: index})))
	return fd, err
}

func (e *end) close() {
	if e.conn != nil {
		e.conn.Close()
	}
	<-e.done
	if e.raw >= 0 {
		unix.Close(e.raw)
	}
	if e.sink != nil {
		e.sink.close()
	}
}

// listen notes whose packets come to the socket.
func (e *end) listen() {
	defer close(e.done)
	p := make([]byte, 2048)
	for {
		n, _, err := e.conn.ReadFromUDPAddrPort(p)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if n == packetSize && p[0] == 2<<6 {
			e.mu.Lock()
			e.heard[uint32(p[8])<<24|uint32(p[9])<<16|uint32(p[10])<<8|uint32(p[11])] = true
			e.mu.Unlock()
		}
	}
}

// hears returns how many sources have been heard, and forgets them if told to.
func (e *end) hears(forget bool) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := len(e.heard)
	if forget {
		clear(e.heard)
	}
	return n
}

// flow is one direction of all streams.
type flow struct {
	from, to *end
	frames   []frame

	count          int64 // packets that were due so far: those that were sent, and those that never will be
	since, until   atomic.Int64
	sent, withheld atomic.Int64 // in the window between these times
}

// newFlow is what from sends to addresses of a relay, and to gets.
func newFlow(from, to *end, relays []netip.AddrPort) *flow {
	f := &flow{from: from, to: to}
	for i, a := range relays {
		f.frames = append(f.frames, newFrame(from.ethernet, from.at, a, uint32(i)+1))
	}
	return f
}

// burst is packets for one sendmmsg(2).
type burst struct {
	packets [batch][frameSize]byte
	check   bool // packets have their checksums
	iovs    [batch]unix.Iovec
	headers [batch]struct {
		header unix.Msghdr
		length uint32
		_      [4]byte
	}
}

func newBurst() *burst {
	b := new(burst)
	for i := range b.headers {
		b.iovs[i].Base = &b.packets[i][0]
		b.headers[i].header.Iov, b.headers[i].header.Iovlen = &b.iovs[i], 1
	}
	return b
}

// send sends the next n packets: one of each stream in turn.
func (f *flow) send(b *burst, n int, now int64) error {
	streams := int64(len(f.frames))
	for i := range n {
		number := f.count + int64(i)
		one := &f.frames[number%streams]
		b.iovs[i].Len = uint64(one.write(b.packets[i][:], number/streams, now))
		if b.check {
			one.check(b.packets[i][:])
		}
	}
	for i := 0; i < n; {
		k, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(f.from.raw), uintptr(unsafe.Pointer(&b.headers[i])), uintptr(n-i), 0, 0, 0)
		switch errno {
		case 0:
		case unix.ENOBUFS: // the interface has taken it and lost it
			k = 1
		case unix.EINTR:
			k = 0
		default:
			return os.NewSyscallError("sendmmsg", errno)
		}
		i += int(k)
	}
	f.counted(&f.sent, n, now)
	return nil
}

// counted adds to a count packets that were due now, if it is in the window.
func (f *flow) counted(count *atomic.Int64, n int, now int64) {
	f.count += int64(n)
	if now >= f.since.Load() && now < f.until.Load() {
		count.Add(int64(n))
	}
}

// pace sends at the pace of the streams until stop is closed: what is due, every millisecond. It goes before all other work of the
// machine, as telephones do which are elsewhere.
func (f *flow) pace(stop <-chan struct{}) error {
	hurry()
	rate := float64(len(f.frames)*packetsPerSecond) / float64(time.Second)
	b, began := newBurst(), monotonic()
	f.count = 0
	for next := began; ; next += int64(tick) {
		select {
		case <-stop:
			return nil
		default:
		}
		sleepUntil(next)
		now := monotonic()
		due := int64(float64(now-began)*rate) - f.count
		if late := due - int64(rate*float64(maxBehind)); late > 0 {
			f.counted(&f.withheld, int(late), now)
			due -= late
		}
		for ; due > 0; due -= batch {
			if err := f.send(b, int(min(due, batch)), monotonic()); err != nil {
				return err
			}
		}
	}
}

// hurry has this thread, which the caller is locked to, go before others, where that is allowed.
func hurry() {
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0)
}

// monotonic is the clock that eBPF has too.
func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // it is always there: clock_gettime(2)
	return t.Nano()
}

// sleepUntil holds on to its processor of Go's, which has others.
func sleepUntil(at int64) {
	t := unix.NsecToTimespec(at)
	_, _, _ = unix.RawSyscall6(unix.SYS_CLOCK_NANOSLEEP, unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, uintptr(unsafe.Pointer(&t)), 0, 0, 0)
}
