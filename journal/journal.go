// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package journal keeps what is written once and read after a crash: messages that were answered for, outcomes, bindings, records
// of calls. It is a row of files in one directory, to the last of which records are appended.
//
//	Append ─┐                                                  ┌─▶ done
//	Append ─┼─▶ queue ─▶ Run: one write, one fsync for them all ┼─▶ done
//	Settle ─┘                                                  └─▶ index in RAM ─▶ Read, Each
//
// A record lives until it is settled: nobody needs it any more. That is written too, as a record of its own, so that
// after a crash Each finds what lives. A record may be found again though it was settled, if the process died before that
// was written; it is never the other way round.
//
// Files go in the order in which they came, each when nothing in it lives: so what is said of a record never goes before
// the record. What lives on in the oldest is written again at the end (carry) once most of what is on disk is dead; over
// time no more is written again than has died.
//
// What a crash left of a file is read up to the first record that is not whole. In a journal that is synced none before
// it was told to be written and is missing; what is behind it was told to nobody. In one that is not synced
// (Options.Unsynced) a record outlives the process, not the machine.
//
// The format of a file, all numbers little endian:
//
//	file    "kyozonj1" · number of the file, 8 · an id above all those before, 8 · CRC-32C of these, 4 · records
//	record  CRC-32C of what follows, 4 · size of data, 4 · id, 8 · kind, 1 · data
package journal

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
)

var (
	// ErrFull means that there is no room: the disk is full, or what lives has reached Options.Size.
	ErrFull = errors.New("journal: full")

	// ErrBehind means that the disk is so slow that records would be held without bound.
	ErrBehind = errors.New("journal: disk is too far behind")

	// ErrLocked means that another process has the journal open.
	ErrLocked = errors.New("journal: locked by another process")

	// ErrClosed means that Run has ended.
	ErrClosed = errors.New("journal: closed")

	// ErrTooLong means that a record has more than MaxData bytes: write several.
	ErrTooLong = errors.New("journal: record too long")

	// ErrNone means that there is no such record: it is not written yet, or it was settled.
	ErrNone = errors.New("journal: no such record")
)

// MaxData is the size of the longest record.
const MaxData = 1 << 20

// maxQueue is how many bytes wait to be written, at most.
const maxQueue = 64 << 20

// ID names a record as long as it lives. It is never 0, and never given twice.
type ID uint64

// Kind is what a record is, to those who use the journal. 0 is the journal's own.
type Kind uint8

// Record is one that lives. Data is the reader's own.
type Record struct {
	ID   ID
	Kind Kind
	Data []byte
}

// Options say how a journal is kept. The zero value will do.
type Options struct {
	Unsynced bool         // no fsync: records outlive the process, not the machine
	Size     int64        // what may live, in bytes; 0 means 1 GiB. On disk there is up to three times as much
	File     int64        // when a file is that long the next one begins; 0 means 16 MiB
	Log      *slog.Logger // hears of a disk that fails and comes back; nil means nobody does
}

// Journal is open from Open to the end of Run. Its methods may be called from anywhere and do not wait for the disk, but
// for Read and Each.
type Journal struct {
	directory string
	shelved   bool // see OpenNew
	options   Options
	lock      *os.File
	wake      chan struct{} // of size 1: one call to look is enough
	last      atomic.Uint64 // the last id given

	mu       sync.Mutex
	queue    []item
	queued   int64 // bytes in queue, and of the group that is being written
	index    map[ID]place
	live     int64 // bytes of what is in index
	closed   bool
	fault    error // what the last write came to
	appended int64
	commits  int64
	files    []*file // the oldest first; the last is written to. Run changes them, with mu held

	torn int64 // bytes that Open could not read

	busy    atomic.Bool // Run has writing, perhaps for long
	writing sync.Mutex  // comes before mu, and guards what is in the files, and what follows
	disk    int64       // bytes in files
	carried int64       // how far the oldest file has been carried
}

// item is a record on its way to the disk.
type item struct {
	id   ID
	kind Kind
	raw  []byte // all of it, or nil for a settlement
	done func(error)
	from *file // not nil: it is there already, and is carried from here
}

// place is where a record is.
type place struct {
	file *file
	at   int64
	size int64 // with its header
}

// Open opens the journal in directory, which is made if it is not there. Nothing is written until Run is called; one who
// opens and does not run it calls Run with a context that is done. Returns ErrLocked at once if another process has it.
func Open(directory string, o Options) (*Journal, error) {
	o.Size, o.File = cmp.Or(o.Size, 1<<30), cmp.Or(o.File, 16<<20)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	j := &Journal{directory: directory, options: o, wake: make(chan struct{}, 1), index: make(map[ID]place)}
	if err := j.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", directory, err), j.release())
	}
	return j, nil
}

