// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package queue holds messages that the edge has answered for, until they are delivered or given up. It delivers nothing
// itself, does no I/O but with its journal, and knows no clock.
//
//	Add ─▶ journal: pieces, envelope, one fsync ─▶ the client gets its 250
//	                    │
//	        Take ◀──────┴─ what is due: oldest first
//	          │
//	        Finish ─▶ delivered: settled
//	                ├▶ not yet: again after a while (schedule)
//	                └▶ given up: a report to the sender, which is a message too, and then settled
//
// A message is written before its client is answered, and lives in the journal until each recipient has an end. What
// became of them in part is written too. Whatever dies when, no message is lost; one that was delivered a moment before
// may be delivered again.
//
// RFC 5321 §4.5.4 (retries), §6.1 (what an answer of 250 means), RFC 3461 and RFC 3464 (reports).
package queue

import (
	"cmp"
	"container/heap"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/kyozon/kyozon/journal"
)

// ErrNone means that there is no such message.
var ErrNone = errors.New("queue: no such message")

// Options say how messages are kept.
type Options struct {
	Keep   time.Duration // how long a message is tried; 0 means 5 days: RFC 5321 §4.5.4.1
	Name   string        // of the edge, in reports
	Report Report        // where reports go
}

// Report is how reports of a service reach the senders.
type Report func(service string) (pool string, ok bool)

// Queue is the messages of one journal. Its methods may be called from anywhere.
type Queue struct {
	options Options
	journal *journal.Journal
	wake    chan struct{} // of size 1

	mu     sync.Mutex
	byID   map[journal.ID]*Message
	due    dueHeap // those that are not busy
	counts Counts
}

// Counts are what has happened since the queue was opened.
type Counts struct {
	Added, Delivered, Failed int64 // messages; recipients; recipients
	Reports                  int64
	Dropped                  int64 // messages, by hand
}

// Open makes a queue of what lives in j, which must be run, and to which nobody else writes. What is not whole was
// answered for by nobody and is forgotten. What cannot be read is in the error, beside the queue, and stays where it is.
func Open(j *journal.Journal, o Options) (*Queue, error) {
	o.Keep = cmp.Or(o.Keep, 5*24*time.Hour)
	q := &Queue{options: o, journal: j, wake: make(chan struct{}, 1), byID: make(map[journal.ID]*Message)}
	return q, q.restore()
}

// restore reads the journal.
func (q *Queue) restore() error {
	pieces := make(map[journal.ID]bool) // whether a message has it
	var errs []error
	err := q.journal.Each(func(r journal.Record) error {
		var err error
		switch r.Kind {
		case content:
			pieces[r.ID] = false
		case envelope:
			err = q.restoreMessage(r)
		case progress:
			err = q.restoreState(r)
		default:
			err = errRecord
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("record %d: %w", r.ID, err))
		}
		return nil
	})
	errs = append(errs, err)
	for _, m := range q.byID {
		if slices.ContainsFunc(m.Pieces, func(p journal.ID) bool { _, ok := pieces[p]; return !ok }) {
			delete(q.byID, m.id)
			q.journal.Settle(m.id)
			continue
		}
		for _, p := range m.Pieces {
			pieces[p] = true
		}
		heap.Push(&q.due, m)
	}
	err = errors.Join(errs...)
	for id, used := range pieces {
		if !used && err == nil { // else it may be of one that cannot be read
			q.journal.Settle(id)
		}
	}
	return err
}

func (q *Queue) restoreMessage(r journal.Record) error {
	m, err := decodeMessage(r)
	if err == nil {
		q.byID[r.ID] = m
	}
	return err
}

// restoreState takes what was written last: records come in the order in which they were appended.
func (q *Queue) restoreState(r journal.Record) error {
	s, err := decodeState(r)
	if err != nil {
		return err
	}
	m := q.byID[s.Of]
	if m == nil || len(s.Ends) != len(m.Recipients) {
		q.journal.Settle(r.ID)
		return nil
	}
	if m.stateID != 0 {
		q.journal.Settle(m.stateID)
	}
	m.state, m.stateID = s, r.ID
	return nil
}

// insert takes a message that is written.
func (q *Queue) insert(m *Message) {
	q.mu.Lock()
	q.byID[m.id] = m
	heap.Push(&q.due, m)
	q.counts.Added++
	q.mu.Unlock()
	q.rouse()
}

