// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package statetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/state"
)

// Conformance tests what the contract promises. open returns an empty store, and a function that opens what is on
// disk again after the store was closed.
func Conformance(t *testing.T, open func(t *testing.T) (s state.Store, reopen func() state.Store)) {
	tests := []struct {
		name string
		test func(t *testing.T, s state.Store)
	}{
		{"create, replace, delete", testRevisions},
		{"all or none", testAllOrNone},
		{"each", testEach},
		{"concurrent", testConcurrent},
		{"cancelled", testCancelled},
		{"watch", testWatch},
		{"closed", testClosed},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s, _ := open(t)
			tt.test(t, s)
		})
	}
	t.Run("reopen", func(t *testing.T) {
		t.Parallel()
		s, reopen := open(t)
		testReopen(t, s, reopen)
	})
}

func put(key, value string, revision uint64) state.Op {
	return state.Op{Key: []byte(key), Value: []byte(value), Revision: revision}
}

func remove(key string, revision uint64) state.Op {
	return state.Op{Key: []byte(key), Revision: revision}
}

// content reads what begins with prefix, and the revision of each.
func content(t *testing.T, s state.Store, prefix string) (values []string, revisions map[string]uint64) {
	t.Helper()
	revisions = make(map[string]uint64)
	err := s.Each([]byte(prefix), func(e state.Entry) error {
		values = append(values, fmt.Sprintf("%s=%s", e.Key, e.Value))
		revisions[string(e.Key)] = e.Revision
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return values, revisions
}

func want(t *testing.T, s state.Store, prefix string, values ...string) (revisions map[string]uint64) {
	t.Helper()
	got, revisions := content(t, s, prefix)
	if diff := cmp.Diff(values, got); diff != "" {
		t.Errorf("content (-want +got):\n%s", diff)
	}
	return revisions
}

func apply(t *testing.T, s state.Store, ops ...state.Op) {
	t.Helper()
	if err := s.Apply(t.Context(), ops...); err != nil {
		t.Fatal(err)
	}
}

func refuse(t *testing.T, s state.Store, ops ...state.Op) {
	t.Helper()
	if err := s.Apply(t.Context(), ops...); !errors.Is(err, state.ErrConflict) {
		t.Errorf("Apply: %v, want ErrConflict", err)
	}
}

func testRevisions(t *testing.T, s state.Store) {
	apply(t, s, put("a", "1", 0))
	first := want(t, s, "", "a=1")["a"]
	if first == 0 {
		t.Error("revision 0")
	}
	refuse(t, s, put("a", "2", 0))
	refuse(t, s, put("a", "2", first+1))
	refuse(t, s, put("b", "2", 7))
	apply(t, s, put("a", "2", first))
	second := want(t, s, "", "a=2")["a"]
	if second <= first {
		t.Errorf("revision %d after %d", second, first)
	}
	refuse(t, s, remove("a", first))
	apply(t, s, remove("a", second))
	want(t, s, "")
	apply(t, s, put("a", "3", state.Any))
	if third := want(t, s, "", "a=3")["a"]; third <= second {
		t.Errorf("revision %d after a delete, %d before", third, second)
	}
	apply(t, s, remove("a", state.Any), remove("none", state.Any))
	want(t, s, "")
	apply(t, s, put("empty", "", 0))
	want(t, s, "", "empty=")
	refuse(t, s, put("empty", "", 0))
}

func testAllOrNone(t *testing.T, s state.Store) {
	apply(t, s, put("a", "1", 0))
	refuse(t, s, put("b", "1", 0), put("a", "2", 0))
	refuse(t, s, put("a", "2", 0), put("b", "1", 0))
	want(t, s, "", "a=1")
	apply(t, s, put("b", "1", 0), remove("a", state.Any), put("c", "1", state.Any))
	want(t, s, "", "b=1", "c=1")
}

func testEach(t *testing.T, s state.Store) {
	apply(t, s, put("b/2", "x", 0), put("a/1", "x", 0), put("b/1", "x", 0), put("c", "x", 0))
	want(t, s, "b/", "b/1=x", "b/2=x")
	want(t, s, "d")
	stop := errors.New("stop")
	n := 0
	err := s.Each(nil, func(state.Entry) error { n++; return stop })
	if !errors.Is(err, stop) || n != 1 {
		t.Errorf("Each: %v after %d entries, want the function's error after 1", err, n)
	}
}

// testConcurrent has many callers compete for the same keys: one wins each, and a loser harms nobody in its group.
func testConcurrent(t *testing.T, s state.Store) {
	const callers, keys = 16, 20
	won := make([][callers]bool, keys)
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for k := range keys {
				err := s.Apply(t.Context(), put(fmt.Sprintf("own/%d/%d", c, k), "x", 0))
				if err != nil {
					t.Errorf("Apply of an own key: %v", err)
				}
				err = s.Apply(t.Context(), put(fmt.Sprintf("key/%d", k), "x", 0))
				won[k][c] = err == nil
				if err != nil && !errors.Is(err, state.ErrConflict) {
					t.Errorf("Apply: %v", err)
				}
			}
		})
	}
	wg.Wait()
	for k, by := range won {
		n := 0
		for _, yes := range by {
			if yes {
				n++
			}
		}
		if n != 1 {
			t.Errorf("key %d was created %d times", k, n)
		}
	}
	if values, _ := content(t, s, "own/"); len(values) != callers*keys {
		t.Errorf("%d own keys, want %d", len(values), callers*keys)
	}
}

