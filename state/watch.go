// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"context"
	"sync"
)

// maxBehind is how many changes are held for one watcher.
const maxBehind = 1 << 16

// Watchers hands changes to those who watch. It is a part of which stores are made; the zero value is ready.
type Watchers struct {
	mu     sync.Mutex
	all    map[*Watcher]struct{}
	closed bool
}

// Watcher is one who watches. Run or Stop must be called.
type Watcher struct {
	of     *Watchers
	prefix []byte
	wake   chan struct{} // 1: something was added to queue, or err was set

	queue []Entry // guarded by of.mu
	err   error   // guarded by of.mu
}

// Add returns a watcher of prefix that is told every change published from now on.
func (w *Watchers) Add(prefix []byte) *Watcher {
	n := &Watcher{of: w, prefix: bytes.Clone(prefix), wake: make(chan struct{}, 1)}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		n.end(ErrClosed)
		return n
	}
	if w.all == nil {
		w.all = make(map[*Watcher]struct{})
	}
	w.all[n] = struct{}{}
	return n
}

// Publish tells everyone concerned that changes happened, in the order given. It keeps the slices. It never waits:
// a watcher that cannot follow ends with ErrBehind.
func (w *Watchers) Publish(changes []Entry) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for n := range w.all {
		for _, c := range changes {
			if bytes.HasPrefix(c.Key, n.prefix) {
				n.queue = append(n.queue, c)
			}
		}
		switch {
		case len(n.queue) > maxBehind:
			n.end(ErrBehind)
		case len(n.queue) > 0:
			n.signal()
		}
	}
}

// IsZero says whether nobody watches, so that a store need not copy what it would publish.
func (w *Watchers) IsZero() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.all) == 0
}

// Close ends every watcher with ErrClosed, also those added later.
func (w *Watchers) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for n := range w.all {
		n.end(ErrClosed)
	}
}

// end is called with of.mu held.
func (n *Watcher) end(err error) {
	n.err = err
	n.queue = nil
	delete(n.of.all, n)
	n.signal()
}

func (n *Watcher) signal() {
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// Stop ends the watcher.
func (n *Watcher) Stop() {
	n.of.mu.Lock()
	defer n.of.mu.Unlock()
	delete(n.of.all, n)
}

// Run calls fn for first, then for every change, until ctx is done or the watcher is ended; it returns why.
func (n *Watcher) Run(ctx context.Context, first []Entry, fn func(Entry)) error {
	defer n.Stop()
	for _, e := range first {
		if ctx.Err() != nil {
			break
		}
		fn(e)
	}
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-n.wake:
		}
		n.of.mu.Lock()
		queue, err := n.queue, n.err
		n.queue = nil
		n.of.mu.Unlock()
		for _, e := range queue {
			fn(e)
		}
		if err != nil {
			return err
		}
	}
}
