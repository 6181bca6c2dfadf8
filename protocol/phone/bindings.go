// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/kyozon/kyozon/journal"
	"github.com/kyozon/kyozon/protocol/phone/location"
	"github.com/kyozon/kyozon/protocol/phone/saved"
)

// The kinds of records in the journal of bindings.
const (
	bound   journal.Kind = 1 // an address of record and its bindings: saved.AppendHome
	present journal.Kind = 2 // when a process was last there: 8 bytes
)

const (
	// mostChanges is how many addresses of record are written together.
	mostChanges = 4000

	// beat is how often a process says that it is there.
	beat = time.Minute

	// maxBindings is how many bytes all of them may be: a disk is full before.
	maxBindings = 1 << 40
)

// bindings keeps the bindings of a service in a journal, so that subscribers are reached after a restart. It is written when a
// binding changes, soon after, and not when one is refreshed. Of an address of record one record lives.
//
//	REGISTER ─▶ location.Table ─▶ note ─▶ run: up to 4000 with one fsync ─▶ those that were there before are settled
type bindings struct {
	table     *location.Table
	names     *agents
	directory string // "" if nothing is kept
	log       *slog.Logger
	wake      chan struct{} // of size 1: one call to look is enough

	mu      sync.Mutex
	changed map[string]bool // addresses of record

	writing sync.Mutex            // comes before mu, and guards what follows
	journal *journal.Journal      // nil if there is none
	kept    map[string]journal.ID // the record of an address of record
	last    journal.ID            // that of when a process was there
	former  bool                  // what an earlier version has left is not all written yet
	stop    context.CancelFunc    // ends who runs the journal; nil if nobody does
	over    sync.WaitGroup
}