// Append has a record written, and calls done when it is, or cannot be; a nil done is not called. All others wait for
// done, which is called on Run's goroutine or in Append: it goes back to where it came from. data is joined, and the
// caller's again when Append returns.
//
// done is told ErrFull, ErrBehind, ErrTooLong or ErrClosed: the record is not there. After any other error nobody knows.
func (j *Journal) Append(kind Kind, done func(error), data ...[]byte) ID {
	id := ID(j.last.Add(1))
	raw, err := encode(id, kind, data)
	if err == nil {
		err = j.enqueue(item{id: id, kind: kind, raw: raw, done: done})
	}
	if err != nil && done != nil {
		done(err)
	}
	return id
}

// Put is Append to a journal that is not synced, where it is written before Put returns unless Run is busy just then: the
// system has it, the disk is not waited for. What goes wrong is told to nobody.
func (j *Journal) Put(kind Kind, data ...[]byte) ID {
	id := ID(j.last.Add(1))
	size, err := sizeOf(data)
	if err == nil && !j.put(id, kind, size, data) {
		_ = j.enqueue(item{id: id, kind: kind, raw: appendRecord(make([]byte, 0, size), id, kind, data)}) // its errors are told to nobody
	}
	return id
}

// Settle says that the record, which was appended before, is needed no more. It is soon written, in a journal that is not
// synced as Put does it.
func (j *Journal) Settle(id ID) {
	if !j.put(id, settled, int64(recHeader), nil) {
		_ = j.enqueue(item{id: id}) // a journal that is closed finds it again
	}
}

// Settled is Settle, and calls done as Append does when that is written. On a disk that fails done is told so, perhaps again
// and again: until Run ends it is tried once more.
func (j *Journal) Settled(id ID, done func(error)) {
	if err := j.enqueue(item{id: id, done: done}); err != nil && done != nil {
		done(err)
	}
}

// Name returns the last part of the directory's path: on a shelf it is a number that no other journal there has.
func (j *Journal) Name() string { return filepath.Base(j.directory) }

func (j *Journal) enqueue(i item) error {
	size := int64(len(i.raw))
	j.mu.Lock()
	defer j.mu.Unlock()
	switch {
	case j.closed:
		return ErrClosed
	case size > 0 && j.live+j.queued+size > j.options.Size:
		return fmt.Errorf("%w: %d bytes wait to be settled", ErrFull, j.live)
	case size > 0 && j.queued+size > maxQueue:
		return ErrBehind
	}
	j.queue = append(j.queue, i)
	j.queued += size
	j.rouse()
	return nil
}

// rouse has Run look at the queue.
func (j *Journal) rouse() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// Read returns a record that is written and lives. Returns ErrNone and ErrClosed.
func (j *Journal) Read(id ID) (Record, error) {
	for {
		j.mu.Lock()
		p, ok := j.index[id]
		j.mu.Unlock()
		if !ok {
			return Record{}, ErrNone
		}
		r, err := p.read()
		if errors.Is(err, os.ErrClosed) {
			if j.isClosed() {
				return Record{}, ErrClosed
			}
			continue // it was carried to another file in the meantime
		}
		if err != nil {
			return Record{}, fmt.Errorf("read %s: %w", p.file.path, err)
		}
		return r, nil
	}
}

// Each calls fn for all records that are written and live, in the order of their ids, until fn returns an error, which it
// returns. fn may call the journal.
func (j *Journal) Each(fn func(Record) error) error {
	j.mu.Lock()
	ids := slices.Sorted(maps.Keys(j.index))
	j.mu.Unlock()
	for _, id := range ids {
		r, err := j.Read(id)
		if errors.Is(err, ErrNone) {
			continue // settled while we were on the way
		}
		if err == nil {
			err = fn(r)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Scan calls fn for all records of a kind that are written and live, in the order in which they stand on disk, until fn returns an
// error, which it returns: a million small ones many times faster than Each, because it reads each file from its beginning to its
// end. It is called before Run. data is good until fn returns; fn may call the journal.
func (j *Journal) Scan(kind Kind, fn func(id ID, data []byte) error) error {
	for _, f := range j.files {
		var failed error
		_, _, err := scan(io.NewSectionReader(f, 0, f.size), func(h header, at int64, data []byte) {
			if failed == nil && h.kind == kind && j.at(h.id) == (place{f, at, h.size}) {
				failed = fn(h.id, data)
			}
		})
		if failed != nil {
			return failed
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", f.path, err)
		}
	}
	return nil
}

// Status is how a journal is.
type Status struct {
	Records  int   // that live
	Bytes    int64 // of these
	Files    int
	Appended int64 // records since Open
	Commits  int64 // writes they took
	Torn     int64 // bytes at the ends of files that Open found and could not read
	Err      error // why it cannot be written now
}

// Status returns how the journal is now.
func (j *Journal) Status() Status {
	j.mu.Lock()
	defer j.mu.Unlock()
	return Status{Records: len(j.index), Bytes: j.live, Files: len(j.files), Appended: j.appended, Commits: j.commits,
		Torn: j.torn, Err: j.fault}
}

func (j *Journal) isClosed() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.closed
}
