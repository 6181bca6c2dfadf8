// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// mapped is how much address space the file is given at once. Growing it later has to wait for readers.
const mapped = 256 << 20

// Bolt is a Store in one bbolt file. The bucket's sequence is the revision; each value carries its own in front.
//
// There is no goroutine: of the callers that wait in Apply, the one that gets the turn commits for all.
type Bolt struct {
	path     string
	turn     chan struct{} // 1: holding it is the right to commit
	watchers Watchers
	broken   bool // a commit failed; guarded by turn

	mu      sync.Mutex
	waiting []*call
	db      *bbolt.DB // nil when closed
}

// call is one Apply that waits.
type call struct {
	ops  []Op
	err  error      // why the group left it out
	done chan error // 1: the committer never waits for the caller
}

// Open opens the store at path and creates it if it is not there. It returns ErrLocked at once if another process
// has it open.
func Open(path string) (*Bolt, error) {
	db, err := openBolt(path)
	if err != nil {
		return nil, err
	}
	return &Bolt{path: path, turn: make(chan struct{}, 1), db: db}, nil
}

func openBolt(path string) (*bbolt.DB, error) {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout:         time.Nanosecond, // one try
		FreelistType:    bbolt.FreelistMapType,
		InitialMmapSize: mapped,
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return nil, fmt.Errorf("open %s: %w", path, ErrLocked)
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucketIfNotExists(bucket())
		return err
	})
	if err == nil {
		err = syncDirectory(filepath.Dir(path))
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	return db, nil
}

func bucket() []byte { return []byte("state") }

// syncDirectory makes a new file's name as durable as its contents.
func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Apply is described at Store.
func (b *Bolt) Apply(ctx context.Context, ops ...Op) error {
	for _, op := range ops {
		if len(op.Key) == 0 || len(op.Key) > bbolt.MaxKeySize {
			return fmt.Errorf("apply: a key of %d bytes", len(op.Key))
		}
	}
	c := &call{ops: ops, done: make(chan error, 1)}
	b.mu.Lock()
	if b.db == nil {
		b.mu.Unlock()
		return ErrClosed
	}
	b.waiting = append(b.waiting, c)
	b.mu.Unlock()

	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		if b.withdraw(c) {
			return ctx.Err()
		}
	case b.turn <- struct{}{}:
		b.commit()
		<-b.turn
	}
	return <-c.done
}

// withdraw takes c out of those that wait. It is too late if a commit has begun: what comes of it must be awaited.
func (b *Bolt) withdraw(c *call) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.waiting, c)
	if i < 0 {
		return false
	}
	b.waiting = slices.Delete(b.waiting, i, i+1)
	return true
}

// commit makes the changes of all calls that wait. The caller holds the turn.
func (b *Bolt) commit() {
	b.mu.Lock()
	calls := b.waiting
	b.waiting = nil
	b.mu.Unlock()
	if len(calls) == 0 {
		return
	}
	changes, err := b.write(calls)
	if len(changes) > 0 && err == nil {
		b.watchers.Publish(changes)
	}
	for _, c := range calls {
		if c.err == nil {
			c.err = err
		}
		c.done <- c.err
	}
}

// write commits one transaction for calls. Those that conflict are left out, with the reason in their err.
func (b *Bolt) write(calls []*call) (changes []Entry, err error) {
	db, err := b.usable()
	if err != nil {
		return nil, err
	}
	tx, err := db.Begin(true)
	if err != nil {
		return nil, fmt.Errorf("begin: %w", err)
	}
	defer func() {
		if err != nil {
			b.broken = true
			_ = tx.Rollback() // after a commit that failed it has been rolled back already
		}
	}()
	watched := !b.watchers.IsZero()
	bk := tx.Bucket(bucket())
	written := false
	for _, c := range calls {
		if c.err = check(bk, c.ops); c.err != nil {
			continue
		}
		written = true
		made, err := put(bk, c.ops, watched)
		if err != nil {
			return nil, fmt.Errorf("write: %w", err)
		}
		changes = append(changes, made...)
	}
	if !written {
		return nil, tx.Rollback()
	}
	if err := tx.Commit(); err != nil {
		return nil, fmt.Errorf("commit: %w", err)
	}
	return changes, nil
}

// usable returns the open file. After a failed commit the pages in memory may differ from those on disk, so the
// file is opened anew; that also takes the store back when a full disk has room again.
func (b *Bolt) usable() (*bbolt.DB, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.db == nil {
		return nil, ErrClosed
	}
	if !b.broken {
		return b.db, nil
	}
	if err := b.db.Close(); err != nil {
		return nil, fmt.Errorf("close %s: %w", b.path, err)
	}
	db, err := openBolt(b.path)
	if err != nil {
		return nil, err
	}
	b.db, b.broken = db, false
	return db, nil
}

func check(bk *bbolt.Bucket, ops []Op) error {
	for _, op := range ops {
		if op.Revision == Any {
			continue
		}
		var have uint64
		if v := bk.Get(op.Key); v != nil {
			have = binary.BigEndian.Uint64(v)
		}
		if have != op.Revision {
			return fmt.Errorf("apply %q: %w", op.Key, ErrConflict)
		}
	}
	return nil
}

func put(bk *bbolt.Bucket, ops []Op, watched bool) (changes []Entry, err error) {
	for _, op := range ops {
		revision, err := bk.NextSequence()
		if err != nil {
			return nil, err
		}
		e := Entry{Revision: revision}
		if op.Value == nil && op.Revision != 0 {
			err = bk.Delete(op.Key)
		} else {
			v := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(op.Value)), revision)
			v = append(v, op.Value...)
			e.Value = v[8:]
			err = bk.Put(op.Key, v)
		}
		if err != nil {
			return nil, err
		}
		if watched {
			e.Key, e.Value = bytes.Clone(op.Key), bytes.Clone(e.Value)
			changes = append(changes, e)
		}
	}
	return changes, nil
}

// Each is described at Store.
func (b *Bolt) Each(prefix []byte, fn func(Entry) error) error {
	b.mu.Lock()
	db := b.db
	b.mu.Unlock()
	if db == nil {
		return ErrClosed
	}
	return db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucket()).Cursor()
		for k, v := c.Seek(prefix); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
			if err := fn(Entry{Key: k, Value: v[8:], Revision: binary.BigEndian.Uint64(v)}); err != nil {
				return err
			}
		}
		return nil
	})
}

// Watch is described at Store.
func (b *Bolt) Watch(ctx context.Context, prefix []byte, fn func(Entry)) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case b.turn <- struct{}{}: // no commit while the present is copied
	}
	w := b.watchers.Add(prefix)
	var first []Entry
	err := b.Each(prefix, func(e Entry) error {
		first = append(first, Entry{Key: bytes.Clone(e.Key), Value: bytes.Clone(e.Value), Revision: e.Revision})
		return nil
	})
	<-b.turn
	if err != nil {
		w.Stop()
		return err
	}
	return w.Run(ctx, first, fn)
}

// Close is described at Store. It may be called more than once.
func (b *Bolt) Close() error {
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	b.commit()
	b.mu.Lock()
	db, late := b.db, b.waiting
	b.db, b.waiting = nil, nil
	b.mu.Unlock()
	for _, c := range late {
		c.done <- ErrClosed
	}
	b.watchers.Close()
	if db == nil {
		return nil
	}
	if err := db.Close(); err != nil {
		return fmt.Errorf("close %s: %w", b.path, err)
	}
	return nil
}
