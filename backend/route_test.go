// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"errors"
	"math"
	"net/netip"
	"strconv"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
)

// newRoute returns a route over pools of the given sizes.
func newRoute(t *testing.T, spec RouteSpec, sizes map[string]int) (*Route, map[string]*Pool) {
	t.Helper()
	pools := make(map[string]*Pool)
	network := byte(0)
	for name, n := range sizes {
		s := make([]Server, n)
		network++
		for i := range s {
			s[i].Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, network, 0, byte(i)}), 80)
		}
		pools[name] = NewPool(PoolOptions{Service: "shop", Spec: Spec{Name: name, Servers: s, Pick: Hash}, Book: NewBook(1),
			Health: Health{Eject: 1, EjectFor: time.Minute}})
	}
	r, err := NewRoute("shop", spec, pools)
	if err != nil {
		t.Fatal(err)
	}
	return r, pools
}

func shares(s ...any) RouteSpec {
	var r RouteSpec
	for i := 0; i < len(s); i += 2 {
		r.Shares = append(r.Shares, Share{s[i].(string), s[i+1].(float64)})
	}
	return r
}

// subscribers is how many client prefixes the shares are checked with.
const subscribers = 100_000

// members returns the pool of each subscriber: a /64 each out of one /40.
func members(r *Route) []string {
	all := make([]string, subscribers)
	b := netip.MustParseAddr("2001:db8:12::1").As16()
	for i := range all {
		b[5], b[6], b[7] = byte(i>>16), byte(i>>8), byte(i)
		all[i] = r.Choose(ip.Key(netip.AddrFrom16(b))).Spec.Name
	}
	return all
}

// TestShares: each pool gets its share of the clients, within one percent of all.
func TestShares(t *testing.T) {
	t.Parallel()
	tests := []RouteSpec{
		shares("existing", 100.),
		shares("new", 1., "existing", 99.),
		shares("new", 0.5, "existing", 99.5),
		shares("new", 20., "existing", 80.),
		shares("new", 0., "existing", 100.),
		shares("new", 10., "existing", 60., "third", 30.),
	}
	for _, spec := range tests {
		r, _ := newRoute(t, spec, map[string]int{"new": 1, "existing": 1, "third": 1})
		all := members(r)
		for _, s := range spec.Shares {
			if got := 100 * part(all, s.Pool); math.Abs(got-s.Percent) > 1 || s.Percent == 0 && got != 0 {
				t.Errorf("%v: %s got %.2f %% of the clients", spec.Shares, s.Pool, got)
			}
		}
	}
}

// TestRaise: raising a share moves the clients that it gains, and nobody else.
func TestRaise(t *testing.T) {
	t.Parallel()
	sizes := map[string]int{"new": 1, "existing": 1}
	r, _ := newRoute(t, shares("new", 0., "existing", 100.), sizes)
	last := members(r)
	for _, percent := range []float64{1, 10, 20, 50, 99, 100} {
		r, _ := newRoute(t, shares("new", percent, "existing", 100-percent), sizes)
		next := members(r)
		moved := 0
		for i := range next {
			if next[i] == last[i] {
				continue
			}
			moved++
			if next[i] != "new" {
				t.Fatalf("at %v %% client %d went from %s to %s", percent, i, last[i], next[i])
			}
		}
		gained := 100 * (part(next, "new") - part(last, "new"))
		if got := 100 * float64(moved) / subscribers; math.Abs(got-gained) > 1e-9 {
			t.Errorf("at %v %%: %.2f %% moved, %.2f %% were gained", percent, got, gained)
		}
		last = next
	}
}

// TestSticky: one client, known by its prefix, stays with its pool and its backend from any of its addresses.
func TestSticky(t *testing.T) {
	t.Parallel()
	r, _ := newRoute(t, shares("new", 50., "existing", 50.), map[string]int{"new": 5, "existing": 5})
	for i := range byte(100) {
		a := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 7: i, 15: 1})
		want, _, _ := r.Next(ip.Key(a), 0, new(Tried))
		b := netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 7: i, 8: 0xab, 15: i})
		if got, _, _ := r.Next(ip.Key(b), 0, new(Tried)); got != want {
			t.Fatalf("%v and %v got different backends", a, b)
		}
	}
}

func TestFallback(t *testing.T) {
	t.Parallel()
	down := func(p *Pool) {
		for i := range p.backends {
			p.backends[i].set(0)
		}
	}
	full := func(p *Pool) {
		for i := range p.backends {
			p.backends[i].Cap = 1
			p.backends[i].take()
		}
	}
	drain := func(p *Pool) {
		for i := range p.backends {
			p.backends[i].Drain = true
		}
	}
	eject := func(p *Pool) {
		for i := range p.backends {
			p.backends[i].take()
			p.backends[i].Failed(0)
		}
	}
	tests := []struct {
		name string
		do   map[string]func(*Pool)
		want string
		err  error
	}{
		{"all well", nil, "new", nil},
		{"down", map[string]func(*Pool){"new": down}, "existing", nil},
		{"full", map[string]func(*Pool){"new": full}, "existing", nil},
		{"draining", map[string]func(*Pool){"new": drain}, "existing", nil},
		{"ejected", map[string]func(*Pool){"new": eject}, "existing", nil},
		{"in order", map[string]func(*Pool){"new": down, "existing": full}, "last", nil},
		{"ejected is better than nothing", map[string]func(*Pool){"new": eject, "existing": down, "last": down}, "new", nil},
		{"all down", map[string]func(*Pool){"new": down, "existing": down, "last": drain}, "", ErrNoneUp},
		{"one is only full", map[string]func(*Pool){"new": down, "existing": full, "last": down}, "", ErrFull},
	}
	for _, test := range tests {
		spec := shares("new", 100.)
		spec.Fallback = []string{"existing", "last"}
		r, pools := newRoute(t, spec, map[string]int{"new": 2, "existing": 2, "last": 1})
		for name, do := range test.do {
			do(pools[name])
		}
		b, p, err := r.Next(7, 1, new(Tried))
		if !errors.Is(err, test.err) || err == nil && (p != pools[test.want] || b.Pool() != p) {
			t.Errorf("%s: got %v, %v, want %s", test.name, p, err, test.want)
		}
	}
}

