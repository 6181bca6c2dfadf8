// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// A file of a journal that is not synced is written through a window: memory that is the file. What is there outlives
// the process as what write(2) was given does, and costs neither a call of the system nor another goroutine. The room
// for all of it is taken at once, so that a disk that is full says so then.

// errWindow means that the disk did not take what was written to a window.
var errWindow = errors.New("journal: memory of the file is lost")

// openWindow makes f as long as it may become. Where the file system cannot promise the room there is no window.
func (f *file) openWindow(size int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, size)
	for errors.Is(err, unix.EINTR) {
		err = unix.Fallocate(int(f.Fd()), 0, 0, size)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	if err != nil {
		return err
	}
	f.window, err = unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return err
}

// closeWindow gives back the room behind what is written. The file can still be written to as any other.
func (f *file) closeWindow() error {
	if f.window == nil {
		return nil
	}
	err := unix.Munmap(f.window)
	f.window = nil
	return errors.Join(err, f.Truncate(f.size))
}

// writeRecord writes a record at the end of what is written. It must fit into the window, if there is one.
func (f *file) writeRecord(id ID, kind Kind, size int64, data [][]byte) (err error) {
	if f.window == nil {
		_, err := f.WriteAt(appendRecord(make([]byte, 0, size), id, kind, data), f.size)
		return err
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault := recover(); fault != nil { // a disk that breaks its promise
			err = errWindow
		}
	}()
	appendRecord(f.window[f.size:f.size:f.size+size], id, kind, data)
	return nil
}

// fits says whether a record can be written to f without another goroutine.
func (f *file) fits(size, limit int64) bool {
	return !f.broken && f.size < limit && (f.window == nil || f.size+size <= int64(len(f.window)))
}
