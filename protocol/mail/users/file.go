// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package users

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"
	"time"
)

const (
	maxLine  = 1 << 10  // bytes of a line of a file
	maxUsers = 10 << 20 // lines of users
)

// File is a directory in memory. Each line of its file has a user and what is said of him:
//
//	tim@example.jp    10.0.2.21
//	@example.jp       imap-new pop3-new     # everybody else there
//	*                 10.0.2.22             # everybody else
type File struct {
	path        string
	all         atomic.Pointer[map[string]string] // immutable
	taken, seen stamp                             // of Run
}

// stamp is what of a file changes with it.
type stamp struct {
	time time.Time
	size int64
}

// OpenFile reads a file.
func OpenFile(path string) (*File, error) {
	f := &File{path: path}
	return f, f.read()
}

func (f *File) read() error {
	file, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	f.taken = stamp{info.ModTime(), info.Size()}
	all, err := parse(file)
	if err != nil {
		return fmt.Errorf("%s:%w", f.path, err)
	}
	f.all.Store(&all)
	return nil
}

// Run takes the file anew when it has changed, and has not from one look to the next, until ctx is done. report is called for each change, with why it was not
// taken, if it was not: then what was there before goes on to count. Run is called at most once.
func (f *File) Run(ctx context.Context, interval time.Duration, report func(path string, err error)) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f.look(report)
		}
	}
}

func (f *File) look(report func(string, error)) {
	info, err := os.Stat(f.path)
	if err != nil {
		return // a file that is gone for a moment is about to be replaced
	}
	now, before := stamp{info.ModTime(), info.Size()}, f.seen
	f.seen = now
	if now == f.taken || now != before { // half a file would send users elsewhere
		return
	}
	f.taken = now
	report(f.path, f.read())
}

// parse reads the lines of a file.
func parse(r io.Reader) (map[string]string, error) {
	all := make(map[string]string)
	in := bufio.NewScanner(r)
	in.Buffer(nil, maxLine)
	n := 0
	for in.Scan() {
		n++
		line, _, _ := strings.Cut(in.Text(), "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		answer, err := clean([]byte(strings.Join(words[1:], " ")))
		user := Name([]byte(words[0]))
		_, twice := all[user]
		switch {
		case err != nil:
			return nil, fmt.Errorf("%d: %w", n, err)
		case answer == "":
			return nil, fmt.Errorf("%d: no server behind %q", n, words[0])
		case twice:
			return nil, fmt.Errorf("%d: %q for the second time", n, words[0])
		case len(all) == maxUsers:
			return nil, fmt.Errorf("%d: more than %d users; ask a directory", n, maxUsers)
		}
		all[user] = answer
	}
	if err := in.Err(); err != nil {
		return nil, fmt.Errorf("%d: %w", n+1, err)
	}
	return all, nil
}

// Known implements Directory. The user counts before the domain, and that before all.
func (f *File) Known(user string) (string, bool) {
	all := *f.all.Load()
	if answer, ok := all[user]; ok {
		return answer, true
	}
	if at := strings.LastIndexByte(user, '@'); at >= 0 {
		if answer, ok := all[user[at:]]; ok {
			return answer, true
		}
	}
	return all["*"], true
}

// Find implements Directory.
func (f *File) Find(user string, done func(string, error)) {
	answer, _ := f.Known(user)
	done(answer, nil)
}