func testCancelled(t *testing.T, s state.Store) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := s.Apply(ctx, put("a", "1", 0))
	values, _ := content(t, s, "")
	if err != nil && (!errors.Is(err, context.Canceled) || len(values) != 0) {
		t.Errorf("Apply: %v, and the store holds %q", err, values)
	}
}

func testWatch(t *testing.T, s state.Store) {
	apply(t, s, put("w/1", "old", 0), put("other", "x", 0))
	ctx, cancel := context.WithCancel(t.Context())
	changes := make(chan string, 16) // more than there are
	var wg sync.WaitGroup
	var last uint64
	wg.Go(func() {
		err := s.Watch(ctx, []byte("w/"), func(e state.Entry) {
			if e.Revision <= last {
				t.Errorf("revision %d after %d", e.Revision, last)
			}
			last = e.Revision
			if e.Value == nil {
				changes <- fmt.Sprintf("%s deleted", e.Key)
				return
			}
			changes <- fmt.Sprintf("%s=%s", e.Key, e.Value)
		})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("Watch: %v", err)
		}
		close(changes)
	})
	if got := <-changes; got != "w/1=old" {
		t.Errorf("first %q, want what was there", got)
	}
	apply(t, s, put("w/2", "", 0), put("other", "y", state.Any), remove("w/1", state.Any))
	refuse(t, s, put("w/2", "no", 0))
	apply(t, s, put("w/2", "new", state.Any))
	for _, w := range []string{"w/2=", "w/1 deleted", "w/2=new"} {
		if got := <-changes; got != w {
			t.Errorf("change %q, want %q", got, w)
		}
	}
	cancel()
	wg.Wait()
	if got, more := <-changes; more {
		t.Errorf("a change too many: %q", got)
	}
}

func testClosed(t *testing.T, s state.Store) {
	watched := make(chan error, 1)
	begun := make(chan struct{})
	apply(t, s, put("a", "1", 0))
	go func() { watched <- s.Watch(t.Context(), nil, func(state.Entry) { close(begun) }) }()
	<-begun
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-watched; !errors.Is(err, state.ErrClosed) {
		t.Errorf("Watch: %v, want ErrClosed", err)
	}
	if err := s.Apply(t.Context(), put("b", "1", 0)); !errors.Is(err, state.ErrClosed) {
		t.Errorf("Apply: %v, want ErrClosed", err)
	}
	if err := s.Each(nil, func(state.Entry) error { return nil }); !errors.Is(err, state.ErrClosed) {
		t.Errorf("Each: %v, want ErrClosed", err)
	}
	if err := s.Watch(t.Context(), nil, func(state.Entry) {}); !errors.Is(err, state.ErrClosed) {
		t.Errorf("Watch: %v, want ErrClosed", err)
	}
	if err := s.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func testReopen(t *testing.T, s state.Store, reopen func() state.Store) {
	apply(t, s, put("a", "1", 0), put("b", "1", 0))
	apply(t, s, remove("b", state.Any))
	before := want(t, s, "", "a=1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopen()
	after := want(t, s, "", "a=1")
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("revisions (-before +after):\n%s", diff)
	}
	apply(t, s, put("b", "2", 0))
	if r := want(t, s, "", "a=1", "b=2")["b"]; r <= before["a"]+2 {
		t.Errorf("revision %d was given before", r)
	}
}
