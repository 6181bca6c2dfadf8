// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package location

import (
	"errors"
	"fmt"
	"hash/maphash"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

const aor = "sip:05010001234@voip.example.jp"

// from is the way of a device at an address.
func from(addr string) sip.Way {
	a := netip.MustParseAddrPort(addr)
	local := "203.0.113.11:5060"
	if a.Addr().Is6() {
		local = "[2001:db8:100::50]:5060"
	}
	return sip.Way{Local: netip.MustParseAddrPort(local), Remote: a}
}

// contact reads "URI lifetime [instance reg-id]".
func contact(t *testing.T, text string) Contact {
	t.Helper()
	c := Contact{Quality: 1000}
	words := strings.Fields(text)
	c.URI = []byte(words[0])
	if _, err := fmt.Sscan(words[1], &c.Lifetime); err != nil {
		t.Fatal(err)
	}
	if len(words) == 4 {
		c.Instance = []byte(words[2])
		if _, err := fmt.Sscan(words[3], &c.Flow); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

func show(all []Binding) string {
	var s []string
	for _, b := range all {
		s = append(s, fmt.Sprintf("%s@%d", b.Contact, b.Expires))
	}
	return strings.Join(s, " ")
}

// TestUpdate is RFC 3261 §10.3 and RFC 5626 §6 as a story of one address of record. Each step is at its own second.
func TestUpdate(t *testing.T) {
	t.Parallel()
	table := New()
	for i, step := range []struct {
		callID   string
		seq      uint32
		contacts string // by ", "; "*" clears
		want     string
		changed  bool
		err      error
	}{
		{"a", 1, "sip:u@192.0.2.1 60", "sip:u@192.0.2.1@60", true, nil},
		{"a", 2, "sip:u@192.0.2.1 60", "sip:u@192.0.2.1@61", false, nil},      // a refresh
		{"a", 2, "sip:u@192.0.2.1 60", "sip:u@192.0.2.1@61", false, ErrOrder}, // it came again
		{"a", 1, "sip:u@192.0.2.1 0", "sip:u@192.0.2.1@61", false, ErrOrder},  // and late
		{"b", 1, "sip:u@192.0.2.1:5060;x=1 60", "sip:u@192.0.2.1@61 sip:u@192.0.2.1:5060;x=1@64", true, nil},
		{"b", 2, "sip:U@192.0.2.1 60", "sip:u@192.0.2.1@61 sip:u@192.0.2.1:5060;x=1@64 sip:U@192.0.2.1@65", true, nil}, // users have a case
		{"b", 3, "sip:u@192.0.2.1 90", "sip:u@192.0.2.1@96 sip:u@192.0.2.1:5060;x=1@64 sip:U@192.0.2.1@65", true, nil}, // another Call-ID
		{"b", 4, "sip:u@192.0.2.1 0, sip:nobody@192.0.2.1 0", "sip:u@192.0.2.1:5060;x=1@64 sip:U@192.0.2.1@65", true, nil},
		{"b", 2, "sip:new@192.0.2.1 9, sip:U@192.0.2.1 9", "sip:u@192.0.2.1:5060;x=1@64 sip:U@192.0.2.1@65", false, ErrOrder}, // all or nothing
		{"b", 2, "*", "sip:u@192.0.2.1:5060;x=1@64 sip:U@192.0.2.1@65", false, ErrOrder},
		{"c", 1, "*", "", true, nil},
		{"c", 2, "sip:a@192.0.2.1 60 <urn:uuid:1> 1, sip:b@192.0.2.1 60 <urn:uuid:1> 2", "sip:a@192.0.2.1@71 sip:b@192.0.2.1@71", true, nil},
		{"d", 1, "sip:moved@192.0.2.9 60 <urn:uuid:1> 2", "sip:a@192.0.2.1@71 sip:moved@192.0.2.9@72", true, nil}, // the same flow
	} {
		u := &Update{CallID: []byte(step.callID), Sequence: step.seq, Way: from("192.0.2.1:5060")}
		if step.contacts == "*" {
			u.Clear = true
		} else {
			for c := range strings.SplitSeq(step.contacts, ", ") {
				u.Contacts = append(u.Contacts, contact(t, c))
			}
		}
		got, changed, err := table.Update(aor, u, int64(i))
		if show(got) != step.want || changed != step.changed || !errors.Is(err, step.err) {
			t.Errorf("step %d: got %q, changed %v, %v, want %q, %v, %v", i, show(got), changed, err, step.want, step.changed, step.err)
		}
	}
}

func TestMany(t *testing.T) {
	t.Parallel()
	table := New()
	u := &Update{CallID: []byte("a"), Sequence: 1, Way: from("[2001:db8::1]:5060")}
	for i := range MaxBindings + 1 {
		u.Contacts = append(u.Contacts, Contact{URI: []byte(fmt.Sprintf("sip:u@[2001:db8::%x]", i)), Lifetime: 60})
	}
	if got, _, err := table.Update(aor, u, 0); !errors.Is(err, ErrMany) || len(got) > 0 {
		t.Errorf("got %d bindings, %v", len(got), err)
	}
	u.Contacts = u.Contacts[:MaxBindings]
	if got, _, err := table.Update(aor, u, 0); err != nil || len(got) != MaxBindings {
		t.Errorf("got %d bindings, %v", len(got), err)
	}
}

// TestLook: a device with both families is one, by IPv6 first; what has expired is not there, and is forgotten.
func TestLook(t *testing.T) {
	t.Parallel()
	table := New()
	register := func(seq uint32, addr, instance string, flow uint32, q uint16, lifetime int64) {
		t.Helper()
		u := &Update{CallID: []byte(addr), Sequence: seq, Way: from(addr), Contacts: []Contact{
			{URI: []byte("sip:u@" + addr), Instance: []byte(instance), Flow: flow, Quality: q, Lifetime: lifetime}}}
		if _, _, err := table.Update(aor, u, 0); err != nil {
			t.Fatal(err)
		}
	}
	register(1, "192.0.2.1:5060", "<urn:uuid:ta>", 1, 1000, 60)
	register(1, "[2001:db8::1]:5060", "<urn:uuid:ta>", 2, 1000, 50)
	register(1, "192.0.2.7:5060", "", 0, 500, 10)
	register(1, "192.0.2.8:5060", "", 0, 1000, 55)
	devices := func(now int64) string {
		var s []string
		for _, d := range table.Look(aor, now) {
			var ways []string
			for _, b := range d.Bindings {
				ways = append(ways, b.Way.Remote.String())
			}
			s = append(s, strings.Join(ways, "+"))
		}
		return strings.Join(s, " ")
	}
	if got, want := devices(0), "[2001:db8::1]:5060+192.0.2.1:5060 192.0.2.8:5060 192.0.2.7:5060"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := devices(50), "192.0.2.1:5060 192.0.2.8:5060"; got != want {
		t.Errorf("later got  %s\nwant %s", got, want)
	}
	if table.Look("sip:nobody@voip.example.jp", 0) != nil {
		t.Error("nobody is somewhere")
	}
	for i := range Parts {
		table.Sweep(i, 59)
	}
	n := 0
	table.Each(func(_ string, all []Binding) bool {
		n += len(all)
		return true
	})
	if n != 1 || table.Len() != 1 {
		t.Errorf("%d bindings are left of %d, want 1 of 1", n, table.Len())
	}
	for i := range Parts {
		table.Sweep(i, 60)
	}
	if table.Len() != 0 {
		t.Error("what has expired is still there")
	}
}

// TestDrop: a connection that has ended takes its bindings along, and no others.
func TestDrop(t *testing.T) {
	t.Parallel()
	table := New()
	for flow := range uint64(2) {
		way := from("[2001:db8::1]:5060")
		way.Flow = flow + 1
		u := &Update{CallID: []byte(fmt.Sprint(flow)), Sequence: 1, Way: way, Contacts: []Contact{{URI: []byte(fmt.Sprintf("sip:%d@x", flow)), Lifetime: 60}}}
		if _, _, err := table.Update(aor, u, 0); err != nil {
			t.Fatal(err)
		}
	}
	table.Drop(aor, 1)
	if d := table.Look(aor, 0); len(d) != 1 || d[0].Bindings[0].Way.Flow != 2 {
		t.Errorf("got %v", d)
	}
	table.Drop(aor, 2)
	if table.Len() != 0 {
		t.Error("not empty")
	}
}

// TestAtOnce is for the race detector.
func TestAtOnce(t *testing.T) {
	t.Parallel()
	table := New()
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range 500 {
				name := fmt.Sprintf("sip:%d@x", i%7)
				u := &Update{CallID: []byte(fmt.Sprint(g)), Sequence: uint32(i), Contacts: []Contact{{URI: []byte(fmt.Sprintf("sip:%d@y", g)), Lifetime: int64(i % 3)}}}
				table.Update(name, u, int64(i))
				table.Look(name, int64(i))
				table.Sweep(i, int64(i))
				table.Drop(name, uint64(g+1))
			}
		})
	}
	wg.Wait()
}

