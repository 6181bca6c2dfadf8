// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"cmp"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/protocol/mail/policy"
	"github.com/kyozon/kyozon/protocol/mail/scan"
	"github.com/kyozon/kyozon/protocol/mail/smtp"
	"github.com/kyozon/kyozon/relay"
	"github.com/kyozon/kyozon/resolve"
	"github.com/kyozon/kyozon/service"
)

const defaultDelay = 3 * time.Second

// guard is the policy of a service in one generation.
type guard struct {
	policy.Policy
	resolver *resolve.Resolver
}

// memory is what the policies and the engines of a service have seen, whatever the generation.
type memory struct {
	known  policy.Known
	counts policy.Counts
	scans  scan.Counts

	lookups [lookups]atomic.Int64
	tally   tally
}

// resolvers are those in use, by the servers that they ask. They outlive the generations, so that what is known stays
// known; one that no generation uses any more is closed.
type resolvers struct {
	mu  sync.Mutex
	all map[string]*sharedResolver
}

type sharedResolver struct {
	*resolve.Resolver
	users int
}

// open returns the resolver for some servers. Give it back with close.
func (r *resolvers) open(o resolve.Options) (*resolve.Resolver, string) {
	key := fmt.Sprint(o.Servers)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.all = make(map[string]*sharedResolver)
	}
	if r.all[key] == nil {
		r.all[key] = &sharedResolver{Resolver: resolve.New(o)}
	}
	r.all[key].users++
	return r.all[key].Resolver, key
}

func (r *resolvers) close(key string) {
	r.mu.Lock()
	one := r.all[key]
	one.users--
	last := one.users == 0
	if last {
		delete(r.all, key)
	}
	r.mu.Unlock()
	if last {
		one.Close()
	}
}

// guard makes the policy of a service; nil if it has none.
func (b *builder) guard(o *Options) *guard {
	p := o.Policy
	if p == nil {
		return nil
	}
	g := &guard{Policy: policy.Policy{Lists: p.Zones, Exempt: ip.NewPrefixes(p.Exempt...), Name: o.Name}}
	g.Modes = [policy.Rules]policy.Mode{policy.ReverseName: p.ReverseName, policy.Listed: p.DNSBL, policy.Hello: p.Hello, policy.Early: p.Early}
	if p.Early != policy.Off {
		g.Delay = cmp.Or(p.Delay, defaultDelay)
	}
	if p.Clients == ClientsIPv6 {
		g.Families = []ip.Family{ip.V6}
	}
	var key string
	g.resolver, key = b.kept.resolvers.open(resolve.Options{Servers: p.Resolvers})
	b.used = append(b.used, key)
	return g
}

// open greets a client, or has him wait.
func (s *session) open() {
	g, client := s.table.guard, s.conn.Remote().Addr()
	if g == nil || !g.Concerns(client) {
		s.greet()
		return
	}
	s.guard = g
	s.visit = g.Begin(client, g.resolver.Ask, func(fn func()) {
		s.conn.Loop().Post(func() {
			if !s.over {
				fn()
			}
		})
	})
	if g.Delay == 0 || s.table.memory.known.Has(client) {
		s.greet()
		return
	}
	w := &waiter{session: s}
	w.timer.Func = w.done
	s.conn.SetHandler(w)
	s.conn.Loop().SetTimer(&w.timer, g.Delay)
}

// greet says that it is the client's turn.
func (s *session) greet() {
	s.conn.Write(append(append(append(s.scratch(), "220 "...), s.table.options.Name...), " ESMTP\r\n"...))
	s.conn.SetTimeout(s.table.options.Timeouts.Command)
}

// waiter is the handler of a client that is not greeted yet. He must not talk: RFC 5321 §4.3.1.
type waiter struct {
	session *session
	timer   relay.Timer
}

// Data implements relay.Handler. Who talks is refused, or goes on waiting.
func (w *waiter) Data(c *relay.Conn, p []byte) int {
	if len(p) == 0 {
		return 0
	}
	s := w.session
	s.visit.Facts.Early = true
	if s.guard.Modes[policy.Early] != policy.Enforce {
		c.Pause()
		return 0
	}
	c.SetHandler(s)
	f, _ := s.judge()
	s.end(f.Reply)
	return len(p)
}

// Event implements relay.Handler.
func (w *waiter) Event(*relay.Conn, relay.Event) { w.session.close(metrics.ClientReset) }

