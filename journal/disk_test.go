// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestTorn cuts a file at every length: what was whole before is there, and what comes after is not lost.
func TestTorn(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	j, stop := run(t, directory, Options{Unsynced: true})
	ends := map[ID]int64{}
	for _, text := range []string{"one", "", "three", "four"} {
		id := mustWrite(t, j, 1, text)
		ends[id] = j.files[0].size
	}
	path := j.files[0].path
	stop()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for length := range len(whole) + 1 {
		other := t.TempDir()
		name := filepath.Join(other, filepath.Base(path))
		noise := bytes.Clone(whole[:length])
		if length%2 == 1 { // as of a file that was made longer but not written
			noise = append(noise, make([]byte, 100)...)
		}
		if err := os.WriteFile(name, noise, 0o600); err != nil {
			t.Fatal(err)
		}
		j, stop := run(t, other, Options{Unsynced: true})
		found := all(t, j)
		for id, end := range ends {
			if _, ok := found[id]; ok != (end <= int64(length)) {
				t.Errorf("cut at %d: %d is there: %v", length, id, ok)
			}
		}
		after := mustWrite(t, j, 2, "after")
		if slices.Contains(slices.Collect(maps.Keys(found)), after) {
			t.Errorf("cut at %d: the id %d is given again", length, after)
		}
		stop()
		j, stop = run(t, other, Options{Unsynced: true})
		if again := all(t, j); len(again) != len(found)+1 || again[after] != "2 after" {
			t.Errorf("cut at %d: %v, then %v", length, found, again)
		}
		stop()
	}
}

// TestIDs: no id is given again, though of all records nothing is left but the beginning of a file.
func TestIDs(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	j, stop := run(t, directory, Options{})
	j.Settle(mustWrite(t, j, 1))
	stop()
	j, stop = run(t, directory, Options{})
	before := mustWrite(t, j, 1) // in a file of its own; the one before goes
	stop()
	names, err := filepath.Glob(filepath.Join(directory, "*"+suffix))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	if err := os.Truncate(names[0], int64(fileHeader)); err != nil {
		t.Fatal(err)
	}
	j, _ = run(t, directory, Options{})
	if id := mustWrite(t, j, 1); id < before {
		t.Errorf("%d was given, then %d", before, id)
	}
}

// TestUndo: what a write that failed has left is not found, and does not hide what is written after it.
func TestUndo(t *testing.T) {
	t.Parallel()
	for _, fails := range []bool{false, true} {
		directory := t.TempDir()
		j, stop := run(t, directory, Options{})
		told := mustWrite(t, j, 1, "told")
		stop()
		f := &file{path: filepath.Join(directory, fmt.Sprintf("%016x%s", 1, suffix))}
		var err error
		if f.File, err = os.OpenFile(f.path, os.O_RDWR, 0); err != nil {
			t.Fatal(err)
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		f.size = info.Size()
		raw, err := encode(told+1, 1, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(raw, f.size); err != nil {
			t.Fatal(err)
		}
		if fails {
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if f.undo(false); f.broken != fails {
			t.Errorf("the file is broken: %v, want %v", f.broken, fails)
		}
		if fails {
			continue
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		j, _ = run(t, directory, Options{})
		if diff := cmp.Diff(map[ID]string{told: "1 told"}, all(t, j)); diff != "" {
			t.Error(diff)
		}
	}
}

// TestFullDisk fills a small file system, then makes room: what was told is there, and the journal goes on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	if err := syscall.Mount("none", directory, "tmpfs", 0, "size=1m"); err != nil {
		if os.Getenv("KYOZON_LAB") == "require" {
			t.Fatalf("mount a small file system: %v", err)
		}
		t.Skipf("mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(directory, 0); err != nil {
			t.Error(err)
		}
	})
	ballast := filepath.Join(directory, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 64<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	j, stop := run(t, directory, Options{File: 256 << 10})
	var told []ID
	var err error
	for range 10_000 {
		var id ID
		if id, err = write(j, 1, string(make([]byte, 3000))); err != nil {
			break
		}
		told = append(told, id)
	}
	if !errors.Is(err, ErrFull) || j.Status().Err == nil || len(told) < 200 {
		t.Fatalf("after %d: %v, %+v", len(told), err, j.Status())
	}
	for _, id := range told[:len(told)/2] {
		j.Settle(id)
	}
	more := 500 - mustFail(t, j, 500) // there is room for some of them: none may be found later
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for range 10_000 { // the settlements may have to wait for the room that they make
		if _, err = write(j, 1, "after"); err == nil {
			break
		}
	}
	if err != nil || j.Status().Err != nil {
		t.Errorf("Append after room was made: %v, %v", err, j.Status().Err)
	}
	stop()
	j, _ = run(t, directory, Options{File: 256 << 10})
	found := all(t, j)
	if n := len(told) - len(told)/2 + more + 1; len(found) != n {
		t.Errorf("%d live, want %d", len(found), n)
	}
	for n, id := range told {
		if _, ok := found[id]; ok != (n >= len(told)/2) {
			t.Errorf("%d of %d is there: %v", n, len(told), ok)
		}
	}
}

// mustFail appends n records at once to a journal that has no room for all of them. It returns how many had none.
func mustFail(t *testing.T, j *Journal, n int) (failed int) {
	t.Helper()
	var wg sync.WaitGroup
	for range n {
		wg.Add(1)
		j.Append(1, func(err error) {
			if errors.Is(err, ErrFull) {
				failed++
			}
			wg.Done()
		}, make([]byte, 3000))
	}
	wg.Wait()
	if failed == 0 {
		t.Error("there was room for all")
	}
	return failed
}
