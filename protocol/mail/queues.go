// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"cmp"
	"context"
	"log/slog"
	"math"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/journal"
	"github.com/kyozon/kyozon/protocol/mail/queue"
	"github.com/kyozon/kyozon/relay"
	"github.com/kyozon/kyozon/service"
)

// queues is the messages that the edge has answered for, and who brings them to servers. It outlives the generations. Each
// process writes to a journal of its own; what one leaves, because it ends or is killed, another takes over:
//
//	session ─▶ storing ─▶ own journal ─▶ 250
//	                          │ round: what is due, a server that is well and has a place
//	 journals that were left ─┴─▶ errand, on a loop: LMTP or SMTP ─▶ done ─▶ round: Finish, or Return
type queues struct {
	all   *fronts
	loops *relay.Loops
	shelf string // of the journals
	log   *slog.Logger
	sums  queue.Sums
	wake  chan struct{} // of size 1: one call to look is enough
	shown *service.Queue

	life sync.Mutex // comes before mu: opening and closing as a whole

	mu       sync.Mutex
	holders  int // generations
	stopping bool
	ways     map[queue.Destination]*way // of the generation in service
	terms    map[string]queue.Terms
	holdings []*holding
	own      *holding // to which is added; nil if there is none
	loads    map[netip.AddrPort]*load
	results  []result
	turn     int // of loops and servers
	stop     context.CancelFunc
	ended    sync.WaitGroup
}

// holding is a journal and the queue in it.
type holding struct {
	name    string // of the journal
	journal *journal.Journal
	queue   *queue.Queue
	stop    context.CancelFunc
	ended   chan struct{}
}

// way is how messages reach a destination in one generation. It is immutable.
type way struct {
	queue.Destination
	name    string // of the edge
	smtp    bool   // what its servers speak
	atOnce  int    // connections to each
	unasked []string
	pool    *backend.Pool
	direct  map[ip.Family]*backend.Route // by the family of the client
}

// route returns the one for a message.
func (w *way) route(m *queue.Message) *backend.Route {
	if m.Client.Addr().Is4() {
		return w.direct[ip.V4]
	}
	return w.direct[ip.V6]
}

// keeps makes the ways of a service, and returns those that clients are sent to by pool.
func (b *builder) keeps(name string, o *Options) map[string]*way {
	c := o.Queue
	if c == nil {
		return nil
	}
	b.queued[name] = c.terms(o.Name)
	pools := b.env.Pools(name)
	direct := make(map[ip.Family]*backend.Route)
	for _, f := range []ip.Family{ip.V4, ip.V6} {
		direct[f] = b.env.Direct(name, f)
	}
	all := make(map[string]*way)
	for _, pool := range o.SendsTo() {
		if pool == "" {
			continue
		}
		w := &way{Destination: queue.Destination{Service: name, Pool: pool}, name: o.Name, smtp: c.speech(pool) == SpeechSMTP,
			atOnce: cmp.Or(c.AtOnce, usualAtOnce), unasked: c.Unasked, pool: pools[pool], direct: direct}
		b.ways[w.Destination] = w
		if _, ok := c.Pools[pool]; ok {
			all[pool] = w
		}
	}
	return all
}

// load is what a server has to do for us, in all pools.
type load struct {
	busy  int       // connections
	fails int       // in a row: it was not there, or had no service for us
	until time.Time // when it is asked again after that
}

// backOff is how long a server is left alone that has failed so often in a row.
func backOff(fails int) time.Duration { return min(time.Second<<min(fails-1, 6), time.Minute) }

// journalOptions say how the journals are kept. What there is room for is said by the terms.
func (q *queues) journalOptions() journal.Options {
	return journal.Options{Size: math.MaxInt64 / 4, Log: q.log}
}

// hold puts the ways of a generation into service, and opens the queue if it has any or messages are left of before.
func (q *queues) hold(ways map[queue.Destination]*way, terms map[string]queue.Terms) {
	q.life.Lock()
	defer q.life.Unlock()
	q.mu.Lock()
	q.holders++
	q.ways, q.terms, q.stopping = ways, terms, false
	if len(q.holdings) == 0 {
		q.sums.Reopen()
	}
	q.mu.Unlock()
	q.adopt()
	q.sayStuck()
	if q.stop == nil {
		ctx, stop := context.WithCancel(context.Background())
		q.stop = stop
		q.ended.Go(func() { q.run(ctx) })
	}
	q.rouse()
}

