// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"errors"
	"net/http"
	"slices"
	"strconv"

	"github.com/kyozon/kyozon/service"
)

// setQueuesLocked notes where messages are kept. A queue stays when the last service of its protocol has gone: there may
// be messages in it.
func (e *Edge) setQueuesLocked(g *generation) {
	all := slices.Clone(*e.queues.Load())
	for _, s := range g.servers {
		if s.Queue != nil && !slices.Contains(all, s.Queue) {
			all = append(all, s.Queue)
		}
	}
	e.queues.Store(&all)
	left := make(map[string]error)
	for _, p := range e.options.Protocols {
		if p.Left == nil || e.kept[p.Name] != nil { // else it has a queue
			continue
		}
		if err := p.Left(g.config.State.Directory); err != nil {
			e.options.Log.Error("something is left of a protocol", "protocol", p.Name, "err", err)
			left[p.Name] = err
		}
	}
	e.left.Store(&left)
}

// queueStatus returns what waits, by destination.
func (e *Edge) queueStatus() []QueueStatus {
	all := []QueueStatus{}
	for _, q := range *e.queues.Load() {
		for _, h := range q.Held() {
			all = append(all, QueueStatus{Service: h.Service, Pool: h.Pool, Messages: h.Messages, Bytes: h.Bytes, Stuck: h.Stuck})
		}
	}
	for _, err := range *e.left.Load() {
		all = append(all, QueueStatus{Stuck: err.Error()})
	}
	return all
}

// Queued returns the messages that are kept, the oldest first, limit at most.
func (e *Edge) Queued(limit int) []QueuedStatus {
	all := []QueuedStatus{} // never nil: in JSON none are [], not null
	for _, q := range *e.queues.Load() {
		for _, m := range q.List() {
			all = append(all, QueuedStatus{ID: m.ID, Service: m.Service, Pool: m.Pool, Sender: m.Sender, Recipients: m.Recipients, Size: m.Size,
				Arrived: m.Arrived, Next: m.Next, Attempts: m.Attempts, Busy: m.Busy, Last: m.Last})
		}
	}
	slices.SortStableFunc(all, func(a, b QueuedStatus) int { return a.Arrived.Compare(b.Arrived) })
	return all[:min(limit, len(all))]
}

// Retry has a message of a queue tried at once, or all, and returns how many. Returns service.ErrNotQueued.
func (e *Edge) Retry(id string) (n int, err error) {
	for _, q := range *e.queues.Load() {
		one, err := q.Retry(id)
		if err != nil && !errors.Is(err, service.ErrNotQueued) {
			return n, err
		}
		n += one
	}
	if n == 0 && id != service.All {
		return 0, service.ErrNotQueued
	}
	return n, nil
}

// Drop forgets a message of a queue. Returns service.ErrNotQueued.
func (e *Edge) Drop(id string) error {
	for _, q := range *e.queues.Load() {
		if err := q.Drop(id); !errors.Is(err, service.ErrNotQueued) {
			return err
		}
	}
	return service.ErrNotQueued
}

// maxQueuedShown bounds how many messages one answer lists.
const maxQueuedShown = 100_000

// controlQueue adds what the control socket can ask of queues.
func (e *Edge) controlQueue(mux *http.ServeMux) {
	mux.HandleFunc("GET /queue", func(w http.ResponseWriter, r *http.Request) {
		limit, err := strconv.Atoi(r.FormValue("limit"))
		if err != nil || limit <= 0 || limit > maxQueuedShown {
			limit = maxQueuedShown
		}
		answer(w, e.Queued(limit), nil)
	})
	mux.HandleFunc("POST /queue/retry", func(w http.ResponseWriter, r *http.Request) {
		n, err := e.Retry(r.FormValue("id"))
		text := "1 message is tried"
		if n != 1 {
			text = strconv.Itoa(n) + " messages are tried"
		}
		answer(w, Done{Text: text}, err)
	})
	mux.HandleFunc("POST /queue/drop", func(w http.ResponseWriter, r *http.Request) {
		id := r.FormValue("id")
		answer(w, Done{Text: id + " is dropped"}, e.Drop(id))
	})
}
