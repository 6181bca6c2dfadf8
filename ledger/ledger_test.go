// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kyozon/kyozon/state"
	"github.com/kyozon/kyozon/state/statetest"
)

func TestMain(m *testing.M) {
	code := m.Run()
	// What runs in a bubble must have ended with it; this is for the tests with a real store.
	stacks := make([]byte, 1<<20)
	stacks = stacks[:runtime.Stack(stacks, true)]
	if code == 0 && strings.Contains(string(stacks), "ledger.(*Ledger).Run") {
		fmt.Fprintf(os.Stderr, "a ledger still runs:\n%s", stacks)
		code = 1
	}
	os.Exit(code)
}

// running is a ledger whose Run runs.
type running struct {
	*Ledger
	t    testing.TB
	stop func() error // ends Run and returns its error
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func start(t testing.TB, store state.Store, o Options) running {
	t.Helper()
	l, err := Open(store, o, quiet())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- l.Run(ctx) }()
	return running{l, t, func() error { cancel(); return <-ran }}
}

// end stops the ledger in order.
func (r running) end() {
	r.t.Helper()
	if err := r.stop(); err != nil {
		r.t.Error(err)
	}
}

// told is what a done was called with.
type told struct {
	standIn netip.Addr
	err     error
}

func (r running) ask(client string, lease func(netip.Addr, func(netip.Addr, error))) (netip.Addr, error) {
	c := make(chan told, 1)
	lease(netip.MustParseAddr(client), func(a netip.Addr, err error) { c <- told{a, err} })
	got := <-c
	return got.standIn, got.err
}

// lease leases and expects success.
func (r running) lease(client string) netip.Addr {
	r.t.Helper()
	a, err := r.ask(client, r.Lease)
	if err != nil {
		r.t.Fatalf("Lease %s: %v", client, err)
	}
	if found, ok := r.Find(netip.MustParseAddr(client)); !ok || found != a {
		r.t.Fatalf("Find %s: %v, %v; the lease is %v", client, found, ok, a)
	}
	return a
}

func (r running) known(client string) bool {
	_, ok := r.Find(netip.MustParseAddr(client))
	return ok
}

func (r running) refused(client string, want error) {
	r.t.Helper()
	if a, err := r.ask(client, r.Lease); !errors.Is(err, want) {
		r.t.Errorf("Lease %s: %v, %v; want %v", client, a, err, want)
	}
}

func options() Options { return Options{Pool: netip.MustParsePrefix("100.64.0.0/16")} }

// wide is for a million leases, none shared.
func wide() Options {
	return Options{Pool: netip.MustParsePrefix("100.64.0.0/11"), CapPer48: 1 << 20, CapPer32: 1 << 20}
}

func small(bits int) Options {
	return Options{Pool: netip.PrefixFrom(netip.MustParseAddr("100.64.0.0"), bits), Keep: time.Hour,
		CapPer48: 1 << 16, CapPer32: 1 << 16, UnprovenQuota: -1}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	pool := netip.MustParsePrefix("100.64.0.0/11")
	tests := []struct {
		name string
		o    Options
		want string
	}{
		{"no pool", Options{}, "pool invalid Prefix: want an IPv4 prefix, /4 to /30"},
		{"pool of IPv6", Options{Pool: netip.MustParsePrefix("2001:db8::/64")}, "want an IPv4 prefix"},
		{"small pool", Options{Pool: netip.MustParsePrefix("10.0.0.0/31")}, "want an IPv4 prefix"},
		{"host bits", Options{Pool: netip.MustParsePrefix("10.0.0.1/24")}, "pool 10.0.0.1/24: want 10.0.0.0/24"},
		{"bits", Options{Pool: pool, Bits: 60}, "prefix /60: want 64, 56 or 48"},
		{"keep", Options{Pool: pool, Keep: time.Minute}, "keep 1m0s: want at least 10m"},
		{"embed", Options{Pool: pool, Embed: netip.MustParsePrefix("64:ff9b::/64")}, "want an IPv6 /96"},
		{"fine", Options{Pool: pool, Embed: netip.MustParsePrefix("64:ff9b::/96")}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := Open(statetest.NewVolatile(), tt.o, quiet())
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Open: %v, want %q", err, tt.want)
			}
		})
	}
}

func TestLease(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := options()
		o.Embed = netip.MustParsePrefix("64:ff9b::/96")
		store := statetest.NewVolatile()
		l := start(t, store, o)
		if l.known("2001:db8::1") {
			t.Error("a client is known before it came")
		}
		a := l.lease("2001:db8::1")
		if again := l.lease("2001:db8::ffff"); again != a {
			t.Errorf("the same /64 has %v and %v", a, again)
		}
		b := l.lease("2001:db8:0:1::1")
		zero := l.lease("::1") // as in the demo
		if a == b || zero == a || zero == b {
			t.Errorf("stand-ins %v, %v, %v", a, b, zero)
		}
		for _, s := range []netip.Addr{a, b, zero} {
			if !o.Pool.Contains(s) || s == l.Reserve() || s == o.Pool.Addr() {
				t.Errorf("stand-in %v", s)
			}
		}
		if e := l.lease("192.0.2.1"); e != netip.MustParseAddr("64:ff9b::c000:201") {
			t.Errorf("192.0.2.1 is embedded as %v", e)
		}
		if s := l.Status(); s.Leased != 3 || s.Size != 65533 || s.Err != nil {
			t.Errorf("status %+v", s)
		}
		l.end()
		l.refused("2001:db8:0:2::1", ErrUnavailable)

		l = start(t, store.Restart(), o)
		if again := l.lease("2001:db8::2"); again != a {
			t.Errorf("after a restart %v, before %v", again, a)
		}
		l.end()
	})
}

