// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/kyozon/kyozon/ip"
)

// Status is one backend of one pool at one moment.
type Status struct {
	Service string
	Pool    string
	Address netip.AddrPort
	Family  ip.Family
	State   string // up, down, ejected, draining, slow-start
	Reason  string
	Since   time.Time // of State; zero if it was never otherwise
	Checked time.Time // when it was last asked; zero if never
	Weight  int
	Flows   int64 // of the service, in all generations
	Cap     int
}

// Available says whether the backend gets new flows: it is up, or starts slowly.
func (s *Status) Available() bool { return s.State == "up" || s.State == "slow-start" }

// Status returns the pool's backends in the order of the file. now is the clock of the loops.
func (p *Pool) Status(now int64) []Status {
	all := make([]Status, len(p.backends))
	for i := range p.backends {
		all[i] = p.backends[i].status(now)
	}
	return all
}

func (b *Backend) status(now int64) Status {
	s := Status{Service: b.pool.service, Pool: b.pool.Spec.Name, Address: b.Addr, Family: b.Family(),
		State: "up", Weight: max(1, b.Weight), Flows: b.Flows(), Cap: b.Cap}
	o, held := Opinion{State: Up}, b.heldFor()
	if b.verdict != nil {
		o = b.verdict.Opinion()
		s.Reason, s.Since, s.Checked = o.Reason, o.Since, b.verdict.Checked()
	}
	switch ejected, starting := b.tally.ejected(now), b.starting(now); {
	case b.Drain:
		s.State, s.Since = "draining", time.Time{}
	case held != nil:
		s.State, s.Reason = "down", *held
	case o.State == Unknown:
		s.State, s.Reason = "down", "not answered yet"
	case o.State == Down:
		s.State = "down"
	case ejected > 0:
		s.State, s.Since = "ejected", time.Now().Add(-time.Duration(now-b.tally.from.Load()))
		s.Reason = fmt.Sprintf("%d connects in a row have failed; passed over for another %s",
			b.tally.fails.Load(), ejected.Round(time.Second/10))
	case starting > 0:
		s.State = "slow-start"
		s.Reason = fmt.Sprintf("has %.0f %% of its share", 100*float64(b.weight(now))/float64(s.Weight*whole))
	}
	return s
}
