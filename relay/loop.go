// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

// Hot path: no allocation per packet.

import (
	"context"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/metrics"
)

// watcher is something whose descriptor a loop waits for.
type watcher interface {
	// ready is called with the epoll events that have come.
	ready(events uint32)
}

// flusher has put off what it sends.
type flusher interface{ flush() }

// Loops are the event loops of the process.
type Loops struct {
	loops      []*Loop
	buffers    buffers
	pipes      pipes
	handshakes handshakes
	unbatched  error         // why the loops make their calls one by one
	ended      chan struct{} // closed when Run is over: what is posted from then on nobody does
	glance     int           // milliseconds that a loop waits without giving back its processor; set by Run
}

// Loop is one event loop. Its methods are called on the loop itself, but for Post and Loops.
type Loop struct {
	all      *Loops
	id       int
	epfd     int
	wake     int       // eventfd that ends a wait
	slots    []slot    // by descriptor
	runnable readyList // connections with work left over from the last round
	wheel    wheel
	now      int64 // nanoseconds since start, taken once a round
	start    time.Time
	conns    atomic.Int64
	stopped  bool // takes nothing new
	idle     bool // nothing has come since it has glanced
	load     load

	events  [256]unix.EpollEvent
	scratch [128 << 10]byte // what a socket is read into
	plain   [64 << 10]byte  // what TLS records are decrypted into
	cipher  []byte          // what they are encrypted into

	round   round  // what is put off to be done in one go
	chores  chores // and what connections leave that come or go
	callers [maxCallers]caller
	batch   *packetBatch // what UDP sockets are read into
	paced   []*Datagrams // are busy: they are looked at by the clock
	ending  []flusher    // have something to send at the end of the round

	asleep atomic.Bool
	mu     sync.Mutex
	posted []func()
	spare  []func() // the other of the two lists that posted alternates between
}

// slot finds who a descriptor belongs to. The count tells a socket from an earlier one with the same descriptor, whose
// events may still be in the batch.
type slot struct {
	owner watcher
	count uint32
}

// Open makes n loops. Close them when Run has returned.
func Open(n int) (*Loops, error) { return open(n, openRing) }

// open is Open with another way to get a ring.
func open(n int, ring func() (*ring, error)) (*Loops, error) {
	ls := &Loops{ended: make(chan struct{})}
	ls.handshakes.init(n)
	start := time.Now()
	for i := range n {
		l := &Loop{all: ls, id: i, start: start, epfd: -1, wake: -1}
		ls.loops = append(ls.loops, l)
		if err := l.open(ring); err != nil {
			ls.Close()
			return nil, err
		}
	}
	return ls, nil
}

func (l *Loop) open(ring func() (*ring, error)) (err error) {
	l.tell()
	l.wheel.init(l.now)
	if l.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	if l.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	if l.round.ring, err = ring(); err != nil {
		l.all.unbatched = err
	}
	l.round.init()
	l.chores.init(l.round.ring)
	return l.watch(l.wake, (*waker)(l), unix.EPOLLIN|unix.EPOLLET)
}

// Close releases the loops' descriptors.
func (ls *Loops) Close() {
	for _, l := range ls.loops {
		l.chores.do(l)
		if l.epfd >= 0 {
			unix.Close(l.epfd)
		}
		if l.wake >= 0 {
			unix.Close(l.wake)
		}
		l.round.close()
	}
	ls.pipes.close()
}

// Run runs the loops until ctx is done. Connections that are still open are cut. What is posted meanwhile is run, but
// finds that nothing can be opened any more: ErrStopped.
func (ls *Loops) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer close(ls.ended)
	if runtime.GOMAXPROCS(0) > len(ls.loops) { // else the loops would wait with what other goroutines need
		ls.glance = glance
	}
	for _, l := range ls.loops {
		wg.Go(l.run)
	}
	<-ctx.Done()
	for _, l := range ls.loops {
		l.Post(l.stop)
	}
	wg.Wait()
	ls.handshakes.wait()
	for _, l := range ls.loops { // what others posted when it had ended
		l.runPosted()
	}
}

// Unbatched says why the loops make the calls of a round one by one, which costs more; nil if they do not.
func (ls *Loops) Unbatched() error { return ls.unbatched }

// Len returns the number of loops.
func (ls *Loops) Len() int { return len(ls.loops) }

