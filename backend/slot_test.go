// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"testing"

	"github.com/kyozon/kyozon/ip"
)

// TestAt: the table by slots says what Next does for each client, whose pools pick by Hash; of a client whose pool is
// down the fallback, and of one without any nothing.
func TestAt(t *testing.T) {
	t.Parallel()
	s := servers(1, 2, 1, 1)
	pools := map[string]*Pool{"a": newPool(Hash, s[:2]), "b": newPool(Hash, s[2:3]), "c": newPool(Hash, s[3:])}
	r, err := NewRoute("x", RouteSpec{Shares: []Share{{"a", 70}, {"b", 30}}, Fallback: []string{"c"}}, pools)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Sticky() {
		t.Error("a route with shares is not sticky")
	}
	pools["b"].backends[0].Drain = true
	counts := make(map[*Backend]int)
	for i := range uint64(5000) {
		key := ip.Mix(i)
		var tried Tried
		want, _, err := r.Next(key, 0, &tried)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.At(key%Slots, 0); got != want {
			t.Fatalf("key %d: the table has %v, the flow gets %v", key, got.Addr, want.Addr)
		}
		counts[want]++
	}
	for _, p := range []string{"a", "c"} {
		for i := range pools[p].backends {
			if counts[&pools[p].backends[i]] == 0 {
				t.Errorf("nobody went to %v of pool %s", pools[p].backends[i].Addr, p)
			}
		}
	}
	for _, p := range pools {
		for i := range p.backends {
			p.backends[i].Drain = true
		}
	}
	if got := r.At(7, 0); got != nil {
		t.Errorf("the table has %v, though no backend is up", got.Addr)
	}
}

// TestServing: a route of one pool that picks in turn has that pool's backends that are well, or its fallback's.
func TestServing(t *testing.T) {
	t.Parallel()
	s := servers(1, 3, 1)
	pools := map[string]*Pool{"a": newPool(RoundRobin, s[:2]), "b": newPool(RoundRobin, s[2:])}
	r, err := NewRoute("x", RouteSpec{Shares: []Share{{"a", 100}}, Fallback: []string{"b"}}, pools)
	if err != nil {
		t.Fatal(err)
	}
	a := pools["a"].Backends()
	if got := r.Serving(0); r.Sticky() || len(got) != 2 || got[0] != a[0] || got[1] != a[1] {
		t.Errorf("got %v", got)
	}
	one, _ := a[0].Share(0)
	three, _ := a[1].Share(0)
	if three != 3*one {
		t.Errorf("shares are %d and %d, want three times as much", one, three)
	}
	a[0].Hold(ForWay, "not proved")
	if got := r.Serving(0); len(got) != 1 || got[0] != a[1] {
		t.Errorf("with one held: got %v", got)
	}
	a[1].Hold(ForWay, "not proved")
	if got := r.Serving(0); len(got) != 1 || got[0] != pools["b"].Backends()[0] {
		t.Errorf("with all held: got %v", got)
	}
	if share, _ := a[0].Share(0); share != 0 {
		t.Errorf("one that is held has a share of %d", share)
	}
}