// Everything that waits while one batch is written is in the next.
func TestGroupCommit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := statetest.NewVolatile()
		l := start(t, store, small(16))
		time.Sleep(time.Millisecond) // in the bubble: until nothing moves
		applies, hold := 0, make(chan struct{})
		store.Hook(func(m statetest.Moment) error {
			if m == statetest.Before {
				applies++
				<-hold
			}
			return nil
		})
		done := make(chan told, 1000)
		for i := range 1000 {
			client := fmt.Sprintf("2001:db8:%x::1", i)
			l.Lease(netip.MustParseAddr(client), func(a netip.Addr, err error) { done <- told{a, err} })
			if i == 0 {
				synctest.Wait()
			}
		}
		synctest.Wait() // all of them wait now
		close(hold)
		for range 1000 {
			if got := <-done; got.err != nil {
				t.Fatal(got.err)
			}
		}
		if applies != 2 {
			t.Errorf("%d batches, want 2", applies)
		}
		l.end()
	})
}

// The deadline is kept while the store hangs. What was asked for is there afterwards.
func TestDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := statetest.NewVolatile()
		l := start(t, store, small(24))
		known := l.lease("2001:db8::1")
		hold := make(chan struct{})
		store.Hook(func(statetest.Moment) error { <-hold; return nil })
		begun := time.Now()
		l.refused("2001:db8:1::1", ErrDeadline)
		if took := time.Since(begun); took != Deadline {
			t.Errorf("told after %v", took)
		}
		// Now it is known to hang: nobody else waits, and nothing more is set aside.
		time.Sleep(time.Millisecond)
		l.refused("2001:db8:2::1", ErrUnavailable)
		if again := l.lease("2001:db8::1"); again != known {
			t.Errorf("a known client has %v, had %v", again, known)
		}
		close(hold)
		synctest.Wait()
		if !l.known("2001:db8:1::1") || l.known("2001:db8:2::1") {
			t.Error("the late one is not there, or the refused one is")
		}
		l.end()
	})
}

func TestStoreLost(t *testing.T) {
	t.Parallel()
	for _, m := range []statetest.Moment{statetest.Before, statetest.Written, statetest.Synced} {
		synctest.Test(t, func(t *testing.T) {
			store := statetest.NewVolatile()
			l := start(t, store, small(24))
			known := l.lease("2001:db8::1")
			full := errors.New("disk full")
			store.Hook(func(now statetest.Moment) error {
				if now == m {
					return full
				}
				return nil
			})
			l.refused("2001:db8:1::1", ErrUnavailable)
			l.refused("2001:db8:2::1", ErrUnavailable)
			if again := l.lease("2001:db8::2"); again != known {
				t.Errorf("a known client has %v, had %v", again, known)
			}
			if s := l.Status(); !errors.Is(s.Err, full) {
				t.Errorf("status: %v", s.Err)
			}
			time.Sleep(10 * time.Second)
			store.Hook(nil)
			time.Sleep(2 * time.Second)
			if s := l.Status(); s.Err != nil {
				t.Errorf("status when it is back: %v", s.Err)
			}
			a, b := l.lease("2001:db8:1::1"), l.lease("2001:db8:2::1")
			if a == b || a == known || b == known {
				t.Errorf("stand-ins %v, %v, %v", known, a, b)
			}
			l.end()
			l = start(t, store.Restart(), small(24))
			if l.lease("2001:db8:1::1") != a || l.lease("2001:db8:2::1") != b {
				t.Error("other stand-ins after a restart")
			}
			l.end()
		})
	}
}

// Another writer is never written over.
func TestForeignWriter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := statetest.NewVolatile()
		l := start(t, store, small(24))
		a := l.lease("2001:db8::1")
		other := lease{hi: 0x20010db8ffff0000, bits: 64}
		key := leaseKey(number(a) + 1)
		if err := store.Apply(t.Context(), state.Op{Key: key, Value: other.encode()}); err != nil {
			t.Fatal(err)
		}
		l.refused("2001:db8:1::1", ErrUnavailable)
		time.Sleep(time.Minute)
		l.refused("2001:db8:1::1", ErrUnavailable)
		if !l.known("2001:db8::1") {
			t.Error("a known client is refused")
		}
		if err := l.stop(); !errors.Is(err, state.ErrConflict) {
			t.Errorf("Run: %v, want ErrConflict", err)
		}
		l = start(t, store.Restart(), small(24))
		if got := l.lease("2001:db8:ffff::1"); got != a.Next() {
			t.Errorf("the other's lease is %v, want %v", got, a.Next())
		}
		l.end()
	})
}

func TestPoolChange(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := statetest.NewVolatile()
		o := small(24)
		o.Pool = netip.MustParsePrefix("100.64.4.0/24")
		o.UnprovenQuota = 4
		l := start(t, store, o)
		a := l.lease("2001:db8::1")
		l.end()

		for _, pool := range []string{"100.64.0.0/24", "100.64.8.0/22", "10.0.0.0/8"} {
			o.Pool = netip.MustParsePrefix(pool)
			_, err := Open(store, o, quiet())
			want := "open ledger: pool " + pool + " leaves out 1 leases of 100.64.4.0/24: use a pool that contains it"
			if err == nil || err.Error() != want {
				t.Errorf("Open: %v, want %s", err, want)
			}
		}
		o.Pool = netip.MustParsePrefix("100.64.0.0/21")
		l = start(t, store, o)
		if again := l.lease("2001:db8::1"); again != a {
			t.Errorf("in the larger pool %v, before %v", again, a)
		}
		if b := l.lease("2001:db8:1::1"); b == a || !o.Pool.Contains(b) {
			t.Errorf("a new one is %v", b)
		}
		l.end()
	})
}