// At returns the loop whose ID is i.
func (ls *Loops) At(i int) *Loop { return ls.loops[i] }

// Do calls fn on every loop and returns when all have, or when Run is over, which may be before. It must not be called
// on a loop.
func (ls *Loops) Do(fn func(l *Loop)) {
	done := make(chan struct{}, len(ls.loops))
	for _, l := range ls.loops {
		l.Post(func() {
			fn(l)
			done <- struct{}{}
		})
	}
	for range ls.loops {
		select {
		case <-done:
		case <-ls.ended:
			return
		}
	}
}

// ID returns the place of l among the loops, from 0.
func (l *Loop) ID() int { return l.id }

// Now returns the loop's clock in nanoseconds: it stands still while the loop works through a batch.
func (l *Loop) Now() int64 { return l.now }

// tell looks at the clock.
func (l *Loop) tell() { l.now = int64(time.Since(l.start)) + 1 }

// SetTimer makes t due after d.
func (l *Loop) SetTimer(t *Timer, d time.Duration) { l.wheel.set(t, l.now+int64(d)) }

// StopTimer makes t never due.
func (l *Loop) StopTimer(t *Timer) { l.wheel.stop(t) }

// Post has fn called on the loop, soon. It may be called from anywhere and does not block.
func (l *Loop) Post(fn func()) {
	l.mu.Lock()
	l.posted = append(l.posted, fn)
	l.mu.Unlock()
	if l.asleep.Load() {
		l.rouse()
	}
}

// do has fn called on the loop and waits for it, unless the loop has ended. It must not be called on a loop.
func (l *Loop) do(fn func()) {
	done := make(chan struct{})
	l.Post(func() {
		fn()
		close(done)
	})
	select {
	case <-done:
	case <-l.all.ended:
	}
}

func (l *Loop) rouse() {
	one := [8]byte{1}
	unix.Write(l.wake, one[:]) // fails only if the counter is full, and then the loop wakes anyway
}

// waker reads the eventfd so that it can fire again.
type waker Loop

func (w *waker) ready(uint32) {
	var b [8]byte
	unix.Read(w.wake, b[:])
}

// run is the loop. It ends when stop has been posted.
//
// It stays on one thread. Every 10 ms Go's monitor takes the processor from it and wakes up another thread, which would
// often go on with the loop, on another core.
func (l *Loop) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for !l.stopped {
		n := l.wait()
		l.tell()
		for i := range l.events[:n] {
			e := &l.events[i]
			if s := l.slot(int(e.Fd)); s != nil && s.count == uint32(e.Pad) && s.owner != nil {
				s.owner.ready(e.Events)
			}
		}
		l.lookAround()
		l.round.receive()
		l.runPosted()
		l.runnable.run()
		l.wheel.advance(l.now)
		l.round.send()
		for _, p := range l.ending {
			p.flush()
		}
		l.ending = l.ending[:0]
		l.chores.do(l)
	}
}

// glance is how many milliseconds a loop waits with its processor in hand. It is longer than a tick of the kernel's
// clock, 4 ms mostly: a timer that would be due first has to be set in the hardware, and again when the wait has ended
// early. tcp-bulk-1 costs a quarter less than with 1 ms. After 10 ms Go's monitor interrupts.
const glance = 8

// wait returns the number of events that have come. It first waits for a glance with its processor in hand. The other
// way to block costs more than the wait: Go's monitor then wakes up every 20 µs, to see whether the processor must be
// taken away from who blocks. Who has glanced in vain does not glance again before something has come: a process without
// work would be kept awake by it.
func (l *Loop) wait() int {
	l.asleep.Store(true)
	defer l.asleep.Store(false)
	if l.busy() {
		n, errno := poll(l.epfd, l.events[:], 0)
		return events(n, errno)
	}
	if len(l.paced) > 0 && l.all.glance > 0 {
		n, errno := poll(l.epfd, l.events[:], l.untilLook(l.all.glance))
		return events(n, errno)
	}
	if !l.idle {
		if n, errno := poll(l.epfd, l.events[:], l.all.glance); n != 0 || errno != 0 {
			return events(n, errno)
		}
		l.idle = true
	}
	rest := l.wheel.rest(l.now)
	if len(l.paced) > 0 {
		rest = l.untilLook(glance)
	}
	n, errno := wait(l.epfd, l.events[:], rest)
	l.idle = n == 0
	return events(n, errno)
}