// Closed implements relay.Handler.
func (w *waiter) Closed(*relay.Conn, error) { w.session.close(metrics.ClientReset) }

// drain says goodbye.
func (w *waiter) drain() {
	if s := w.session; s.ending() {
		s.conn.SetHandler(s)
		s.end(goingDown)
	}
}

// done greets the client when his time is over.
func (w *waiter) done() {
	s := w.session
	if s.over {
		return
	}
	if !s.visit.Facts.Early {
		s.table.memory.known.Add(s.conn.Remote().Addr())
	}
	s.conn.SetHandler(s)
	s.greet()
	s.conn.Resume()
}

// admit has a client that begins a transaction wait until it is known who it is, and then goes on with what it has asked,
// or refuses it. RFC 5321 §4.3.2 has 450 as an answer to RCPT; we say it to MAIL, because it is about the client, and so no
// server need be troubled.
func (s *session) admit(c *smtp.Command) {
	s.keep(c)
	if s.visit == nil {
		s.forward(command)
		return
	}
	s.visit.Settle(func() {
		if f, refused := s.judge(); refused {
			s.say(f.Reply)
			s.rest()
			return
		}
		s.forward(command)
	})
}

// name returns the client's confirmed reverse name; nil if there is none, or nobody has looked yet.
func (s *session) name() []byte {
	if s.visit == nil || s.visit.Confirmed() == "" {
		return nil
	}
	return []byte(s.visit.Confirmed())
}

// judge returns what the client is refused for, and counts what was found, once.
func (s *session) judge() (policy.Finding, bool) {
	s.visit.Facts.Hello = string(s.helo)
	all := s.guard.Judge(&s.visit.Facts)
	if !s.judged {
		s.judged = true
		s.table.memory.counts.Add(s.conn.Remote().Addr(), all, s.visit.Failed())
		for _, f := range all {
			s.note(cameTo(f.Mode), f.Rule.String(), f.Reply)
		}
	}
	return policy.Refusal(all)
}

func cameTo(m policy.Mode) string {
	if m == policy.Enforce {
		return "refused"
	}
	return "observed"
}

// memory returns that of a service.
func (f *fronts) memory(name string) *memory {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.memories == nil {
		f.memories = make(map[string]*memory)
	}
	if f.memories[name] == nil {
		f.memories[name] = new(memory)
	}
	return f.memories[name]
}

// mostNotes is how many lines a second are logged about clients. The counters have them all.
const mostNotes = 10

// notes bounds what is logged.
type notes struct {
	second atomic.Int64
	lines  atomic.Int64
}

func (n *notes) allow(now int64) bool {
	if n.second.Swap(now) != now {
		n.lines.Store(0)
	}
	return n.lines.Add(1) <= mostNotes
}

// note logs what was found in a client, or in what it has brought.
func (s *session) note(end, rule, why string) {
	if s.front.all.notes.allow(time.Now().Unix()) {
		s.front.all.log.Info("mail judged", "service", s.table.service, "client", s.conn.Remote().Addr().String(), "rule", rule,
			"outcome", end, "err", strings.TrimSpace(why))
	}
}

// refusals lists what policies, engines and the edge itself have had against clients.
func (m *memory) refusals(name string) (all []service.Refusal) {
	for _, f := range []ip.Family{ip.V4, ip.V6} {
		add := func(rule string, refused bool, n int64) {
			if n > 0 {
				all = append(all, service.Refusal{Service: name, Family: f, Rule: rule, Refused: refused, Count: n})
			}
		}
		for r := range policy.Rules {
			add(r.String(), true, m.counts.Found(f, r, policy.Enforce))
			add(r.String(), false, m.counts.Found(f, r, policy.Observe))
		}
		add("dns-unknown", false, m.counts.Failed(f))
		for r := scan.Virus; r < scan.Reasons; r++ {
			add(r.String(), true, m.scans.Judged(f, r))
		}
		add(scan.Auth.String(), false, m.scans.Silent(f))
		add(scan.Broken.String(), false, m.scans.Unseen(f))
		for r := range reasons {
			add(r.String(), true, m.tally.own[index(f)][r].Load())
		}
		for r := smtp.LineTooLong; r < smtp.Refusals; r++ {
			add(r.Error(), true, m.tally.faults[index(f)][r].Load())
		}
	}
	return all
}
