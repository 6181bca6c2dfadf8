// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package queue

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"net/mail"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/journal"
)

func TestMain(m *testing.M) { servertest.Main(m) }

// patience is how long anything may take on a busy machine.
const patience = time.Minute

func noon() time.Time { return time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC) }

// bench is a queue whose journal runs until the test ends, or stop is called.
type bench struct {
	*Queue
	t       *testing.T
	stop    func()
	changes chan struct{} // of size 1
}

// terms are those of the service "mail".
func terms() Terms { return Terms{Name: "mx.example", Reports: "relay"} }

func open(t *testing.T, directory string, o journal.Options) *bench {
	t.Helper()
	return openOn(t, directory, o, terms())
}

func openOn(t *testing.T, directory string, o journal.Options, terms Terms) *bench {
	t.Helper()
	changes := make(chan struct{}, 1)
	o.Unsynced = true
	j, err := journal.Open(directory, o)
	if err != nil {
		t.Fatal(err)
	}
	q, err := Open(j, Options{
		Terms: func(service string) (Terms, bool) {
			if service != "mail" {
				return Terms{}, false
			}
			return terms, true
		},
		Changed: func() {
			select {
			case changes <- struct{}{}:
			default:
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- j.Run(ctx) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return &bench{q, t, stop, changes}
}

// message is one to so many.
func message(recipients ...string) *Message {
	m := &Message{Service: "mail", Pool: "spool", Client: netip.MustParseAddrPort("[2001:db8::1]:1000"), Helo: []byte("client.example"),
		Sender: []byte("a@example"), Arrived: noon()}
	for _, r := range recipients {
		m.Recipients = append(m.Recipients, Recipient{Path: []byte(r)})
	}
	return m
}

// add puts a message into the queue.
func (b *bench) add(m *Message, pieces ...string) (journal.ID, error) {
	size := 0
	for _, p := range pieces {
		size += len(p)
	}
	d, err := b.Draft(m, int64(size))
	if err != nil {
		return 0, err
	}
	for _, p := range pieces {
		d.Write([]byte(p), nil)
	}
	done := make(chan error, 1)
	d.Commit(func(err error) { done <- err })
	return m.id, <-done
}

func (b *bench) mustAdd(m *Message, pieces ...string) journal.ID {
	b.t.Helper()
	id, err := b.add(m, pieces...)
	if err != nil {
		b.t.Fatal(err)
	}
	return id
}

// take takes the message that must be due.
func (b *bench) take(now time.Time) *Message {
	b.t.Helper()
	m := b.takeAny(now)
	if m == nil {
		b.t.Fatal("nothing is due")
	}
	return m
}

// takeAny takes a message that is due, or nil.
func (b *bench) takeAny(now time.Time) *Message {
	all, _ := b.Due(now)
	for _, d := range all {
		if m := b.Take(d, now); m != nil {
			return m
		}
	}
	return nil
}

// counts are those of a pool of the service "mail".
func (b *bench) counts(pool string) Counts { return b.options.Sums.Counts()[Destination{"mail", pool}] }

// text returns the content of a message.
func (b *bench) text(m *Message) string {
	b.t.Helper()
	var s strings.Builder
	for n := range m.Pieces {
		p, err := b.Piece(m, n)
		if err != nil {
			b.t.Fatal(err)
		}
		s.Write(p)
	}
	if int64(s.Len()) != m.Size {
		b.t.Errorf("%d bytes, want %d", s.Len(), m.Size)
	}
	return s.String()
}

func results(replies ...string) (all []Result) {
	for _, r := range replies {
		var code int
		fmt.Sscan(r, &code)
		all = append(all, Result{code, r})
	}
	return all
}

// finish finishes with the replies of a server, and waits until what follows of it is written.
func (b *bench) finish(m *Message, now time.Time, replies ...string) {
	b.t.Helper()
	b.finishAs(m, now, Outcome{Server: "spool.example", Results: results(replies...)})
}

func (b *bench) finishAs(m *Message, now time.Time, o Outcome) {
	b.t.Helper()
	written := make(chan struct{})
	o.Done = func() { close(written) }
	b.Finish(m, o, now)
	select {
	case <-written:
	case <-time.After(patience):
		b.t.Fatal("what has become of a message is not written")
	}
}

// TestDelivered: a message is as it was, and is gone when all have it.
func TestDelivered(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	b := open(t, directory, journal.Options{})
	big := strings.Repeat("0123456789abcdef", journal.MaxData/8)
	b.mustAdd(message("b@example"), big, "tail")
	b.mustAdd(message("c@example")) // without content
	for again := range 2 {
		if again > 0 {
			b.stop()
			b = open(t, directory, journal.Options{})
		}
		if b.Len() != 2 {
			t.Fatalf("%d messages, want 2", b.Len())
		}
		if all, next := b.Due(noon()); len(all) != 1 || !next.IsZero() {
			t.Errorf("due %v, %v", all, next)
		}
		if all, next := b.Due(noon().Add(-1)); len(all) != 0 || !next.Equal(noon()) {
			t.Errorf("due before %v, %v", all, next)
		}
	}
	m := b.take(noon())
	if b.text(m) != big+"tail" || m.Helo == nil || m.Client.Port() != 1000 || string(m.Sender) != "a@example" {
		t.Errorf("got %+v", m)
	}
	b.finish(m, noon(), "250 2.1.5 Ok")
	m = b.take(noon())
	if b.text(m) != "" || string(m.Recipients[0].Path) != "c@example" {
		t.Errorf("got %+v", m)
	}
	if b.takeAny(noon()) != nil {
		t.Error("a message is taken twice")
	}
	b.finish(m, noon(), "250 2.1.5 Ok")
	if diff := cmp.Diff(Counts{Delivered: 2}, b.counts("spool")); diff != "" {
		t.Error(diff)
	}
	b.stop()
	if s := b.journal.Status(); s.Records != 0 {
		t.Errorf("the journal has %d records", s.Records)
	}
}

// TestRetry: who has not the message gets it later, and the others not again, also after a crash in between.
func TestRetry(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	b := open(t, directory, journal.Options{})
	b.mustAdd(message("a@x", "b@x", "c@x"), "text")
	now := noon()
	for n, step := range []struct {
		replies []string
		left    []int
		wait    time.Duration
	}{
		{[]string{"451 4.2.1 Later", "250 Ok", "451 4.2.1 Later"}, []int{0, 2}, time.Minute},
		{[]string{"no answer", "no answer"}, []int{0, 2}, 2 * time.Minute},
		{[]string{"354 What", "250 Ok"}, []int{0}, 4 * time.Minute},
	} {
		m := b.take(now)
		b.finish(m, now, step.replies...)
		if n%2 == 1 {
			b.stop()
			if s := b.journal.Status(); s.Records != 3 {
				t.Errorf("step %d: %d records, want a piece, the envelope and what has become of it", n, s.Records)
			}
			b = open(t, directory, journal.Options{})
		}
		if b.takeAny(now.Add(step.wait-1)) != nil {
			t.Errorf("step %d: it is due too early", n)
		}
		now = now.Add(step.wait)
		m = b.take(now)
		if !slices.Equal(m.Left(), step.left) || m.state.Attempts != n+1 {
			t.Errorf("step %d: %v are left after %d attempts, want %v", n, m.Left(), m.state.Attempts, step.left)
		}
		b.Return(m, m.state.Last) // it was only looked at
	}
	if l := b.List(); len(l) != 1 || !slices.Equal(l[0].Recipients, []string{"a@x"}) || l[0].Last != "354 What" || l[0].Attempts != 3 {
		t.Errorf("listed as %+v", l)
	}
	b.finish(b.take(now), now, "250 Ok")
	b.stop()
	if s := b.journal.Status(); s.Records != 0 || b.counts("spool").Reports != 0 {
		t.Errorf("%d records are left, %+v", s.Records, b.counts("spool"))
	}
}

// TestSchedule: attempts are ever rarer, but not too rare.
func TestSchedule(t *testing.T) {
	t.Parallel()
	for attempts, want := range map[int]time.Duration{1: time.Minute, 2: 2 * time.Minute, 6: 32 * time.Minute, 7: time.Hour, 100: time.Hour} {
		if got := schedule(attempts); got != want {
			t.Errorf("after %d: %v, want %v", attempts, got, want)
		}
	}
}

// parts reads a report.
func parts(t *testing.T, text string) (header mail.Header, all []string) {
	t.Helper()
	m, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	kind, parameters, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil || kind != "multipart/report" || parameters["report-type"] != "delivery-status" {
		t.Fatalf("it is %q, %v, %v", kind, parameters, err)
	}
	r := multipart.NewReader(m.Body, parameters["boundary"])
	for {
		p, err := r.NextRawPart()
		if errors.Is(err, io.EOF) {
			return m.Header, all
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p.Header.Get("Content-Type")+"\n"+string(data))
	}
}

// TestReport: what has failed is told to the sender, who has asked or has not, in a message that waits as others do.
func TestReport(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	b := open(t, directory, journal.Options{})
	m := message("gone@x", "later@x", "fine@x", "never@x", "success@x")
	m.Envid = []byte("Q+2BQ")
	m.Recipients[0].Orcpt = []byte("rfc822;g+40ne+3D@x")
	m.Recipients[1].Notify = Failure
	m.Recipients[2].Notify = Failure
	m.Recipients[3].Notify = Never
	m.Recipients[4].Notify = Success | Failure
	b.mustAdd(m, "Subject: x\r\nX: y\r\n", "\r\nbody\r\n")
	b.finish(b.take(noon()), noon(), "550-5.1.1 No such\r\n550 5.1.1 us\x00er", "451 4.2.2 Full", "250 2.1.5 Ok", "550 5.1.1 No", "250 2.1.5 Ok")
	b.stop()
	b = open(t, directory, journal.Options{})
	if b.Len() != 2 {
		t.Fatalf("%d messages, want the rest and the report", b.Len())
	}
	r := b.take(noon())
	if r.Pool != "relay" || len(r.Sender) > 0 || len(r.Recipients) != 1 || string(r.Recipients[0].Path) != "a@example" {
		t.Fatalf("the report is %+v", r)
	}
	header, all := parts(t, b.text(r))
	for name, want := range map[string]string{"From": "Mail delivery <postmaster@mx.example>", "To": "<a@example>", "Auto-Submitted": "auto-replied",
		"Subject": "Your message could not be delivered", "Date": "Fri, 27 Nov 2026 12:00:00 +0000"} {
		if got := header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	want := []string{"text/plain; charset=us-ascii\n" + `This is the mail system at mx.example.

Your message could not be delivered to these addresses:

  <gone@x>
    550-5.1.1 No such 550 5.1.1 us?er

Your message was delivered to these addresses:

  <success@x>
    250 2.1.5 Ok
`, "message/delivery-status\n" + `Original-Envelope-Id: Q+Q
Reporting-MTA: dns; mx.example
Arrival-Date: Fri, 27 Nov 2026 12:00:00 +0000

Original-Recipient: rfc822; g@ne=@x
Final-Recipient: rfc822; gone@x
Action: failed
Status: 5.1.1
Remote-MTA: dns; spool.example
Diagnostic-Code: smtp; 550-5.1.1 No such 550 5.1.1 us?er
Last-Attempt-Date: Fri, 27 Nov 2026 12:00:00 +0000

Final-Recipient: rfc822; success@x
Action: delivered
Status: 2.1.5
Remote-MTA: dns; spool.example
Diagnostic-Code: smtp; 250 2.1.5 Ok
Last-Attempt-Date: Fri, 27 Nov 2026 12:00:00 +0000
`, "text/rfc822-headers\nSubject: x\nX: y\n"}
	for i := range all {
		all[i] = strings.ReplaceAll(all[i], "\r\n", "\n")
	}
	if diff := cmp.Diff(want, all); diff != "" {
		t.Error(diff)
	}
	b.finish(r, noon(), "550 5.7.1 No reports here") // of which there is none
	at := noon().Add(5 * 24 * time.Hour)
	rest := b.take(at)
	if !slices.Equal(rest.Left(), []int{1}) {
		t.Fatalf("%v are left, want 1", rest.Left())
	}
	b.finishAs(rest, at, Outcome{Results: []Result{{0, "no server can be reached"}}})
	r = b.take(at)
	_, all = parts(t, b.text(r))
	if !strings.Contains(all[1], "Final-Recipient: rfc822; later@x\r\nAction: failed\r\nStatus: 4.4.7\r\nLast-Attempt-Date: Wed, 02 Dec 2026") {
		t.Errorf("got %s", all[1])
	}
	if diff := cmp.Diff(Counts{Reports: 1, Failed: 1}, b.counts("spool")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Counts{Messages: 1, Bytes: r.Size, Added: 1, Failed: 1, Unreported: 1}, b.counts("relay")); diff != "" {
		t.Error(diff)
	}
}

// takeSoon takes a message that will be due.
func (b *bench) takeSoon(now time.Time) *Message {
	b.t.Helper()
	for {
		if m := b.takeAny(now); m != nil {
			return m
		}
		<-b.changes
	}
}

// TestReturned: what of a message comes back.
func TestReturned(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, text, want string
		full             bool
	}{
		{"the header", "A: b\r\nC: d\r\n\r\nbody", "text/rfc822-headers\nA: b\r\nC: d\r\n", false},
		{"all", "A: b\r\n\r\nbody\r\n", "message/rfc822\nA: b\r\n\r\nbody\r\n", true},
		{"all of it is the header", "A: b\r\n", "text/rfc822-headers\nA: b\r\n", false},
		{"no line", "A", "text/rfc822-headers\n", false},
		{"nothing", "", "text/rfc822-headers\n", false},
		{"too long a header", strings.Repeat("A: 6\r\n", maxHeader/6+10), "text/rfc822-headers\n" + strings.Repeat("A: 6\r\n", maxHeader/6), false},
		{"too long", "A: b\r\n\r\n" + strings.Repeat("x", maxReturned), "text/rfc822-headers\nA: b\r\n", true},
		{"eight bits", "A: \xc3\xa9\r\n\r\n", "text/rfc822-headers\nA: \xc3\xa9\r\n", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			b := open(t, t.TempDir(), journal.Options{})
			m := message("gone@x")
			m.Full = test.full
			b.mustAdd(m, test.text)
			b.Finish(b.take(noon()), Outcome{Results: results("550 No")}, noon())
			_, all := parts(t, b.text(b.takeSoon(noon())))
			if all[2] != test.want {
				t.Errorf("got %.100q, want %.100q", all[2], test.want)
			}
		})
	}
}

// TestNoReport: where no report can be written, the message stays, but not with those who have it.
func TestNoReport(t *testing.T) {
	t.Parallel()
	b := open(t, t.TempDir(), journal.Options{})
	m := message("gone@x", "fine@x")
	m.Service = "other" // is no more
	b.mustAdd(m, "text")
	b.finish(b.take(noon()), noon(), "550 5.1.1 No", "250 Ok")
	m = b.takeSoon(noon().Add(time.Hour))
	if !slices.Equal(m.Left(), []int{0}) || !strings.Contains(m.state.Last, "no pool for reports") {
		t.Errorf("%v are left, %q", m.Left(), m.state.Last)
	}
	m.Sender = nil
	b.finish(m, noon(), "550 5.1.1 No")
	if b.Len() != 0 {
		t.Error("what comes from nobody is reported to somebody")
	}
}

// TestFull: what has no room is refused, and nothing is left of it.
func TestFull(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	b := open(t, directory, journal.Options{Size: journal.MaxData})
	if _, err := b.add(message("b@x"), strings.Repeat("x", journal.MaxData/2), strings.Repeat("x", journal.MaxData/2)); !errors.Is(err, journal.ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	for _, end := range []func(*Draft){(*Draft).Abandon, func(*Draft) {}} {
		d, err := b.Draft(message("half@x"), 4)
		if err != nil {
			t.Fatal(err)
		}
		d.Write([]byte("text"), nil)
		end(d)
	}
	b.mustAdd(message("c@x"), "text")
	b.stop()
	if s := b.journal.Status(); s.Records != 3 {
		t.Errorf("%d records live, want those of one message and a piece", s.Records)
	}
	b = open(t, directory, journal.Options{})
	if b.Len() != 1 || string(b.take(noon()).Recipients[0].Path) != "c@x" {
		t.Errorf("%d messages", b.Len())
	}
	b.stop()
	if s := b.journal.Status(); s.Records != 2 {
		t.Errorf("%d records live, want those of one message", s.Records)
	}
}

// TestByHand lists, hurries and drops.
func TestByHand(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	b := open(t, directory, journal.Options{})
	one, two := b.mustAdd(message("a@x"), "1"), b.mustAdd(message("b@x"), "2")
	b.finish(b.take(noon()), noon(), "451 Later")
	b.finish(b.take(noon()), noon(), "451 Later")
	now := noon().Add(time.Second)
	if err := b.Retry(two, now); err != nil {
		t.Error(err)
	}
	if m := b.take(now); m.ID() != two {
		t.Errorf("%d is due, want %d", m.ID(), two)
	} else if err := b.Drop(two); err != nil { // while it is on its way
		t.Error(err)
	} else if len(b.List()) != 2 || !b.List()[1].Busy {
		t.Errorf("listed as %+v", b.List())
	} else {
		b.finish(m, now, "451 Later")
	}
	if err := b.Drop(one); err != nil {
		t.Error(err)
	}
	for _, id := range []journal.ID{one, two, 4711} {
		if err := b.Drop(id); !errors.Is(err, ErrNone) {
			t.Errorf("Drop: %v", err)
		}
		if err := b.Retry(id, now); !errors.Is(err, ErrNone) {
			t.Errorf("Retry: %v", err)
		}
	}
	if diff := cmp.Diff(Counts{Added: 2, Dropped: 2, Deferred: 2}, b.counts("spool")); diff != "" || b.Len() != 0 {
		t.Error(diff)
	}
	b.stop()
	if s := b.journal.Status(); s.Records != 0 {
		t.Errorf("%d records are left", s.Records)
	}
}

// TestStrange: what cannot be read is said, and does not keep the others.
func TestStrange(t *testing.T) {
	t.Parallel()
	directory := filepath.Join(t.TempDir(), "queue")
	b := open(t, directory, journal.Options{})
	b.mustAdd(message("a@x"), "1")
	for _, r := range []struct {
		kind journal.Kind
		data string
	}{{envelope, "{"}, {envelope, "{}"}, {progress, "["}, {99, ""}, {progress, `{"Of":4711,"Ends":[]}`}} {
		b.journal.Append(r.kind, nil, []byte(r.data))
	}
	b.stop()
	j, err := journal.Open(directory, journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	q, err := Open(j, Options{Terms: func(string) (Terms, bool) { return terms(), true }})
	if got := strings.Count(fmt.Sprint(err), "record"); !errors.Is(err, errRecord) || q.Len() != 1 || got < 4 {
		t.Errorf("%d messages, %v", q.Len(), err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := j.Run(ended); err != nil || j.Status().Records != 6 {
		t.Errorf("%v, %+v", err, j.Status())
	}
}

// TestModel adds, delivers, fails and crashes at random: every recipient gets the message once, or its sender a report.
func TestModel(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	b := open(t, directory, journal.Options{File: 16 << 10})
	ends := make(map[string]int)
	now := noon()
	for n := range 2000 {
		if n%3 == 0 && n < 1500 {
			var all []string
			for i := range 1 + n%4 {
				all = append(all, fmt.Sprintf("%d.%d@x", n, i))
			}
			m := message(all...)
			m.Arrived = now
			b.mustAdd(m, "A: b\r\n\r\n", fmt.Sprint(n))
		}
		if n%100 == 50 {
			b.stop()
			b = open(t, directory, journal.Options{File: 16 << 10})
		}
		now = now.Add(time.Minute)
		m := b.takeAny(now)
		if m == nil {
			continue
		}
		if text := b.text(m); m.Pool == "relay" {
			_, all := parts(t, text)
			for line := range strings.Lines(all[1]) {
				if who, ok := strings.CutPrefix(strings.TrimSpace(line), "Final-Recipient: rfc822; "); ok {
					ends[who]++
				}
			}
			b.finish(m, now, "250 Ok")
			continue
		}
		var replies []string
		for _, i := range m.Left() {
			reply := []string{"250 Ok", "451 Later", "550 No"}[(n+i)%3]
			if m.state.Attempts > 5 { // not for ever at times that the same is said at
				reply = "250 Ok"
			}
			replies = append(replies, reply)
			if reply == "250 Ok" {
				ends[string(m.Recipients[i].Path)]++
			}
		}
		b.finish(m, now, replies...)
	}
	if b.Len() > 0 {
		t.Errorf("%d messages are left: %+v", b.Len(), b.List()[0])
	}
	want := 0
	for n := 0; n < 1500; n += 3 {
		want += 1 + n%4
	}
	if len(ends) != want || slices.Max(slices.Collect(maps.Values(ends))) != 1 {
		t.Errorf("%d recipients have an end, want %d, each once", len(ends), want)
	}
}

// FuzzRecords reads any record.
func FuzzRecords(f *testing.F) {
	m := message("a@x")
	f.Add(encode(m))
	f.Add(encode(state{Of: 1, Ends: make([]ending, 1)}))
	f.Fuzz(func(t *testing.T, data []byte) {
		if m, err := decodeMessage(journal.Record{ID: 1, Data: data}); err == nil && len(m.Left()) != len(m.Recipients) {
			t.Errorf("%d of %d recipients wait", len(m.Left()), len(m.Recipients))
		}
		if _, err := decodeState(journal.Record{ID: 1, Data: data}); err != nil && !errors.Is(err, errRecord) {
			t.Error(err)
		}
	})
}

// TestLate: a sender is told once that it takes long, if that is wanted, and when the time is up, also where no server can
// be asked and nothing is due.
func TestLate(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	late := terms()
	late.Warn, late.Keep = 4*time.Hour, 8*time.Hour
	b := openOn(t, directory, journal.Options{}, late)
	spool := Destination{"mail", "spool"}
	m := message("usual@x", "failure@x", "delay@x", "never@x")
	m.Recipients[1].Notify, m.Recipients[2].Notify, m.Recipients[3].Notify = Failure, Delay, Never
	b.mustAdd(m, "A: b\r\n\r\nbody")
	nobody := message("nobody@x")
	nobody.Sender = nil
	b.mustAdd(nobody, "A: b\r\n\r\nbody")
	silent := func(n int) Outcome { return Outcome{Results: make([]Result, n)} }
	for _, early := range []time.Duration{0, 4*time.Hour - 1} {
		if all := b.Late(spool, noon().Add(early)); len(all) != 0 {
			t.Errorf("after %v %d messages are late", early, len(all))
		}
	}
	b.Return(b.take(noon()), "no server can be reached")
	if l := b.List(); len(l) != 2 || l[0].Last != "no server can be reached" || l[0].Attempts != 0 || l[0].Busy {
		t.Errorf("listed as %+v", l)
	}
	for again := range 2 {
		now := noon().Add(4*time.Hour + time.Duration(again))
		all := b.Late(spool, now)
		if want := 2 - 2*again; len(all) != want {
			t.Fatalf("%d messages are late, want %d", len(all), want)
		}
		for _, m := range all {
			b.finishAs(m, now, silent(len(m.Left())))
		}
		b.stop()
		b = openOn(t, directory, journal.Options{}, late)
	}
	now := noon().Add(4 * time.Hour)
	r := b.Take(Destination{"mail", "relay"}, now)
	if r == nil {
		t.Fatal("there is no report")
	}
	header, all := parts(t, b.text(r))
	if header.Get("Subject") != "Your message is delayed" || strings.Count(all[1], "Action: delayed") != 2 ||
		!strings.Contains(all[1], "usual@x\r\nAction: delayed\r\nStatus: 4.4.7\r\nLast-Attempt-Date: Fri, 27 Nov 2026 16:00:00 +0000\r\n"+
			"Will-Retry-Until: Fri, 27 Nov 2026 20:00:00 +0000") || !strings.Contains(all[1], "delay@x") {
		t.Errorf("got %v, %s", header, all[1])
	}
	b.finish(r, now, "250 Ok")
	now = noon().Add(8 * time.Hour)
	for _, m := range b.Late(spool, now) {
		b.finishAs(m, now, silent(len(m.Left())))
	}
	r = b.Take(Destination{"mail", "relay"}, now)
	if r == nil {
		t.Fatal("there is no report in the end")
	}
	if _, all := parts(t, b.text(r)); strings.Count(all[1], "Action: failed") != 2 || strings.Contains(all[1], "never@x") || strings.Contains(all[1], "delay@x") {
		t.Errorf("got %s", all[1])
	}
	if got := b.counts("spool"); b.Len() != 1 || got.Failed != 5 || got.Unreported != 1 || got.Messages != 0 || got.Bytes != 0 {
		t.Errorf("%d messages are left, %+v", b.Len(), got)
	}
}

// TestRelayed: who sends on a message will not say what becomes of it.
func TestRelayed(t *testing.T) {
	t.Parallel()
	b := open(t, t.TempDir(), journal.Options{})
	m := message("a@x")
	m.Relayed, m.Recipients[0].Notify = true, Success
	b.mustAdd(m, "A: b\r\n\r\nbody")
	b.finish(b.take(noon()), noon(), "250 Ok")
	if _, all := parts(t, b.text(b.take(noon()))); !strings.Contains(all[1], "Action: relayed") {
		t.Errorf("got %s", all[1])
	}
}

// TestRoom: a service has the room that its terms say, for all its pools and whatever journal they are in, and gets it back.
func TestRoom(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	small := terms()
	small.Messages, small.Bytes = 3, 10
	b := openOn(t, directory, journal.Options{}, small)
	add := func(pool, text string) error {
		m := message("a@x")
		m.Pool = pool
		_, err := b.add(m, text)
		return err
	}
	for _, step := range []struct {
		pool, text string
		want       error
	}{
		{"spool", strings.Repeat("x", 11), ErrFull}, {"spool", "12345", nil}, {"other", "123456", ErrFull}, {"other", "12345", nil},
		{"spool", "1", ErrFull}, {"spool", "", nil}, {"spool", "", ErrFull},
	} {
		if err := add(step.pool, step.text); !errors.Is(err, step.want) {
			t.Errorf("%q: got %v, want %v", step.text, err, step.want)
		}
	}
	b.stop()
	b = openOn(t, directory, journal.Options{}, small)
	if err := add("spool", ""); !errors.Is(err, ErrFull) {
		t.Errorf("after a crash: got %v", err)
	}
	b.finish(b.take(noon()), noon(), "250 Ok")
	if err := add("spool", ""); err != nil {
		t.Error(err)
	}
	d, err := b.Draft(message("a@x"), 1)
	if !errors.Is(err, ErrFull) || d != nil {
		t.Errorf("got %v", err)
	}
}

// TestCrowd: whatever servers say to whatever many recipients, what has become of them is written.
func TestCrowd(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	b := open(t, directory, journal.Options{})
	var all, replies []string
	for n := range 1000 {
		all = append(all, fmt.Sprint(n, "@x"))
		replies = append(replies, "451 "+strings.Repeat("<", 10_000))
	}
	replies[0] = "250 Ok"
	b.mustAdd(message(all...), "text")
	b.finish(b.take(noon()), noon(), replies...)
	b.stop()
	b = open(t, directory, journal.Options{})
	if m := b.take(noon().Add(time.Hour)); len(m.Left()) != 999 {
		t.Errorf("%d recipients are left, want 999", len(m.Left()))
	}
}