// BenchmarkRegister refreshes one of many bindings. The memory of one is reported as bytes/binding.
func BenchmarkRegister(b *testing.B) {
	const many = 100_000
	table := New()
	names, homes := make([]string, many), make([]Memory, many)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	u := Update{Sequence: 1, Way: from("[2001:db8::1]:5060")}
	update := func(i int, seq uint32) {
		u.Sequence, u.CallID = seq, fmt.Appendf(nil, "%d-5e8f1a2b3c4d@2001:db8::%x", i, i)
		u.Contacts = []Contact{{URI: []byte(fmt.Sprintf("sip:050%08d@[2001:db8::%x]:5060", i, i)), Lifetime: 300, Quality: 1000}}
		u.Home = &homes[i]
		if _, _, err := table.Update(names[i], &u, 0); err != nil {
			b.Fatal(err)
		}
	}
	for i := range names {
		names[i] = fmt.Sprintf("sip:050%08d@voip.example.jp", i)
		update(i, 1)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportAllocs()
	seq := uint32(1)
	for i := 0; b.Loop(); i++ {
		if i%many == 0 {
			seq++
		}
		update(i%many, seq)
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/many, "bytes/binding")
}

// TestMemory: who remembers where an address of record is gets and changes the same as who does not, also when the table has
// forgotten it in between.
func TestMemory(t *testing.T) {
	t.Parallel()
	table := New()
	var m, other Memory
	u := &Update{CallID: []byte("id")}
	update := func(m *Memory, now int64, contacts ...string) string {
		t.Helper()
		u.Sequence++
		u.Home, u.Contacts, u.Room = m, nil, nil
		for _, c := range contacts {
			u.Contacts = append(u.Contacts, contact(t, c))
		}
		all, _, err := table.Update(aor, u, now)
		if err != nil {
			t.Fatal(err)
		}
		if got := show(table.Get(aor)); got != show(all) {
			t.Errorf("at %d: the table has %q, the answer says %q", now, got, show(all))
		}
		return show(all)
	}
	for i, step := range []struct {
		m        *Memory
		now      int64
		contacts string
		want     string
	}{
		{&m, 0, "sip:a 60", "sip:a@60"},
		{&other, 1, "sip:a 60", "sip:a@61"},
		{&m, 2, "sip:a 60", "sip:a@62"},
		{&m, 3, "sip:b 10", "sip:a@62 sip:b@13"},
		{&other, 4, "sip:b 20", "sip:a@62 sip:b@24"},
		{&m, 24, "sip:a 60", "sip:a@84"},
		{&other, 25, "sip:a 0", ""},
		{&other, 26, "sip:b 60", "sip:b@86"},
		{&m, 27, "sip:a 60", "sip:b@86 sip:a@87"},
		{nil, 28, "sip:b 0", "sip:a@87"},
		{&other, 29, "sip:a 60", "sip:a@89"},
	} {
		if got := update(step.m, step.now, step.contacts); got != step.want {
			t.Errorf("step %d: got %q, want %q", i, got, step.want)
		}
	}
	table.Sweep(int(maphash.String(table.seed, aor)%Parts), 100)
	if table.Len() != 0 || table.Count(ip.V4) != 0 || table.Count(ip.V6) != 0 {
		t.Error("the table has not forgotten it")
	}
	if got := update(&m, 101, "sip:a 60"); got != "sip:a@161" || table.Len() != 1 {
		t.Errorf("after it was forgotten: %q, %d", got, table.Len())
	}
	u.Sequence--
	if _, _, err := table.Update(aor, u, 102); !errors.Is(err, ErrOrder) {
		t.Errorf("the same again: %v", err)
	}
}

// Who keeps bindings elsewhere is told when they are others, and not when they last longer.
func TestChanged(t *testing.T) {
	t.Parallel()
	table := New()
	var got []string
	table.Changed = func(aor string) { got = append(got, aor) }
	u := &Update{CallID: []byte("id"), Sequence: 1, Contacts: []Contact{{URI: []byte("sip:a@192.0.2.1"), Lifetime: 60}}}
	update := func(wipe bool) {
		u.Sequence++
		u.Clear = wipe
		if _, _, err := table.Update("sip:a@example.jp", u, 1000); err != nil {
			t.Fatal(err)
		}
	}
	want := func(n int) {
		t.Helper()
		if len(got) != n {
			t.Errorf("told %d times, want %d", len(got), n)
		}
	}
	update(false)
	want(1)
	update(false)
	want(1)
	update(true)
	want(2)
	update(true)
	want(2)
	update(false)
	for i := range Parts {
		table.Sweep(i, 1059)
	}
	want(3)
	for i := range Parts {
		table.Sweep(i, 1060)
	}
	want(4)
	update(false)
	table.Drop("sip:a@example.jp", 0)
	want(6)
}
