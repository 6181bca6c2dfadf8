// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"context"
	"log/slog"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/journal"
	"github.com/kyozon/kyozon/protocol/phone/saved"
	"github.com/kyozon/kyozon/relay"
)

// When another process takes the edge's place it finds the calls in the journal, and who still waits for an answer is told
// that there will be none. If it fails, the edge goes on as if nothing had been.
func TestLeave(t *testing.T) {
	t.Parallel()
	b := newBench(t, ", cdr: calls.jsonl")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		caller, callee := b.registered("udp", f, "05010000001"), b.registered("udp", f, "05010000002")
		heard, _ := b.call(caller, callee, nil, nil)
		other := b.registered("udp", f, "05010000003")
		r := other.invite("05010000002")
		invite := keep(callee.want("INVITE"))
		callee.response(invite, 180, "")
		other.want("180")
		b.core.leave()
		j, err := journal.Open(filepath.Join(b.dir, "state", "phone", "phone", "calls"), journal.Options{Unsynced: true})
		if err != nil {
			t.Fatal(err)
		}
		if left := livingIn(t, j); left != 1 {
			t.Errorf("%d calls are left, want 1", left)
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := j.Run(ctx); err != nil {
			t.Fatal(err)
		}
		other.send(reply(r, other.want("503"), "ACK")) // which says that the edge goes on
		callee.want("CANCEL")
		callee.unregister()
		b.until(func() bool { // it is saved again
			j := b.core.calls.journal.Load()
			return j != nil && livingIn(t, j) == 1
		})
		hangUp(caller, callee, heard, sequence(heard)+1)
	})
	b.t = t
	b.end()
	if n := len(b.records()); n != 4 {
		t.Errorf("%d records, want 4", n)
	}
	b.start(", cdr: calls.jsonl")
	b.legs(func(l *leg) { t.Errorf("there is still a leg of %s", l.session.Remote) })
}

// livingIn returns how many calls a journal has.
func livingIn(t *testing.T, j *journal.Journal) (n int) {
	t.Helper()
	if err := j.Each(func(r journal.Record) error {
		if r.Kind == alive {
			n++
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	return n
}

// Where telephones come over TCP alone the edge goes on too, but not while another process has the calls.
func TestLeaveTCP(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		b.core.leave()
		j, err := journal.Open(filepath.Join(b.dir, "state", "phone", "phone", "calls"), journal.Options{Unsynced: true})
		if err != nil {
			t.Fatal(err)
		}
		b.core.away.Store(here)
		if again := b.core.saveAll(); again != nil || b.core.away.Load() != leaving {
			t.Error("it goes on beside another process")
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if err := j.Run(ctx); err != nil {
			t.Fatal(err)
		}
		b.registered("tcp", f, "05010000001")
		b.until(func() bool { return b.core.calls.journal.Load() != nil && b.core.homes.isOpen() })
	})
}

// What a newer version has saved stays, over upgrades that fail too, for a process of that version; what an older one has saved
// is not touched by it.
func TestNewer(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		b.end()
		directory := filepath.Join(b.dir, "state", "phone", "phone")
		j, err := journal.Open(filepath.Join(directory, "calls"), journal.Options{Unsynced: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := j.Begin(); err != nil {
			t.Fatal(err)
		}
		j.Put(alive, []byte("\xffwho knows"))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := j.Run(ctx); err != nil {
			t.Fatal(err)
		}
		homes, err := journal.Open(filepath.Join(directory, "bindings"), journal.Options{})
		if err != nil {
			t.Fatal(err)
		}
		text := saved.AppendHome(nil, "sip:05010000009@"+domain, nil, 0)
		homes.Append(bound, nil, text[:len(text)-1], []byte("\xffwho knows"))
		if err := homes.Run(ctx); err != nil {
			t.Fatal(err)
		}
		b.start("")
		want := 1
		if f == ip.V6 {
			want = 2 // with that of before
		}
		stays := func(when string) {
			t.Helper()
			if n := livingIn(t, b.core.calls.journal.Load()); n != want {
				t.Errorf("%s: %d calls are kept, want %d", when, n, want)
			}
			b.stored("05010000009", true)
		}
		stays("after a start")
		b.core.calls.leave()
		if err := b.core.calls.reopen(); err != nil {
			t.Fatal(err)
		}
		stays("after an upgrade that failed")
		caller, callee := b.registered("udp", f, "05010000001"), b.registered("udp", f, "05010000002")
		heard, _ := b.call(caller, callee, nil, nil)
		hangUp(caller, callee, heard, sequence(heard)+1)
		callee.unregister()
		stays("after a call")
	})
}

// Who keeps calls from being saved does not keep them from being made.
func TestNoState(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	b.end()
	b.write("file", "")
	b.state = "file/state"
	b.start(", cdr: calls.jsonl")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		caller, callee := b.registered("udp", f, "05010000001"), b.registered("udp", f, "05010000002")
		heard, _ := b.call(caller, callee, nil, nil)
		hangUp(caller, callee, heard, sequence(heard)+1)
		callee.unregister()
	})
	b.t = t
	b.end()
	if n := len(b.records()); n != 2 {
		t.Errorf("%d records, want 2", n)
	}
}

// BenchmarkRestore takes up 100,000 calls.
func BenchmarkRestore(b *testing.B) {
	log := slog.New(slog.DiscardHandler)
	loops, err := relay.Open(2)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { loops.Run(ctx) })
	dir := b.TempDir()
	const count = 100_000
	j, err := journal.Open(filepath.Join(dir, "calls"), journal.Options{Unsynced: true})
	if err != nil {
		b.Fatal(err)
	}
	written, write := context.WithCancel(ctx)
	over := make(chan error, 1)
	go func() { over <- j.Run(written) }()
	size := 0
	for i := range count {
		call := savedCall()
		call.Record.ID = strconv.Itoa(i)
		call.Caller.Session.CallID, call.Called.Session.CallID = "a"+call.Record.ID, "b"+call.Record.ID
		text, err := call.Append(nil)
		if err != nil {
			b.Fatal(err)
		}
		size += len(text)
		j.Append(alive, nil, text)
		if i%1000 == 0 { // no more may wait than that
			for j.Status().Records < i {
				runtime.Gosched()
			}
		}
	}
	for j.Status().Records < count {
		runtime.Gosched()
	}
	write()
	if err := <-over; err != nil {
		b.Fatal(err)
	}
	done, stop := context.WithCancel(ctx)
	stop()
	b.ReportMetric(float64(size)/count, "B/call")
	for b.Loop() {
		c := newCore(log, loops, dir, "", "")
		n := 0
		for _, a := range c.agents {
			done := make(chan int)
			a.loop.Post(func() { done <- len(a.legs) })
			n += <-done
		}
		if n != 2*count {
			b.Fatalf("%d legs", n)
		}
		if err := c.calls.journal.Load().Run(done); err != nil {
			b.Fatal(err)
		}
	}
	cancel()
	wg.Wait()
	loops.Close()
}
