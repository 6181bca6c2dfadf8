// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"errors"
	"fmt"
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

// queue is what the edge shows of the messages.
func (q *queues) queue() *service.Queue {
	return &service.Queue{List: q.list, Retry: q.retry, Drop: q.drop, Stuck: q.stuck}
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

// stuck says for which destinations messages wait that the generation in service does not have.
func (q *queues) stuck() map[service.Destination]string {
	all := make(map[service.Destination]string)
	counts := q.sums.Counts()
	q.mu.Lock()
	defer q.mu.Unlock()
	for d, c := range counts {
		if c.Messages > 0 && q.ways[d] == nil {
			all[service.Destination(d)] = fmt.Sprintf("%d messages wait for the pool %q of %q, which keeps none in this site file: name it in mail.queue.pools "+
				"again, or drop them", c.Messages, d.Pool, d.Service)
		}
	}
	return all
}

// sayStuck says so in the log.
func (q *queues) sayStuck() {
	for d, why := range q.stuck() {
		q.log.Error("messages are stuck", "service", d.Service, "pool", d.Pool, "err", why)
	}
}
