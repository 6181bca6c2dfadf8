// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package acme

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

const (
	atOnce     = 4               // orders under way
	patience   = 5 * time.Minute // for one order
	whenFailed = time.Minute     // until the lock is tried again
)

// Run gets the certificates of orders, whose slots Slots has made, and renews them, until ctx is done. Of several at
// once, also in other processes, one works and the others wait.
//
// A name that cannot be got does not hold up the others. Its certificate, if it has one, stays in use, its slot tells
// why there is no newer one, and it is tried again: after five minutes, and less and less often down to once an hour.
func (c *Client) Run(ctx context.Context, orders []Order) {
	if len(orders) == 0 {
		return
	}
	select {
	case c.work <- struct{}{}:
		defer func() { <-c.work }()
	case <-ctx.Done():
		return
	}
	unlock := c.await(ctx)
	if unlock == nil {
		return
	}
	defer unlock()
	r := &run{client: c, servers: make(map[Settings]*server)}
	defer r.close()
	wants := c.ordered(orders)
	for ctx.Err() == nil {
		r.visitAll(ctx, wants)
		next := slices.MinFunc(wants, func(a, b *want) int { return a.due.Compare(b.due) })
		sleep(ctx, time.Until(next.due))
	}
}

// await waits for the lock. A lock that cannot be had is told once. Returns nil if ctx is done.
func (c *Client) await(ctx context.Context) (unlock func()) {
	for told := false; ; told = true {
		unlock, err := c.lock(ctx)
		switch {
		case err == nil:
			return unlock
		case ctx.Err() != nil:
			return nil
		case !told:
			c.log.Error("no certificate is ordered or renewed", "err", err)
		}
		sleep(ctx, whenFailed)
	}
}

// ordered returns the wants of orders, each once. What another process has got meanwhile is taken; what was ordered
// in another way before is due at once.
func (c *Client) ordered(orders []Order) (wants []*want) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range orders {
		w := c.wants[o.key()]
		if slices.Contains(wants, w) {
			continue
		}
		c.load(w)
		if w.settings != o.Settings {
			w.settings, w.failures, w.due = o.Settings, 0, time.Time{}
		}
		wants = append(wants, w)
	}
	return wants
}

// run is one Run at work.
type run struct {
	client *Client

	mu      sync.Mutex
	servers map[Settings]*server
}

// visitAll visits those that are due, a few at once.
func (r *run) visitAll(ctx context.Context, wants []*want) {
	var wg sync.WaitGroup
	places := make(chan struct{}, atOnce)
	for _, w := range wants {
		if time.Now().Before(w.due) {
			continue
		}
		places <- struct{}{}
		wg.Go(func() {
			r.visit(ctx, w)
			<-places
		})
	}
	wg.Wait()
}

// visit orders one certificate if it is missing or is to be renewed, and sets when to look again.
func (r *run) visit(ctx context.Context, w *want) {
	ctx, cancel := context.WithTimeout(ctx, patience+w.settings.DNS.Settle)
	defer cancel()
	s := r.server(w.settings)
	if w.slot.Certificate() != nil {
		if w.due = r.nextLook(ctx, s, w); time.Now().Before(w.due) {
			return
		}
	}
	err := s.obtain(ctx, w)
	if errors.Is(ctx.Err(), context.Canceled) {
		return // we stop: that is no fault of the server
	}
	if err != nil {
		wait := r.client.pace.backoff(w.failures)
		w.failures++
		w.due = time.Now().Add(wait)
		w.slot.Fail(err)
		r.client.log.Error("certificate not obtained", "name", w.slot.Name, "again", wait.String(), "err", err)
		return
	}
	w.failures, w.info = 0, renewal{}
	w.due = r.nextLook(ctx, s, w)
	r.client.log.Info("certificate obtained", "name", w.slot.Name, "until", w.slot.Certificate().Leaf.NotAfter,
		"server", w.settings.Directory)
}

// backoff returns how long to wait after so many failures in a row.
func (p pace) backoff(failures int) time.Duration {
	wait := p.retry
	for range failures {
		if wait *= 2; wait >= p.retryMost {
			return p.retryMost
		}
	}
	return wait
}

// server returns what is known of the server of s in this Run.
func (r *run) server(s Settings) *server {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.servers[s]
	if known == nil {
		known = &server{client: r.client, settings: s}
		r.servers[s] = known
	}
	return known
}

func (r *run) close() {
	for _, s := range r.servers {
		s.close()
	}
}
