// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package load

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
)

const (
	patience = 30 * time.Second // for an answer: the machine may have other work
	atOnce   = 128              // events that are taken at once
	answer   = 16 << 10         // bytes that an answer may have
	ticks    = -1               // stands for the timer where connections have their number
)

// asker is one thread that asks over all connections.
type asker struct {
	plan    Plan
	request []byte
	epoll   int
	timer   int // 0 if there is none
	conns   []conn

	began     time.Time
	due       int // requests that are due, or, without a rate, were made
	latencies []time.Duration
}

// conn is a connection. It has at most one request at once.
type conn struct {
	fd    int
	have  []byte // of the answer
	asked time.Time
	busy  bool
	owed  int // requests that are due on it
	done  int // of them, answered
}

// Ask does a plan over connections that stay. When all are open and have carried a request, it calls ready and begins
// to count.
//
// With a Rate, the requests are due at equal distances, each on the next connection in turn, and the latency of a
// request is counted from when it is due. One that must wait, because its connection still waits for an answer, or
// because this thread is late, is late for its user too: to count from when it is sent would leave out what a slow
// program does to those who come after (the coordinated omission).
//
// Returns ErrWrong, ErrEnded or ErrLate.
func Ask(p Plan, ready func() error) (r Report, err error) {
	a := &asker{plan: p, conns: make([]conn, p.Connections),
		request: fmt.Appendf(nil, "GET / HTTP/1.1\r\nHost: %s\r\n\r\n", p.Host)}
	if a.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return r, fmt.Errorf("make epoll: %w", err)
	}
	defer a.close()
	if err := a.open(); err != nil {
		return r, err
	}
	if err := ready(); err != nil {
		return r, err
	}
	if err := a.begin(); err != nil {
		return r, err
	}
	for {
		if left := p.Time - time.Since(a.began); left <= 0 {
			break
		} else if err := a.wait(left); err != nil {
			return r, err
		}
	}
	if a.plan.Rate > 0 { // what was due while this thread was late is still asked
		if err := a.remind(); err != nil {
			return r, err
		}
	}
	a.plan.Time = 0 // asks no more
	if err := a.finish(); err != nil {
		return r, err
	}
	return report(time.Since(a.began), a.latencies), nil
}

// open connects and asks once over each connection. Who is told to come again does: a program may wait for a disk before it knows
// a client.
func (a *asker) open() error {
	for end := time.Now().Add(patience); ; {
		err := a.openAll()
		if !errors.Is(err, errLater) || time.Now().After(end) {
			return err
		}
		a.closeAll()
	}
}

func (a *asker) openAll() error {
	for i := range a.conns {
		fd, err := connect(a.plan.source(i), a.plan.To)
		if err != nil {
			return fmt.Errorf("connect %d to %v: %w", i+1, a.plan.To, err)
		}
		a.conns[i] = conn{fd: fd, have: make([]byte, 0, answer)}
		event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(i)}
		if err := unix.EpollCtl(a.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
			return fmt.Errorf("watch connection: %w", err)
		}
		if err := a.ask(&a.conns[i], time.Now()); err != nil {
			return err
		}
	}
	return a.finish()
}

// begin asks over all connections, or starts the timer that says when to.
func (a *asker) begin() error {
	a.latencies = make([]time.Duration, 0, 1<<20)
	for i := range a.conns {
		a.conns[i].owed, a.conns[i].done = 0, 0
	}
	a.began = time.Now()
	if a.plan.Rate > 0 {
		return a.tick(time.Duration(float64(time.Second) / a.plan.Rate))
	}
	for i := range a.conns {
		if err := a.ask(&a.conns[i], time.Now()); err != nil {
			return err
		}
	}
	return nil
}

// tick starts the timer. A timer of the kernel is as precise as its clocks; that of epoll_wait counts milliseconds.
func (a *asker) tick(gap time.Duration) (err error) {
	if a.timer, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK); err != nil {
		return fmt.Errorf("make timer: %w", err)
	}
	event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: ticks}
	if err := unix.EpollCtl(a.epoll, unix.EPOLL_CTL_ADD, a.timer, &event); err != nil {
		return fmt.Errorf("watch timer: %w", err)
	}
	every := unix.NsecToTimespec(int64(gap))
	if err := unix.TimerfdSettime(a.timer, 0, &unix.ItimerSpec{Interval: every, Value: every}, nil); err != nil {
		return fmt.Errorf("start timer: %w", err)
	}
	return nil
}

