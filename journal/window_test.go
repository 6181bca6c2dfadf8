// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestWindow: what a process that was killed has put is there, and the room that it had taken is no record that is torn.
func TestWindow(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	j, _ := run(t, directory, Options{Unsynced: true, File: 64 << 10})
	mustWrite(t, j, 9, "first") // makes the file
	if j.files[0].window == nil {
		t.Fatal("there is no window: the file system takes no room in advance")
	}
	want := all(t, j)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 200 {
				j.Settle(j.Put(1, []byte("gone")))
				id := j.Put(2, []byte("st"), []byte("ays"))
				mu.Lock()
				want[id] = "2 stays"
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	mustWrite(t, j, 9) // all that was queued is before it
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(copied, os.DirFS(directory)); err != nil { // as it is when the process dies now
		t.Fatal(err)
	}
	after, _ := run(t, copied, Options{Unsynced: true})
	if s := after.Status(); s.Torn != 0 {
		t.Errorf("%d bytes are torn", s.Torn)
	}
	found := all(t, after)
	for id, text := range found {
		if text == "9 " {
			delete(found, id)
		}
	}
	if diff := cmp.Diff(want, found); diff != "" {
		t.Error(diff)
	}
}

// TestWindowBreaks: a disk that breaks its promise costs neither the process nor the record.
func TestWindowBreaks(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	j, stop := run(t, directory, Options{Unsynced: true, File: 64 << 10})
	told := mustWrite(t, j, 1, "told")
	if err := os.Truncate(j.files[0].path, j.files[0].size); err != nil {
		t.Fatal(err)
	}
	put := j.Put(2, make([]byte, 8<<10)) // on a page that is not there
	mustWrite(t, j, 9)
	for again := range 2 {
		for _, id := range []ID{told, put} {
			if _, err := j.Read(id); errors.Is(err, ErrNone) {
				t.Errorf("%d is not there, opened again: %v", id, again > 0)
			}
		}
		if again == 0 {
			stop()
			j, _ = run(t, directory, Options{Unsynced: true})
		}
	}
}
