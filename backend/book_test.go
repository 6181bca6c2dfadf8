// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"errors"
	"testing"
	"time"
)

// TestEject is the life of one backend of two, second by second.
func TestEject(t *testing.T) {
	t.Parallel()
	const second = int64(time.Second)
	p := newPool(RoundRobin, servers(1, 1)) // three failures eject for 10 s
	b := &p.backends[0]
	fail := func(at int64) { b.take(); b.Failed(at * second) }
	steps := []struct {
		name    string
		do      func()
		at      int64
		ejected time.Duration
	}{
		{"two failures", func() { fail(1); fail(2) }, 2, 0},
		{"a success between", func() { b.Connected() }, 2, 0},
		{"two more", func() { fail(3); fail(3) }, 3, 0},
		{"the third", func() { fail(4) }, 4, 10 * time.Second},
		{"connects that were under way", func() { fail(5); fail(5); fail(5) }, 5, 9 * time.Second},
		{"the end", func() {}, 14, 0},
		{"fails at once: twice as long", func() { fail(20) }, 20, 20 * time.Second},
		{"and again", func() { fail(40) }, 40, 40 * time.Second},
		{"and again", func() { fail(80) }, 80, 80 * time.Second},
		{"and again", func() { fail(160) }, 160, 160 * time.Second},
		{"no longer than that", func() { fail(320) }, 320, 160 * time.Second},
		{"a success ends it", func() { b.Connected() }, 320, 0},
		{"as if nothing had been", func() { fail(321); fail(321); fail(321) }, 321, 10 * time.Second},
	}
	for _, step := range steps {
		step.do()
		if got := b.tally.ejected(step.at * second); got != step.ejected {
			t.Fatalf("%s: passed over for %v, want %v", step.name, got, step.ejected)
		}
		if got, want := b.Available(step.at*second), step.ejected == 0; got != want {
			t.Fatalf("%s: available %v, want %v", step.name, got, want)
		}
	}
	if n := b.Flows(); n != 0 {
		t.Errorf("%d flows are left", n)
	}
}

func TestEjectNever(t *testing.T) {
	t.Parallel()
	p := newPool(RoundRobin, servers(1, 1))
	p.health.Eject = 0
	for range 100 {
		p.backends[0].take()
		p.backends[0].Failed(0)
	}
	if !p.backends[0].Available(0) {
		t.Error("ejected")
	}
}

// TestBook: a generation finds the flows and the ejections of the one before.
func TestBook(t *testing.T) {
	t.Parallel()
	book := NewBook(1)
	s := servers(1, 1)
	s[0].Cap = 2
	build := func(name, service string) *Pool {
		return NewPool(PoolOptions{Service: service, Spec: Spec{Name: name, Servers: s, Pick: FewestFlows}, Book: book,
			Health: Health{Eject: 1, EjectFor: time.Minute}})
	}
	old := build("existing", "shop")
	flow := &old.backends[0]
	flow.take()
	flow.take()
	old.backends[1].take()
	old.backends[1].Failed(0)

	next := build("renamed", "shop")
	if n := next.backends[0].Flows(); n != 2 || next.backends[0].Available(0) {
		t.Errorf("got %d flows, want 2 and full", n)
	}
	if next.backends[1].Available(1) {
		t.Error("the ejection is forgotten")
	}
	if n := build("existing", "mail").backends[0].Flows(); n != 0 {
		t.Errorf("another service counts %d flows", n)
	}
	old.Close()
	flow.Released()
	if n := next.backends[0].Flows(); n != 1 {
		t.Errorf("got %d flows after one of the old ones has ended, want 1", n)
	}
	next.Close()
	if n := len(book.tallies); n != 3 { // the one with a flow, and the two of mail
		t.Errorf("%d tallies are left, want 3", n)
	}
	again := build("existing", "shop")
	if n := again.backends[0].Flows(); n != 1 {
		t.Errorf("got %d flows, want the one that has outlived its pools", n)
	}
	flow.Released()
	again.Close()
	if n := len(book.tallies); n != 2 {
		t.Errorf("%d tallies are left, want 2", n)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	const now = int64(time.Hour)
	check := func(answers ...error) func(*Backend) {
		return func(b *Backend) {
			b.verdict = newVerdict(Check{Rise: 1, Fall: 1})
			for _, a := range answers {
				b.verdict.record(a, now-int64(5*time.Second))
			}
		}
	}
	ill := errors.New("connect: connection refused")
	tests := []struct {
		name, state, reason string
		make                func(*Backend)
	}{
		{"never asked", "up", "", func(*Backend) {}},
		{"not answered", "down", "not answered yet", check()},
		{"up", "up", "", check(nil)},
		{"down", "down", "connect: connection refused", check(ill)},
		{"recovered", "slow-start", "has 55 % of its share", check(ill, nil)},
		{"draining", "draining", "", func(b *Backend) { b.Drain = true }},
		{"ejected", "ejected", "1 connects in a row have failed; passed over for another 7s", func(b *Backend) {
			b.take()
			b.Failed(now - int64(3*time.Second))
		}},
	}
	for _, test := range tests {
		p := NewPool(PoolOptions{Service: "shop", Spec: Spec{Name: "existing", Servers: servers(2, 1)}, Book: NewBook(1),
			Health: Health{Eject: 1, EjectFor: 10 * time.Second, SlowStart: 10 * time.Second}})
		test.make(&p.backends[0])
		s := p.Status(now)[0]
		if s.State != test.state || s.Reason != test.reason {
			t.Errorf("%s: got %s (%s), want %s (%s)", test.name, s.State, s.Reason, test.state, test.reason)
		}
		if got, want := s.Available(), test.state == "up" || test.state == "slow-start"; got != want {
			t.Errorf("%s: available %v", test.name, got)
		}
		if s.Service != "shop" || s.Pool != "existing" || s.Address != p.backends[0].Addr || s.Weight != 2 {
			t.Errorf("%s: got %+v", test.name, s)
		}
	}
}
