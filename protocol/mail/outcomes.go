// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"bytes"
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kyozon/kyozon/journal"
	"github.com/kyozon/kyozon/protocol/mail/outcome"
	"github.com/kyozon/kyozon/protocol/mail/smtp"
)

// adoptEvery is how often it is looked whether a process that this one replaces has left outcomes.
const adoptEvery = 5 * time.Second

// outcomes is the book of what clients may not have heard, and its journal. It outlives the generations.
type outcomes struct {
	shelf string // of the journals
	log   *slog.Logger
	book  atomic.Pointer[outcome.Book] // nil when no generation is in service

	mu      sync.Mutex
	holders int // generations
	stop    context.CancelFunc
	ended   sync.WaitGroup
}

// options says how the journals are kept: outcomes are for when the process dies, not the machine.
func (o *outcomes) options() journal.Options {
	return journal.Options{Unsynced: true, Size: 64 << 20, File: 4 << 20, Log: o.log}
}

// hold opens the book, unless a generation has it open. What processes that are gone have left is in it.
func (o *outcomes) hold() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.holders++; o.holders > 1 {
		return
	}
	j, err := journal.OpenNew(o.shelf, o.options())
	if err != nil {
		o.log.Error("outcomes of messages are forgotten if this process dies", "err", err)
		o.book.Store(outcome.NewBook(nil))
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	o.stop = stop
	o.ended.Go(func() {
		if err := j.Run(ctx); err != nil {
			o.log.Error("journal of outcomes", "err", err)
		}
	})
	book := outcome.NewBook(j)
	o.adopt(book)
	o.book.Store(book)
}

// release closes the book after the last generation.
func (o *outcomes) release() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.holders--; o.holders > 0 {
		return
	}
	o.book.Store(nil)
	if o.stop != nil {
		o.stop()
		o.ended.Wait()
		o.stop = nil
	}
}

// run adopts what the process before this one leaves when it ends, until ctx is done.
func (o *outcomes) run(ctx context.Context) {
	look := time.NewTicker(adoptEvery)
	defer look.Stop()
	for {
		select {
		case <-look.C:
		case <-ctx.Done():
			return
		}
		if b := o.book.Load(); b != nil {
			o.adopt(b)
		}
	}
}

// adopt takes over the journals that nobody has.
func (o *outcomes) adopt(b *outcome.Book) {
	left, err := journal.OpenLeft(o.shelf, o.options())
	if err != nil {
		o.log.Error("outcomes of another process", "err", err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, j := range left {
		doubtful, err := b.Adopt(j, time.Now())
		if err != nil {
			o.log.Error("outcomes of another process", "err", err)
		}
		if doubtful > 0 {
			o.log.Warn("a process has ended before servers had answered: as many messages may be delivered twice", "messages", doubtful)
		}
		if err := j.Run(ended); err != nil {
			o.log.Error("outcomes of another process", "err", err)
		}
	}
}

// remembered answers a message that was taken before, if the client may not have heard so.
func (s *session) remembered() bool {
	book := s.front.all.outcomes.book.Load()
	if s.sought || book == nil {
		return false
	}
	s.sought = true
	s.delivery.Seen() // of the message before: a whole one has come after it
	s.key = s.digest.Key(s.addressed())
	if !book.Find(&s.delivery, s.key, time.Now()) {
		return false
	}
	s.tally().repeats[index(s.table.route.Family)].Add(1)
	reply := s.delivery.Reply()
	s.forget()
	s.answer(codeOf(string(reply[:3])), reply)
	s.rest()
	return true
}

// addressed is the envelope of the message. Parameters are not in it: another time others may be offered.
func (s *session) addressed() outcome.Envelope {
	e := outcome.Envelope{Service: s.table.service, Client: s.conn.Remote().Addr()}
	for line := range bytes.Lines(s.envelope) {
		c, _ := smtp.ParseCommand(bytes.TrimSuffix(line, []byte("\r\n"))) // as before
		if c.Verb == smtp.Mail {
			e.Sender = c.Path
		} else {
			e.Recipients = append(e.Recipients, c.Path)
		}
	}
	return e
}

// begin notes that the backend is about to get the end of the message.
func (s *session) begin() {
	if book := s.front.all.outcomes.book.Load(); book != nil && s.sought {
		book.Begin(&s.delivery, s.key, time.Now())
	}
}

// hear looks whether the client has heard what became of its last message: it has said something since, and what it was
// sent has come. One that says things in advance has not, perhaps.
func (s *session) hear() {
	if s.delivery.Taking() && s.conn.Unsent() == 0 {
		s.delivery.Seen()
	}
}

// part closes the connection of a client that may not have heard what became of its last message, but not before it is
// known, nor does the edge end. It says whether that is so.
func (s *session) part() bool {
	if !s.delivery.Taking() {
		return false
	}
	p := &parting{all: s.front.all, delivery: s.delivery, looks: partLooks}
	p.all.busy.Add(1)
	s.delivery = outcome.Delivery{}
	s.conn.SetHandler(p)
	s.conn.CloseWrite()
	s.conn.Resume()
	p.look(s.conn)
	return true
}
