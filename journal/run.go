// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"syscall"
	"time"
)

const (
	// carrySize is how many bytes one commit carries: those who wait for it do not wait for these.
	carrySize = 1 << 20

	// retryEvery is when what must be written by itself is tried again on a disk that failed.
	retryEvery = time.Second
)

// Run writes until ctx is done and what was appended until then is written; then it closes the journal, and another
// process may open it. It is called once. While one group is being written the next one gathers: that is all there is to
// the group commit.
func (j *Journal) Run(ctx context.Context) error {
	var retry <-chan time.Time
	for ctx.Err() == nil {
		select {
		case <-j.wake:
		case <-retry:
		case <-ctx.Done():
		}
		retry = nil
		if j.commit() != nil {
			retry = time.After(retryEvery)
		}
	}
	j.mu.Lock()
	j.closed = true
	j.mu.Unlock()
	j.finish()
	j.writing.Lock()
	defer j.writing.Unlock()
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := errors.Join(j.remove(), j.release()); err != nil {
		return fmt.Errorf("close %s: %w", j.directory, err)
	}
	return nil
}

// finish writes what is queued when the journal is closed, as far as that can be.
func (j *Journal) finish() {
	var err error
	for err == nil && j.waits() {
		err = j.commit()
	}
	for _, i := range j.take(math.MaxInt64) {
		i.tell(ErrClosed)
	}
}

// waits says whether something is queued.
func (j *Journal) waits() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.queue) > 0
}

func (i item) tell(err error) {
	if i.done != nil {
		i.done(err)
	}
}

// commit writes the next group, and tells those who wait for it.
func (j *Journal) commit() error {
	group := j.take(j.options.File)
	carried, err := j.writeGroup(group)
	for _, i := range group {
		i.tell(err)
	}
	j.writing.Lock()
	j.free() // also on a disk that is full
	j.writing.Unlock()
	if err == nil && (carried || j.waits()) {
		j.rouse()
	}
	return err
}

// writeGroup writes a group and makes it true in RAM. carried says that more than the group was written.
func (j *Journal) writeGroup(group []item) (carried bool, err error) {
	j.busy.Store(true)
	defer j.busy.Store(false)
	j.writing.Lock()
	defer j.writing.Unlock()
	all := j.carry(group)
	carried = len(all) > 0
	all = append(all, group...) // in this order: a record that is carried may be settled in the same group
	if len(all) == 0 {
		return false, nil
	}
	places, err := j.write(all)
	j.report(err)
	j.settle(all, places, err)
	if err != nil {
		j.carried = 0 // once more from the front
	}
	return carried, err
}

// put writes a record or a settlement at once if that can be. Those who do so wait for each other, which is short, but not
// for Run.
func (j *Journal) put(id ID, kind Kind, size int64, data [][]byte) bool {
	if !j.options.Unsynced || j.busy.Load() {
		return false
	}
	j.writing.Lock()
	defer j.writing.Unlock()
	j.mu.Lock()
	_, written := j.index[id]
	can := !j.closed && (kind == settled && written || // what is queued must come first
		kind != settled && j.live+j.queued+size <= j.options.Size)
	j.mu.Unlock()
	if !can || len(j.files) == 0 {
		return false
	}
	f := j.files[len(j.files)-1]
	if !f.fits(size, j.options.File) {
		return false
	}
	if err := f.writeRecord(id, kind, size, data); err != nil {
		f.undo(true)
		return false
	}
	j.mu.Lock()
	if kind != settled {
		j.remember(id, place{f, f.size, size})
		j.appended++
	} else {
		j.forget(id)
	}
	j.mu.Unlock()
	f.size += size
	j.disk += size
	return true
}

// take returns the next group: no more of the queue than limit, in bytes, or one.
func (j *Journal) take(limit int64) []item {
	j.mu.Lock()
	defer j.mu.Unlock()
	var size int64
	n := 0
	for n < len(j.queue) && (n == 0 || size < limit) {
		size += int64(len(j.queue[n].raw))
		n++
	}
	group := j.queue[:n:n]
	if j.queue = j.queue[n:]; len(j.queue) == 0 {
		j.queue = nil
	}
	return group
}

