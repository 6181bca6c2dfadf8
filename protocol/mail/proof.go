// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/relay"
)

const (
	proofEvery = 5 * time.Second  // while something is not proved
	proofAgain = 10 * time.Minute // what was proved may have changed
)

// proofs keeps what is known of backends that are not to be believed before they are asked. A backend that takes the edge
// for the client, or trusts the addresses that stand for clients, relays for the whole world. So each is held until an
// inquiry was refused in the name of a client that there is not:
//
//	build: every backend is held ─ run: ask ─┬─ refuses to relay ─▶ free, its handover pinned
//	                                         └─ relays, cannot be told, does not answer ─▶ held, and asked again
//
// A service stays shut while one of its backends relays, or none has answered.
type proofs struct {
	offers   *acquaintances
	log      *slog.Logger
	again    chan struct{} // somebody has reason to ask now
	patience time.Duration // see askTime

	mu    sync.Mutex
	known map[question]finding
}

// question is what must be the same for a finding to be one.
type question struct {
	backend known
	family  ip.Family // of the clients
	relays  bool      // whether it relays is asked
	passed  string    // the listen whose clients are passed through to it, if they are
}

// finding is what has been found. The zero value is nothing yet.
type finding struct {
	proved  bool
	relays  bool
	told    backend.Told
	banner  string
	reason  string // why it is not proved
	checked time.Time
}

// subject is a backend, as the clients of one table come to it.
type subject struct {
	question
	table   *table
	backend *backend.Backend
	dialled netip.AddrPort
}

const unasked = "has not been asked yet "

// matter is what a backend is asked.
func (s *subject) matter() string {
	if s.table.dialect.mailbox {
		return "whether it would believe clients who they are"
	}
	return "whether it relays for strangers"
}

func newProofs(a *acquaintances, log *slog.Logger) *proofs {
	return &proofs{offers: a, log: log, known: make(map[question]finding), again: make(chan struct{}, 1), patience: askTime}
}

// need returns what must be proved of the backends of a table.
func (t *table) need(dialled netip.AddrPort) (all []*subject) {
	for _, p := range t.route.Pools() {
		auto := p.Spec.Handover == backend.HandoverAuto
		if w := t.keeps[p.Spec.Name]; w != nil && !w.smtp { // servers of LMTP relay nothing
			continue
		}
		if t.dialect.id || !t.passes() && (t.dialect.mailbox || !auto && !bool(t.options.RelayProof)) {
			continue
		}
		for _, b := range p.Backends() {
			q := question{backend: knownAs(b), family: t.route.Family, relays: bool(t.options.RelayProof)}
			if t.passes() {
				q.passed = t.listen
			}
			all = append(all, &subject{question: q, table: t, backend: b, dialled: dialled})
		}
	}
	return all
}

// hold holds what is not known to be proved, and pins what is.
func (p *proofs) hold(all []*subject) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range all {
		p.weighLocked(s.backend, all)
	}
}

// weighLocked holds or frees a backend by all that is known of it now.
func (p *proofs) weighLocked(b *backend.Backend, all []*subject) {
	reason := ""
	for _, s := range all {
		if s.backend != b {
			continue
		}
		f := p.known[s.question]
		switch {
		case f.reason != "":
			reason = f.reason
		case !f.proved && reason == "":
			reason = unasked + s.matter()
		case f.proved && b.Pool().Spec.Handover == backend.HandoverAuto:
			b.Pin(f.told)
		}
	}
	if reason != "" {
		b.Hold(backend.ForProof, reason)
		return
	}
	b.Free(backend.ForProof)
}

// shut returns why a service must not open, or "".
func (p *proofs) shut(service string, all []*subject) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	silent, answered := "", false
	for _, s := range all {
		if s.table.service != service {
			continue
		}
		f := p.known[s.question]
		switch {
		case f.relays:
			return fmt.Sprintf("%v %s", s.backend.Addr, f.reason)
		case f.proved:
			answered = true
		case f.reason != "":
			silent = fmt.Sprintf("%v %s", s.backend.Addr, f.reason)
		case silent == "":
			silent = fmt.Sprintf("%v %s%s", s.backend.Addr, unasked, s.matter())
		}
	}
	if answered {
		return ""
	}
	return silent
}

// run asks for a generation until ctx is done.
func (p *proofs) run(ctx context.Context, b *builder) {
	all := b.subjects
	if len(all) == 0 {
		return
	}
	var l *relay.Loop
	b.env.Loops.Do(func(one *relay.Loop) {
		if one.ID() == 0 {
			l = one
		}
	})
	for {
		var wg sync.WaitGroup
		for _, s := range all {
			if f := p.of(s); !f.proved || time.Since(f.checked) >= proofAgain {
				wg.Go(func() {
					if now := p.prove(ctx, l, s); ctx.Err() == nil && p.settle(s, now, all) && b.env.Reopen != nil {
						b.env.Reopen()
					}
				})
			}
		}
		wg.Wait()
		if ctx.Err() != nil {
			return
		}
		wait := proofAgain
		if slices.ContainsFunc(all, func(s *subject) bool { return !p.of(s).proved }) {
			wait = proofEvery
		}
		select {
		case <-ctx.Done():
			return
		case <-p.again:
		case <-time.After(wait):
		}
	}
}

func (p *proofs) of(s *subject) finding {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.known[s.question]
}