func newBindings(directory string, table *location.Table, names *agents, log *slog.Logger) *bindings {
	return &bindings{table: table, names: names, directory: directory, log: log, wake: make(chan struct{}, 1), changed: make(map[string]bool)}
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

// openLocked opens the journal. It returns until when a process was there, in seconds.
func (b *bindings) openLocked() (last int64, err error) {
	j, err := journal.Open(filepath.Join(b.directory, "bindings"), journal.Options{Size: maxBindings, Log: b.log})
	if err != nil {
		return 0, err
	}
	b.journal, b.kept, b.last = j, make(map[string]journal.ID, j.Status().Records), 0
	err = j.Scan(present, func(id journal.ID, data []byte) error {
		if len(data) == 8 {
			last = max(last, int64(binary.LittleEndian.Uint64(data)))
		}
		b.settleLocked(b.last)
		b.last = id
		return nil
	})
	return last, err
}

func (b *bindings) settleLocked(id journal.ID) {
	if id != 0 {
		b.journal.Settle(id)
	}
}

// keepLocked notes that a record is that of an address of record, and says whether it is: a process that was killed may have
// left two, of which the later counts.
func (b *bindings) keepLocked(aor string, id journal.ID) bool {
	was := b.kept[aor]
	b.settleLocked(min(was, id))
	b.kept[aor] = max(was, id)
	return id > was
}

// read fills the table with what a process that is gone has left.
func (b *bindings) read(now int64) (count int, err error) {
	b.writing.Lock()
	defer b.writing.Unlock()
	if b.directory == "" {
		return 0, nil
	}
	last, err := b.openLocked()
	if err != nil {
		return 0, err
	}
	broken, newer := 0, 0
	err = b.journal.Scan(bound, func(id journal.ID, data []byte) error {
		aor, all, err := saved.ParseHome(data, min(last, now)+int64(beat.Seconds()), now)
		switch {
		case aor == "":
			b.journal.Settle(id)
		case !b.keepLocked(aor, id):
		case errors.Is(err, saved.ErrNewer):
			newer++ // and stays, until the subscriber registers again
			return nil
		default:
			b.put(aor, all)
		}
		if err != nil {
			broken++
		}
		return nil
	})
	if newer > 0 {
		b.log.Warn("bindings that a newer version has saved are kept for it: who has them is not reached until he registers again", "subscribers", newer)
	}
	if err == nil && broken > 0 {
		err = fmt.Errorf("%d of them: %w", broken, saved.ErrForm)
	}
	err = errors.Join(err, b.readFormerLocked(last, now))
	return b.table.Len(), err
}

// put fills the table with the bindings of an address of record that were kept. If they are over, so is the record.
func (b *bindings) put(aor string, all []location.Binding) {
	if len(all) == 0 {
		b.note(aor)
	}
	for i := range all {
		all[i].Agent = b.names.name([]byte(all[i].Agent))
	}
	b.table.Put(aor, all)
}

// run writes what has changed until ctx is done.
func (b *bindings) run(ctx context.Context) {
	alive := time.NewTicker(beat)
	defer alive.Stop()
	var again <-chan time.Time
	b.live()
	for {
		select {
		case <-b.wake:
		case <-again:
		case <-alive.C:
			b.live()
			continue
		case <-ctx.Done():
			return
		}
		again = nil
		if !b.write() {
			again = time.After(recordAgain)
		}
	}
}

// runLocked has somebody run the journal, until close.
func (b *bindings) runLocked() {
	if b.stop != nil {
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	j := b.journal
	b.stop = stop
	b.over.Go(func() {
		if err := j.Run(ctx); err != nil {
			b.log.Error("journal of bindings", "err", err)
		}
	})
}

// live notes that the process is there.
func (b *bindings) live() {
	b.writing.Lock()
	defer b.writing.Unlock()
	if b.journal == nil {
		return
	}
	b.runLocked()
	was := b.last
	b.last = b.journal.Append(present, nil, binary.LittleEndian.AppendUint64(nil, uint64(now()))) // a disk that fails is in the log
	b.settleLocked(was)
}

// write writes all that has changed, or says that it could not.
func (b *bindings) write() bool {
	b.writing.Lock()
	defer b.writing.Unlock()
	if b.journal == nil {
		return true
	}
	b.runLocked()
	for some := b.changes(); len(some) > 0; some = b.changes() {
		if err := b.appendLocked(some); err != nil {
			b.log.Error("bindings are not saved", "err", err)
			return false
		}
	}
	b.dropFormerLocked()
	return true
}

// changes takes some of what has changed.
func (b *bindings) changes() (some []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for aor := range b.changed {
		delete(b.changed, aor)
		if some = append(some, aor); len(some) == mostChanges {
			break
		}
	}
	if len(b.changed) == 0 {
		b.changed = make(map[string]bool) // a map does not give back the room of a million
	}
	return some
}

// appendLocked writes the bindings of addresses of record, and waits until they are on disk. Those that are not have changed still.
func (b *bindings) appendLocked(some []string) error {
	var written sync.WaitGroup
	ids, errs := make([]journal.ID, len(some)), make([]error, len(some))
	at := now()
	var text []byte
	for i, aor := range some {
		all := b.table.Get(aor)
		if !saved.Lasts(all) {
			continue
		}
		text = saved.AppendHome(text[:0], aor, all, at)
		written.Add(1)
		ids[i] = b.journal.Append(bound, func(err error) {
			errs[i] = err
			written.Done()
		}, text)
	}
	written.Wait()
	for i, aor := range some {
		switch {
		case errs[i] != nil: // should it be there nevertheless, the next one of the same address counts
			b.note(aor)
		case ids[i] == 0:
			b.settleLocked(b.kept[aor])
			delete(b.kept, aor)
		default:
			b.settleLocked(b.kept[aor])
			b.kept[aor] = ids[i]
		}
	}
	return errors.Join(unique(errs)...)
}

// unique returns the errors without repetitions: what a disk says is the same for all.
func unique(errs []error) (all []error) {
	for _, err := range errs {
		if err != nil && !slices.ContainsFunc(all, func(one error) bool { return one.Error() == err.Error() }) {
			all = append(all, err)
		}
	}
	return all
}

// close writes what is left and lets another process have the journal.
func (b *bindings) close() {
	b.write()
	b.live()
	b.writing.Lock()
	defer b.writing.Unlock()
	if b.journal == nil {
		return
	}
	b.stop()
	b.over.Wait()
	b.journal, b.stop = nil, nil
}

// reopen opens the journal, which another process may have had, and has all written anew.
func (b *bindings) reopen() error {
	b.writing.Lock()
	defer b.writing.Unlock()
	if b.directory == "" {
		return nil
	}
	if b.journal == nil {
		if _, err := b.openLocked(); err != nil {
			return err
		}
		if err := b.journal.Scan(bound, func(id journal.ID, data []byte) error {
			switch aor, _, err := saved.ParseHome(data, 0, 0); {
			case errors.Is(err, saved.ErrNewer):
			case aor == "":
				b.journal.Settle(id)
			default:
				b.keepLocked(aor, id)
			}
			return nil
		}); err != nil {
			return err
		}
	}
	for aor := range b.kept {
		b.note(aor)
	}
	b.table.Each(func(aor string, _ []location.Binding) bool {
		b.note(aor)
		return true
	})
	return nil
}
