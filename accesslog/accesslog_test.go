// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package accesslog

import (
	"bytes"
	"context"
	"encoding/json"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/internal/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m) }

// newLog returns a log of two loops that is off, and what it says about itself.
func newLog() (*Log, *bytes.Buffer) {
	said := new(bytes.Buffer)
	start := time.Now()
	return New(Options{Loops: 2, Now: func() int64 { return int64(time.Since(start)) },
		Log: slog.New(slog.NewTextHandler(said, nil))}), said
}

// open returns a target that must be there.
func open(t *testing.T, l *Log, name string) *Target {
	t.Helper()
	target, err := l.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// count returns how many whole lines a file has, each of them JSON.
func count(t *testing.T, name string) (n int) {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		if !json.Valid(line) || !bytes.HasSuffix(line, []byte("\n")) {
			t.Errorf("%s: not a line: %q", name, line)
		}
		n++
	}
	return n
}

// TestRun: a line is in the file soon, with the time at which its record ended, and the last ones when Run returns.
func TestRun(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "access.log")
	synctest.Test(t, func(t *testing.T) {
		l, said := newLog()
		if l.Add(0, full()); l.On() || l.Status() != (Status{}) {
			t.Errorf("a new log is on: %+v", l.Status())
		}
		l.Use(open(t, l, name))
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { l.Run(ctx) })
		time.Sleep(time.Hour)
		r := full()
		r.At = int64(time.Hour)
		l.Add(0, r)
		ended := time.Now()
		time.Sleep(writeEvery)
		synctest.Wait()
		data, err := os.ReadFile(name)
		if want := string(appendLine(nil, r, ended)); err != nil || string(data) != want {
			t.Errorf("got %q, %v\nwant %q", data, err, want)
		}
		l.Add(1, r)
		stop()
		wg.Wait()
		if n := count(t, name); n != 2 || l.On() {
			t.Errorf("%d lines at the end, want 2", n)
		}
		if s := l.Status(); s != (Status{Lines: 2}) || said.Len() > 0 {
			t.Errorf("%+v, %s", s, said)
		}
	})
}

// TestWoken: a ring that fills quickly is read before the time.
func TestWoken(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "access.log")
	synctest.Test(t, func(t *testing.T) {
		l, _ := newLog()
		l.Use(open(t, l, name))
		ctx, stop := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { l.Run(ctx) })
		start := time.Now()
		for range 3 * ringSize {
			l.Add(1, full())
			synctest.Wait() // the writer has the processor when it wants it
		}
		if took := time.Since(start); took != 0 {
			t.Errorf("the bubble slept %v", took)
		}
		if n := count(t, name); n != 3*ringSize {
			t.Errorf("%d lines, want %d", n, 3*ringSize)
		}
		stop()
		wg.Wait()
	})
}

// TestFull: where nobody writes, a loop goes on, and what has no room is counted.
func TestFull(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "access.log")
	l, _ := newLog()
	l.Use(open(t, l, name))
	for range ringSize + 7 {
		l.Add(0, full())
	}
	l.Add(1, full()) // the other loop has a ring of its own
	if s := l.Status(); s.Dropped != 7 || s.Lines != 0 {
		t.Errorf("%+v, want 7 dropped", s)
	}
	l.Use(nil).Close()
	if s, n := l.Status(), count(t, name); s.Dropped != 7 || s.Lines != ringSize+1 || n != ringSize+1 {
		t.Errorf("%+v and %d lines in the file, want %d", s, n, ringSize+1)
	}
}

// TestRotate: a file that was moved away is made anew with its mode; every line is in one of the two.
func TestRotate(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "access.log")
	l, _ := newLog()
	l.Use(open(t, l, name))
	if i, err := os.Stat(name); err != nil || i.Mode() != newMode {
		t.Errorf("made with mode %v, %v", i.Mode(), err)
	}
	if err := os.Chmod(name, 0o604); err != nil {
		t.Fatal(err)
	}
	l.Add(0, full())
	if err := os.Rename(name, name+".1"); err != nil {
		t.Fatal(err)
	}
	l.Add(0, full())
	l.Use(open(t, l, name)).Close()
	l.Add(0, full())
	l.Use(nil).Close()
	if old, fresh := count(t, name+".1"), count(t, name); old != 2 || fresh != 1 {
		t.Errorf("%d and %d lines, want 2 and 1", old, fresh)
	}
	if i, err := os.Stat(name); err != nil || i.Mode() != 0o604 {
		t.Errorf("made anew with mode %v, %v", i.Mode(), err)
	}
}

