// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/internal/servertest"
)

func TestMain(m *testing.M) { servertest.Main(m) }

// run opens a journal and runs it until the test ends, or stop is called.
func run(t testing.TB, directory string, o Options) (j *Journal, stop func()) {
	t.Helper()
	j, err := Open(directory, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- j.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return j, stop
}

// write appends a record and waits for it.
func write(j *Journal, kind Kind, data ...string) (ID, error) {
	written := make(chan error, 1)
	var pieces [][]byte
	for _, d := range data {
		pieces = append(pieces, []byte(d))
	}
	id := j.Append(kind, func(err error) { written <- err }, pieces...)
	return id, <-written
}

func mustWrite(t testing.TB, j *Journal, kind Kind, data ...string) ID {
	t.Helper()
	id, err := write(j, kind, data...)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// all returns what lives.
func all(t testing.TB, j *Journal) map[ID]string {
	t.Helper()
	found := make(map[ID]string)
	var before ID
	err := j.Each(func(r Record) error {
		if r.ID <= before {
			t.Errorf("%d comes after %d", r.ID, before)
		}
		before = r.ID
		found[r.ID] = fmt.Sprintf("%d %s", r.Kind, r.Data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// scanned returns what Scan finds in a journal that is opened for that.
func scanned(t testing.TB, directory string, o Options) map[ID]string {
	t.Helper()
	j, err := Open(directory, o)
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[ID]string)
	for kind := range Kind(3) {
		if err := j.Scan(kind, func(id ID, data []byte) error {
			if _, ok := found[id]; ok {
				t.Errorf("%d comes twice", id)
			}
			found[id] = fmt.Sprintf("%d %s", kind, data)
			return nil
		}); err != nil {
			t.Error(err)
		}
	}
	enough := errors.New("enough")
	if err := j.Scan(2, func(ID, []byte) error { return enough }); !errors.Is(err, enough) {
		t.Errorf("Scan does not return what it was told: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := j.Run(ctx); err != nil {
		t.Error(err)
	}
	return found
}

// TestScan: it finds what Each finds, also of what was settled and carried.
func TestScan(t *testing.T) {
	t.Parallel()
	for _, unsynced := range []bool{false, true} {
		directory, o := t.TempDir(), Options{Unsynced: unsynced, File: 4 << 10}
		j, stop := run(t, directory, o)
		var few []ID
		for i := range 2000 {
			id := j.Append(1, nil, fmt.Append(nil, i, " is a record of some length"))
			if i%100 == 0 {
				few = append(few, id)
			} else {
				j.Settle(id)
			}
		}
		mustWrite(t, j, 2)
		want := all(t, j)
		if len(want) != len(few)+1 {
			t.Errorf("%d live, want %d", len(want), len(few)+1)
		}
		stop()
		if diff := cmp.Diff(want, scanned(t, directory, o)); diff != "" {
			t.Errorf("unsynced %v: %s", unsynced, diff)
		}
	}
}

// TestLife: records are there when they were told, until they are settled, also after the journal is opened again.
func TestLife(t *testing.T) {
	t.Parallel()
	for _, unsynced := range []bool{false, true} {
		t.Run(fmt.Sprint("unsynced ", unsynced), func(t *testing.T) {
			t.Parallel()
			directory := filepath.Join(t.TempDir(), "a", "journal")
			j, stop := run(t, directory, Options{Unsynced: unsynced})
			a, b, c := mustWrite(t, j, 1, "a"), mustWrite(t, j, 2), mustWrite(t, j, 255, "c", "", "cc")
			if r, err := j.Read(c); err != nil || r.Kind != 255 || string(r.Data) != "ccc" {
				t.Errorf("Read: %v, %v", r, err)
			}
			j.Settle(b)
			d := mustWrite(t, j, 3, "d") // what was asked before is written before
			if _, err := j.Read(b); !errors.Is(err, ErrNone) {
				t.Errorf("Read of one that is settled: %v", err)
			}
			want := map[ID]string{a: "1 a", c: "255 ccc", d: "3 d"}
			if diff := cmp.Diff(want, all(t, j)); diff != "" {
				t.Error(diff)
			}
			stop()
			if _, err := j.Read(a); !errors.Is(err, ErrClosed) {
				t.Errorf("Read after the end: %v", err)
			}
			if _, err := write(j, 1, "x"); !errors.Is(err, ErrClosed) {
				t.Errorf("Append after the end: %v", err)
			}
			j, _ = run(t, directory, Options{Unsynced: unsynced})
			if diff := cmp.Diff(want, all(t, j)); diff != "" {
				t.Error(diff)
			}
			if e := mustWrite(t, j, 4, "e"); e <= d {
				t.Errorf("the id %d is given again", e)
			}
		})
	}
}

// TestSettleAtOnce: one may be settled before it is written.
func TestSettleAtOnce(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	j, err := Open(directory, Options{})
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	var kept ID
	kept = j.Append(1, func(err error) {
		if _, missing := j.Read(kept); err != nil || missing != nil { // it can be read when it is told
			t.Error(err, missing)
		}
	})
	id := j.Append(1, func(err error) {
		if told++; err != nil {
			t.Error(err)
		}
	}, []byte("x"))
	j.Settle(id)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := j.Run(ended); err != nil || told != 1 {
		t.Errorf("told %d times, %v", told, err)
	}
	j, _ = run(t, directory, Options{})
	if found := all(t, j); len(found) != 1 || found[kept] == "" {
		t.Errorf("%v live", found)
	}
}

// TestGroup: those who come while one is written share the next write.
func TestGroup(t *testing.T) {
	t.Parallel()
	j, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	const n = 1000
	told := 0
	for range n {
		j.Append(1, func(err error) {
			if told++; err != nil {
				t.Error(err)
			}
		}, []byte("x"))
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := j.Run(ended); err != nil {
		t.Fatal(err)
	}
	if s := j.Status(); told != n || s.Appended != n || s.Commits != 1 || s.Records != n {
		t.Errorf("told %d, %+v; want one commit", told, s)
	}
}

// TestErrors are what Append and Open refuse.
func TestErrors(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	j, stop := run(t, directory, Options{Size: 3 * MaxData})
	if _, err := Open(directory, Options{}); !errors.Is(err, ErrLocked) {
		t.Errorf("Open of an open journal: %v", err)
	}
	big := string(make([]byte, MaxData))
	if _, err := write(j, 1, big, "x"); !errors.Is(err, ErrTooLong) {
		t.Errorf("a long record: %v", err)
	}
	first := mustWrite(t, j, 1, big)
	mustWrite(t, j, 1, big)
	if _, err := write(j, 1, big); !errors.Is(err, ErrFull) {
		t.Errorf("more than lives: %v", err)
	}
	if _, err := j.Read(4711); !errors.Is(err, ErrNone) {
		t.Errorf("Read of none: %v", err)
	}
	j.Settle(first)
	j.Settle(4711)
	mustWrite(t, j, 1) // by then the settlement is written
	mustWrite(t, j, 1, big)
	stop()

	behind, err := Open(t.TempDir(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	var last error
	for i := 0; i <= maxQueue/MaxData; i++ {
		behind.Append(1, func(err error) { last = errors.Join(last, err) }, []byte(big))
	}
	if !errors.Is(last, ErrBehind) {
		t.Errorf("a queue without bound: %v", last)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := behind.Run(ended); err != nil || behind.Status().Records != (maxQueue-1)/MaxData {
		t.Errorf("Run: %v, %+v", err, behind.Status())
	}

	if err := os.WriteFile(filepath.Join(directory, "x"+suffix), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(directory, Options{}); err == nil {
		t.Error("Open with a file of another name: no error")
	}
	if _, err := Open(filepath.Join(directory, "lock"), Options{}); err == nil {
		t.Error("Open of a file: no error")
	}
	if err := os.Rename(filepath.Join(directory, fmt.Sprintf("%016x%s", 1, suffix)), filepath.Join(directory, "ff"+suffix)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(directory, "x"+suffix)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(directory, Options{}); err == nil {
		t.Error("Open of a file that was renamed: no error")
	}
}

// TestUnderWay: what is being written takes room too.
func TestUnderWay(t *testing.T) {
	t.Parallel()
	j, err := Open(t.TempDir(), Options{Size: 100})
	if err != nil {
		t.Fatal(err)
	}
	j.Append(1, nil, make([]byte, 50))
	group := j.take(1)
	var told error
	j.Append(1, func(err error) { told = err }, make([]byte, 50))
	if len(group) != 1 || !errors.Is(told, ErrFull) {
		t.Errorf("%d records are under way, another is told %v", len(group), told)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := j.Run(ended); err != nil {
		t.Error(err)
	}
}

// TestPut: a record is there when Put returns, as soon as there is a file and nobody else is writing; else soon.
func TestPut(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	j, stop := run(t, directory, Options{Unsynced: true, File: 200, Size: 400})
	mustWrite(t, j, 9) // makes the file
	one := j.Put(1, []byte("one"))
	if r, err := j.Read(one); err != nil || string(r.Data) != "one" {
		t.Errorf("got %v, %v", r, err)
	}
	j.busy.Store(true) // as if Run were writing
	two := j.Put(2, []byte("two"))
	if _, err := j.Read(two); !errors.Is(err, ErrNone) {
		t.Errorf("Put has waited: %v", err)
	}
	j.busy.Store(false)
	big := j.Put(3, make([]byte, 200))
	j.Settle(one)
	next := j.Put(4) // in another file
	none := j.Put(5, make([]byte, 200))
	mustWrite(t, j, 9)
	want := []ID{two, big, next}
	for again := range 2 {
		if again > 0 {
			stop()
			j.Put(6)
			j, stop = run(t, directory, Options{Unsynced: true})
		}
		found := all(t, j)
		for _, id := range want {
			if found[id] == "" {
				t.Errorf("%d is not there", id)
			}
		}
		if len(found) != len(want)+2 || found[none] != "" {
			t.Errorf("got %v", found)
		}
	}
}

// TestCarry: what lives long does not hold what comes and goes, and is there in the end. The size on disk is bounded.
func TestCarry(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	o := Options{File: 64 << 10}
	j, stop := run(t, directory, o)
	want := make(map[ID]string)
	short := make([]ID, 0, 100)
	filler := string(make([]byte, 1000))
	most := 0
	for i := range 10_000 {
		if i%100 == 0 {
			text := fmt.Sprintf("%d", i)
			want[mustWrite(t, j, 7, text)] = "7 " + text
		}
		short = append(short, j.Append(1, nil, []byte(filler)))
		if len(short) == cap(short) {
			mustWrite(t, j, 1)
			for _, id := range short {
				j.Settle(id)
			}
			short = short[:0]
			most = max(most, j.Status().Files)
		}
	}
	// 200 records of filler and the long-lived are under 256 KiB.
	if most > 2+3*4 {
		t.Errorf("%d files", most)
	}
	check := func() {
		t.Helper()
		found := all(t, j)
		maps.DeleteFunc(found, func(_ ID, s string) bool { return s[:2] != "7 " })
		if diff := cmp.Diff(want, found); diff != "" {
			t.Error(diff)
		}
	}
	check()
	stop()
	j, _ = run(t, directory, o)
	check()
	for id := range want {
		j.Settle(id)
	}
	mustWrite(t, j, 1)
	want = map[ID]string{}
	check()
}

// TestModel does things at random, and opens the journal again now and then.
func TestModel(t *testing.T) {
	t.Parallel()
	directory, o := t.TempDir(), Options{File: 4 << 10, Unsynced: true}
	model := make(map[ID]string)
	j, stop := run(t, directory, o)
	for range 20_000 {
		switch rand.IntN(1000) {
		case 0:
			stop()
			j, stop = run(t, directory, o)
			fallthrough
		case 1:
			if _, err := write(j, 9, ""); err != nil {
				t.Fatal(err)
			}
			found := all(t, j)
			maps.DeleteFunc(found, func(_ ID, s string) bool { return s[:2] == "9 " })
			if diff := cmp.Diff(model, found); diff != "" {
				t.Fatal(diff)
			}
		default:
			// A number of records that goes up and down, so that files come and go.
			if live := len(model); live > 0 && rand.IntN(100) < live {
				for id := range model { // in any order
					j.Settle(id)
					delete(model, id)
					break
				}
				continue
			}
			data := bytes.Repeat([]byte{'x'}, rand.IntN(200))
			model[j.Append(1, nil, data)] = "1 " + string(data)
		}
	}
	if s := j.Status(); s.Files > 40 {
		t.Errorf("%+v", s)
	}
}

// TestSettled: who asks is told when a settlement is on disk, and when it cannot be.
func TestSettled(t *testing.T) {
	t.Parallel()
	directory := filepath.Join(t.TempDir(), "7")
	j, stop := run(t, directory, Options{})
	if j.Name() != "7" {
		t.Errorf("it is called %q", j.Name())
	}
	id := mustWrite(t, j, 1, "a")
	told := make(chan error, 1)
	j.Settled(id, func(err error) { told <- err })
	if err := <-told; err != nil {
		t.Error(err)
	}
	copied := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(copied, os.DirFS(directory)); err != nil { // as a crash would leave it
		t.Fatal(err)
	}
	after, _ := run(t, copied, Options{})
	if left := all(t, after); len(left) != 0 {
		t.Errorf("%v live", left)
	}
	stop()
	j.Settled(id, func(err error) { told <- err })
	if err := <-told; !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}
