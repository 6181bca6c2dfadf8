// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

// Hot path: no allocation per packet.

import "sync"

// BufferSize is what a Conn keeps of bytes that its handler did not consume: a handler that has been shown as many
// and still wants more must give up.
const BufferSize = 32 << 10

// HighWater is how many unsent bytes make a Conn Full: whoever feeds it should wait for Drained.
const HighWater = 64 << 10

// buffer is one pooled piece of bytes: data[start:end] is in use.
type buffer struct {
	data       [BufferSize]byte
	start, end int
	next       *buffer
}

func (b *buffer) bytes() []byte { return b.data[b.start:b.end] }

func (b *buffer) room() []byte { return b.data[b.end:] }

// compact moves what is in use to the front, so that room is all that is free.
func (b *buffer) compact() {
	if b.start > 0 {
		b.end = copy(b.data[:], b.bytes())
		b.start = 0
	}
}

// buffers is shared by all loops: a buffer is taken only while bytes wait, so it is off the usual path.
type buffers struct{ pool sync.Pool }

func (p *buffers) get() *buffer {
	if b, ok := p.pool.Get().(*buffer); ok {
		return b
	}
	return new(buffer)
}

func (p *buffers) put(b *buffer) {
	b.start, b.end, b.next = 0, 0, nil
	p.pool.Put(b)
}

// queue is bytes that wait, in order: to be sent, or to be shown to a handler again.
type queue struct {
	first, last *buffer
	size        int
}

func (q *queue) append(p []byte, pool *buffers) {
	q.size += len(p)
	for len(p) > 0 {
		if q.last == nil || q.last.end == BufferSize {
			b := pool.get()
			if q.last == nil {
				q.first = b
			} else {
				q.last.next = b
			}
			q.last = b
		}
		n := copy(q.last.room(), p)
		q.last.end += n
		p = p[n:]
	}
}

// prepend puts p, at most BufferSize bytes, before all others.
func (q *queue) prepend(p []byte, pool *buffers) {
	b := pool.get()
	b.end = copy(b.data[:], p)
	b.next = q.first
	q.first = b
	if q.last == nil {
		q.last = b
	}
	q.size += len(p)
}

// drop forgets the first n bytes, all of which are in the first buffer.
func (q *queue) drop(n int, pool *buffers) {
	q.size -= n
	b := q.first
	b.start += n
	if b.start < b.end {
		return
	}
	q.first = b.next
	if q.first == nil {
		q.last = nil
	}
	pool.put(b)
}

// join moves bytes forward into the first buffer, so that more of them can be seen in one piece. It returns false if
// there are none to move, or no room.
func (q *queue) join(pool *buffers) bool {
	b, next := q.first, q.first.next
	if b.compact(); next == nil || b.end == BufferSize {
		return false
	}
	n := copy(b.room(), next.bytes())
	b.end += n
	if next.start += n; next.start == next.end {
		if b.next = next.next; b.next == nil {
			q.last = b
		}
		pool.put(next)
	}
	return true
}

func (q *queue) clear(pool *buffers) {
	for q.first != nil {
		b := q.first
		q.first = b.next
		pool.put(b)
	}
	*q = queue{}
}