// greets is told how a backend has greeted a client: another server than before is another to be asked.
func (p *proofs) greets(b *backend.Backend, greeting []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	k, changed := knownAs(b), false
	for q, f := range p.known {
		if q.backend == k && f.proved && f.banner != string(likeness(greeting)) {
			f.checked, changed = time.Time{}, true
			p.known[q] = f
		}
	}
	if changed {
		select {
		case p.again <- struct{}{}:
		default:
		}
	}
}

// settle writes down what was found, and says whether a service may open or not that might not or might before.
func (p *proofs) settle(s *subject, now finding, all []*subject) (changed bool) {
	p.mu.Lock()
	was := p.known[s.question]
	now.checked = time.Now()
	p.known[s.question] = now
	p.weighLocked(s.backend, all)
	p.mu.Unlock()
	switch {
	case now.reason != was.reason && now.reason != "":
		p.log.Error("server gets no mail", "service", s.table.service, "backend", s.backend.Addr.String(), "err", now.reason)
	case now.proved && !was.proved || now.told != was.told:
		p.log.Info("server is told who the client is, and relays for no stranger", "service", s.table.service,
			"backend", s.backend.Addr.String(), "handover", now.told.Handover.String(), "family", s.family.String())
	}
	return now.proved != was.proved
}

// candidates are the ways in which a backend may be told, the best first.
func (s *subject) candidates() []backend.Told {
	spec := &s.backend.Pool().Spec
	switch {
	case spec.Handover != backend.HandoverAuto:
		return []backend.Told{{Handover: spec.Handover, Carry: spec.Carry}}
	case spec.Source == backend.SourceClient: // that tells it
		return []backend.Told{{Handover: backend.HandoverNone}}
	}
	var all []backend.Told
	for _, h := range []backend.Handover{backend.HandoverXclient, backend.HandoverProxyV2} {
		all = append(all, backend.Told{Handover: h})
		if s.family == ip.V6 && s.backend.Family() == ip.V4 && s.table.route.StandIns != nil {
			all = append(all, backend.Told{Handover: h, Carry: backend.CarryStandIn})
		}
	}
	return all
}

// prove asks a backend, in each way in which it may be told, until it takes one.
func (p *proofs) prove(ctx context.Context, l *relay.Loop, s *subject) finding {
	auto := s.backend.Pool().Spec.Handover == backend.HandoverAuto
	var reason string
	greets, waits := false, false // without a header
	for _, t := range s.candidates() {
		if header := t.Handover == backend.HandoverProxyV2; greets && header || waits && !header {
			continue
		}
		if auto {
			s.backend.Pin(t)
		}
		a := s.ask(ctx, l, t, p.patience)
		if a.err == nil {
			p.offers.of(s.backend).note(&a.has)
		}
		if t.Handover != backend.HandoverProxyV2 { // who waits for a header says nothing before
			waits = a.banner == "" || a.before
			greets = !waits
		}
		switch {
		case a.err != nil:
			return finding{told: t, reason: fmt.Sprintf("cannot be asked %s: %v", s.matter(), a.err)}
		case a.relayed != "":
			return finding{told: t, relays: true, banner: a.banner, reason: fmt.Sprintf(
				"relays for strangers: it has accepted mail for %s from %s; take that address out of what it trusts (mynetworks)", stranger, a.relayed)}
		case a.believes != "":
			return finding{told: t, relays: true, banner: a.banner, reason: fmt.Sprintf(
				"would believe clients who they are: it takes XCLIENT from %s; take that address out of what it trusts "+
					"(smtpd_authorized_xclient_hosts, login_trusted_networks)", a.believes)}
		case a.refuses == "":
			return finding{proved: true, told: t, banner: a.banner}
		case reason == "":
			reason = a.refuses
		}
	}
	return finding{reason: "cannot be told who the client is: " + reason}
}

// ask makes one inquiry.
func (s *subject) ask(ctx context.Context, l *relay.Loop, t backend.Told, patience time.Duration) answer {
	got := make(chan answer, 1)
	done, d := func(a answer) { got <- a }, s.table.dialect
	first := d.secure && s.passed != ""
	dialled := (&inquiry{told: t, helo: s.table.name(), patience: patience, relays: s.relays, passed: s.passed != "", secure: first, done: done}).dialled
	if d.mailbox {
		dialled = (&glance{secure: first, done: done}).dialled
	}
	l.Post(func() {
		s.table.route.Reach(l, s.backend, backend.Client{Addr: s.nobody(), Dialled: s.dialled}, dialled)
	})
	select {
	case a := <-got:
		return a
	case <-ctx.Done():
		return answer{err: ctx.Err()}
	}
}

// nobody is a client that there is not: addresses of documents, RFC 5737 and RFC 3849. On loopback, where servers do not
// tell them apart, it is one of its own.
func (s *subject) nobody() netip.AddrPort {
	const port = 40_000
	if s.backend.Addr.Addr().IsLoopback() && s.backend.Family() == s.family && s.backend.Pool().Spec.Source == backend.SourceClient {
		return netip.AddrPortFrom(s.backend.Addr.Addr(), port)
	}
	if s.family == ip.V4 {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, 1}), port)
	}
	return netip.AddrPortFrom(netip.AddrFrom16([16]byte{0x20, 0x01, 0x0d, 0xb8, 15: 1}), port)
}
