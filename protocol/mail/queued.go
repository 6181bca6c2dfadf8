// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kyozon/kyozon/journal"
	"github.com/kyozon/kyozon/protocol/mail/queue"
	"github.com/kyozon/kyozon/service"
)

// id names a message: the journal and its place there.
func (h *holding) id(id journal.ID) string { return h.name + "-" + strconv.FormatUint(uint64(id), 10) }

// find returns where a message is.
func (q *queues) find(id string) (*holding, journal.ID, bool) {
	name, number, _ := strings.Cut(id, "-")
	n, err := strconv.ParseUint(number, 10, 64)
	all := q.each()
	i := slices.IndexFunc(all, func(h *holding) bool { return h.name == name })
	if err != nil || i < 0 {
		return nil, 0, false
	}
	return all[i], journal.ID(n), true
}

// newQueues makes the queues of a process.
func newQueues(f *fronts, env service.Env) *queues {
	q := &queues{all: f, loops: env.Loops, shelf: shelfOf(env.State), log: env.Log, wake: make(chan struct{}, 1)}
	q.shown = &service.Queue{List: q.list, Retry: q.retry, Drop: q.drop, Held: q.held}
	return q
}

func (q *queues) list() (all []service.Queued) {
	for _, h := range q.each() {
		for _, m := range h.queue.List() {
			all = append(all, service.Queued{Destination: service.Destination{Service: m.Service, Pool: m.Pool}, ID: h.id(m.ID), Sender: m.Sender,
				Recipients: m.Recipients, Size: m.Size, Arrived: m.Arrived, Next: m.Next, Attempts: m.Attempts, Busy: m.Busy, Last: m.Last})
		}
	}
	slices.SortStableFunc(all, func(a, b service.Queued) int { return a.Arrived.Compare(b.Arrived) })
	return all
}

// retry has messages tried at once, also by servers that were left alone.
func (q *queues) retry(id string) (n int, err error) {
	q.mu.Lock()
	for _, l := range q.loads {
		l.until = time.Time{}
	}
	q.mu.Unlock()
	defer q.rouse()
	if id != service.All {
		h, number, ok := q.find(id)
		if !ok || h.queue.Retry(number, time.Now()) != nil {
			return 0, service.ErrNotQueued
		}
		return 1, nil
	}
	for _, h := range q.each() {
		for _, m := range h.queue.List() {
			if h.queue.Retry(m.ID, time.Now()) == nil { // else it has just gone
				n++
			}
		}
	}
	return n, nil
}

func (q *queues) drop(id string) error {
	h, number, ok := q.find(id)
	if !ok || errors.Is(h.queue.Drop(number), queue.ErrNone) {
		return service.ErrNotQueued
	}
	q.log.Warn("message dropped by hand", "message", id)
	return nil
}

// held says how much waits for whom, and which destinations the generation in service does not have.
func (q *queues) held() (all []service.Held) {
	counts := q.sums.Counts()
	q.mu.Lock()
	defer q.mu.Unlock()
	for d, c := range counts {
		if c.Messages == 0 {
			continue
		}
		h := service.Held{Destination: service.Destination(d), Messages: c.Messages, Bytes: c.Bytes}
		if q.ways[d] == nil {
			h.Stuck = fmt.Sprintf("the site file keeps no messages for the pool %q of %q any more: name it in mail.queue.pools again, or drop them",
				d.Pool, d.Service)
		}
		all = append(all, h)
	}
	slices.SortFunc(all, func(a, b service.Held) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Pool, b.Pool))
	})
	return all
}

// sayStuck says in the log what cannot go.
func (q *queues) sayStuck() {
	for _, h := range q.held() {
		if h.Stuck != "" {
			q.log.Error("messages are stuck", "service", h.Service, "pool", h.Pool, "messages", h.Messages, "err", h.Stuck)
		}
	}
}

// left says whether a process has left messages, where the site has no mail service.
func left(state string) error {
	shelf := shelfOf(state)
	all, err := journal.OpenLeft(shelf, journal.Options{Size: math.MaxInt64 / 4})
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	records := 0
	for _, j := range all {
		records += j.Status().Records
		err = errors.Join(err, j.Run(ended))
	}
	if err == nil && records > 0 {
		err = fmt.Errorf("messages are left in %s, and the site file has no mail service: name theirs again", shelf)
	}
	return err
}

// shelfOf returns where the journals are.
func shelfOf(state string) string { return filepath.Join(state, "mail", "queue") }
