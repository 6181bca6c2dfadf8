// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/kyozon/kyozon/journal"
	"github.com/kyozon/kyozon/protocol/phone/cdr"
)

const (
	// maxRecords is how many records wait at most: those of some minutes, while a disk does not answer.
	maxRecords = 100_000

	// maxTail is how much of the file is searched for records that the process before may have written there.
	maxTail = 4 << 20

	// recordTogether is how long a record waits for others, so that many calls are one writing. Until then it is in the journal.
	recordTogether = 100 * time.Millisecond

	// recordAgain is when records that could not be written are tried again.
	recordAgain = time.Second
)

// record is a line on its way to the file.
type record struct {
	line []byte
	id   journal.ID // of its copy in the journal of calls; 0 if there is none
}

// recorder takes the records of calls from the loops, which never wait for it, to a file. What has no room is counted.
type recorder struct {
	wake chan struct{} // of size 1: one call to look is enough

	mu      sync.Mutex // never held while something is written
	waiting []record
	lost    int64 // since it was said
}

func (r *recorder) add(all ...record) {
	r.mu.Lock()
	first := len(r.waiting) == 0
	room := min(maxRecords-len(r.waiting), len(all))
	r.waiting = append(r.waiting, all[:room]...)
	for _, one := range all[room:] {
		if one.id == 0 { // else the next process finds it
			r.lost++
		}
	}
	r.mu.Unlock()
	if !first { // whoever writes knows, or has put them back for later
		return
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// putBack has records that could not be written wait first.
func (r *recorder) putBack(all []record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting = append(all, r.waiting...)
}

func (r *recorder) take() (all []record, lost int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, lost = r.waiting, r.lost
	r.waiting, r.lost = nil, 0
	return all, lost
}

// record writes records until ctx is done, and then those that are still there.
func (c *core) record(ctx context.Context) {
	var again, back <-chan time.Time
	for {
		select {
		case <-c.records.wake:
			if again == nil {
				again = time.After(recordTogether)
			}
			continue
		case <-again:
		case <-c.returns:
			back = c.saveAll()
			continue
		case <-back:
			back = c.saveAll()
			continue
		case <-ctx.Done():
			c.write()
			return
		}
		again = nil
		if left := c.write(); len(left) > 0 {
			again = time.After(recordAgain)
			c.records.putBack(left)
		}
	}
}

// write appends the records that wait to the file, which is opened each time: it may have been moved away. It returns those
// that are to be tried again: those that the journal of calls keeps.
func (c *core) write() (left []record) {
	all, lost := c.records.take()
	options := c.settings.Load().options
	name := string(options.CDR)
	if len(all) == 0 && lost == 0 {
		return nil
	}
	err := appendRecords(name, all)
	for _, r := range all {
		switch {
		case err == nil && options.CDRDatabase != nil:
			c.table.add(r)
		case err == nil:
			c.calls.settle(r.id)
		case r.id == 0:
			lost++
		default:
			left = append(left, r)
		}
	}
	if lost > 0 || len(left) > 0 {
		c.log.Error("records of calls are not written", "file", name, "lost", lost, "kept", len(left), "err", err)
	}
	return left
}

// appendRecords appends records to a file. Without a name nobody wants them.
func appendRecords(name string, all []record) error {
	if name == "" || len(all) == 0 {
		return nil
	}
	size := 0
	for _, r := range all {
		size += len(r.line)
	}
	lines := make([]byte, 0, size)
	for _, r := range all {
		lines = append(lines, r.line...)
	}
	return appendFile(name, lines)
}

// recordsIn returns the ids of the records at the end of a file; none if it cannot be read.
func recordsIn(name string) map[string]bool {
	all := make(map[string]bool)
	f, err := os.Open(name)
	if err != nil {
		return all
	}
	defer f.Close()
	if size, err := f.Seek(0, io.SeekEnd); err == nil {
		_, _ = f.Seek(max(0, size-maxTail), io.SeekStart)
	}
	tail, _ := io.ReadAll(io.LimitReader(f, maxTail))
	for line := range bytes.Lines(tail) {
		if r, err := cdr.Parse(line); err == nil {
			all[r.ID] = true
		}
	}
	return all
}

// appendFile appends whole lines to a file, which is made if it is not there. Of lines that are not written whole nothing
// stays.
func appendFile(name string, lines []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640) // lines name subscribers and whom they call
	if err != nil {
		return fmt.Errorf("open records: %w", err)
	}
	if n, err := f.Write(lines); err != nil {
		if size, bad := f.Seek(0, io.SeekEnd); bad == nil && n > 0 {
			err = errors.Join(err, f.Truncate(size-int64(n)))
		}
		f.Close()
		return fmt.Errorf("write records: %w", err)
	}
	return f.Close()
}
