// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/kyozon/kyozon/protocol/phone/location"
	"github.com/kyozon/kyozon/protocol/phone/saved"
	"github.com/kyozon/kyozon/state"
)

const (
	// The keys of the store: of the bindings of an address of record, and of when a process was last there.
	bindingKey = "b/"
	lastKey    = "last"

	// mostChanges is how many addresses of record one transaction has.
	mostChanges = 1000

	// beat is how often a process says that it is there.
	beat = time.Minute
)

// bindings keeps the bindings of a service in a store, so that subscribers are reached after a restart. It is written when a
// binding changes, soon after, and not when one is refreshed.
//
//	REGISTER ─▶ location.Table ─▶ note ─▶ run: up to 1000 in one transaction
type bindings struct {
	table     *location.Table
	names     *agents
	directory string
	log       *slog.Logger
	wake      chan struct{} // of size 1: one call to look is enough

	mu      sync.Mutex
	changed map[string]bool // addresses of record

	writing sync.Mutex  // comes before mu
	store   state.Store // nil if there is none
}

// note says that the bindings of an address of record are others.
func (b *bindings) note(aor string) {
	b.mu.Lock()
	b.changed[aor] = true
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// open opens the store, if it is not.
func (b *bindings) open() (err error) {
	b.writing.Lock()
	defer b.writing.Unlock()
	if b.store != nil || b.directory == "" {
		return nil
	}
	if err := os.MkdirAll(b.directory, 0o700); err != nil {
		return err
	}
	store, err := state.Open(filepath.Join(b.directory, "bindings.db"))
	if err == nil {
		b.store = store // an interface that is nil if it failed
	}
	return err
}

// read fills the table with what a process that is gone has left.
func (b *bindings) read(now int64) (count int, err error) {
	if err := b.open(); err != nil || b.store == nil {
		return 0, err
	}
	last := int64(0)
	if err := b.store.Each([]byte(lastKey), func(e state.Entry) error {
		if len(e.Value) == 8 {
			last = min(int64(binary.LittleEndian.Uint64(e.Value)), now)
		}
		return nil
	}); err != nil {
		return 0, err
	}
	broken, newer := 0, 0
	err = b.store.Each([]byte(bindingKey), func(e state.Entry) error {
		aor := strings.TrimPrefix(string(e.Key), bindingKey)
		all, err := saved.ParseBindings(e.Value, last+int64(beat.Seconds()), now)
		switch {
		case errors.Is(err, saved.ErrNewer):
			newer++ // and stays, until the subscriber registers again
			return nil
		case err != nil:
			broken++
		}
		if len(all) == 0 {
			b.note(aor)
			return nil
		}
		for i := range all {
			all[i].Agent = b.names.name([]byte(all[i].Agent))
		}
		b.table.Put(aor, all)
		count++
		return nil
	})
	if newer > 0 {
		b.log.Warn("bindings that a newer version has saved are kept for it: who has them is not reached until he registers again", "subscribers", newer)
	}
	if err == nil && broken > 0 {
		err = fmt.Errorf("%d of them: %w", broken, saved.ErrForm)
	}
	return count, err
}

// run writes what has changed until ctx is done.
func (b *bindings) run(ctx context.Context) {
	alive := time.NewTicker(beat)
	defer alive.Stop()
	var again <-chan time.Time
	b.live(ctx)
	for {
		select {
		case <-b.wake:
		case <-again:
		case <-alive.C:
			b.live(ctx)
			continue
		case <-ctx.Done():
			return
		}
		again = nil
		if !b.write(ctx) {
			again = time.After(recordAgain)
		}
	}
}

// live notes that the process is there.
func (b *bindings) live(ctx context.Context) {
	b.writing.Lock()
	defer b.writing.Unlock()
	if b.store == nil {
		return
	}
	at := binary.LittleEndian.AppendUint64(nil, uint64(now()))
	if err := b.store.Apply(ctx, state.Op{Key: []byte(lastKey), Value: at, Revision: state.Any}); err != nil && ctx.Err() == nil {
		b.log.Error("store of bindings", "err", err)
	}
}

// write writes all that has changed, or says that it could not.
func (b *bindings) write(ctx context.Context) bool {
	b.writing.Lock()
	defer b.writing.Unlock()
	for b.store != nil {
		ops := b.changes()
		if len(ops) == 0 {
			return true
		}
		if err := b.store.Apply(ctx, ops...); err != nil {
			b.log.Error("bindings are not saved", "err", err)
			b.mu.Lock()
			for _, op := range ops {
				b.changed[strings.TrimPrefix(string(op.Key), bindingKey)] = true
			}
			b.mu.Unlock()
			return false
		}
	}
	return true
}

// changes takes some of what has changed.
func (b *bindings) changes() (ops []state.Op) {
	var some []string
	b.mu.Lock()
	for aor := range b.changed {
		delete(b.changed, aor)
		if some = append(some, aor); len(some) == mostChanges {
			break
		}
	}
	b.mu.Unlock()
	for _, aor := range some {
		op := state.Op{Key: []byte(bindingKey + aor), Revision: state.Any}
		if text := saved.AppendBindings(nil, b.table.Get(aor), now()); len(text) > 1 {
			op.Value = text
		}
		ops = append(ops, op)
	}
	return ops
}

// close writes what is left and lets another process have the store.
func (b *bindings) close() {
	b.write(context.Background())
	b.live(context.Background())
	b.writing.Lock()
	defer b.writing.Unlock()
	if b.store == nil {
		return
	}
	if err := b.store.Close(); err != nil {
		b.log.Error("store of bindings", "err", err)
	}
	b.store = nil
}

// reopen opens the store, which another process may have had, and has all written anew.
func (b *bindings) reopen() error {
	if err := b.open(); err != nil {
		return err
	}
	b.writing.Lock()
	defer b.writing.Unlock()
	if b.store != nil {
		if err := b.store.Each([]byte(bindingKey), func(e state.Entry) error {
			b.note(strings.TrimPrefix(string(e.Key), bindingKey))
			return nil
		}); err != nil {
			return err
		}
	}
	b.table.Each(func(aor string, _ []location.Binding) bool {
		b.note(aor)
		return true
	})
	return nil
}
