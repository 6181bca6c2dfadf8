// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kyozon/kyozon/state"
	"github.com/kyozon/kyozon/state/statetest"
)

// who reads one record or none.
func (r running) who(a netip.Addr, at time.Time) Record {
	r.t.Helper()
	found, err := r.Who(a, at)
	if err != nil || len(found) > 1 {
		r.t.Fatalf("Who %v at %v: %v, %v", a, at, found, err)
	}
	if len(found) == 0 {
		return Record{}
	}
	return found[0]
}

// A stand-in goes to the next prefix only after Keep, and the book still says whose it was when.
func TestKeep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := small(29) // five stand-ins, one of them for sharing
		store := statetest.NewVolatile()
		l := start(t, store, o)
		client := netip.MustParseAddr("2001:db8::1")
		leased := time.Now()
		a := l.lease(client.String())
		for i := 1; i < 4; i++ {
			l.lease(fmt.Sprintf("2001:db8:%x::1", i))
		}
		var last time.Time
		for range 20 { // in use for longer than Keep
			time.Sleep(4 * time.Minute)
			if l.lease(client.String()) != a {
				t.Fatal("a client in use lost its stand-in")
			}
			last = time.Now()
		}
		if r := l.who(a, time.Time{}); r.Prefix.String() != "2001:db8::/64" || r.Last.Sub(last).Abs() > time.Second ||
			r.From.Sub(leased).Abs() > time.Second || !r.Until.IsZero() {
			t.Errorf("record %+v", r)
		}
		for time.Since(last) < o.Keep {
			if r := l.who(a, time.Time{}); !r.Prefix.Contains(client) {
				t.Fatalf("after %v without use it is of %v", time.Since(last), r.Prefix)
			}
			time.Sleep(time.Minute)
		}
		time.Sleep(10 * time.Minute) // Renew, and a pass
		if r := l.who(a, time.Time{}); r != (Record{}) {
			t.Errorf("after Keep it is of %+v", r)
		}
		if l.known(client.String()) {
			t.Error("Find still knows the client")
		}
		var next string
		for i := 0x10; l.who(a, time.Time{}) == (Record{}); i++ {
			next = fmt.Sprintf("2001:db8:%x::1", i)
			l.lease(next)
		}
		for _, back := range []netip.Addr{a, client} {
			if r := l.who(back, last); r.StandIn != a || !r.Prefix.Contains(client) || r.Until.Before(last.Add(o.Keep)) {
				t.Errorf("Who %v at the last use: %+v", back, r)
			}
			if r := l.who(back, leased.Add(-time.Minute)); r != (Record{}) {
				t.Errorf("Who %v before the lease: %+v", back, r)
			}
		}
		if r := l.who(a, time.Now()); !r.Prefix.Contains(netip.MustParseAddr(next)) {
			t.Errorf("now it is of %v, want that of %s", r.Prefix, next)
		}
		time.Sleep(o.Keep + 2*time.Minute)
		if r := l.who(client, last); r != (Record{}) {
			t.Errorf("the past was not pruned: %+v", r)
		}
		l.end()
	})
}

// An idle lease is on disk as renewed before it is used, and not given out without.
func TestIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := statetest.NewVolatile()
		l := start(t, store, small(24))
		a := l.lease("2001:db8::1")
		time.Sleep(30 * time.Minute) // Renew is five minutes
		if l.known("2001:db8::1") {
			t.Fatal("an idle lease is given out unwritten")
		}
		if again := l.lease("2001:db8::1"); again != a {
			t.Errorf("renewed as %v, was %v", again, a)
		}
		time.Sleep(10 * time.Minute)
		hold, reached := make(chan struct{}), make(chan struct{}, 2)
		store.Hook(func(m statetest.Moment) error {
			if m == statetest.Written {
				reached <- struct{}{}
				<-hold
				return errors.New("gone")
			}
			return nil
		})
		time.Sleep(2 * time.Second) // a pass is being written
		<-reached
		l.refused("2001:db8::1", ErrDeadline)
		if l.known("2001:db8::1") {
			t.Error("it is given out while its renewal is being written")
		}
		close(hold)
		<-reached // and now the renewal, in vain
		synctest.Wait()
		if l.known("2001:db8::1") {
			t.Error("it is given out though its renewal failed")
		}
		store.Hook(nil)
		time.Sleep(2 * time.Second)
		if again := l.lease("2001:db8::1"); again != a {
			t.Errorf("renewed as %v, was %v", again, a)
		}
		store.Crash()
		if err := l.stop(); !errors.Is(err, statetest.ErrCrashed) {
			t.Errorf("Run: %v", err)
		}
		l = start(t, store.Restart(), small(24))
		time.Sleep(50 * time.Minute)
		if r := l.who(a, time.Time{}); r == (Record{}) {
			t.Error("the renewal was lost in the crash")
		}
		l.end()
	})
}

