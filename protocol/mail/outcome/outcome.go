// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package outcome remembers what a backend has said to a message until the client knows it too, so that a client who
// has not heard it, and sends the message again, is told it and the message is not delivered twice. That is so also when
// the edge dies in between. Package outcome does no I/O but to hand records to a journal, and knows no clock.
//
//	message whole ─▶ Find ─▶ known: the client is answered with it
//	                   │
//	                   ▼
//	                 Begin ─▶ "begun" ┐
//	    to the backend │              ├▶ journal.Journal, written at once and not synced
//	                   ▼              │
//	     its answer: Taken ─▶ "taken" ┘
//	                   │
//	    to the client  ├─▶ Seen: forgotten. The same message is another one from now on
//	                   └─▶ Unseen: Find finds it, once
//
// What a client that is still there has not acknowledged is not found: it may send the same message a second time over
// another connection, and mean it. It is found when the connection has ended badly, or the process has.
//
// RFC 1047 is about the gap: a server that has taken a message and cannot say so. It remains between a backend and the
// edge. When the edge dies after a backend has taken a message and before "taken" is written, or when the backend dies,
// nobody knows what became of it: the client sends it again, and it may be there twice. Those are counted: they are "begun"
// without an end.
//
// The journal is not synced: it outlives the process, which is what dies, not the machine.
package outcome

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kyozon/kyozon/journal"
)

// Keep is how long an outcome is remembered: a client that has not come again by then has given up, or another took the
// message.
const Keep = 24 * time.Hour

const (
	// maxKept bounds the outcomes that are remembered: the oldest go.
	maxKept = 1 << 16

	// maxReply is how long a reply is remembered word by word.
	maxReply = 1 << 10

	// plainly stands for one that is longer.
	plainly = "250 2.0.0 Taken\r\n"
)

// The kinds of records. A record is a key, the time in seconds, and for taken the reply.
const (
	begun journal.Kind = 1
	taken journal.Kind = 2
)

// Book is what is remembered.
type Book struct {
	journal *journal.Journal // nil: what is remembered does not outlive the process

	mu    sync.Mutex
	found map[Key][]*entry // those that Find may find, the oldest first
	order []*entry         // the same, the oldest first, and some that were taken out
	count int              // of those in found

	answered atomic.Int64
	doubtful atomic.Int64
	lost     atomic.Int64
}

// entry is an outcome that a client does not know.
type entry struct {
	key   Key
	id    journal.ID // of its record, 0 if it has none
	at    time.Time
	reply []byte
	gone  bool // taken out of found
}

// NewBook returns a book that writes to j, which may be nil. It is the only one to do so.
func NewBook(j *journal.Journal) *Book {
	return &Book{journal: j, found: make(map[Key][]*entry)}
}

// Counts are what has happened since the process started.
type Counts struct {
	Answered int64 // messages that came again and were not delivered again
	Doubtful int64 // messages that may be delivered twice, because the edge died while a backend was to answer
	Lost     int64 // the same, because the backend was lost
	Kept     int64 // outcomes that are remembered now
}

// Counts returns them.
func (b *Book) Counts() Counts {
	b.mu.Lock()
	defer b.mu.Unlock()
	return Counts{Answered: b.answered.Load(), Doubtful: b.doubtful.Load(), Lost: b.lost.Load(), Kept: int64(b.count)}
}

// Delivery is a message on its way from a client to a backend. The zero value is of none: all its methods may be called,
// and do nothing. One goroutine uses it at a time.
type Delivery struct {
	book  *Book
	key   Key
	id    journal.ID
	at    time.Time
	reply []byte
	known bool // what the backend has said
}

// Find looks whether the message was taken before without its client knowing, and if so makes d the delivery of then.
// It has d.Reply.
func (b *Book) Find(d *Delivery, k Key, now time.Time) bool {
	b.mu.Lock()
	b.expireLocked(now)
	var e *entry
	for e == nil && len(b.found[k]) > 0 {
		e = b.found[k][0]
		b.dropLocked(e)
		if now.Sub(e.at) >= Keep { // those in front of it are younger: it has been found before
			b.settle(e.id)
			e = nil
		}
	}
	b.mu.Unlock()
	if e == nil {
		return false
	}
	*d = Delivery{book: b, key: k, id: e.id, at: e.at, reply: e.reply, known: true}
	b.answered.Add(1)
	return true
}

// Begin says that a backend is about to be given the end of the message, which Find has not found. It makes d the
// delivery.
func (b *Book) Begin(d *Delivery, k Key, now time.Time) {
	*d = Delivery{book: b, key: k, at: now, reply: d.reply[:0]}
	d.id = b.append(begun, k, now, nil)
}

// Reply is what the backend has said: the client is to be told it. It is valid until the next Begin.
func (d *Delivery) Reply() []byte { return d.reply }

