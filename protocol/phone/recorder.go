// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/kyozon/kyozon/protocol/phone/cdr"
)

// maxRecords is how many records wait at most: those of some minutes, while a disk does not answer.
const maxRecords = 100_000

// recorder takes the records of calls from the loops, which never wait for it, to a file. What has no room is counted.
type recorder struct {
	wake chan struct{} // of size 1: one call to look is enough

	mu      sync.Mutex // never held while something is written
	waiting []*cdr.Record
	lost    int64 // since it was said
}

func (r *recorder) add(one *cdr.Record) {
	r.mu.Lock()
	if len(r.waiting) < maxRecords {
		r.waiting = append(r.waiting, one)
	} else {
		r.lost++
	}
	r.mu.Unlock()
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

func (r *recorder) take() (all []*cdr.Record, lost int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all, lost = r.waiting, r.lost
	r.waiting, r.lost = nil, 0
	return all, lost
}

// record writes records until ctx is done, and then those that are still there.
func (c *core) record(ctx context.Context) {
	for {
		select {
		case <-c.records.wake:
			c.write()
		case <-ctx.Done():
			c.write()
			return
		}
	}
}

// write appends the records that wait to the file, which is opened each time: it may have been moved away.
func (c *core) write() {
	all, lost := c.records.take()
	name := string(c.settings.Load().options.CDR)
	if len(all) == 0 && lost == 0 || name == "" {
		return
	}
	var lines []byte
	for _, r := range all {
		var err error
		if lines, err = r.Append(lines); err != nil {
			lost++
		}
	}
	err := appendFile(name, lines)
	if err != nil {
		lost += int64(len(all))
	}
	if lost > 0 {
		c.log.Error("records of calls are lost", "file", name, "lost", lost, "err", err)
	}
}

// appendFile appends whole lines to a file, which is made if it is not there.
func appendFile(name string, lines []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640) // lines name subscribers and whom they call
	if err != nil {
		return fmt.Errorf("open records: %w", err)
	}
	if _, err = f.Write(lines); err != nil {
		f.Close()
		return fmt.Errorf("write records: %w", err)
	}
	return f.Close()
}
