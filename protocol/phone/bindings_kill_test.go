// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/kyozon/kyozon/protocol/phone/location"
	"github.com/kyozon/kyozon/protocol/phone/saved"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/state"
)

// openBindings takes up what is in a directory.
func openBindings(tb testing.TB, directory string) *bindings {
	tb.Helper()
	b := newBindings(directory, location.New(), new(agents), slog.New(slog.DiscardHandler))
	if _, err := b.read(now()); err != nil {
		tb.Fatal(err)
	}
	b.table.Changed = b.note
	return b
}

// deviceWay is how a device is reached.
func deviceWay() sip.Way {
	return sip.Way{Local: netip.MustParseAddrPort("203.0.113.11:5060"), Remote: netip.MustParseAddrPort("192.0.2.1:5060")}
}

// bindAt makes a binding whose Call-ID is a number, in the place of the one before.
func (b *bindings) bindAt(tb testing.TB, aor string, number int) {
	tb.Helper()
	u := location.Update{Way: deviceWay(), CallID: []byte(strconv.Itoa(number)), Contacts: []location.Contact{{URI: []byte("sip:a@192.0.2.1"), Lifetime: 3600}}}
	if _, _, err := b.table.Update(aor, &u, now()); err != nil {
		tb.Fatal(err)
	}
}

// unbind removes it.
func (b *bindings) unbind(tb testing.TB, aor string) {
	tb.Helper()
	if _, _, err := b.table.Update(aor, &location.Update{Clear: true}, now()); err != nil {
		tb.Fatal(err)
	}
}

// let closes the journal and writes nothing.
func (b *bindings) let(tb testing.TB) {
	ctx, cancel := context.WithCancel(tb.Context())
	cancel()
	if err := b.journal.Run(ctx); err != nil {
		tb.Error(err)
	}
}

// bound returns the numbers of all bindings.
func (b *bindings) bound(tb testing.TB) map[string]int {
	all := make(map[string]int)
	b.table.Each(func(aor string, some []location.Binding) bool {
		n, err := strconv.Atoi(some[0].CallID)
		if err != nil || len(some) != 1 {
			tb.Errorf("%s: %+v", aor, some)
		}
		all[aor] = n
		return true
	})
	return all
}

// TestBindingsTorn cuts the journal anywhere, as a crash may: each address of record has a binding that it had then.
func TestBindingsTorn(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	b := openBindings(t, directory)
	names := []string{"sip:a@example.jp", "sip:b@example.jp", "sip:c@example.jp"}
	for number := range 3 {
		for _, aor := range names {
			b.bindAt(t, aor, number)
			b.write()
		}
	}
	b.unbind(t, names[2])
	b.close()
	paths, err := filepath.Glob(filepath.Join(directory, "bindings", "*.journal"))
	if err != nil || len(paths) != 1 {
		t.Fatal(paths, err)
	}
	whole, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	before := make(map[string]int)
	for length := len(whole) % 11; length <= len(whole); length += 11 {
		other := t.TempDir()
		path := filepath.Join(other, "bindings", filepath.Base(paths[0]))
		if err := errors.Join(os.Mkdir(filepath.Dir(path), 0o700), os.WriteFile(path, whole[:length], 0o600)); err != nil {
			t.Fatal(err)
		}
		b := openBindings(t, other)
		found := b.bound(t)
		for _, aor := range names {
			n, ok := found[aor]
			if was, had := before[aor]; had && (!ok && (aor != names[2] || was != 2) || n < was && ok) {
				t.Errorf("cut at %d: %s has %d, %v; it had %d", length, aor, n, ok, was)
			}
		}
		before = found
		if length%16 == 0 || length == len(whole) { // what comes later is kept too
			b.bindAt(t, names[0], 9)
			b.close()
			if b = openBindings(t, other); b.bound(t)[names[0]] != 9 {
				t.Errorf("cut at %d: then %v", length, b.bound(t))
			}
		}
		b.let(t)
	}
	if len(before) != 2 || before[names[0]] != 2 || before[names[1]] != 2 {
		t.Errorf("whole: %v", before)
	}
}

// TestBindingsKilled kills a process, with SIGKILL, that makes and removes bindings: the next one has all that were written,
// or what came after.
func TestBindingsKilled(t *testing.T) {
	t.Parallel()
	const env, most = "KYOZON_TEST_BINDINGS", 3
	aor := func(i int) string { return fmt.Sprintf("sip:%d@example.jp", i) }
	if directory := os.Getenv(env); directory != "" {
		b := openBindings(t, directory)
		number := 0
		for _, n := range b.bound(t) {
			number = max(number, n)
		}
		for i := rand.N(most); ; i = rand.N(most) {
			number++
			if rand.N(4) > 0 {
				b.bindAt(t, aor(i), number)
			} else {
				b.unbind(t, aor(i))
				b.bindAt(t, aor(i), number)
			}
			b.write()
			fmt.Println(i, number)
		}
	}
	directory := t.TempDir()
	kills := 4
	if os.Getenv("KYOZON_SOAK") != "" {
		kills = 300
	}
	told := make(map[string]int)
	for range kills {
		child := exec.Command(os.Args[0], "-test.run=^TestBindingsKilled$")
		child.Env = append(os.Environ(), env+"="+directory)
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for left := 1 + rand.N(60); lines.Scan(); left-- {
			var i, number int
			if n, err := fmt.Sscan(lines.Text(), &i, &number); n == 2 && err == nil {
				told[aor(i)] = number
			}
			if left == 0 {
				child.Process.Kill() // what it has said before it dies is read on
			}
		}
		child.Wait()
		b := openBindings(t, directory)
		found := b.bound(t)
		for aor, number := range told {
			if found[aor] < number {
				t.Errorf("%s has %d, and was told to have %d", aor, found[aor], number)
			}
		}
		b.close()
	}
	if len(told) != most {
		t.Errorf("only %d were heard of", len(told))
	}
}

