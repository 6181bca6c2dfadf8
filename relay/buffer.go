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

// consume drops the first n bytes and moves the rest to the front, so that room is what is left of the buffer.
func (b *buffer) consume(n int) {
	b.end = copy(b.data[:], b.data[b.start+n:b.end])
	b.start = 0
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

// queue is bytes that wait to be sent, in order.
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

func (q *queue) clear(pool *buffers) {
	for q.first != nil {
		b := q.first
		q.first = b.next
		pool.put(b)
	}
	*q = queue{}
}
