// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Stderr is the name of the target that is standard error.
const Stderr = "stderr"

// newMode is the mode of a file that is made: lines name clients and what they asked for.
const newMode = 0o640

// Target is where lines go.
type Target struct {
	name string
	file *os.File
}

// Open returns the target called name: a file, which is made if it is not there, Stderr, or nil for "". Each call opens
// the file anew, also the one in use: it may have been moved away. A new file in the place of the one in use has its
// mode.
func (l *Log) Open(name string) (*Target, error) {
	switch name {
	case "":
		return nil, nil
	case Stderr:
		return &Target{name, os.Stderr}, nil
	}
	// A pipe without a reader must be an error, and not hold up the reload.
	const how = os.O_WRONLY | os.O_APPEND | unix.O_NONBLOCK
	f, err := os.OpenFile(name, how, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if f, err = os.OpenFile(name, how|os.O_CREATE, newMode); err == nil {
			err = f.Chmod(l.mode(name)) // whatever the umask
		}
	}
	if err != nil {
		if p, ok := errors.AsType[*fs.PathError](err); ok {
			err = p.Err
		}
		return nil, fmt.Errorf("open access log %s: %w", name, err)
	}
	return &Target{name, f}, nil
}

// Writable says why lines could not be appended to a file, which need not be there; nil if they could. It leaves none behind.
func Writable(name string) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|unix.O_NONBLOCK, 0)
	if err == nil {
		return f.Close()
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir := filepath.Dir(name)
	switch info, bad := os.Stat(dir); {
	case bad != nil:
		return bad
	case !info.IsDir():
		return &fs.PathError{Op: "open", Path: name, Err: unix.ENOTDIR}
	}
	if bad := unix.Access(dir, unix.W_OK|unix.X_OK); bad != nil {
		return &fs.PathError{Op: "make a file in", Path: dir, Err: bad}
	}
	return nil
}

// mode returns the mode of a new file.
func (l *Log) mode(name string) fs.FileMode {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.target != nil && l.target.name == name {
		if i, err := l.target.file.Stat(); err == nil {
			return i.Mode().Perm()
		}
	}
	return newMode
}

// Close closes the target, which must not be in use. It may be nil.
func (t *Target) Close() {
	if t != nil && t.name != Stderr {
		t.file.Close() // nothing is buffered: what could fail has been reported by write
	}
}

// write writes lines, and returns how many were written whole. torn is whether the file ends in the middle of a line,
// before and after.
func (t *Target) write(lines []byte, torn *bool) (whole int64, err error) {
	if *torn {
		if _, err := t.file.Write([]byte("\n")); err != nil {
			return 0, err
		}
		*torn = false
	}
	n, err := t.file.Write(lines)
	if n > 0 {
		*torn = lines[n-1] != '\n'
	}
	return int64(bytes.Count(lines[:n], []byte("\n"))), err
}
