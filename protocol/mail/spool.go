// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/relay"
)

// spoolsAtOnce is how many pieces are written or read at once: files are not for the loops.
const spoolsAtOnce = 16

// spool is where messages are while they are taken in, beyond what is kept in memory: files without a name, which are
// gone with their last descriptor, so that nothing is left of an edge that is killed.
type spool struct {
	directory string
	gate      chan struct{}
}

func newSpool(directory string) *spool {
	return &spool{directory: directory, gate: make(chan struct{}, spoolsAtOnce)}
}

// do has work done off the loop, and then called on it.
func (s *spool) do(l *relay.Loop, work, then func()) {
	go func() {
		s.gate <- struct{}{}
		work()
		<-s.gate
		l.Post(then)
	}()
}

// wait waits for what is under way.
func (s *spool) wait() {
	for range spoolsAtOnce {
		s.gate <- struct{}{}
	}
	for range spoolsAtOnce {
		<-s.gate
	}
}

// open returns a new file without a name.
func (s *spool) open() (*os.File, error) {
	if err := os.MkdirAll(s.directory, 0o700); err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	fd, err := unix.Open(s.directory, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), s.directory), nil
	}
	f, err := os.CreateTemp(s.directory, "") // some file systems have no O_TMPFILE
	if err != nil {
		return nil, fmt.Errorf("open spool: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("open spool: %w", err)
	}
	return f, nil
}
