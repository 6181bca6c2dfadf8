// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"maps"
	"sync"
)

// Counts are what a destination has, and what has happened there since the process started.
type Counts struct {
	Messages, Bytes int64 // that wait now

	Added      int64 // messages
	Delivered  int64 // recipients
	Deferred   int64 // attempts after which a message had to wait
	Failed     int64 // recipients
	Unreported int64 // recipients of messages that come from nobody, who have failed: nobody was told
	Reports    int64 // on messages for the destination
	Dropped    int64 // messages, by hand
}

// Sums are the counts of all queues that share them. The zero value is ready. Its methods may be called from anywhere.
type Sums struct {
	mu  sync.Mutex
	all map[Destination]*Counts
}

func (s *Sums) ofLocked(d Destination) *Counts {
	if s.all == nil {
		s.all = make(map[Destination]*Counts)
	}
	if s.all[d] == nil {
		s.all[d] = new(Counts)
	}
	return s.all[d]
}

// take takes room for a message, if its service has it.
func (s *Sums) take(m *Message, t Terms) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	messages, bytes := int64(1), m.held
	for d, c := range s.all {
		if d.Service == m.Service {
			messages += c.Messages
			bytes += c.Bytes
		}
	}
	if t.Messages > 0 && messages > t.Messages || t.Bytes > 0 && bytes > t.Bytes {
		return ErrFull
	}
	s.holdLocked(m)
	return nil
}

// hold takes room that may not be there.
func (s *Sums) hold(m *Message) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holdLocked(m)
}

func (s *Sums) holdLocked(m *Message) {
	c := s.ofLocked(m.destination())
	c.Messages++
	c.Bytes += m.held
}

// release gives the room of a message back.
func (s *Sums) release(m *Message) {
	s.count(m, func(c *Counts) {
		c.Messages--
		c.Bytes -= m.held
	})
}

// Reopen forgets what waits: the queues are opened anew, and say it again.
func (s *Sums) Reopen() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.all {
		c.Messages, c.Bytes = 0, 0
	}
}

// count changes the counts of where m goes.
func (s *Sums) count(m *Message, change func(*Counts)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s.ofLocked(m.destination()))
}

// Counts returns all.
func (s *Sums) Counts() map[Destination]Counts {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[Destination]Counts, len(s.all))
	for d, c := range maps.All(s.all) {
		all[d] = *c
	}
	return all
}