// write writes a group and returns where each record of it is. Returns ErrFull.
func (j *Journal) write(group []item) ([]place, error) {
	var f *file
	if n := len(j.files); n > 0 {
		f = j.files[n-1]
	}
	if f == nil || f.broken || f.size >= j.options.File {
		var err error
		if f, err = j.begin(); err != nil {
			return nil, full(err)
		}
	}
	places := make([]place, len(group))
	at := f.size
	w := bufio.NewWriterSize(io.NewOffsetWriter(f, at), 64<<10)
	for n, i := range group {
		raw := i.raw
		if raw == nil {
			raw, _ = encode(i.id, settled, nil) // nothing is not too long
		}
		_, _ = w.Write(raw) // Flush says what went wrong
		places[n] = place{f, at, int64(len(raw))}
		at += int64(len(raw))
	}
	err := w.Flush()
	if err == nil && !j.options.Unsynced {
		err = f.sync()
	}
	if err != nil {
		f.undo(j.options.Unsynced)
		return nil, full(err)
	}
	j.disk += at - f.size
	f.size = at
	return places, nil
}

// full makes ErrFull of what a file system without room says.
func full(err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fmt.Errorf("%w: %v", ErrFull, err)
	}
	return err
}

// settle makes true in RAM what is now on disk. Settlements that could not be written come first in the next group.
func (j *Journal) settle(group []item, places []place, err error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var again []item
	j.fault = err
	for n, i := range group {
		if i.from == nil {
			j.queued -= int64(len(i.raw))
		}
		switch {
		case i.raw == nil:
			j.forget(i.id)
			if err != nil {
				again = append(again, i)
			}
		case err == nil && (i.from == nil || j.index[i.id].file == i.from):
			j.remember(i.id, places[n])
		}
		if err == nil && i.raw != nil && i.from == nil {
			j.appended++
		}
	}
	j.queue = append(again, j.queue...)
	if err == nil {
		j.commits++
	}
}

// carry returns what lives in the oldest file, a part at a time, if most of what is on disk is dead. It keeps pace with
// the group that is written.
func (j *Journal) carry(group []item) (carried []item) {
	j.mu.Lock()
	live := j.live
	j.mu.Unlock()
	if len(j.files) < 2 || j.disk <= 2*live+2*j.options.File {
		return nil
	}
	left := int64(carrySize)
	for _, i := range group {
		left += int64(len(i.raw))
	}
	oldest := j.files[0]
	for at := max(j.carried, int64(fileHeader)); at < oldest.size && left > 0; j.carried = at {
		h, err := oldest.header(at)
		if err != nil {
			j.options.Log.Error("journal cannot be read", "file", oldest.path, "err", err)
			j.carried = oldest.size
			break
		}
		if p := (place{oldest, at, h.size}); j.at(h.id) == p {
			raw, err := p.raw()
			if err == nil {
				_, err = decode(raw)
			}
			if err != nil {
				j.options.Log.Error("journal cannot be read", "file", oldest.path, "err", err)
			} else {
				carried = append(carried, item{id: h.id, kind: h.kind, raw: raw, from: oldest})
				left -= h.size
			}
		}
		at += h.size
	}
	return carried
}

func (j *Journal) at(id ID) place {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.index[id]
}

// free removes the oldest files in which nothing lives.
func (j *Journal) free() {
	for {
		j.mu.Lock()
		if len(j.files) < 2 || j.files[0].live > 0 {
			j.mu.Unlock()
			return
		}
		f := j.files[0]
		j.files = j.files[1:]
		j.mu.Unlock()
		j.carried = 0
		j.disk -= f.size
		if err := errors.Join(os.Remove(f.path), f.close()); err != nil {
			j.options.Log.Error("journal cannot remove a file", "file", f.path, "err", err)
		}
	}
}

// report tells of a disk that fails, once, and of its return.
func (j *Journal) report(err error) {
	j.mu.Lock()
	was := j.fault
	j.mu.Unlock()
	switch {
	case err != nil && was == nil:
		j.options.Log.Error("journal cannot be written", "directory", j.directory, "err", err)
	case err == nil && was != nil:
		j.options.Log.Info("journal is written again", "directory", j.directory)
	}
}