func (q *Queue) rouse() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// Wake is sent to when there may be something to Take, or Next has changed.
func (q *Queue) Wake() <-chan struct{} { return q.wake }

// Next returns when the next message is due; ok is false if there is none.
func (q *Queue) Next() (at time.Time, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.due) == 0 {
		return at, false
	}
	return q.due[0].state.Next, true
}

// Take returns a message that is due and that ok accepts, or nil. It is the caller's until Finish.
func (q *Queue) Take(now time.Time, ok func(*Message) bool) *Message {
	q.mu.Lock()
	defer q.mu.Unlock()
	var passed []*Message
	defer func() {
		for _, m := range passed {
			heap.Push(&q.due, m)
		}
	}()
	for len(q.due) > 0 && !q.due[0].state.Next.After(now) && len(passed) < maxPassed {
		m := heap.Pop(&q.due).(*Message)
		if ok(m) {
			m.busy = true
			return m
		}
		passed = append(passed, m)
	}
	return nil
}

// maxPassed is how many messages Take looks at: those that it does not find come later.
const maxPassed = 100

// Piece reads a piece of a message. It waits for the disk.
func (q *Queue) Piece(m *Message, n int) ([]byte, error) {
	r, err := q.journal.Read(m.Pieces[n])
	return r.Data, err
}

// settleLocked ends a message.
func (q *Queue) settleLocked(m *Message) {
	delete(q.byID, m.id)
	if !m.busy {
		heap.Remove(&q.due, m.position)
	}
	for _, id := range append(m.Pieces, m.id, m.stateID) {
		if id != 0 {
			q.journal.Settle(id)
		}
	}
}

// Counts returns them.
func (q *Queue) Counts() Counts {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.counts
}

// Len is how many messages there are.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.byID)
}

// Listed describes a message.
type Listed struct {
	ID            journal.ID
	Service, Pool string
	Sender        string
	Recipients    []string // those that wait
	Arrived, Next time.Time
	Size          int64
	Attempts      int
	Busy          bool
	Last          string // what kept it
}

// List describes all messages, the oldest first.
func (q *Queue) List() []Listed {
	q.mu.Lock()
	defer q.mu.Unlock()
	all := make([]Listed, 0, len(q.byID))
	for _, m := range q.byID {
		one := Listed{ID: m.id, Service: m.Service, Pool: m.Pool, Sender: string(m.Sender), Arrived: m.Arrived, Next: m.state.Next,
			Size: m.Size, Attempts: m.state.Attempts, Busy: m.busy, Last: m.state.Last}
		for _, i := range m.Left() {
			one.Recipients = append(one.Recipients, string(m.Recipients[i].Path))
		}
		all = append(all, one)
	}
	slices.SortFunc(all, func(a, b Listed) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

// Retry has a message tried at once. Returns ErrNone.
func (q *Queue) Retry(id journal.ID, now time.Time) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	m := q.byID[id]
	if m == nil {
		return ErrNone
	}
	if !m.busy {
		m.state.Next = now
		heap.Fix(&q.due, m.position)
		q.rouse()
	}
	return nil
}

// Drop forgets a message: nobody is told. One that is being delivered may still be. Returns ErrNone.
func (q *Queue) Drop(id journal.ID) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	m := q.byID[id]
	switch {
	case m == nil:
		return ErrNone
	case m.busy:
		m.dropped = true
	default:
		q.settleLocked(m)
		q.counts.Dropped++
	}
	return nil
}

// dueHeap is ordered by when messages are due. It implements heap.Interface.
type dueHeap []*Message

func (h dueHeap) Len() int { return len(h) }

func (h dueHeap) Less(i, j int) bool {
	if a, b := h[i].state.Next, h[j].state.Next; !a.Equal(b) {
		return a.Before(b)
	}
	return h[i].id < h[j].id
}

func (h dueHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].position, h[j].position = i, j
}

func (h *dueHeap) Push(x any) { //house:ok heap.Interface
	m := x.(*Message)
	m.position = len(*h)
	*h = append(*h, m)
}

func (h *dueHeap) Pop() any { //house:ok heap.Interface
	last := len(*h) - 1
	m := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return m
}