// release closes the queue after the last generation, when nothing is under way or stopped is closed: what sessions that
// end have been told must be on disk.
func (q *queues) release(stopped <-chan struct{}) {
	q.mu.Lock()
	q.holders--
	q.stopping = q.holders == 0
	q.mu.Unlock()
	q.rouse()
	q.await(stopped)
	q.life.Lock()
	defer q.life.Unlock()
	if !q.isStopping() { // another generation has come
		return
	}
	q.stop()
	q.stop = nil
	q.ended.Wait()
	q.mu.Lock()
	all := q.holdings
	q.holdings, q.own, q.stopping = nil, nil, false
	q.ways, q.terms = nil, nil // what is left is stuck
	q.mu.Unlock()
	for _, h := range all {
		h.close()
	}
}

// await returns when nothing is under way, stopped is closed, or another generation has come.
func (q *queues) await(stopped <-chan struct{}) {
	look := time.NewTicker(drainLook)
	defer look.Stop()
	for stopped != nil && q.isStopping() && q.all.busy.Load() > 0 {
		select {
		case <-look.C:
		case <-stopped:
			return
		}
	}
}

// drainLook is how often it is looked whether all is done.
const drainLook = 20 * time.Millisecond

func (q *queues) isStopping() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.stopping
}

// current returns where messages are added, or nil.
func (q *queues) current() *holding {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.own
}

// termsOf is queue.Options.Terms.
func (q *queues) termsOf(service string) (queue.Terms, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	t, ok := q.terms[service]
	return t, ok
}

func (q *queues) rouse() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// adopt takes over the journals that nobody has, and opens one if messages are to be added and there is none; those that
// are empty and not our own are closed. It is called with life held.
func (q *queues) adopt() {
	left, err := journal.OpenLeft(q.shelf, q.journalOptions())
	if err != nil {
		q.log.Error("messages of another process", "err", err)
	}
	for _, j := range left {
		q.open(j)
	}
	q.mu.Lock()
	need := q.own == nil && len(q.terms) > 0
	if need && len(q.holdings) > 0 {
		q.own, need = q.holdings[0], false
	}
	empty := q.emptyLocked()
	q.mu.Unlock()
	for _, h := range empty {
		h.close()
	}
	if !need {
		return
	}
	j, err := journal.OpenNew(q.shelf, q.journalOptions())
	if err != nil {
		q.log.Error("no message can be kept", "err", err)
		return
	}
	h := q.open(j)
	q.mu.Lock()
	q.own = h
	q.mu.Unlock()
}

// emptyLocked takes out the holdings that are empty and not our own.
func (q *queues) emptyLocked() (empty []*holding) {
	q.holdings = slices.DeleteFunc(q.holdings, func(h *holding) bool {
		if h == q.own || h.queue.Len() > 0 {
			return false
		}
		empty = append(empty, h)
		return true
	})
	return empty
}

// open makes a holding of a journal and puts it among the others.
func (q *queues) open(j *journal.Journal) *holding {
	opened, err := queue.Open(j, queue.Options{Terms: q.termsOf, Sums: &q.sums, Changed: q.rouse, Log: q.log})
	if err != nil {
		q.log.Error("some of the messages that were left cannot be read", "journal", j.Name(), "err", err)
	}
	if n := opened.Len(); n > 0 {
		q.log.Info("messages were left", "journal", j.Name(), "messages", n)
	}
	ctx, stop := context.WithCancel(context.Background())
	h := &holding{name: j.Name(), journal: j, queue: opened, stop: stop, ended: make(chan struct{})}
	go func() {
		defer close(h.ended)
		if err := j.Run(ctx); err != nil {
			q.log.Error("journal of messages", "err", err)
		}
	}()
	q.mu.Lock()
	q.holdings = append(q.holdings, h)
	q.mu.Unlock()
	return h
}

// close writes what is to be written and gives the journal back.
func (h *holding) close() {
	h.stop()
	<-h.ended
}

// each returns the holdings.
func (q *queues) each() []*holding {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Clone(q.holdings)
}