// When the store is lost for long, idle clients go on unwritten: after a crash every lease counts as used.
func TestLostAndIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := small(24)
		store := statetest.NewVolatile()
		l := start(t, store, o)
		a := l.lease("2001:db8::1")
		time.Sleep(50 * time.Minute)
		store.Hook(func(statetest.Moment) error { return errors.New("gone") })
		time.Sleep(10 * time.Second)
		if again := l.lease("2001:db8::1"); again != a {
			t.Errorf("with the store lost %v, before %v", again, a)
		}
		used := time.Now()
		store.Crash()
		_ = l.stop() // the crash
		for crash := range 3 {
			store = store.Restart()
			if crash == 2 {
				store.Hook(func(statetest.Moment) error { return errors.New("still gone") })
				if _, err := Open(store, o, quiet()); err == nil {
					t.Error("Open of a store that cannot be written: no error")
				}
				store.Hook(nil)
			}
			l = start(t, store, o)
			synctest.Wait()
			store.Crash()
			_ = l.stop()
		}
		store = store.Restart()
		l = start(t, store, o)
		for time.Since(used) < o.Keep {
			if r := l.who(a, time.Time{}); r == (Record{}) {
				t.Fatalf("taken back %v after it was used", time.Since(used))
			}
			time.Sleep(time.Minute)
		}
		l.end()
	})
}

// An outage that ends leaves nothing unwritten.
func TestLostAndBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := small(24)
		store := statetest.NewVolatile()
		l := start(t, store, o)
		a := l.lease("2001:db8::1")
		time.Sleep(50 * time.Minute)
		store.Hook(func(statetest.Moment) error { return errors.New("gone") })
		time.Sleep(10 * time.Second)
		l.lease("2001:db8::1")
		used := time.Now()
		store.Hook(nil)
		time.Sleep(5 * time.Second)
		store.Crash()
		_ = l.stop()
		l = start(t, store.Restart(), o)
		for time.Since(used) < o.Keep {
			if r := l.who(a, time.Time{}); r == (Record{}) {
				t.Fatalf("taken back %v after it was used", time.Since(used))
			}
			time.Sleep(time.Minute)
		}
		l.end()
	})
}

