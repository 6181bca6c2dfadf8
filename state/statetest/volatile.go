// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package statetest tests stores, and those who use them.
//
//	Conformance   what every store must do
//	Volatile      a store in memory that can lose power at any moment
package statetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/kyozon/kyozon/state"
)

// ErrCrashed is what a crashed store returns: the process that used it is gone and must not hear anything else.
var ErrCrashed = errors.New("statetest: crashed")

// Moment is a point in an Apply.
type Moment int

// The moments, in order.
const (
	Before  Moment = iota // nothing is written
	Written               // the changes can be read but are not yet on disk
	Synced                // they are on disk, but the caller has not heard
)

// Volatile is a Store in memory. What is written is lost by Crash unless it was synced.
type Volatile struct {
	watchers state.Watchers
	apply    sync.Mutex // one Apply at a time

	mu      sync.Mutex
	hook    func(Moment) error
	crashed bool
	closed  bool
	now     image // what is read
	durable image // what a crash leaves
}

type image struct {
	keys     map[string]state.Entry
	revision uint64
}

// NewVolatile returns an empty store.
func NewVolatile() *Volatile {
	return &Volatile{now: image{keys: map[string]state.Entry{}}, durable: image{keys: map[string]state.Entry{}}}
}

// Hook has fn called at every moment of every Apply, without a lock held. fn may wait, and may call Crash. An error
// from it is what Apply returns: at Before and Written nothing then becomes durable, at Synced everything has.
// A nil fn takes the hook away.
func (v *Volatile) Hook(fn func(Moment) error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.hook = fn
}

// Crash throws away what is not synced. From then on the store only returns ErrCrashed.
func (v *Volatile) Crash() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.crashed = true
	v.watchers.Close()
}

// Restart returns a new store that holds what a closed or crashed one left on disk.
func (v *Volatile) Restart() *Volatile {
	v.mu.Lock()
	defer v.mu.Unlock()
	return &Volatile{now: v.durable.clone(), durable: v.durable.clone()}
}

func (i image) clone() image { return image{maps.Clone(i.keys), i.revision} }

// Apply is described at state.Store.
func (v *Volatile) Apply(ctx context.Context, ops ...state.Op) error {
	v.apply.Lock()
	defer v.apply.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := v.reach(Before, func() {}); err != nil {
		return err
	}
	var err error
	var changes []state.Entry
	reached := v.reach(Written, func() {
		if err = v.now.check(ops); err == nil {
			changes = v.now.put(ops)
		}
	})
	if err != nil {
		return err
	}
	if reached != nil {
		v.mu.Lock()
		v.now = v.durable.clone()
		v.mu.Unlock()
		return reached
	}
	if err := v.reach(Synced, func() { v.durable.put(ops) }); err != nil {
		return err
	}
	v.watchers.Publish(changes)
	return nil
}

// reach does the step that leads to a moment, then calls the hook. The step is not done after a crash, and what
// happens after a crash is not told.
func (v *Volatile) reach(m Moment, step func()) error {
	v.mu.Lock()
	if err := v.goneLocked(); err != nil {
		v.mu.Unlock()
		return err
	}
	step()
	hook := v.hook
	v.mu.Unlock()
	var err error
	if hook != nil {
		err = hook(m)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	return errors.Join(err, v.goneLocked())
}

func (v *Volatile) goneLocked() error {
	switch {
	case v.crashed:
		return ErrCrashed
	case v.closed:
		return state.ErrClosed
	}
	return nil
}

func (i *image) check(ops []state.Op) error {
	for _, op := range ops {
		if op.Revision != state.Any && i.keys[string(op.Key)].Revision != op.Revision {
			return fmt.Errorf("apply %q: %w", op.Key, state.ErrConflict)
		}
	}
	return nil
}

func (i *image) put(ops []state.Op) (changes []state.Entry) {
	for _, op := range ops {
		i.revision++
		e := state.Entry{Key: bytes.Clone(op.Key), Revision: i.revision}
		if op.Value == nil && op.Revision != 0 {
			delete(i.keys, string(op.Key))
		} else {
			e.Value = append([]byte{}, op.Value...)
			i.keys[string(op.Key)] = e
		}
		changes = append(changes, e)
	}
	return changes
}

// Each is described at state.Store.
func (v *Volatile) Each(prefix []byte, fn func(state.Entry) error) error {
	v.mu.Lock()
	err := v.goneLocked()
	var found []state.Entry // a picture: what is applied meanwhile does not show
	for k, e := range v.now.keys {
		if strings.HasPrefix(k, string(prefix)) {
			found = append(found, e)
		}
	}
	v.mu.Unlock()
	if err != nil {
		return err
	}
	slices.SortFunc(found, func(a, b state.Entry) int { return bytes.Compare(a.Key, b.Key) })
	for _, e := range found {
		if err := fn(e); err != nil {
			return err
		}
	}
	return nil
}

// Watch is described at state.Store.
func (v *Volatile) Watch(ctx context.Context, prefix []byte, fn func(state.Entry)) error {
	v.apply.Lock()
	w := v.watchers.Add(prefix)
	var first []state.Entry
	err := v.Each(prefix, func(e state.Entry) error {
		first = append(first, e)
		return nil
	})
	v.apply.Unlock()
	if err != nil {
		w.Stop()
		return err
	}
	return w.Run(ctx, first, fn)
}

// Close is described at state.Store.
func (v *Volatile) Close() error {
	v.apply.Lock()
	defer v.apply.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.closed = true
	v.watchers.Close()
	return nil
}
