// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"sync"
	"time"

	"github.com/kyozon/kyozon/journal"
)

// Draft is a message that is being written.
type Draft struct {
	queue   *Queue
	message *Message

	mu      sync.Mutex
	waiting int // for so many records to be written, and for Commit or Abandon
	err     error
	done    func(error)
}

// Draft begins to write a message whose content has size bytes. Its Size and Pieces are set by Write. Returns ErrFull.
func (q *Queue) Draft(m *Message, size int64) (*Draft, error) {
	m.held = size
	if err := q.options.Sums.take(m, q.terms(m.Service)); err != nil {
		return nil, err
	}
	return q.draft(m), nil
}

// draft is Draft for a message that has its room.
func (q *Queue) draft(m *Message) *Draft {
	m.Size, m.Pieces = 0, nil
	return &Draft{queue: q, message: m, waiting: 1}
}

// Write appends to the content. It does not wait; then, which may be nil, is called from anywhere when all of p has been
// written, or could not be. What goes wrong is told in the end. A large content goes piece by piece, each when the one
// before is written: what is not is in memory.
func (d *Draft) Write(p []byte, then func()) {
	for len(p) > 0 {
		n := min(len(p), journal.MaxData)
		done := d.written
		if n == len(p) && then != nil {
			done = func(err error) {
				d.written(err)
				then()
			}
		}
		d.wait()
		d.message.Pieces = append(d.message.Pieces, d.queue.journal.Append(content, done, p[:n]))
		d.message.Size += int64(n)
		p = p[n:]
	}
}

// Commit writes the envelope, and calls done when all is written and the message is in the queue: then it may be answered
// for. Where it cannot be written, done is told why, and nothing is left of it.
func (d *Draft) Commit(done func(error)) {
	m := d.message
	m.state = state{Next: m.Arrived, Ends: make([]ending, len(m.Recipients))}
	d.done = done
	d.wait()
	m.id = d.queue.journal.Append(envelope, d.written, encode(m))
	m.state.Of = m.id
	d.written(nil)
}

// Abandon forgets what was written.
func (d *Draft) Abandon() {
	d.done = func(error) {}
	d.written(errAbandoned)
}

func (d *Draft) wait() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waiting++
}

// written is called for each record.
func (d *Draft) written(err error) {
	d.mu.Lock()
	if d.err == nil {
		d.err = err
	}
	d.waiting--
	last := d.waiting == 0
	d.mu.Unlock()
	if !last {
		return
	}
	if d.err == nil {
		d.queue.options.Sums.count(d.message, func(c *Counts) { c.Added++ })
		d.queue.insert(d.message)
	} else {
		d.queue.options.Sums.release(d.message)
		for _, id := range append(d.message.Pieces, d.message.id) {
			if id != 0 {
				d.queue.journal.Settle(id)
			}
		}
	}
	d.done(d.err)
}

// schedule is how long a message waits: 1, 2, 4 minutes and so on, at most an hour. The servers are our own; RFC 5321 §4.5.4.1 has clients
// that know nothing of a server wait for half an hour.
func schedule(attempts int) time.Duration {
	return min(time.Minute<<min(attempts-1, 10), time.Hour)
}