func TestUnproven(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := small(24)
		o.UnprovenQuota, o.Keep = 3, 36*24*time.Hour
		store := statetest.NewVolatile()
		l := start(t, store, o)
		time.Sleep(2 * time.Second) // the quota is kept on disk, and the first pass is over
		applies := 0
		count := func(m statetest.Moment) error {
			if m == statetest.Before {
				applies++
			}
			return nil
		}
		store.Hook(count)
		unproven := func(client string) netip.Addr {
			t.Helper()
			a, err := l.ask(client, l.LeaseUnproven)
			if err != nil {
				t.Fatalf("LeaseUnproven %s: %v", client, err)
			}
			return a
		}
		a, b, c := unproven("2001:db8::1"), unproven("2001:db8:1::1"), unproven("2001:db8:2::1")
		if a == b || b == c || a == c || unproven("2001:db8::2") != a {
			t.Errorf("stand-ins %v, %v, %v", a, b, c)
		}
		if _, err := l.ask("2001:db8:3::1", l.LeaseUnproven); !errors.Is(err, ErrFull) {
			t.Errorf("beyond the quota: %v", err)
		}
		if applies != 0 || l.known("2001:db8::1") {
			t.Errorf("%d batches were written for unproven clients, known %v", applies, l.known("2001:db8::1"))
		}
		if r := l.who(a, time.Time{}); !r.Unproven || r.Prefix.String() != "2001:db8::/64" {
			t.Errorf("record %+v", r)
		}
		if s := l.Status(); s.Unproven != 3 || s.Leased != 0 {
			t.Errorf("status %+v", s)
		}

		l.Prove(netip.MustParseAddr("2001:db8::1"))
		l.Prove(netip.MustParseAddr("2001:db8:ffff::1")) // of which nobody knows
		if l.lease("2001:db8::1") != a || l.lease("2001:db8:1::1") != b {
			t.Error("a proved client has another stand-in")
		}
		if unproven("2001:db8:1::1") != b {
			t.Error("a known client has another stand-in when it comes unproven")
		}
		time.Sleep(time.Second)
		d := unproven("2001:db8:3::1")
		time.Sleep(UnprovenLife + time.Minute)
		if unproven("2001:db8:3::1") != d {
			t.Error("asked again, it has another stand-in")
		}
		time.Sleep(2*UnprovenLife - time.Minute) // c has ended, d was asked for again
		if s := l.Status(); s.Unproven != 1 || s.Leased != 2 {
			t.Errorf("status %+v", s)
		}

		// In an upgrade, what is in use is written, so that the next process does not give it away.
		if err := l.Release(); err != nil {
			t.Fatal(err)
		}
		next := start(t, store.Restart(), o)
		if r := next.who(d, time.Time{}); r.Prefix.String() != "2001:db8:3::/64" || r.Unproven {
			t.Errorf("the next process has %+v", r)
		}
		next.end()
		l.end()
	})
}

func TestRelease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := small(24)
		store := statetest.NewVolatile()
		old := start(t, store, o)
		a := old.lease("2001:db8::1")
		if err := old.Resume(store); err == nil {
			t.Error("Resume of what was not released: no error")
		}
		for range 2 {
			if err := old.Release(); err != nil {
				t.Fatal(err)
			}
		}
		if err := store.Apply(t.Context(), state.Op{Key: []byte("x")}); !errors.Is(err, state.ErrClosed) {
			t.Errorf("the store is not closed: %v", err)
		}
		if old.lease("2001:db8::2") != a {
			t.Error("a known client is refused")
		}
		old.refused("2001:db8:1::1", ErrUnavailable)
		if s := old.Status(); s.Err == nil {
			t.Error("status says that all is well")
		}
		if r, err := old.Who(a, time.Now()); !errors.Is(err, ErrUnavailable) || len(r) != 1 {
			t.Errorf("Who: %v, %v", r, err)
		}

		// The next process leases and crashes.
		store = store.Restart()
		next := start(t, store, o)
		b := next.lease("2001:db8:1::1")
		time.Sleep(time.Minute)
		old.lease("2001:db8::1") // the old process still serves
		used := time.Now()
		store.Crash()
		_ = next.stop()
		store = store.Restart()
		if err := old.Resume(store); err != nil {
			t.Fatal(err)
		}
		if r := old.who(a, time.Time{}); used.Sub(r.Last) > time.Second {
			t.Errorf("the last use was at %v, the book says %v", used, r.Last)
		}
		if old.lease("2001:db8:1::1") != b || old.lease("2001:db8::1") != a || old.lease("2001:db8:2::1") == b {
			t.Error("what the other process leased does not count")
		}
		// Released for long, a client that was idle is not served: the next process may have taken it back.
		if err := old.Release(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		old.refused("2001:db8::1", ErrUnavailable)
		old.end()
		if err := old.Release(); !errors.Is(err, ErrUnavailable) {
			t.Errorf("Release after Run: %v", err)
		}
	})
}