// TestTruncate: a file that was made empty goes on at its beginning.
func TestTruncate(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "access.log")
	l, _ := newLog()
	l.Use(open(t, l, name))
	l.Add(0, full())
	l.Use(open(t, l, name)).Close()
	if err := os.Truncate(name, 0); err != nil {
		t.Fatal(err)
	}
	l.Add(0, full())
	l.Use(nil).Close()
	if n := count(t, name); n != 1 {
		t.Errorf("%d lines, want 1", n)
	}
}

// TestOpen: what cannot be opened is refused, at once and in words.
func TestOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		filepath.Join(dir, "none", "access.log"): "no such file or directory",
		dir:                                      "is a directory",
		pipe:                                     "no such device or address", // nobody reads
	} {
		l, _ := newLog()
		target, err := l.Open(name)
		if err == nil || target != nil || err.Error() != "open access log "+name+": "+want {
			t.Errorf("open %s: %v, %v; want %s", name, target, err, want)
		}
	}
	l, _ := newLog()
	if target, err := l.Open(""); target != nil || err != nil {
		t.Errorf("open nothing: %v, %v", target, err)
	}
	target := open(t, l, Stderr)
	if target.Close(); target.file != os.Stderr {
		t.Error("stderr is another file")
	}
	if _, err := os.Stderr.Stat(); err != nil {
		t.Errorf("stderr was closed: %v", err)
	}
}

// TestFault: lines that cannot be written are counted, and said once; so is the end of it.
func TestFault(t *testing.T) {
	t.Parallel()
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "access.log")
	l, said := newLog()
	l.Use(&Target{"access.log", f})
	write := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.drainLocked()
	}
	for range 3 {
		l.Add(0, full())
		write()
	}
	if s := l.Status(); s.Lines != 0 || s.Dropped != 3 || !strings.Contains(s.Err, "no space left") {
		t.Errorf("%+v", s)
	}
	l.target.file = open(t, l, name).file // as if room had been made
	f.Close()
	l.Add(0, full())
	write()
	if s := l.Status(); s != (Status{To: "access.log", Lines: 1, Dropped: 3}) {
		t.Errorf("%+v", s)
	}
	l.Use(nil).Close()
	if text := said.String(); strings.Count(text, "cannot be written") != 1 || strings.Count(text, "written again") != 1 {
		t.Errorf("said %s", text)
	}
}

// TestTorn: when a write has ended in the middle of a line, the next begins on a new one.
func TestTorn(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "access.log")
	l, _ := newLog()
	target := open(t, l, name)
	defer target.Close()
	torn := false
	for _, lines := range []string{"1\n2\n3", "4\n", "5\n"} {
		if n, err := target.write([]byte(lines), &torn); int(n) != strings.Count(lines, "\n") || err != nil {
			t.Errorf("%q: %d, %v", lines, n, err)
		}
	}
	if data, err := os.ReadFile(name); string(data) != "1\n2\n3\n4\n5\n" {
		t.Errorf("%q, %v", data, err)
	}
}

// TestTwoProcesses: while one process replaces another both write, and no line is cut.
func TestTwoProcesses(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "access.log")
	const each = 20_000
	var wg sync.WaitGroup
	for range 2 {
		l, _ := newLog()
		l.Use(open(t, l, name))
		wg.Go(func() {
			for i := range each {
				if l.Add(0, full()); i%1000 == 0 {
					l.Use(open(t, l, name)).Close() // writes, too
				}
			}
			l.Use(nil).Close()
			if s := l.Status(); s.Lines != each {
				t.Errorf("%+v", s)
			}
		})
	}
	wg.Wait()
	if n := count(t, name); n != 2*each {
		t.Errorf("%d lines, want %d", n, 2*each)
	}
}

// TestReload: while files are exchanged under loops that write, every line is written or counted.
func TestReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	names := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
	l, _ := newLog()
	l.Use(open(t, l, names[0]))
	ctx, stop := context.WithCancel(t.Context())
	var writer, loops sync.WaitGroup
	writer.Go(func() { l.Run(ctx) })
	const each = 50_000
	for loop := range 2 {
		loops.Go(func() {
			for range each {
				l.Add(loop, full())
			}
		})
	}
	for i := range 50 {
		l.Use(open(t, l, names[i%2])).Close()
	}
	loops.Wait()
	stop()
	writer.Wait()
	s := l.Status()
	if written := count(t, names[0]) + count(t, names[1]); s.Lines != int64(written) || s.Lines+s.Dropped != 2*each {
		t.Errorf("%d lines in the files, %+v, want %d in all", written, s, 2*each)
	}
}

// TestMode: what is not a file has no mode to copy.
func TestMode(t *testing.T) {
	t.Parallel()
	l, _ := newLog()
	if m := l.mode("access.log"); m != fs.FileMode(newMode) {
		t.Errorf("%v", m)
	}
}
