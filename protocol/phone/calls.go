// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kyozon/kyozon/journal"
	"github.com/kyozon/kyozon/protocol/phone/cdr"
	"github.com/kyozon/kyozon/protocol/phone/saved"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/dialog"
)

// The kinds of records in the journal of calls.
const (
	alive journal.Kind = 1 // saved.Call
	ended journal.Kind = 2 // a line of package cdr that is not in the file yet, perhaps without what the relay knows of its media
)

// calls is the journal of the calls of a service: those under way, and the records of those that have ended until they are
// written where they belong. It outlives the generations. Without a journal calls do not outlive the process, and go on.
//
//	answer, re-INVITE ─▶ alive ─┐
//	BYE ─▶ ended, alive settled ┼─▶ journal.Journal, written at once and not synced
//	recorder ─▶ ended settled ──┘
type calls struct {
	directory string
	log       *slog.Logger
	journal   atomic.Pointer[journal.Journal]

	aside map[journal.ID]bool // that a newer version has saved: they stay for it

	mu      sync.Mutex
	holders int // generations
	stop    context.CancelFunc
	over    sync.WaitGroup
}

// open opens the journal, if it is not. Calls outlive the process, not the machine: no disk is waited for.
func (c *calls) open() error {
	if c.directory == "" || c.journal.Load() != nil {
		return nil
	}
	j, err := journal.Open(c.directory, journal.Options{Unsynced: true, Log: c.log})
	if err != nil {
		return err
	}
	c.journal.Store(j)
	return j.Begin()
}

// hold lets the journal write what it does by itself, from the first generation on.
func (c *calls) hold() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.holders++
	c.runLocked()
}

func (c *calls) runLocked() {
	j := c.journal.Load()
	if j == nil || c.stop != nil || c.holders == 0 {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	c.stop = stop
	c.over.Go(func() {
		if err := j.Run(ctx); err != nil {
			c.log.Error("journal of calls", "err", err)
		}
	})
}

// release closes the journal after the last generation, when last has been called.
func (c *calls) release(last func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holders--; c.holders == 0 {
		last()
		c.closeLocked()
	}
}

// leave closes the journal so that another process may have it. What is written until reopen is not.
func (c *calls) leave() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closeLocked()
}

func (c *calls) closeLocked() {
	c.journal.Store(nil)
	if c.stop != nil {
		c.stop()
		c.over.Wait()
		c.stop = nil
	}
}

// reopen opens the journal once more, which another process may have had, and forgets what is in it.
func (c *calls) reopen() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.open()
	c.runLocked()
	if j := c.journal.Load(); j != nil {
		err = errors.Join(err, j.Each(func(r journal.Record) error {
			if !c.aside[r.ID] {
				j.Settle(r.ID)
			}
			return nil
		}))
	}
	return err
}

// put writes a record, and settles the one whose place it takes.
func (c *calls) put(kind journal.Kind, data []byte, was journal.ID) (id journal.ID) {
	if j := c.journal.Load(); j != nil {
		id = j.Put(kind, data)
	}
	c.settle(was)
	return id
}

func (c *calls) settle(id journal.ID) {
	if j := c.journal.Load(); j != nil && id != 0 {
		j.Settle(id)
	}
}

// save writes what the call of a leg, which has been answered, is to be taken up by.
func (l *leg) save() {
	near := l
	if !l.near {
		near = l.peer
	}
	c := l.agent.core
	if near.record == nil || near.gone || c.calls.journal.Load() == nil {
		return
	}
	copies := &l.agent.copies
	call := saved.Call{Caller: near.saved(&copies[0]), Called: near.peer.saved(&copies[1]), Media: near.media.saved(), Record: near.record}
	text, err := call.Append(l.agent.out[:0])
	if err != nil {
		c.log.Error("a call is not saved", "err", err)
		return
	}
	l.agent.out = text
	near.kept = c.calls.put(alive, text, near.kept)
}

// saved is what is saved of a leg, with a copy of its session whose times are turned into those of the wall clock.
func (l *leg) saved(s *dialog.Session) saved.Leg {
	*s = *l.session
	saved.Shift(s, time.Duration(time.Now().UnixNano()-l.agent.loop.Now()))
	return saved.Leg{Session: s, Way: l.home(), Ahead: l.ahead, Update: l.update, Kind: l.said.kind, Said: l.said.text}
}

// restore takes up the calls of a process that is gone. It is called once, before a message can come.
func (c *core) restore(file string) {
	if err := c.calls.open(); err != nil {
		c.log.Error("calls end with this process", "err", err)
	}
	j := c.calls.journal.Load()
	if j == nil {
		return
	}
	c.calls.aside = make(map[journal.ID]bool)
	found := make(map[string]kept) // by the id of the call
	written, broken := recordsIn(file), 0
	err := j.Each(func(r journal.Record) error {
		switch id, k, err := read(r); {
		case errors.Is(err, saved.ErrNewer):
			c.calls.aside[r.ID] = true
		case err != nil:
			broken++
			j.Settle(r.ID)
		case written[id] && k.line != nil: // in the file, and perhaps not yet in the database
			c.table.add(record{line: k.line, id: k.id})
		case written[id], found[id].line != nil && k.line == nil: // the process died before it could settle it
			j.Settle(r.ID)
		default: // of two records of a call the later knows what its media were
			c.calls.settle(found[id].id)
			found[id] = k
		}
		return nil
	})
	count := 0
	for _, k := range found {
		if k.call == nil {
			c.records.add(record{line: k.line, id: k.id})
			continue
		}
		count++
		a := c.agentOfLeg(k.call.Caller.Session)
		if far := k.call.Called.Session; c.agentOfLeg(far) != a { // of another process, or version
			c.strays.add(far.CallID, a)
		}
		m := a.takeUpMedia(k.call)
		a.loop.Post(func() { a.takeUp(k.call, m, k.id) })
	}
	if err != nil || broken > 0 {
		c.log.Error("calls of another process are lost", "calls", broken, "err", err)
	}
	if n := len(c.calls.aside); n > 0 {
		c.log.Warn("calls that a newer version has saved are kept for it: upgrade again, and they go on", "calls", n)
	}
	if count > 0 {
		c.log.Info("calls go on", "calls", count)
	}
}

