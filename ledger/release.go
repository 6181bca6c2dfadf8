// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/kyozon/kyozon/state"
)

var errReleased = errors.New("ledger: another process is the writer")

// Release makes way for another process to become the writer: what is under way is written, and the store is closed.
// From then on clients that have a lease go on, and new ones get ErrUnavailable. If it returns an error and the store
// is still open, this process is still the writer. Run must be running.
func (l *Ledger) Release() error {
	return l.do(func(ctx context.Context) error {
		if l.store == nil {
			return nil
		}
		words, cancel := context.WithTimeout(ctx, lastWords)
		defer cancel()
		if err := l.finish(words); err != nil {
			return fmt.Errorf("release ledger: %w", err)
		}
		l.mu.Lock()
		store := l.store
		l.store = nil
		l.mu.Unlock()
		if err := store.Close(); err != nil {
			return fmt.Errorf("release ledger: %w", err)
		}
		return nil
	})
}

// Resume takes back what Release gave away, because the other process did not live. The book is read again: what the
// other has leased meanwhile counts. Run must be running; it waits while the book is read.
func (l *Ledger) Resume(store state.Store) error {
	return l.do(func(ctx context.Context) error {
		if l.store != nil {
			return errors.New("resume ledger: it was not released")
		}
		if err := l.load(ctx, store); err != nil {
			return fmt.Errorf("resume ledger: %w", err)
		}
		return nil
	})
}

// do has fn run on Run's goroutine.
func (l *Ledger) do(fn func(ctx context.Context) error) error {
	a := ask{do: fn, reply: make(chan error, 1)}
	select {
	case l.control <- a:
		return <-a.reply
	case <-l.ended:
		return ErrUnavailable
	}
}
