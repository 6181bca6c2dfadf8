// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/phone/cause"
	"github.com/kyozon/kyozon/protocol/phone/cdr"
	"github.com/kyozon/kyozon/protocol/phone/location"
	"github.com/kyozon/kyozon/relay"
	"github.com/kyozon/kyozon/service"
)

// telephony shows the calls and subscribers of some services.
func telephony(cores []*core) *service.Telephony {
	return &service.Telephony{
		Calls: func(keep func(*service.Call) bool, limit int) (all []service.Call) {
			for _, c := range cores {
				all = append(all, c.shown(keep, limit-len(all))...)
			}
			return all
		},
		Drop: func(id string) error {
			for _, c := range cores {
				if c.drop(id) {
					return nil
				}
			}
			return service.ErrNoCall
		},
		Explain: func(key string) (*service.Explanation, error) {
			for _, c := range cores {
				if x, err := c.explain(key); err == nil {
					return x, nil
				}
			}
			return nil, service.ErrNoCall
		},
		Registrations: func(keep func(*service.Registration) bool, limit int) (all []service.Registration) {
			for _, c := range cores {
				all = append(all, c.registrations(keep, limit-len(all))...)
			}
			return all
		},
	}
}

// shown returns calls under way.
func (c *core) shown(keep func(*service.Call) bool, limit int) (all []service.Call) {
	var mu sync.Mutex
	c.loops.Do(func(l *relay.Loop) {
		var some []service.Call
		add := func(r *cdr.Record, state string, m *media) {
			one := c.show(r, state, m)
			if len(some) < limit && keep(&one) {
				some = append(some, one)
			}
		}
		for call := range c.agents[l.ID()].calls {
			add(call.record, call.state(), nil)
		}
		for _, one := range c.agents[l.ID()].legs {
			if one.near && one.record != nil {
				add(one.record, "answered", one.media)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		all = append(all, some...)
	})
	mu.Lock() // where the loops have ended one may still be at it
	defer mu.Unlock()
	return slices.Clone(all[:min(max(limit, 0), len(all))])
}

// state says how far a call is that nobody has answered.
func (c *call) state() string {
	if c.record.Ring != nil {
		return "ringing"
	}
	return "calling"
}

// show copies what a record says, and how media go if they are answered. It is called on the loop of the call.
func (c *core) show(r *cdr.Record, state string, m *media) service.Call {
	s := service.Call{Service: c.name, ID: r.ID, State: state, Start: r.Start, Answer: r.Answer, From: r.From, To: r.To, Withheld: r.Withheld,
		Caller: showLeg(&r.Caller)}
	if r.Called != nil {
		called := showLeg(r.Called)
		s.Called = &called
	}
	if m != nil && m.said() {
		s.Media = m.path.String()
	}
	return s
}

func showLeg(l *cdr.Leg) service.CallLeg {
	return service.CallLeg{Network: l.Network, Family: l.Family, Peer: l.Peer, Address: l.Address, CallID: l.CallID}
}

// drop ends a call for both ends.
func (c *core) drop(id string) bool {
	const why = "dropped by the operator"
	found := make(chan bool, len(c.agents))
	c.loops.Do(func(l *relay.Loop) {
		a := c.agents[l.ID()]
		a.open()
		defer a.wind()
		for call := range a.calls {
			if call.record.ID == id {
				call.record.Reason = why
				call.end(480, byEdge)
				found <- true
				return
			}
		}
		for _, one := range a.legs {
			if one.near && one.record != nil && one.record.ID == id {
				one.closed(byEdge, cause.Normal, why)
				one.peer.hangUp()
				one.hangUp()
				found <- true
				return
			}
		}
	})
	return len(found) > 0
}

// registrations returns where subscribers are reached.
func (c *core) registrations(keep func(*service.Registration) bool, limit int) (all []service.Registration) {
	at, networks := now(), c.settings.Load().networks
	c.places.Each(func(aor string, bindings []location.Binding) bool {
		name, _, _ := strings.Cut(strings.TrimPrefix(aor, "sip:"), "@")
		for i := range bindings {
			b := &bindings[i]
			if b.Expires <= at {
				continue
			}
			one := service.Registration{Service: c.name, Name: name, Contact: b.Contact, Family: ip.FamilyOf(b.Way.Remote.Addr()).String(),
				Transport: b.Way.Transport.String(), Address: b.Way.Remote, Expires: time.Unix(b.Expires, 0), Agent: b.Agent, Instance: b.Instance, Path: b.Path}
			if n := networks[b.Way.Local]; n != nil {
				one.Network = n.name
			}
			if keep(&one) {
				all = append(all, one)
			}
		}
		return len(all) < limit
	})
	return all[:min(max(limit, 0), len(all))]
}

// agents are the names of devices, each of which is kept once.
type agents struct {
	mu  sync.Mutex
	all map[string]string
}

const (
	mostAgents = 4096
	longAgent  = 80
)

// name returns the name as it is kept, or nothing if there are too many: strangers cannot make us keep all that they invent.
func (a *agents) name(b []byte) string {
	if len(b) == 0 {
		return ""
	}
	b = b[:min(longAgent, len(b))]
	a.mu.Lock()
	defer a.mu.Unlock()
	if known, ok := a.all[string(b)]; ok || len(a.all) >= mostAgents {
		return known
	}
	if a.all == nil {
		a.all = make(map[string]string)
	}
	text := strings.ToValidUTF8(string(b), "")
	a.all[text] = text
	return text
}

// tally counts calls since the process started.
type tally struct {
	mu     sync.Mutex
	active map[ends]int64
	over   map[outcome]int64
}

// ends are the families of a caller and of who has answered him, "" as long as nobody has.
type ends struct{ caller, called string }

func endsOf(r *cdr.Record) ends {
	if r.Answer == nil || r.Called == nil {
		return ends{r.Caller.Family, ""}
	}
	return ends{r.Caller.Family, r.Called.Family}
}

// outcome is what has become of a call.
type outcome struct {
	ends
	cause int
}

func (o outcome) compare(p outcome) int {
	return cmp.Or(cmp.Compare(o.caller, p.caller), cmp.Compare(o.called, p.called), cmp.Compare(o.cause, p.cause))
}

func newTally() tally {
	return tally{active: make(map[ends]int64), over: make(map[outcome]int64)}
}

func (t *tally) begin(r *cdr.Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.active[endsOf(r)]++
}

// answered is called when a call that has begun is answered.
func (t *tally) answered(r *cdr.Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.active[ends{r.Caller.Family, ""}]--
	t.active[endsOf(r)]++
}

func (t *tally) end(r *cdr.Record) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.active[endsOf(r)]--
	t.over[outcome{endsOf(r), r.Cause}]++
}

// The metrics.
func callsActive() service.Metric {
	return service.Metric{Name: "kyozon_phone_calls_active", Help: "Calls under way, by the families of the caller and of who has answered.", Noun: "calls now",
		Labels: []string{"service", "client_family", "backend_family"}, Sessions: true}
}

func callsTotal() service.Metric {
	return service.Metric{Name: "kyozon_phone_calls_total", Help: "Calls that were answered and have ended, or failed, by cause of ITU-T Q.850.",
		Noun: "calls ended", Labels: []string{"service", "client_family", "backend_family", "outcome", "cause"}, Sessions: true}
}

func registrationsActive() service.Metric {
	return service.Metric{Name: "kyozon_phone_registrations_active", Help: "Addresses at which subscribers are reached.", Noun: "registrations now",
		Labels: []string{"service", "client_family"}}
}

func channelsActive() service.Metric {
	return service.Metric{Name: "kyozon_phone_channels_active", Help: "Calls under way on trunks.", Noun: "channels now", Labels: []string{"service", "trunk"}}
}

// counts returns what is counted.
func (c *core) counts() (all []service.Count) {
	c.tally.mu.Lock()
	active, over := maps.Clone(c.tally.active), maps.Clone(c.tally.over)
	c.tally.mu.Unlock()
	for _, f := range [...]ip.Family{ip.V4, ip.V6} {
		name := f.String()
		for _, called := range [...]string{"", ip.V4.String(), ip.V6.String()} {
			all = append(all, service.Count{Metric: callsActive(), Values: []string{c.name, name, called}, Value: active[ends{name, called}]})
		}
		all = append(all, service.Count{Metric: registrationsActive(), Values: []string{c.name, name}, Value: c.places.Count(f)})
	}
	for _, o := range slices.SortedFunc(maps.Keys(over), outcome.compare) {
		word := "failed"
		if o.called != "" {
			word = "answered"
		}
		all = append(all, service.Count{Metric: callsTotal(), Values: []string{c.name, o.caller, o.called, word, index(o.cause)}, Value: over[o]})
	}
	all = append(all, c.quality.counts(c.name)...)
	c.seats.mu.Lock()
	defer c.seats.mu.Unlock()
	for name := range c.settings.Load().trunks {
		all = append(all, service.Count{Metric: channelsActive(), Values: []string{c.name, name}, Value: int64(c.seats.taken[seat{true, name}])})
	}
	return all
}
