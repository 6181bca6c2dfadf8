// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package outcome

import (
	"bytes"
	"context"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/journal"
)

func TestMain(m *testing.M) { servertest.Main(m) }

// noon is when the tests begin.
func noon() time.Time { return time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC) }

// run runs a journal until the test ends, or stop is called.
func run(t testing.TB, j *journal.Journal) (stop func()) {
	t.Helper()
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
	return stop
}

// open returns a book with a journal of its own.
func open(t testing.TB, shelf string) (b *Book, stop func()) {
	t.Helper()
	j, err := journal.OpenNew(shelf, journal.Options{Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	return NewBook(j), run(t, j)
}

// adopt has b adopt all that is left, and returns how many messages are doubtful.
func adopt(t testing.TB, b *Book, shelf string, now time.Time) (n int64) {
	t.Helper()
	left, err := journal.OpenLeft(shelf, journal.Options{Unsynced: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, j := range left {
		doubtful, err := b.Adopt(j, now)
		if err != nil {
			t.Error(err)
		}
		n += doubtful
		run(t, j)()
	}
	return n
}

// keyOf is that of a message with this text.
func keyOf(text string) Key {
	var d Digest
	d.Add([]byte(text))
	return d.Key(Envelope{Service: "mail", Client: netip.MustParseAddr("2001:db8::1"), Sender: []byte("a@example"),
		Recipients: [][]byte{[]byte("b@example")}})
}

// begin begins a message that must not be known.
func begin(t *testing.T, b *Book, text string, now time.Time) *Delivery {
	t.Helper()
	var d Delivery
	if b.Find(&d, keyOf(text), now) {
		t.Fatalf("%q is known: %q", text, d.Reply())
	}
	b.Begin(&d, keyOf(text), now)
	return &d
}

// find finds a message that must be known.
func find(t *testing.T, b *Book, text, want string, now time.Time) *Delivery {
	t.Helper()
	var d Delivery
	if !b.Find(&d, keyOf(text), now) || string(d.Reply()) != want || !d.Taking() {
		t.Fatalf("%q: got %q, want %q", text, d.Reply(), want)
	}
	return &d
}

// TestSeen: what a client knows is forgotten, and the same message is another one.
func TestSeen(t *testing.T) {
	t.Parallel()
	b, _ := open(t, t.TempDir())
	for range 3 {
		d := begin(t, b, "x", noon())
		d.Taken([]byte("250 ok\r\n"), noon())
		if !d.Taking() {
			t.Error("the client may know already")
		}
		d.Seen()
		if d.Taking() {
			t.Error("the client may not know")
		}
		d.Unseen() // it has been seen
	}
	begin(t, b, "x", noon()).Refused()
	begin(t, b, "x", noon()).Unseen() // nothing was said
	begin(t, b, "x", noon()).Lost()
	if diff := cmp.Diff(Counts{Lost: 1}, b.Counts()); diff != "" {
		t.Error(diff)
	}
}

// TestUnseen: what a client may not know is found once for each time that it was taken, and again if it is not seen
// then either. While its first connection is there, it is not.
func TestUnseen(t *testing.T) {
	t.Parallel()
	b, _ := open(t, t.TempDir())
	one, two := begin(t, b, "x", noon()), begin(t, b, "x", noon())
	one.Taken([]byte("250 one\r\n"), noon())
	two.Taken([]byte("250 two\r\n"), noon())
	begin(t, b, "x", noon()).Refused()
	one.Unseen()
	two.Unseen()
	find(t, b, "x", "250 one\r\n", noon()).Unseen()
	find(t, b, "x", "250 two\r\n", noon()).Seen()
	find(t, b, "x", "250 one\r\n", noon()).Seen()
	begin(t, b, "x", noon()).Refused()
	if diff := cmp.Diff(Counts{Answered: 3}, b.Counts()); diff != "" {
		t.Error(diff)
	}
}

// TestDies: the outcomes of a process that died are known to the next, and to the one after; what had none is counted.
func TestDies(t *testing.T) {
	t.Parallel()
	shelf := t.TempDir()
	b, stop := open(t, shelf)
	seen := begin(t, b, "seen", noon())
	seen.Taken([]byte("250 ok\r\n"), noon())
	seen.Seen()
	begin(t, b, "refused", noon()).Refused()
	begin(t, b, "doubtful", noon())
	begin(t, b, "lost", noon()).Lost() // counted once, by this one
	open1, gone := begin(t, b, "open", noon()), begin(t, b, "gone", noon())
	open1.Taken([]byte("250 open\r\n"), noon())
	gone.Taken([]byte("250-gone\r\n250 it is\r\n"), noon())
	gone.Unseen()
	long := begin(t, b, "long", noon())
	long.Taken([]byte("250 "+strings.Repeat("x", maxReply)+"\r\n"), noon())
	stop()
	for range 3 {
		b, stop = open(t, shelf)
		now := noon().Add(Keep - time.Second)
		if n := adopt(t, b, shelf, now); n > 1 || n != b.Counts().Doubtful {
			t.Errorf("%d doubtful, %+v", n, b.Counts())
		}
		begin(t, b, "seen", now).Refused()
		begin(t, b, "refused", now).Refused()
		begin(t, b, "doubtful", now).Refused()
		find(t, b, "open", "250 open\r\n", now).Unseen()
		find(t, b, "gone", "250-gone\r\n250 it is\r\n", now).Unseen()
		find(t, b, "long", plainly, now).Unseen()
		stop()
	}
	b, _ = open(t, shelf)
	adopt(t, b, shelf, noon().Add(Keep))
	if diff := cmp.Diff(Counts{}, b.Counts()); diff != "" {
		t.Error(diff)
	}
}

// TestDoubtful: only the messages that a backend was about to answer are counted, once.
func TestDoubtful(t *testing.T) {
	t.Parallel()
	shelf := t.TempDir()
	b, stop := open(t, shelf)
	for range 5 {
		begin(t, b, "x", noon())
	}
	stop()
	for _, want := range []int64{5, 0} {
		b, stop = open(t, shelf)
		if n := adopt(t, b, shelf, noon()); n != want || b.Counts().Doubtful != want {
			t.Errorf("%d doubtful, want %d", n, want)
		}
		stop()
	}
}

// TestUnfinished: a process that dies between two of its records leaves no doubt where there is none.
func TestUnfinished(t *testing.T) {
	t.Parallel()
	shelf := t.TempDir()
	b, stop := open(t, shelf)
	b.append(begun, keyOf("x"), noon(), nil)
	b.append(begun, keyOf("y"), noon(), nil)
	b.append(taken, keyOf("x"), noon(), []byte("250 ok\r\n"))
	stop()
	b, _ = open(t, shelf)
	if n := adopt(t, b, shelf, noon()); n != 1 {
		t.Errorf("%d doubtful, want 1", n)
	}
	find(t, b, "x", "250 ok\r\n", noon()).Seen()
}

// TestBounded: the oldest go, by time and by number, from the journal too.
func TestBounded(t *testing.T) {
	t.Parallel()
	shelf := t.TempDir()
	b, stop := open(t, shelf)
	leave := func(text string, now time.Time) {
		d := begin(t, b, text, now)
		d.Taken([]byte("250 ok\r\n"), now)
		d.Unseen()
	}
	leave("first", noon())
	leave("second", noon().Add(time.Second))
	find(t, b, "first", "250 ok\r\n", noon().Add(Keep-1)).Unseen()
	begin(t, b, "first", noon().Add(Keep)).Refused()
	now := noon().Add(Keep)
	for i := range maxKept {
		leave(strings.Repeat("x", i%300)+time.Duration(i).String(), now)
	}
	begin(t, b, "second", now).Refused()
	if n := b.Counts().Kept; n != maxKept || len(b.found) != maxKept {
		t.Errorf("%d are kept, want %d", n, maxKept)
	}
	stop()
	b, _ = open(t, shelf)
	adopt(t, b, shelf, now)
	if n := b.Counts().Kept; n != maxKept {
		t.Errorf("%d are kept by the next, want %d", n, maxKept)
	}
}

// TestNoJournal: without one, a process knows what it knows.
func TestNoJournal(t *testing.T) {
	t.Parallel()
	b := NewBook(nil)
	d := begin(t, b, "x", noon())
	d.Taken([]byte("250 ok\r\n"), noon())
	d.Unseen()
	find(t, b, "x", "250 ok\r\n", noon()).Seen()
	var none Delivery
	none.Taken([]byte("250 ok\r\n"), noon())
	none.Lost()
	none.Unseen()
	if diff := cmp.Diff(Counts{Answered: 1}, b.Counts()); diff != "" {
		t.Error(diff)
	}
}

// TestKey: what makes two messages the same, and what does not.
func TestKey(t *testing.T) {
	t.Parallel()
	list := func(s ...string) (all [][]byte) {
		for _, one := range s {
			all = append(all, []byte(one))
		}
		return all
	}
	base := func() Envelope {
		return Envelope{Service: "mail", Client: netip.MustParseAddr("2001:db8::1"), Sender: []byte("a@example"), Recipients: list("b@example", "c@example")}
	}
	var d Digest
	d.Add([]byte("con"))
	d.Add([]byte("tent"))
	want := d.Key(base())
	for _, test := range []struct {
		name   string
		change func(*Envelope)
		same   bool
	}{
		{"the same", func(*Envelope) {}, true},
		{"another address of the /64", func(e *Envelope) { e.Client = netip.MustParseAddr("2001:db8::ffff:1") }, true},
		{"another order", func(e *Envelope) { e.Recipients = list("c@example", "b@example") }, true},
		{"another /64", func(e *Envelope) { e.Client = netip.MustParseAddr("2001:db8:0:1::1") }, false},
		{"IPv4", func(e *Envelope) { e.Client = netip.MustParseAddr("192.0.2.1") }, false},
		{"another service", func(e *Envelope) { e.Service = "other" }, false},
		{"another sender", func(e *Envelope) { e.Sender = []byte("A@example") }, false},
		{"a recipient less", func(e *Envelope) { e.Recipients = list("b@example") }, false},
		{"two recipients in one", func(e *Envelope) { e.Recipients = list("b@examplec@example") }, false},
		{"a sender among the recipients", func(e *Envelope) { e.Sender, e.Recipients = nil, list("a@example", "b@example", "c@example") }, false},
	} {
		e := base()
		test.change(&e)
		d.Reset()
		d.Add([]byte("content"))
		if got := d.Key(e); (got == want) != test.same {
			t.Errorf("%s: the same is %v", test.name, got == want)
		}
	}
	d.Add([]byte("."))
	if d.Key(base()) == want {
		t.Error("another content has the same key")
	}
	var empty Digest
	if empty.Key(base()) == want {
		t.Error("no content has the same key")
	}
}

// FuzzRecord reads any record.
func FuzzRecord(f *testing.F) {
	f.Add(uint8(begun), make([]byte, 40))
	f.Add(uint8(taken), append(make([]byte, 40), "250 ok\r\n"...))
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		e, err := decode(journal.Record{ID: 1, Kind: journal.Kind(kind), Data: data})
		if err == nil && (!bytes.Equal(append(e.key[:], data[32:40]...), data[:40]) || len(e.reply) > maxReply) {
			t.Errorf("%x is read as %+v", data, e)
		}
	})
}

// BenchmarkOutcome counts what a message of 4 KiB costs that is seen in the end.
func BenchmarkOutcome(b *testing.B) {
	book, _ := open(b, b.TempDir())
	content, now := make([]byte, 4096), noon()
	var digest Digest
	var d Delivery
	e := Envelope{Service: "mail", Client: netip.MustParseAddr("2001:db8::1"), Sender: []byte("a@example"), Recipients: [][]byte{[]byte("b@example")}}
	b.ReportAllocs()
	for b.Loop() {
		digest.Reset()
		digest.Add(content)
		k := digest.Key(e)
		if !book.Find(&d, k, now) {
			book.Begin(&d, k, now)
		}
		d.Taken([]byte("250 2.0.0 Ok: queued as 4711\r\n"), now)
		d.Seen()
	}
}