// kept is what the journal has of a call: what it was saved as, or its record.
type kept struct {
	id   journal.ID
	call *saved.Call
	line []byte
}

// read reads a record of the journal.
func read(r journal.Record) (id string, k kept, err error) {
	switch k.id = r.ID; r.Kind {
	case alive:
		if k.call, err = saved.Parse(r.Data); err == nil {
			id = k.call.Record.ID
		}
	case ended:
		var line *cdr.Record
		if line, err = cdr.Parse(r.Data); err == nil {
			id, k.line = line.ID, r.Data
		}
	default:
		err = saved.ErrForm
	}
	return id, k, err
}

// takeUp makes the legs of a call that was saved.
func (a *agent) takeUp(call *saved.Call, m *media, id journal.ID) {
	a.open()
	taken := func(s *saved.Leg) *leg {
		saved.Shift(s.Session, time.Duration(a.loop.Now()-time.Now().UnixNano()))
		s.Session.Intervals = a.table.Timers
		return &leg{agent: a, session: s.Session, way: s.Way, ahead: s.Ahead, update: s.Update, scheme: schemeOf(s.Session.Target), said: description{s.Kind, s.Said},
			record: call.Record, chosen: true, media: m}
	}
	near, far := taken(&call.Caller), taken(&call.Called)
	if m != nil {
		m.leg, m.live = near, true
		m.carry()
	}
	near.near, near.peer, far.peer, near.kept = true, far, near, id
	near.remember()
	far.remember()
	a.core.tally.begin(call.Record)
}

// begin lets the calls that were taken up begin, when there is a generation to do it.
func (c *core) begin() {
	trunks := c.settings.Load().trunks
	for _, a := range c.agents {
		a.loop.Post(func() {
			for _, l := range a.legs {
				if r := l.record; l.near && r != nil && r.Called != nil {
					all := []seat{seatOf(trunks[r.Caller.Peer], r.Caller.Peer), seatOf(trunks[r.Called.Peer], r.Called.Peer)}
					c.seats.take(r.ID, all, func(seat) int { return 0 }, true)
				}
				l.aim()
				l.wind()
			}
		})
	}
}

// leave stops what it does for calls, so that the process which takes this one's place may do it. What is not answered yet
// has failed: nobody will hear of it.
func (c *core) leave() {
	c.away.Store(leaving)
	for _, a := range c.agents {
		done := make(chan struct{})
		a.loop.Post(func() {
			defer close(done)
			for call := range a.calls {
				call.end(503, byEdge)
			}
		})
		<-done
	}
	c.write()
	c.calls.leave()
	c.homes.close()
}

// back is called when a datagram or a connection has come after leave: the other process has not made it, unless this one is
// gone.
func (c *core) back() bool {
	if c.away.CompareAndSwap(leaving, here) {
		select {
		case c.returns <- struct{}{}:
		default:
		}
	}
	return c.away.Load() == here
}

// saveAll saves all calls after back, or says when it must be tried again.
func (c *core) saveAll() (again <-chan time.Time) {
	err := c.calls.reopen()
	if errors.Is(err, journal.ErrLocked) { // it has made it: what came was on its way
		c.away.CompareAndSwap(here, leaving)
		return nil
	}
	if err = errors.Join(err, c.homes.reopen()); err != nil {
		c.log.Error("calls and bindings end with this process", "err", err)
		return time.After(recordAgain)
	}
	for _, a := range c.agents {
		a.loop.Post(func() {
			for _, l := range a.legs {
				if l.near {
					l.save()
				}
			}
		})
	}
	return nil
}

// moved notes that the end of a leg speaks over another connection, if its own is gone.
func (l *leg) moved(w sip.Way) {
	if l.way.Transport != sip.UDP && !l.agent.core.reaches(l.way) {
		l.way = w
	}
}

// strays are Call-IDs of our own from another process, which are not of the agent that a Call-ID is by itself.
type strays struct {
	count atomic.Int64
	mu    sync.RWMutex
	all   map[string]*agent
}

func (s *strays) add(callID string, a *agent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all == nil {
		s.all = make(map[string]*agent)
	}
	s.all[callID] = a
	s.count.Store(int64(len(s.all)))
}

func (s *strays) find(callID []byte) *agent {
	if s.count.Load() == 0 {
		return nil
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.all[string(callID)]
}

func (s *strays) drop(callID string) {
	if s.count.Load() == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, callID)
	s.count.Store(int64(len(s.all)))
}
