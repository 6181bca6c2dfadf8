// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/phone/sip/target"
	"github.com/kyozon/kyozon/resolve"
)

const (
	// lookAgain is how often the names of gateways are looked at. What is known is asked again when its TTL is over.
	lookAgain = 10 * time.Second

	// mostSteps bounds how often an answer leads to other questions: NAPTR, SRV, addresses.
	mostSteps = 4
)

// directory is where the gateways of all trunks are, as far as the DNS has said. It is immutable.
type directory struct {
	answers  *target.Answers
	gateways map[point]*gateway  // by address and port
	hosts    map[point]*gateway  // by address alone; nil if two trunks have it
	peers    map[netip.Addr]bool // the addresses of all of them
	targets  map[target.Target]bool
}

// publish makes known where the gateways are by answers of the DNS. First come those that are written with an address: nobody
// can take it from them by what his DNS says.
func (s *settings) publish(a *target.Answers) {
	d := &directory{answers: a, gateways: make(map[point]*gateway), hosts: make(map[point]*gateway), peers: make(map[netip.Addr]bool),
		targets: make(map[target.Target]bool)}
	for _, named := range [...]bool{false, true} {
		for _, t := range s.sorted {
			for i := range t.written {
				if t.written[i].At.isName() != named {
					continue
				}
				for _, g := range t.locate(&t.written[i], a, nil) {
					d.remember(g, named)
				}
			}
		}
	}
	s.directory.Store(d)
}

// remember makes a gateway known by where it is.
func (d *directory) remember(g *gateway, named bool) {
	n := g.trunk.network
	if at := (point{n, g.way.Remote}); d.gateways[at] == nil {
		d.gateways[at] = g
	}
	d.peers[g.way.Remote.Addr()], d.targets[g.target] = true, true
	host := point{n, netip.AddrPortFrom(g.way.Remote.Addr(), 0)}
	switch other, ok := d.hosts[host]; {
	case !ok:
		d.hosts[host] = g
	case other != nil && other.trunk != g.trunk && (!named || other.named):
		d.hosts[host] = nil // nobody knows which of them calls
	}
}

// look keeps the names of gateways looked up until ctx is done, and a resolver for those that come up in calls.
func (c *core) look(ctx context.Context, s *settings) {
	if len(s.trunks) == 0 {
		return
	}
	r := resolve.New(resolve.Options{Servers: s.options.Resolvers})
	defer r.Close()
	c.resolver.Store(r)
	defer c.resolver.CompareAndSwap(r, nil)
	if !s.named() {
		<-ctx.Done()
		return
	}
	again := time.NewTicker(lookAgain)
	defer again.Stop()
	for {
		answers := s.ask(ctx, r, s.directory.Load().answers)
		if ctx.Err() != nil {
			return
		}
		c.answers.Store(answers)
		s.publish(answers)
		c.dead.keep(s.directory.Load().targets)
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
	}
}

// named says whether a gateway is written with a name.
func (s *settings) named() bool {
	for _, t := range s.trunks {
		for i := range t.written {
			if t.written[i].At.isName() {
				return true
			}
		}
	}
	return false
}

// ask asks all that leads from the names of gateways to addresses. Where nobody can say, what was known before holds: a
// telephone network is not to go when its DNS does.
func (s *settings) ask(ctx context.Context, r *resolve.Resolver, before *target.Answers) *target.Answers {
	a := &target.Answers{Naptr: make(map[string][]target.Naptr), Srv: make(map[string][]target.Srv), Addr: make(map[target.Question][]netip.Addr)}
	for range mostSteps {
		var missing []target.Question
		for _, t := range s.sorted {
			for i := range t.written {
				_, more, _ := target.Locate(&t.written[i].At.uri, t.network.reach(), a)
				missing = append(missing, more...)
			}
		}
		if len(missing) == 0 || ctx.Err() != nil {
			break
		}
		var all sync.WaitGroup
		found := make([]resolve.Answer, len(missing))
		for i, q := range missing {
			all.Add(1)
			r.Ask(resolve.Question{Name: q.Name, Type: typeOf(q)}, func(got resolve.Answer) {
				found[i] = got
				all.Done()
			})
		}
		all.Wait() // each has a deadline, and this is no loop
		for i, q := range missing {
			add(a, q, &found[i], before)
		}
	}
	return a
}

func typeOf(q target.Question) resolve.Type {
	switch {
	case q.Type == target.NAPTR:
		return resolve.NAPTR
	case q.Type == target.SRV:
		return resolve.SRV
	case q.Family == ip.V6:
		return resolve.AAAA
	}
	return resolve.A
}

// add notes what the DNS has said of a question.
func add(a *target.Answers, q target.Question, got *resolve.Answer, before *target.Answers) {
	unknown := errors.Is(got.Err, resolve.ErrFailed) && before != nil
	switch q.Type {
	case target.NAPTR:
		var all []target.Naptr
		if unknown {
			all = before.Naptr[q.Name]
		}
		for _, p := range got.Pointers {
			if strings.EqualFold(p.Flags, "s") { // RFC 3263 §4.1
				all = append(all, target.Naptr{Order: p.Order, Preference: p.Preference, Service: p.Service, Replacement: p.Replacement})
			}
		}
		a.Naptr[q.Name] = all
	case target.SRV:
		var all []target.Srv
		if unknown {
			all = before.Srv[q.Name]
		}
		for _, s := range got.Services {
			all = append(all, target.Srv{Priority: s.Priority, Weight: s.Weight, Port: s.Port, Name: s.Host})
		}
		a.Srv[q.Name] = all
	default:
		a.Addr[q] = got.Addrs
		if unknown {
			a.Addr[q] = before.Addr[q]
		}
	}
}