// Taken says that the backend has taken the message, in its words. It comes before the client is told.
func (d *Delivery) Taken(reply []byte, now time.Time) {
	if d.book == nil || d.known {
		return
	}
	if len(reply) > maxReply {
		reply = []byte(plainly)
	}
	d.reply, d.at, d.known = append(d.reply[:0], reply...), now, true
	was := d.id
	d.id = d.book.append(taken, d.key, now, reply)
	d.book.settle(was)
}

// Refused says that the backend has not taken the message, and the client is told so.
func (d *Delivery) Refused() { d.end() }

// Lost says that the backend has not said what became of the message.
func (d *Delivery) Lost() {
	if d.book != nil && !d.known {
		d.book.lost.Add(1)
	}
	d.end()
}

// Seen says that the client knows.
func (d *Delivery) Seen() { d.end() }

// Taking says whether there is an outcome that the client may not know.
func (d *Delivery) Taking() bool { return d.book != nil && d.known }

// Open says whether the backend has still to say what became of the message.
func (d *Delivery) Open() bool { return d.book != nil && !d.known }

// Unseen says that the client has gone, and may not know.
func (d *Delivery) Unseen() {
	if !d.Taking() {
		d.end()
		return
	}
	b := d.book
	e := &entry{key: d.key, id: d.id, at: d.at, reply: d.reply}
	*d = Delivery{}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.addLocked(e)
}

// end forgets the delivery.
func (d *Delivery) end() {
	if d.book != nil {
		d.book.settle(d.id)
	}
	*d = Delivery{reply: d.reply}
}

// addLocked has an outcome found.
func (b *Book) addLocked(e *entry) {
	b.found[e.key] = append(b.found[e.key], e)
	b.order = append(b.order, e)
	if b.count++; b.count > maxKept {
		b.expireLocked(time.Time{})
	}
}

// dropLocked takes one out, whose record lives on.
func (b *Book) dropLocked(e *entry) {
	e.gone = true
	all := b.found[e.key]
	for i, o := range all {
		if o == e {
			all = append(all[:i:i], all[i+1:]...)
			break
		}
	}
	if b.found[e.key] = all; len(all) == 0 {
		delete(b.found, e.key)
	}
	b.count--
}

// expireLocked forgets what is too old at now, and what is too much.
func (b *Book) expireLocked(now time.Time) {
	for len(b.order) > 0 {
		e := b.order[0]
		if !e.gone && b.count <= maxKept && now.Sub(e.at) < Keep {
			return
		}
		if !e.gone {
			b.dropLocked(e)
			b.settle(e.id)
		}
		b.order[0] = nil
		b.order = b.order[1:]
	}
}

func (b *Book) append(kind journal.Kind, k Key, at time.Time, reply []byte) journal.ID {
	if b.journal == nil {
		return 0
	}
	var seconds [8]byte
	binary.LittleEndian.PutUint64(seconds[:], uint64(at.Unix()))
	return b.journal.Put(kind, k[:], seconds[:], reply)
}

func (b *Book) settle(id journal.ID) {
	if b.journal != nil && id != 0 {
		b.journal.Settle(id)
	}
}

// errRecord means that a record is none of ours.
var errRecord = errors.New("outcome: not a record of outcomes")

// decode reads a record. Returns errRecord.
func decode(r journal.Record) (*entry, error) {
	var e entry
	switch {
	case r.Kind != begun && r.Kind != taken, len(r.Data) < len(e.key)+8, len(r.Data) > len(e.key)+8+maxReply:
		return nil, errRecord
	case r.Kind == taken && len(r.Data) == len(e.key)+8: // there is no reply
		return nil, errRecord
	}
	copy(e.key[:], r.Data)
	e.at = time.Unix(int64(binary.LittleEndian.Uint64(r.Data[len(e.key):])), 0)
	e.reply = r.Data[len(e.key)+8:]
	return &e, nil
}

// Adopt remembers what a process that is gone has left in j, which is another journal than the book's own, and settles all
// in it. It returns how many messages may come to be delivered twice.
func (b *Book) Adopt(j *journal.Journal, now time.Time) (doubtful int64, err error) {
	var errs []error
	open := make(map[Key]int64) // those that have begun
	err = j.Each(func(r journal.Record) error {
		e, err := decode(r)
		if err == nil && r.Kind == taken && open[e.key] > 0 { // that it ends what has begun was not written any more
			open[e.key]--
			doubtful--
		}
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("record %d: %w", r.ID, err))
		case r.Kind == begun:
			open[e.key]++
			doubtful++
		case now.Sub(e.at) < Keep:
			e.id = b.append(taken, e.key, e.at, e.reply)
			b.mu.Lock()
			b.addLocked(e)
			b.mu.Unlock()
		}
		j.Settle(r.ID)
		return nil
	})
	b.doubtful.Add(doubtful)
	return doubtful, errors.Join(append(errs, err)...)
}
