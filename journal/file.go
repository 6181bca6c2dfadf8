// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

const suffix = ".journal"

// file is one of the files.
type file struct {
	*os.File
	path   string
	number uint64
	size   int64  // what is written and good
	live   int    // records in it that live
	broken bool   // a write went wrong and could not be undone: nothing more is written to it
	window []byte // or nil
}

// read returns the record at p. Returns errTorn.
func (p place) read() (Record, error) {
	raw, err := p.raw()
	if err != nil {
		return Record{}, err
	}
	return decode(raw)
}

// raw returns the record at p as it is on disk.
func (p place) raw() ([]byte, error) {
	raw := make([]byte, p.size)
	_, err := p.file.ReadAt(raw, p.at)
	return raw, err
}

// header returns the beginning of the record at a place. Returns errTorn.
func (f *file) header(at int64) (header, error) {
	raw := make([]byte, recHeader)
	if _, err := f.ReadAt(raw, at); err != nil {
		return header{}, err
	}
	return decodeHeader(raw)
}

// sync makes what was written durable, and the size of the file as far as that is needed to read it.
func (f *file) sync() error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}

// open locks the directory, reads all files and makes the index.
func (j *Journal) open() error {
	if err := os.MkdirAll(j.directory, 0o700); err != nil {
		return err
	}
	var err error
	if j.lock, err = os.OpenFile(filepath.Join(j.directory, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if err := syscall.Flock(int(j.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return ErrLocked
		}
		return err
	}
	if !j.ours() {
		return ErrLocked // by who has just removed it
	}
	names, err := filepath.Glob(filepath.Join(j.directory, "*"+suffix))
	if err != nil {
		return err
	}
	for _, name := range names {
		number, err := strconv.ParseUint(strings.TrimSuffix(filepath.Base(name), suffix), 16, 64)
		if err != nil {
			return fmt.Errorf("%s: not a file of a journal", filepath.Base(name))
		}
		opened, err := os.OpenFile(name, os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		j.files = append(j.files, &file{File: opened, path: name, number: number})
	}
	slices.SortFunc(j.files, func(a, b *file) int { return cmp.Compare(a.number, b.number) })
	for _, f := range j.files {
		if err := j.load(f); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(f.path), err)
		}
	}
	return nil
}

// load makes the index of a file. What is not whole at its end is counted and never read again: a file that was there
// when we came is not written to.
func (j *Journal) load(f *file) error {
	b, length, err := scan(f, func(h header, at int64, _ []byte) {
		if h.kind == settled {
			j.forget(h.id)
		} else {
			j.remember(h.id, place{f, at, h.size})
		}
		j.last.Store(max(j.last.Load(), uint64(h.id)))
	})
	if err != nil {
		return err
	}
	if length > 0 && b.number != f.number {
		return fmt.Errorf("it says that it is number %x", b.number)
	}
	if length > 0 {
		j.last.Store(max(j.last.Load(), uint64(b.above)-1))
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	torn := info.Size() - length
	if torn > 0 && !j.options.Unsynced || !f.blank(length) {
		j.torn += torn
		j.options.Log.Warn("journal ends in what is no record", "file", f.path, "bytes", torn)
	}
	f.size, f.broken = length, true
	j.disk += length
	return nil
}

// blank says whether f has nothing but zeros from a place on: room behind a window that nobody has closed.
func (f *file) blank(at int64) bool {
	rest, err := io.ReadAll(io.NewSectionReader(f, at, math.MaxInt64-at))
	return err == nil && len(bytes.Trim(rest, "\x00")) == 0
}

// remember puts a record into the index. It is there already if it is carried.
func (j *Journal) remember(id ID, p place) {
	j.forget(id)
	j.index[id] = p
	j.live += p.size
	p.file.live++
}

func (j *Journal) forget(id ID) {
	if p, ok := j.index[id]; ok {
		delete(j.index, id)
		j.live -= p.size
		p.file.live--
	}
}

// begin makes the next file, whose name is as durable as what will be in it.
func (j *Journal) begin() (*file, error) {
	b := beginning{number: 1, above: ID(j.last.Load() + 1)}
	if n := len(j.files); n > 0 {
		b.number = j.files[n-1].number + 1
	}
	path := filepath.Join(j.directory, fmt.Sprintf("%016x%s", b.number, suffix))
	opened, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	f := &file{File: opened, path: path, number: b.number, size: int64(fileHeader)}
	_, err = f.WriteAt(b.encode(), 0)
	switch {
	case err != nil:
	case j.options.Unsynced:
		err = f.openWindow(j.options.File)
	default:
		err = errors.Join(f.Sync(), syncDirectory(j.directory))
	}
	if err != nil {
		return nil, errors.Join(err, f.close(), os.Remove(path))
	}
	if n := len(j.files); n > 0 { // nothing more is written to it
		if err := j.files[n-1].closeWindow(); err != nil {
			j.options.Log.Error("journal cannot give back room", "file", j.files[n-1].path, "err", err)
		}
	}
	j.mu.Lock()
	j.files = append(j.files, f)
	j.mu.Unlock()
	j.disk += f.size
	return f, nil
}

// Begin makes a file to write to, so that the first Put need not wait for Run. It is called before Run.
func (j *Journal) Begin() error {
	j.writing.Lock()
	defer j.writing.Unlock()
	_, err := j.begin()
	return full(err)
}

func syncDirectory(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// close closes the file, and leaves nothing behind what is written.
func (f *file) close() error { return errors.Join(f.closeWindow(), f.Close()) }

// undo takes back what a write that failed may have left behind f.size. Where it cannot, the file is written to no more;
// who reads it stops there.
func (f *file) undo(unsynced bool) {
	err := errors.Join(f.closeWindow(), f.Truncate(f.size))
	if err == nil && !unsynced {
		err = f.Sync()
	}
	f.broken = err != nil
}

// release closes all files and gives the lock back. To close it is not enough while a process that we start just then, which gets
// our descriptors until it runs its program, has it too: flock(2).
func (j *Journal) release() (err error) {
	for _, f := range j.files {
		err = errors.Join(err, f.close())
	}
	if j.lock != nil {
		err = errors.Join(err, syscall.Flock(int(j.lock.Fd()), syscall.LOCK_UN), j.lock.Close())
	}
	return err
}