// wait takes what happens within d.
func (a *asker) wait(d time.Duration) error {
	var events [atOnce]unix.EpollEvent
	n, err := unix.EpollWait(a.epoll, events[:], int((d+time.Millisecond-1)/time.Millisecond))
	if err != nil && !errors.Is(err, unix.EINTR) {
		return fmt.Errorf("wait: %w", err)
	}
	for _, e := range events[:max(n, 0)] {
		if e.Fd == ticks {
			err = a.remind()
		} else {
			err = a.read(&a.conns[e.Fd], int(e.Fd))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// at returns when a request is due.
func (a *asker) at(request int) time.Time {
	return a.began.Add(time.Duration(float64(request) / a.plan.Rate * float64(time.Second)))
}

// remind gives the requests that are due to their connections.
func (a *asker) remind() error {
	var missed [8]byte
	if _, err := unix.Read(a.timer, missed[:]); err != nil && !errors.Is(err, unix.EAGAIN) { // makes it tick again
		return fmt.Errorf("read timer: %w", err)
	}
	end := a.began.Add(a.plan.Time)
	for now := time.Now(); a.at(a.due).Before(end) && !a.at(a.due).After(now); a.due++ {
		c := &a.conns[a.due%len(a.conns)]
		if c.owed++; c.busy {
			continue
		}
		if err := a.ask(c, a.at(a.due)); err != nil {
			return err
		}
	}
	return nil
}

// ask sends a request that was due at a time.
func (a *asker) ask(c *conn, due time.Time) error {
	c.busy, c.asked, c.have = true, due, c.have[:0]
	if n, err := unix.Write(c.fd, a.request); err != nil || n < len(a.request) {
		return fmt.Errorf("send request: %d of %d bytes: %w", n, len(a.request), err)
	}
	return nil
}

// read takes a part of an answer to the ith connection, and asks again if a request is due on it.
func (a *asker) read(c *conn, i int) error {
	n, err := unix.Read(c.fd, c.have[len(c.have):cap(c.have)])
	switch {
	case errors.Is(err, unix.EAGAIN):
		return nil
	case err != nil:
		return fmt.Errorf("read answer: %w", err)
	case n == 0:
		return ErrEnded
	}
	c.have = c.have[:len(c.have)+n]
	if whole, err := a.plan.whole(c.have); err != nil || !whole {
		return err
	}
	now := time.Now()
	a.latencies = append(a.latencies, now.Sub(c.asked))
	c.busy = false
	c.done++
	switch {
	case a.plan.Rate == 0 && !a.began.IsZero() && now.Sub(a.began) < a.plan.Time:
		return a.ask(c, now)
	case c.owed > c.done:
		return a.ask(c, a.at(i+c.done*len(a.conns)))
	}
	return nil
}

// finish waits for the answers that are still to come.
func (a *asker) finish() error {
	for end := time.Now().Add(patience); ; {
		busy := 0
		for i := range a.conns {
			if a.conns[i].busy {
				busy++
			}
		}
		if busy == 0 {
			return nil
		}
		left := time.Until(end)
		if left <= 0 {
			return fmt.Errorf("%w: %d of %d connections wait", ErrLate, busy, len(a.conns))
		}
		if err := a.wait(left); err != nil {
			return err
		}
	}
}

func (a *asker) closeAll() {
	for i := range a.conns {
		if c := &a.conns[i]; c.fd > 0 {
			unix.Close(c.fd)
			*c = conn{}
		}
	}
}

func (a *asker) close() {
	a.closeAll()
	if a.timer > 0 {
		unix.Close(a.timer)
	}
	unix.Close(a.epoll)
}

// whole says whether data is a whole answer. Returns ErrWrong if it is none that the plan allows.
func (p Plan) whole(data []byte) (bool, error) {
	const good, later = "HTTP/1.1 200 ", "HTTP/1.1 503 "
	if bytes.HasPrefix(data, []byte(later)) {
		return false, errLater
	}
	if n := min(len(data), len(good)); string(data[:n]) != good[:n] {
		line, _, _ := bytes.Cut(data, []byte("\r\n"))
		return false, fmt.Errorf("%w: %q", ErrWrong, line)
	}
	head, body, found := bytes.Cut(data, []byte("\r\n\r\n"))
	switch n := min(len(body), len(p.Body)); {
	case !found && len(data) < answer:
		return false, nil
	case !found || len(body) > len(p.Body) || string(body[:n]) != p.Body[:n]:
		return false, fmt.Errorf("%w: %d bytes after %q", ErrWrong, len(body), head)
	}
	return len(body) == len(p.Body), nil
}

// connect opens a connection that does not block, from an address of choice if it is valid.
func connect(from netip.Addr, to netip.AddrPort) (fd int, err error) {
	domain := unix.AF_INET6
	if ip.FamilyOf(to.Addr()) == ip.V4 {
		domain = unix.AF_INET
	}
	if fd, err = unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, err
	}
	limit := unix.NsecToTimeval(int64(patience))
	err = errors.Join(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1))
	if err == nil && from.IsValid() {
		// The address belongs to a prefix that is the host's as a whole; the port is chosen when it connects.
		err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1),
			unix.SetsockoptInt(fd, unix.SOL_IPV6, unix.IPV6_FREEBIND, 1),
			unix.Bind(fd, sockaddr(netip.AddrPortFrom(from, 0))))
	}
	if err == nil {
		err = unix.Connect(fd, sockaddr(to))
	}
	if err = errors.Join(err, unix.SetNonblock(fd, true)); err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if ip.FamilyOf(a.Addr()) == ip.V4 {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}
