// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"sync"
	"time"

	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// seats counts the calls under way, of trunks and of subscribers, over all loops. A call has its seats from when it is let
// in until its record is closed.
type seats struct {
	mu    sync.Mutex
	taken map[seat]int
	held  map[string][]seat // by the ID of the record
	rates map[string]*rate  // of trunks
}

// seat is whose calls are counted.
type seat struct {
	trunk bool
	name  string
}

// rate is how many calls a trunk may still get at a time.
type rate struct {
	left float64
	at   time.Time
}

func newSeats() seats {
	return seats{taken: make(map[seat]int), held: make(map[string][]seat), rates: make(map[string]*rate)}
}

// take gives a call a seat of each, if each has one free; all the same if it must be carried.
func (s *seats) take(id string, all []seat, most func(seat) int, must bool) (full seat, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range all {
		if n := most(one); n > 0 && s.taken[one] >= n && !must {
			return one, false
		}
	}
	for _, one := range all {
		s.taken[one]++
	}
	s.held[id] = all
	return seat{}, true
}

// free takes back what a call has.
func (s *seats) free(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.held[id] {
		if s.taken[one]--; s.taken[one] == 0 {
			delete(s.taken, one)
		}
	}
	delete(s.held, id)
}

// calm says whether a trunk may get another call now, and counts it.
func (s *seats) calm(trunk string, r limit.Rate, now time.Time) bool {
	if r.Count == 0 {
		return true
	}
	burst := float64(max(r.Burst, 1))
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.rates[trunk]
	if b == nil {
		b = &rate{left: burst, at: now}
		s.rates[trunk] = b
	}
	b.left = min(burst, b.left+now.Sub(b.at).Seconds()*float64(r.Count)/r.Per.Seconds())
	b.at = now
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}

// admit lets a call in, or says why there is no room for it. One to an emergency number is always let in, and counted.
func (e *exchange) admit(who *caller, to *destination) *sip.Answer {
	o, s := e.settings.options, &e.agent.core.seats
	all := append(make([]seat, 0, 2), seatOf(who.trunk, who.Who()))
	if to.announce == nil {
		all = append(all, seatOf(to.trunk, to.peer))
	}
	must := e.record.Emergency
	full, ok := s.take(e.record.ID, all, func(one seat) int {
		if one.trunk {
			return o.Trunks[one.name].Channels
		}
		return o.Subscribers.Calls
	}, must)
	switch {
	case !ok && full.trunk:
		return busyTrunk()
	case !ok && full == all[0]:
		return &sip.Answer{Status: 403, Phrase: "Too Many Calls"}
	case !ok:
		return &sip.Answer{Status: 486}
	}
	if to.trunk != nil && !s.calm(to.trunk.name, o.Trunks[to.trunk.name].Rate, time.Now()) && !must {
		return busyTrunk()
	}
	return nil
}

// busyTrunk is the answer where a trunk has no room. RFC 3261 §21.5.4.
func busyTrunk() *sip.Answer {
	return &sip.Answer{Status: 503, Phrase: "No Channel Free", Lines: []byte("Retry-After: 5\r\n")}
}

func seatOf(t *trunk, name string) seat {
	if t != nil {
		return seat{true, t.name}
	}
	return seat{false, name}
}
