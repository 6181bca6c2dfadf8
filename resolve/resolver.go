// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// The values of Options where nothing else is said.
const (
	DefaultDeadline = 5 * time.Second
	DefaultSize     = 1 << 13
	DefaultInFlight = 512
)

const rounds = 2 // that each server is asked, if nobody answers

var (
	errBusy   = fmt.Errorf("%w: too many questions at once", ErrFailed)
	errClosed = fmt.Errorf("%w: the resolver is closed", ErrFailed)
)

// Options of a resolver. The zero value works.
type Options struct {
	Servers  []netip.AddrPort // to ask, in this order; those of /etc/resolv.conf, looked at again and again, if none
	Deadline time.Duration    // of a question
	Size     int              // answers to remember
	InFlight int              // questions at once; more get ErrFailed
}

// Resolver asks and remembers. Its methods may be called from anywhere; they do not block but for Close.
type Resolver struct {
	deadline time.Duration
	inFlight int
	servers  servers
	first    atomic.Int64 // the server to begin with: the last one that answered where another did not
	exchange func(context.Context, netip.AddrPort, dns.Question) (Answer, time.Duration, error)
	counts   struct{ asked, known, failed, busy atomic.Int64 }

	ctx    context.Context // of the questions; Close ends it
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	cache  cache
	asked  map[Question][]func(Answer) // who waits for what
}

// Counts are what a resolver has done since it was made.
type Counts struct {
	Asked  int64 // questions that servers were asked
	Known  int64 // that were answered out of memory
	Failed int64 // of Asked, those that nobody could answer
	Busy   int64 // refused, because there were too many at once
}

// New returns a resolver. Close it.
func New(o Options) *Resolver {
	r := &Resolver{
		deadline: cmp.Or(o.Deadline, DefaultDeadline),
		inFlight: cmp.Or(o.InFlight, DefaultInFlight),
		servers:  servers{given: o.Servers, file: systemFile},
		exchange: exchange,
		cache:    cache{size: cmp.Or(o.Size, DefaultSize), entries: map[Question]entry{}},
		asked:    map[Question][]func(Answer){},
	}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	return r
}

// Close ends what is being asked, which gets ErrFailed, and waits until nobody is called back any more.
func (r *Resolver) Close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.cancel()
	r.wg.Wait()
}

// Counts returns what has been done.
func (r *Resolver) Counts() Counts {
	return Counts{r.counts.asked.Load(), r.counts.known.Load(), r.counts.failed.Load(), r.counts.busy.Load()}
}

// Ask calls done once with the answer: before it returns if the answer is known, else from another goroutine, when the
// deadline has passed at the latest. A loop has done post to it.
func (r *Resolver) Ask(q Question, done func(Answer)) {
	q.Name = dns.CanonicalName(q.Name)
	if _, ok := dns.IsDomainName(q.Name); !ok || strings.Trim(q.Name, ".") == "" {
		done(Answer{Err: ErrNoName})
		return
	}
	key := Question{Name: cmp.Or(strings.ToLower(q.As), q.Name), Type: q.Type}
	if a, ok := r.known(q, key, done); ok {
		done(a)
	}
}

// known returns the answer to a question, if it is known by now or cannot be asked. If not, done will be called.
func (r *Resolver) known(q, key Question, done func(Answer)) (Answer, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a, ok := r.cache.get(key, time.Now()); ok {
		r.counts.known.Add(1)
		return a, true
	}
	waiting, under := r.asked[key]
	switch {
	case r.closed:
		return Answer{Err: errClosed}, true
	case !under && len(r.asked) >= r.inFlight:
		r.counts.busy.Add(1)
		return Answer{Err: errBusy}, true
	}
	r.asked[key] = append(waiting, done)
	if !under {
		r.counts.asked.Add(1)
		r.wg.Go(func() { r.answer(q, key) })
	}
	return Answer{}, false
}

// answer asks the servers and tells those who wait.
func (r *Resolver) answer(q, key Question) {
	ctx, cancel := context.WithTimeout(r.ctx, r.deadline)
	a, keep := r.ask(ctx, dns.Question{Name: q.Name, Qtype: uint16(q.Type), Qclass: dns.ClassINET})
	cancel()
	r.mu.Lock()
	if keep > 0 {
		r.cache.put(key, a, time.Now().Add(keep))
	}
	waiting := r.asked[key]
	delete(r.asked, key)
	r.mu.Unlock()
	for _, done := range waiting {
		done(a)
	}
}

// ask asks server after server until one can say. One that has said that it cannot is not asked again.
func (r *Resolver) ask(ctx context.Context, q dns.Question) (Answer, time.Duration) {
	all := r.servers.list()
	patience := r.deadline / time.Duration(rounds*len(all))
	unable := make([]bool, len(all))
	first := int(r.first.Load())
	var why error
	for try := range rounds * len(all) {
		n := (first + try) % len(all)
		if unable[n] {
			continue
		}
		one, cancel := context.WithTimeout(ctx, patience)
		a, keep, err := r.exchange(one, all[n], q)
		silent := one.Err() != nil
		cancel()
		if err == nil {
			if try > 0 {
				r.first.Store(int64(n))
			}
			return a, min(keep, longest)
		}
		why, unable[n] = fmt.Errorf("%w: %v: %v", ErrFailed, all[n], err), !silent
		if ctx.Err() != nil {
			break
		}
	}
	r.counts.failed.Add(1)
	return Answer{Err: why}, failure // RFC 9520 §3.2: a failure is remembered, and not for long
}