// TestTries: a flow gets each backend once, at most three of a pool and eight in all.
func TestTries(t *testing.T) {
	t.Parallel()
	spec := shares("a", 100.)
	spec.Fallback = []string{"b", "a", "c", "d"}
	tests := []struct {
		sizes map[string]int
		want  []string
	}{
		{map[string]int{"a": 2, "b": 1, "c": 0, "d": 0}, []string{"a", "a", "b"}},
		{map[string]int{"a": 5, "b": 5, "c": 0, "d": 1}, []string{"a", "a", "a", "b", "b", "b", "d"}},
		{map[string]int{"a": 5, "b": 5, "c": 5, "d": 5}, []string{"a", "a", "a", "b", "b", "b", "c", "c"}},
	}
	for _, test := range tests {
		r, _ := newRoute(t, spec, test.sizes)
		var tried Tried
		seen := make(map[*Backend]bool)
		for i, want := range test.want {
			b, p, err := r.Next(7, 0, &tried)
			if err != nil || p.Spec.Name != want || seen[b] {
				t.Fatalf("%v: try %d: got %v of %v, %v", test.sizes, i, b, p, err)
			}
			seen[b] = true
		}
		if _, _, err := r.Next(7, 0, &tried); !errors.Is(err, ErrNoneUp) || tried.Len() != len(test.want) {
			t.Errorf("%v: got %v after %d tries", test.sizes, err, tried.Len())
		}
	}
}

// TestTriedElsewhere: a server that is in two pools is not tried twice.
func TestTriedElsewhere(t *testing.T) {
	t.Parallel()
	book := NewBook(1)
	pools := make(map[string]*Pool)
	for _, name := range []string{"new", "existing"} {
		pools[name] = NewPool(PoolOptions{Service: "shop", Spec: Spec{Name: name, Servers: servers(1)}, Book: book})
	}
	spec := shares("new", 100.)
	spec.Fallback = []string{"existing"}
	r, err := NewRoute("shop", spec, pools)
	if err != nil {
		t.Fatal(err)
	}
	var tried Tried
	r.Next(7, 0, &tried)
	if b, _, err := r.Next(7, 0, &tried); !errors.Is(err, ErrNoneUp) {
		t.Errorf("got %v, %v", b, err)
	}
}

func TestPools(t *testing.T) {
	t.Parallel()
	spec := shares("new", 20., "existing", 80.)
	spec.Fallback = []string{"existing", "last"}
	r, pools := newRoute(t, spec, map[string]int{"new": 1, "existing": 1, "last": 1})
	got := r.Pools()
	for i, want := range []string{"new", "existing", "last"} {
		if len(got) != 3 || got[i] != pools[want] {
			t.Fatalf("got %v", got)
		}
	}
}

func TestNewRouteErrors(t *testing.T) {
	t.Parallel()
	fallback := shares("new", 100.)
	fallback.Fallback = []string{"old"}
	for want, spec := range map[string]RouteSpec{
		`build route of shop: no pool "gone"`:      shares("gone", 100.),
		`build route of shop: no pool "old"`:       fallback,
		`build route of shop: no pool has a share`: shares("new", 0.),
	} {
		pools := map[string]*Pool{"new": newPool(Hash, servers(1))}
		if _, err := NewRoute("shop", spec, pools); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestNextAllocs(t *testing.T) {
	spec := shares("new", 20., "existing", 80.)
	spec.Fallback = []string{"last"}
	r, pools := newRoute(t, spec, map[string]int{"new": 3, "existing": 3, "last": 1})
	pools["new"].backends[0].set(0)
	key := uint64(0)
	n := testing.AllocsPerRun(100, func() {
		key++
		var tried Tried
		for {
			b, _, err := r.Next(key, 0, &tried)
			if err != nil {
				return
			}
			b.Released()
		}
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkNext(b *testing.B) {
	for _, n := range []int{1, 2} {
		b.Run(strconv.Itoa(n)+" shares", func(b *testing.B) {
			spec := shares("new", 100.)
			if n == 2 {
				spec = shares("new", 20., "existing", 80.)
			}
			pools := make(map[string]*Pool)
			for _, name := range []string{"new", "existing"} {
				pools[name] = newPool(RoundRobin, servers(1, 1, 1, 1))
			}
			r, err := NewRoute("shop", spec, pools)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for key := uint64(0); b.Loop(); key++ {
				var tried Tried
				if x, _, err := r.Next(key, 0, &tried); err == nil {
					x.Released()
				}
			}
		})
	}
}
