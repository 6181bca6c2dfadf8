// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package queue holds messages that the edge has answered for, until they are delivered or given up. It delivers nothing
// itself, does no I/O but with its journal, and knows no clock.
//
//	Draft ─▶ journal: pieces, envelope, one fsync ─▶ the client gets its 250
//	                    │
//	        Take ◀──────┴─ what is due at a destination: oldest first
//	          │
//	          ├─▶ Return: nobody could be asked. It stays due
//	          └─▶ Finish ─▶ delivered: settled
//	                     ├▶ not yet: again after a while (schedule); the sender may be told that it takes long
//	                     └▶ given up: a report to the sender, which is a message too, and then settled
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
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/kyozon/kyozon/journal"
)

var (
	// ErrNone means that there is no such message.
	ErrNone = errors.New("queue: no such message")

	// ErrFull means that the messages of the service have no more room.
	ErrFull = errors.New("queue: full")
)

// Options say how messages are kept.
type Options struct {
	// Terms returns those of a service; ok is false if it has none any more. It may be called from anywhere.
	Terms func(service string) (t Terms, ok bool)

	Sums    *Sums        // shared by the queues of a process; nil means that this one has its own
	Changed func()       // called from anywhere when something may be due that was not; it must not wait. May be nil
	Log     *slog.Logger // hears of what nobody can be told. nil means nobody does
}

// Terms are what the messages of a service may have.
type Terms struct {
	Name     string        // of the edge, in reports
	Keep     time.Duration // how long a message is tried; 0 means 5 days: RFC 5321 §4.5.4.1
	Warn     time.Duration // after which the sender is told that it takes long; 0 means that he is not
	Reports  string        // the pool that takes reports; "" means that of the message
	Bytes    int64         // of all messages; 0 means no limit
	Messages int64         // 0 means no limit
}

// Destination is where messages go.
type Destination struct{ Service, Pool string }

// Queue is the messages of one journal. Its methods may be called from anywhere.
type Queue struct {
	options Options
	journal *journal.Journal

	mu   sync.Mutex
	byID map[journal.ID]*Message
	due  map[Destination]*dueHeap // those that are not busy; none is empty
}

// Open makes a queue of what lives in j, which must be run, and to which nobody else writes. What is not whole was
// answered for by nobody and is forgotten. What cannot be read is in the error, beside the queue, and stays where it is.
func Open(j *journal.Journal, o Options) (*Queue, error) {
	if o.Sums == nil {
		o.Sums = new(Sums)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	q := &Queue{options: o, journal: j, byID: make(map[journal.ID]*Message), due: make(map[Destination]*dueHeap)}
	return q, q.restore()
}

// terms are those of a service, or what holds for one that has none any more.
func (q *Queue) terms(service string) Terms {
	t, _ := q.options.Terms(service)
	t.Keep = cmp.Or(t.Keep, 5*24*time.Hour)
	return t
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
		m.held = m.Size
		q.options.Sums.hold(m)
		q.pushLocked(m)
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
	q.pushLocked(m)
	q.mu.Unlock()
	q.changed()
}

// pushLocked puts a message among those that are not busy.
func (q *Queue) pushLocked(m *Message) {
	m.busy = false
	h := q.due[m.destination()]
	if h == nil {
		h = new(dueHeap)
		q.due[m.destination()] = h
	}
	heap.Push(h, m)
}

// pullLocked takes it out again.
func (q *Queue) pullLocked(m *Message) {
	h := q.due[m.destination()]
	heap.Remove(h, m.position)
	if h.Len() == 0 {
		delete(q.due, m.destination())
	}
}

// changed must not be called with the lock held.
func (q *Queue) changed() {
	if q.options.Changed != nil {
		q.options.Changed()
	}
}

// Due returns the destinations that have something due, and when the next message of another will be; zero if none will.
func (q *Queue) Due(now time.Time) (all []Destination, next time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for d, h := range q.due {
		at := (*h)[0].state.Next
		if !at.After(now) {
			all = append(all, d)
		} else if next.IsZero() || at.Before(next) {
			next = at
		}
	}
	return all, next
}

// Take returns a message for d that is due, or nil. It is the caller's until Finish or Return.
func (q *Queue) Take(d Destination, now time.Time) *Message {
	q.mu.Lock()
	defer q.mu.Unlock()
	h := q.due[d]
	if h == nil || (*h)[0].state.Next.After(now) {
		return nil
	}
	m := (*h)[0]
	q.pullLocked(m)
	m.busy = true
	return m
}

// Late returns messages for d, though they may not be due, whose time is up or of which the sender is to be told that they
// take long: maxLate at most. Each is the caller's until Finish.
func (q *Queue) Late(d Destination, now time.Time) (all []*Message) {
	t := q.terms(d.Service)
	q.mu.Lock()
	defer q.mu.Unlock()
	h := q.due[d]
	if h == nil {
		return nil
	}
	for _, m := range *h {
		if m.expired(t, now) || m.slow(t, now) {
			if all = append(all, m); len(all) == maxLate {
				break
			}
		}
	}
	for _, m := range all {
		q.pullLocked(m)
		m.busy = true
	}
	return all
}

// maxLate bounds how many messages Late returns: the others come next time.
const maxLate = 100

// Return gives back a message that nobody was asked to take: why says the reason. It is due as before.
func (q *Queue) Return(m *Message, why string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	m.state.Last = clean(why)
	if m.dropped {
		q.dropLocked(m, nil)
		return
	}
	q.pushLocked(m)
}

// Piece reads a piece of a message. It waits for the disk.
func (q *Queue) Piece(m *Message, n int) ([]byte, error) {
	r, err := q.journal.Read(m.Pieces[n])
	return r.Data, err
}

// settleLocked ends a message, and calls done when that is written; done may be nil.
func (q *Queue) settleLocked(m *Message, done func()) {
	delete(q.byID, m.id)
	if !m.busy {
		q.pullLocked(m)
	}
	q.options.Sums.release(m)
	for _, id := range append(m.Pieces, m.stateID) {
		if id != 0 {
			q.journal.Settle(id)
		}
	}
	q.journal.Settled(m.id, written(done))
}

// written calls done if something could be written.
func written(done func()) func(error) {
	return func(err error) {
		if err == nil && done != nil {
			done()
		}
	}
}

// dropLocked ends a message by hand.
func (q *Queue) dropLocked(m *Message, done func()) {
	q.settleLocked(m, done)
	q.options.Sums.count(m, func(c *Counts) { c.Dropped++ })
}

// Len is how many messages there are.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.byID)
}

// Oldest writes down when the oldest message of each destination has come, if it has come before what is there.
func (q *Queue) Oldest(all map[Destination]time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, m := range q.byID {
		if at, ok := all[m.destination()]; !ok || m.Arrived.Before(at) {
			all[m.destination()] = m.Arrived
		}
	}
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
	m := q.byID[id]
	if m != nil && !m.busy {
		m.state.Next = now
		heap.Fix(q.due[m.destination()], m.position)
	}
	q.mu.Unlock()
	if m == nil {
		return ErrNone
	}
	q.changed()
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
		q.dropLocked(m, nil)
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
