// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// A shelf is a directory of journals with numbers. While one process takes another's place each has a journal of its own
// on it; what one leaves, because it ends or is killed, another takes over.

// OpenNew opens a journal with a new number on a shelf, which is made if it is not there. When Run ends and nothing in
// the journal lives, it is removed.
func OpenNew(shelf string, o Options) (*Journal, error) {
	if err := os.MkdirAll(shelf, 0o700); err != nil {
		return nil, fmt.Errorf("open %s: %w", shelf, err)
	}
	for {
		numbers, err := numbers(shelf)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", shelf, err)
		}
		next := uint64(1)
		for _, n := range numbers {
			next = max(next, n+1)
		}
		directory := filepath.Join(shelf, strconv.FormatUint(next, 10))
		if err := os.Mkdir(directory, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
			return nil, fmt.Errorf("open %s: %w", shelf, err)
		}
		j, err := Open(directory, o)
		if errors.Is(err, ErrLocked) { // somebody was faster
			continue
		}
		if err != nil {
			return nil, err
		}
		j.shelved = true
		if o.Unsynced { // so that Put need not wait for the first file
			if _, err := j.begin(); err != nil {
				return nil, errors.Join(fmt.Errorf("open %s: %w", directory, err), j.release())
			}
		}
		return j, nil
	}
}

// OpenLeft opens all journals on a shelf that no process has open: each must be run. They are removed as those of OpenNew
// are. What cannot be opened is in the error, beside the others.
func OpenLeft(shelf string, o Options) (all []*Journal, err error) {
	numbers, err := numbers(shelf)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open %s: %w", shelf, err)
	}
	var errs []error
	for _, n := range numbers {
		directory := filepath.Join(shelf, strconv.FormatUint(n, 10))
		if _, err := os.Stat(directory); err != nil {
			continue // it has been removed
		}
		j, err := Open(directory, o)
		switch {
		case errors.Is(err, ErrLocked):
		case err != nil:
			errs = append(errs, err)
		default:
			j.shelved = true
			all = append(all, j)
		}
	}
	return all, errors.Join(errs...)
}

// numbers returns those of the journals on a shelf, in order of their names.
func numbers(shelf string) (all []uint64, err error) {
	entries, err := os.ReadDir(shelf)
	for _, e := range entries {
		if n, err := strconv.ParseUint(e.Name(), 10, 64); err == nil && e.IsDir() {
			all = append(all, n)
		}
	}
	return all, err
}

// remove takes the journal from its shelf if nothing in it lives. It is called while the lock is held.
func (j *Journal) remove() error {
	if !j.shelved || len(j.index) > 0 {
		return nil
	}
	return os.RemoveAll(j.directory)
}

// ours says whether the file that is locked is still the one with its name: a journal that was removed has none.
func (j *Journal) ours() bool {
	mine, err := j.lock.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(j.lock.Name())
	return err == nil && os.SameFile(mine, there)
}