// events is how many events there are after a call that may have failed: EINTR, as the runtime interrupts threads.
func events(n int, errno syscall.Errno) int {
	if errno != 0 {
		return 0
	}
	return n
}

// busy says whether the loop has something to do at once.
func (l *Loop) busy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.posted) > 0 || !l.runnable.empty() || len(l.round.sends) > 0
}

func (l *Loop) runPosted() {
	l.mu.Lock()
	if len(l.posted) == 0 {
		l.mu.Unlock()
		return
	}
	run := l.posted
	l.posted, l.spare = l.spare[:0], nil
	l.mu.Unlock()
	for _, fn := range run {
		fn()
	}
	clear(run)
	l.spare = run[:0]
}

// packets returns the batch that UDP sockets are read into.
func (l *Loop) packets() *packetBatch {
	if l.batch == nil {
		l.batch = newPacketBatch()
	}
	return l.batch
}

// atEnd has f flushed at the end of this round.
func (l *Loop) atEnd(f flusher) { l.ending = append(l.ending, f) }

// stop cuts every connection and ends the loop. Whoever is told may try to open another, in vain.
func (l *Loop) stop() {
	l.stopped = true
	for i := range l.slots {
		switch o := l.slots[i].owner.(type) {
		case *Conn:
			o.fail(ErrStopped)
		case *PacketFlow:
			o.end(metrics.Drained)
		}
	}
}

// Each calls fn for every connection of the loop. fn may close it.
func (l *Loop) Each(fn func(c *Conn)) {
	for i := range l.slots {
		if c, ok := l.slots[i].owner.(*Conn); ok {
			fn(c)
		}
	}
}

// watch begins to wait for events of fd on behalf of w.
func (l *Loop) watch(fd int, w watcher, events uint32) error {
	e, err := l.own(fd, w, events)
	if err != nil {
		return err
	}
	if err := unix.EpollCtl(l.epfd, unix.EPOLL_CTL_ADD, fd, &e); err != nil {
		l.forget(fd)
		return os.NewSyscallError("epoll_ctl", err)
	}
	return nil
}

// own notes that the events of fd are w's, and returns what to tell the kernel.
func (l *Loop) own(fd int, w watcher, events uint32) (unix.EpollEvent, error) {
	if l.stopped {
		return unix.EpollEvent{}, ErrStopped
	}
	for fd >= len(l.slots) {
		l.slots = append(l.slots, make([]slot, max(64, len(l.slots)))...)
	}
	s := &l.slots[fd]
	s.owner = w
	s.count++
	return unix.EpollEvent{Events: events, Fd: int32(fd), Pad: int32(s.count)}, nil
}

// change has l wait for other events of fd. What has happened already is told again.
func (l *Loop) change(fd int, events uint32) {
	e := unix.EpollEvent{Events: events, Fd: int32(fd), Pad: int32(l.slots[fd].count)}
	unix.EpollCtl(l.epfd, unix.EPOLL_CTL_MOD, fd, &e) // fails only if fd is not there
}

// forget ends watch. The caller closes fd, which takes it out of the epoll set unless it has been duplicated.
func (l *Loop) forget(fd int) {
	if s := l.slot(fd); s != nil {
		s.owner = nil
		s.count++
	}
}

func (l *Loop) slot(fd int) *slot {
	if fd >= len(l.slots) {
		return nil
	}
	return &l.slots[fd]
}

// readyList is the connections that have work left: their budget of one round was used up, or they were resumed.
type readyList struct{ first, last *Conn }

func (r *readyList) empty() bool { return r.first == nil }

func (r *readyList) push(c *Conn) {
	if c.flags&queued != 0 {
		return
	}
	c.flags |= queued
	if r.last == nil {
		r.first = c
	} else {
		r.last.nextReady = c
	}
	r.last = c
}

// run gives each connection that is on the list now one turn.
func (r *readyList) run() {
	last := r.last
	for c := r.first; c != nil; {
		next := c.nextReady
		r.first = next
		if next == nil {
			r.last = nil
		}
		c.nextReady = nil
		c.flags &^= queued
		c.work()
		if c == last {
			return
		}
		c = r.first
	}
}

// again says whether a call should be made once more at once.
func again(errno syscall.Errno) bool { return errno == syscall.EINTR }
