// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

// Hot path: no allocation per packet.

import (
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ringEntries is how many calls one submission can make.
const ringEntries = 128

// ring makes many calls of a socket with one system call: io_uring(7).
//
// It is used as a mere batch. Every call is non-blocking (MSG_DONTWAIT, or its descriptor is) and so has completed when submit returns, as
// if it had been made by itself: no buffer stays with the kernel, and nothing completes later.
type ring struct {
	fd            int
	queues, table []byte // memory shared with the kernel
	tail          *uint32
	entries       []submission
	done          completions
	added         uint32             // since the last submit
	results       [ringEntries]int32 // of the last submit, in the order of add: bytes, or below 0 an errno
}

// submission is struct io_uring_sqe.
type submission struct {
	opcode   uint8
	_        uint8
	priority uint16 // or flags of the operation
	fd       int32
	offset   uint64 // or a second address
	addr     uint64
	len      uint32
	flags    uint32 // of the call: MSG_…, SOCK_…
	userData uint64
	_        [3]uint64
}

// completion is struct io_uring_cqe.
type completion struct {
	userData uint64
	result   int32
	_        uint32
}

// completions is the queue of results.
type completions struct {
	head, tail *uint32
	entries    []completion
}

// ringParams is struct io_uring_params.
type ringParams struct {
	submissions, completions, _, _, _, features, _ uint32
	_                                              [3]uint32
	sq                                             struct {
		head, tail, mask, entries, flags, dropped, array, _ uint32
		_                                                   uint64
	}
	cq struct {
		head, tail, mask, entries, overflow, cqes, flags, _ uint32
		_                                                   uint64
	}
}

const (
	opSendMessage  = 9          // IORING_OP_SENDMSG, Linux 5.3
	opAccept       = 13         // IORING_OP_ACCEPT, Linux 5.5
	opClose        = 19         // IORING_OP_CLOSE, Linux 5.6
	opSend         = 26         // IORING_OP_SEND
	opReceive      = 27         // IORING_OP_RECV
	opWatch        = 29         // IORING_OP_EPOLL_CTL
	acceptDontWait = 2          // IORING_ACCEPT_DONTWAIT, Linux 6.10
	enterGetEvents = 1          // IORING_ENTER_GETEVENTS
	featSingleMmap = 1          // IORING_FEAT_SINGLE_MMAP, Linux 5.4
	offsetTable    = 0x10000000 // IORING_OFF_SQES
)

// openRing asks the kernel for a ring. It may refuse: many containers do not allow io_uring.
func openRing() (*ring, error) {
	var p ringParams
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, ringEntries, uintptr(unsafe.Pointer(&p)), 0)
	if errno == 0 && p.features&featSingleMmap == 0 {
		unix.Close(int(fd))
		errno = unix.ENOSYS
	}
	if errno != 0 {
		return nil, os.NewSyscallError("io_uring_setup", errno)
	}
	r := &ring{fd: int(fd)}
	if err := r.share(&p); err != nil {
		r.close()
		return nil, os.NewSyscallError("mmap", err)
	}
	return r, nil
}

// share maps the memory that is shared with the kernel.
func (r *ring) share(p *ringParams) (err error) {
	size := max(int(p.sq.array)+4*int(p.submissions), int(p.cq.cqes)+int(unsafe.Sizeof(completion{}))*int(p.completions))
	if r.queues, err = mapShared(r.fd, 0, size); err != nil {
		return err
	}
	if r.table, err = mapShared(r.fd, offsetTable, int(unsafe.Sizeof(submission{}))*int(p.submissions)); err != nil {
		return err
	}
	at := func(offset uint32) unsafe.Pointer { return unsafe.Pointer(&r.queues[offset]) }
	r.tail = (*uint32)(at(p.sq.tail))
	r.entries = unsafe.Slice((*submission)(unsafe.Pointer(&r.table[0])), p.submissions)
	r.done = completions{head: (*uint32)(at(p.cq.head)), tail: (*uint32)(at(p.cq.tail)),
		entries: unsafe.Slice((*completion)(at(p.cq.cqes)), p.completions)}
	order := unsafe.Slice((*uint32)(at(p.sq.array)), p.submissions)
	for i := range order {
		order[i] = uint32(i)
	}
	return nil
}

func mapShared(fd int, offset int64, size int) ([]byte, error) {
	return unix.Mmap(fd, offset, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
}

func (r *ring) close() {
	for _, m := range [][]byte{r.queues, r.table} {
		if m != nil {
			unix.Munmap(m)
		}
	}
	unix.Close(r.fd)
}

// add prepares one call that sends or receives p, which must stay as it is until submit, with flags (MSG_…) of its own.
func (r *ring) add(op uint8, fd int32, p []byte, flags uint32) {
	r.push(submission{opcode: op, fd: fd, addr: address(unsafe.SliceData(p)), len: uint32(len(p)),
		flags: unix.MSG_NOSIGNAL | unix.MSG_DONTWAIT | flags})
}

// push prepares one call, of at most ringEntries. What it points to must stay until submit.
func (r *ring) push(s submission) {
	s.userData = uint64(r.added)
	r.entries[(*r.tail+r.added)%uint32(len(r.entries))] = s
	r.added++
}

func address[T any](p *T) uint64 { return uint64(uintptr(unsafe.Pointer(p))) }

// submit makes the calls that were added and returns what each returned. A call that could not be made, because the
// kernel is out of memory, has returned -EINTR: make it again.
func (r *ring) submit() []int32 {
	n := r.added
	r.added = 0
	results := r.results[:n]
	for i := range results {
		results[i] = -int32(unix.EINTR)
	}
	atomic.StoreUint32(r.tail, *r.tail+n)
	for made, seen := uint32(0), uint32(0); seen < n; {
		k, _, errno := syscall.RawSyscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(n-made), uintptr(n-seen),
			enterGetEvents, 0, 0)
		if errno != 0 && !again(errno) {
			atomic.StoreUint32(r.tail, *r.tail-(n-made))
			return results
		}
		if errno == 0 {
			made += uint32(k)
		}
		seen += r.collect(results)
	}
	return results
}

// collect takes the results that are there and returns how many there were.
func (r *ring) collect(results []int32) uint32 {
	head, tail := *r.done.head, atomic.LoadUint32(r.done.tail)
	for i := head; i != tail; i++ {
		c := &r.done.entries[i%uint32(len(r.done.entries))]
		results[c.userData] = c.result
	}
	atomic.StoreUint32(r.done.head, tail)
	return tail - head
}