// TestBindingsFormer: what an earlier version has left in its store is taken up once; what is newer stays.
func TestBindingsFormer(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	b := openBindings(t, directory)
	b.bindAt(t, "sip:new@example.jp", 7)
	b.close() // and was there later
	store, err := state.Open(filepath.Join(directory, formerBindings))
	if err != nil {
		t.Fatal(err)
	}
	value := func(number, expires, lifetime int64) []byte {
		return saved.AppendBindings(nil, []location.Binding{{Contact: "sip:a@192.0.2.1", CallID: strconv.FormatInt(number, 10), Way: deviceWay(), Expires: expires}},
			expires-lifetime)
	}
	at := now()
	for key, text := range map[string][]byte{"b/sip:old@example.jp": value(1, at+300, 300), "b/sip:new@example.jp": value(2, at+300, 300),
		"b/sip:over@example.jp": value(3, at-100, 100), "b/sip:refreshed@example.jp": value(4, at-100, 300), "b/broken": []byte("x"),
		"last": binary.LittleEndian.AppendUint64(nil, uint64(at-200))} {
		if err := store.Apply(t.Context(), state.Op{Key: []byte(key), Value: text, Revision: state.Any}); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	b = newBindings(directory, location.New(), new(agents), slog.New(slog.DiscardHandler))
	if n, err := b.read(at); n != 3 || !errors.Is(err, saved.ErrForm) {
		t.Errorf("%d are taken up: %v, want 3 and %v", n, err, saved.ErrForm)
	}
	if _, err := os.Stat(filepath.Join(directory, formerBindings)); err != nil {
		t.Errorf("the store is gone before all is written: %v", err)
	}
	b.close()
	if _, err := os.Stat(filepath.Join(directory, formerBindings)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the store is there still: %v", err)
	}
	b = openBindings(t, directory)
	defer b.close()
	got := b.bound(t)
	if len(got) != 3 || got["sip:old@example.jp"] != 1 || got["sip:new@example.jp"] != 7 || got["sip:refreshed@example.jp"] != 4 {
		t.Errorf("got %v", got)
	}
}

// TestBindingsPutBack: an older version that was put back for a time has newer bindings than the journal.
func TestBindingsPutBack(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	b := openBindings(t, directory)
	b.bindAt(t, "sip:a@example.jp", 1)
	b.close()
	store, err := state.Open(filepath.Join(directory, formerBindings))
	if err != nil {
		t.Fatal(err)
	}
	at := now()
	text := saved.AppendBindings(nil, []location.Binding{{Contact: "sip:a@192.0.2.1", CallID: "2", Way: deviceWay(), Expires: at + 300}}, at)
	if err := store.Apply(t.Context(), state.Op{Key: []byte("b/sip:a@example.jp"), Value: text, Revision: state.Any},
		state.Op{Key: []byte("last"), Value: binary.LittleEndian.AppendUint64(nil, uint64(at+100)), Revision: state.Any}); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		b = openBindings(t, directory)
		if got := b.bound(t); len(got) != 1 || got["sip:a@example.jp"] != 2 {
			t.Errorf("got %v", got)
		}
		b.close()
	}
}

// TestBindingsNewer: what a newer version has written is kept for it until the subscriber registers again.
func TestBindingsNewer(t *testing.T) {
	t.Parallel()
	directory := t.TempDir()
	b := openBindings(t, directory)
	b.write() // so that somebody runs the journal
	const a, other = "sip:a@example.jp", "sip:b@example.jp"
	for _, aor := range []string{a, other} {
		text := saved.AppendHome(nil, aor, []location.Binding{{Contact: "sip:a@192.0.2.1", CallID: "1", Way: deviceWay(), Expires: now() + 300}}, now())
		text[1+len(aor)]++
		b.journal.Append(bound, nil, text)
	}
	b.close()
	b = openBindings(t, directory)
	if n := b.table.Len(); n != 0 || b.record(a) == 0 || b.record(other) == 0 {
		t.Errorf("%d are bound, records %d and %d", n, b.record(a), b.record(other))
	}
	newer := b.record(other)
	b.bindAt(t, a, 2)
	b.close()
	if err := b.reopen(); err != nil {
		t.Fatal(err)
	}
	b.close()
	b = openBindings(t, directory)
	defer b.close()
	if got := b.bound(t); len(got) != 1 || got[a] != 2 || b.record(other) != newer {
		t.Errorf("got %v, records %d and %d, want the second to be %d", got, b.record(a), b.record(other), newer)
	}
}
