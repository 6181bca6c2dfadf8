// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kyozon/kyozon/state/statetest"
)

var errDisk = errors.New("disk")

// failFrom has a store fail: the next Apply at a moment, all later ones before they write anything.
func failFrom(store *statetest.Volatile, first statetest.Moment) {
	failed := false
	store.Hook(func(m statetest.Moment) error {
		switch {
		case !failed && m == first:
			failed = true
			return errDisk
		case failed && m == statetest.Before:
			return errDisk
		}
		return nil
	})
}

// A pass that seemed to fail may be on disk. The next Open then believes in it, and so must we: what it would take
// for unused is not used.
func TestPassInDoubt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := small(24)
		o.Keep = 36 * time.Hour // Renew is 3 hours, a pass each 25 seconds, stale after 50
		store := statetest.NewVolatile()
		l := start(t, store, o)
		a := l.lease("2001:db8::1")
		time.Sleep(4 * time.Hour)
		failFrom(store, statetest.Synced)
		for l.Status().Err == nil {
			time.Sleep(time.Second)
		}
		time.Sleep(30 * time.Second)
		l.refused("2001:db8::1", ErrUnavailable) // a pass was finished 30 seconds ago, perhaps
		time.Sleep(30 * time.Second)
		if l.lease("2001:db8::1") != a {
			t.Error("an idle client lost its stand-in")
		}
		used := time.Now()
		store.Crash()
		_ = l.stop()
		l = start(t, store.Restart(), o)
		time.Sleep(o.Keep)
		if r := l.who(a, time.Time{}); r == (Record{}) {
			t.Errorf("taken back within %v", time.Since(used))
		}
		l.end()
	})
}

// A Release that seemed to fail may be on disk as an end in order. Until that is put right, no lease is used for
// longer than the next Open would think.
func TestReleaseInDoubt(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := small(24)
		o.Keep = 36 * time.Hour
		store := statetest.NewVolatile()
		l := start(t, store, o)
		a := l.lease("2001:db8::1")
		failFrom(store, statetest.Synced)
		if err := l.Release(); !errors.Is(err, errDisk) {
			t.Errorf("Release: %v", err)
		}
		for range 8 {
			l.known("2001:db8::1") // a use, as long as it is given out
			time.Sleep(30 * time.Minute)
		}
		if l.known("2001:db8::1") {
			t.Error("used for longer than Renew")
		}
		l.refused("2001:db8::1", ErrUnavailable)
		store.Hook(nil)
		time.Sleep(2 * time.Second)
		if l.lease("2001:db8::1") != a || l.lease("2001:db8:1::1") == a {
			t.Error("it is no longer the writer")
		}
		if err := l.Release(); err != nil {
			t.Errorf("Release when the store is back: %v", err)
		}
		l.end()
	})
}
