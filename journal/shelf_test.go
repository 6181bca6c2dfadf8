// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// ends runs a journal for as long as it takes to write what was appended.
func ends(t *testing.T, j *Journal) {
	t.Helper()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := j.Run(ended); err != nil {
		t.Error(err)
	}
}

// TestShelf: each process has a journal; those that are left are found once, and go when nothing in them lives.
func TestShelf(t *testing.T) {
	t.Parallel()
	shelf := filepath.Join(t.TempDir(), "shelf")
	left := func() []*Journal {
		t.Helper()
		all, err := OpenLeft(shelf, Options{})
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	stand := func(want ...string) {
		t.Helper()
		var got []string
		entries, err := os.ReadDir(shelf)
		for _, e := range entries {
			got = append(got, e.Name())
		}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("on the shelf: %s%v", diff, err)
		}
	}
	if all := left(); len(all) > 0 {
		t.Errorf("%d journals on a shelf that is not there", len(all))
	}
	var both [2]*Journal
	for i := range both {
		var err error
		if both[i], err = OpenNew(shelf, Options{}); err != nil {
			t.Fatal(err)
		}
	}
	if all := left(); len(all) > 0 {
		t.Errorf("%d journals left while they are open", len(all))
	}
	id := both[0].Append(1, nil, []byte("x"))
	ends(t, both[0])
	ends(t, both[1])
	stand("1")
	again := left()
	if len(again) != 1 {
		t.Fatalf("%d journals left, want 1", len(again))
	}
	if r, err := again[0].Read(id); err != nil || string(r.Data) != "x" {
		t.Errorf("got %v, %v", r, err)
	}
	if all := left(); len(all) > 0 {
		t.Errorf("%d journals left to a second one", len(all))
	}
	next, err := OpenNew(shelf, Options{})
	if err != nil {
		t.Fatal(err)
	}
	stand("1", "2")
	again[0].Settle(id)
	ends(t, again[0])
	stand("2")
	ends(t, next)
	stand()
}

// TestRemoved: who waited for a journal that was removed does not get what is left of it.
func TestRemoved(t *testing.T) {
	t.Parallel()
	shelf := t.TempDir()
	j, err := OpenNew(shelf, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if !j.ours() {
		t.Error("a journal is not ours")
	}
	if err := os.Remove(j.lock.Name()); err != nil {
		t.Fatal(err)
	}
	if j.ours() {
		t.Error("a journal that was removed is ours")
	}
	ends(t, j)
}
