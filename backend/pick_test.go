// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
)

// servers returns one server for each weight: 10.0.0.1:80, 10.0.0.2:80 and so on.
func servers(weights ...int) []Server {
	var all []Server
	for i, w := range weights {
		a := netip.AddrFrom4([4]byte{10, 0, byte(i / 250), byte(i%250 + 1)})
		all = append(all, Server{Addr: netip.AddrPortFrom(a, 80), Weight: w})
	}
	return all
}

// newPool returns a pool whose backends are up, since they are never asked.
func newPool(p Pick, servers []Server) *Pool {
	return NewPool(PoolOptions{Service: "shop", Spec: Spec{Name: "existing", Servers: servers, Pick: p}, Book: NewBook(1),
		Health: Health{Eject: 3, EjectFor: 10 * time.Second}})
}

// set makes b up since the given time of the keeper's clock, or down (0).
func (b *Backend) set(up int64) {
	if b.verdict == nil {
		b.verdict = newVerdict(Check{})
	}
	b.verdict.up.Store(up)
}

func pick(t *testing.T, p *Pool, key uint64, now int64) *Backend {
	t.Helper()
	b, err := p.Pick(key, now, new(Tried))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// letter names the backends of a pool a, b, c …
func letter(p *Pool, b *Backend) string {
	for i := range p.backends {
		if b == &p.backends[i] {
			return string(rune('a' + i))
		}
	}
	return "?"
}

func sequence(t *testing.T, p *Pool, n int) string {
	t.Helper()
	var s strings.Builder
	for range n {
		b := pick(t, p, 0, 0)
		b.Released()
		s.WriteString(letter(p, b))
	}
	return s.String()
}

func TestRoundRobin(t *testing.T) {
	t.Parallel()
	tests := []struct {
		weights []int
		want    string
	}{
		{[]int{1}, "aaa"},
		{[]int{1, 1, 1}, "abcabcabc"},
		{[]int{0, 1}, "abab"},
		{[]int{2, 1}, "abaabaaba"},
		{[]int{5, 1, 1}, "aaabcaaaaabcaa"},
		{[]int{1, 256}, strings.Repeat("b", 128) + "a" + strings.Repeat("b", 128)},
	}
	for _, test := range tests {
		p := newPool(RoundRobin, servers(test.weights...))
		if got := sequence(t, p, len(test.want)); got != test.want {
			t.Errorf("weights %v: got %s, want %s", test.weights, got, test.want)
		}
	}
}

// TestRoundRobinReturn: who was away gets its share, and nothing to make up for.
func TestRoundRobinReturn(t *testing.T) {
	t.Parallel()
	p := newPool(RoundRobin, servers(1, 1, 1))
	b := &p.backends[1]
	b.set(0)
	if got, want := sequence(t, p, 30), strings.Repeat("ac", 15); got != want {
		t.Errorf("while b is down: got %s, want %s", got, want)
	}
	b.set(longUp)
	got := sequence(t, p, 30)
	if n := strings.Count(got, "b"); n < 10 || n > 11 || strings.Contains(got, "bb") {
		t.Errorf("when b is back: got %s, want a third for b, one at a time", got)
	}
}

// TestRoundRobinLoops: loops that pick at the same time together keep the shares.
func TestRoundRobinLoops(t *testing.T) {
	t.Parallel()
	p := newPool(RoundRobin, servers(1, 2, 3))
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1500 {
				p.Pick(0, 0, new(Tried))
			}
		})
	}
	wg.Wait()
	for i, want := range []int64{1000, 2000, 3000} {
		if got := p.backends[i].Flows(); got < want-5 || got > want+5 {
			t.Errorf("backend %d: got %d flows, want %d", i, got, want)
		}
	}
}

func TestFewestFlows(t *testing.T) {
	t.Parallel()
	p := newPool(FewestFlows, servers(1, 2, 1))
	for range 400 {
		pick(t, p, 0, 0)
	}
	for i, want := range []int64{100, 200, 100} {
		if got := p.backends[i].Flows(); got != want {
			t.Errorf("backend %d: got %d flows, want %d", i, got, want)
		}
	}
	for range 50 { // flows of b end: the next ones go there
		p.backends[1].Released()
	}
	for range 50 {
		if b := pick(t, p, 0, 0); b != &p.backends[1] {
			t.Fatalf("got %v, want the one with the fewest flows", b.Addr)
		}
	}
	equal := newPool(FewestFlows, servers(1, 1, 1))
	if got := sequence(t, equal, 6); got != "cabcab" {
		t.Errorf("equals: got %s, want one after the other", got)
	}
}

// keys is how many clients the properties of hashing are checked with.
const keys = 20_000

// assign returns which backend each client gets.
func assign(t *testing.T, p *Pool, now int64) []string {
	t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	all := make([]string, keys)
	for i := range all {
		b := pick(t, p, r.Uint64(), now)
		b.Released()
		all[i] = letter(p, b)
	}
	return all
}

// part returns the part of all that is s.
func part(all []string, s string) float64 {
	n := 0
	for _, x := range all {
		if x == s {
			n++
		}
	}
	return float64(n) / float64(len(all))
}

func TestHashShares(t *testing.T) {
	t.Parallel()
	p := newPool(Hash, servers(1, 2, 1, 4))
	all := assign(t, p, 0)
	for s, want := range map[string]float64{"a": 1. / 8, "b": 2. / 8, "c": 1. / 8, "d": 4. / 8} {
		if got := part(all, s); math.Abs(got-want) > 0.01 {
			t.Errorf("%s: got %.4f of the clients, want %.4f", s, got, want)
		}
	}
}

// TestHashDisruption: when a backend goes, only its own clients move; when it comes back, they come back.
func TestHashDisruption(t *testing.T) {
	t.Parallel()
	p := newPool(Hash, servers(1, 1, 2, 1))
	before := assign(t, p, 0)
	p.backends[2].set(0)
	without := assign(t, p, 0)
	p.backends[2].set(longUp)
	after := assign(t, p, 0)
	for i := range before {
		if before[i] != "c" && without[i] != before[i] || without[i] == "c" || after[i] != before[i] {
			t.Fatalf("client %d: %s, %s without c, %s with c again", i, before[i], without[i], after[i])
		}
	}
}

// TestHashOrder: where a server stands in the file does not matter, nor which process asks.
func TestHashOrder(t *testing.T) {
	t.Parallel()
	s := servers(1, 1, 1)
	p, q := newPool(Hash, s), newPool(Hash, []Server{s[2], s[0], s[1]})
	for key := range uint64(1000) {
		if a, b := pick(t, p, key, 0).Addr, pick(t, q, key, 0).Addr; a != b {
			t.Fatalf("key %d: %v and %v", key, a, b)
		}
	}
	const want = "cccabaabaaba" // never changes, or clients move when the edge is upgraded, and from the one plane to the other
	got := ""
	for key := range uint64(len(want)) {
		got += letter(p, pick(t, p, key, 0))
	}
	if got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestSlowStart: the share of a recovered backend grows from a tenth, and by hash only gains clients.
func TestSlowStart(t *testing.T) {
	t.Parallel()
	const second = int64(time.Second)
	slow := func(pick Pick) *Pool {
		p := newPool(pick, servers(1, 1))
		p.health.SlowStart = 100 * time.Second
		p.backends[0].set(longUp)
		p.backends[1].set(1000 * second)
		return p
	}
	tests := []struct {
		after int64 // seconds since it recovered
		want  float64
	}{{0, 0.1 / 1.1}, {50, 0.55 / 1.55}, {100, 0.5}, {1000, 0.5}}
	for _, policy := range []Pick{RoundRobin, Hash} {
		p := slow(policy)
		var last []string
		for _, test := range tests {
			all := assign(t, p, (1000+test.after)*second)
			if got := part(all, "b"); math.Abs(got-test.want) > 0.01 {
				t.Errorf("pick %d, %d s after: got %.3f, want %.3f", policy, test.after, got, test.want)
			}
			for i := range last {
				if policy == Hash && last[i] == "b" && all[i] != "b" {
					t.Fatalf("client %d went back", i)
				}
			}
			last = all
		}
	}
	p := slow(FewestFlows)
	for range 110 {
		pick(t, p, 0, 1000*second)
	}
	if got := p.backends[1].Flows(); got != 10 {
		t.Errorf("fewest flows: got %d, want 10", got)
	}
}

// TestPassedOver: each reason for which a backend gets no flow, with each policy.
func TestPassedOver(t *testing.T) {
	t.Parallel()
	const now = int64(time.Hour)
	tests := []struct {
		name string
		make func(b *Backend, tried *Tried)
		err  error // when it is the only one
	}{
		{"down", func(b *Backend, _ *Tried) { b.set(0) }, ErrNoneUp},
		{"draining", func(b *Backend, _ *Tried) { b.Drain = true }, ErrNoneUp},
		{"full", func(b *Backend, _ *Tried) { b.Cap = 1; b.take() }, ErrFull},
		{"tried", func(b *Backend, tried *Tried) { tried.add(b) }, ErrNoneUp},
		{"ejected", func(b *Backend, _ *Tried) {
			for range 3 {
				b.take()
				b.Failed(now)
			}
		}, nil}, // the last one is asked all the same
	}
	for _, policy := range []Pick{RoundRobin, FewestFlows, Hash} {
		for _, test := range tests {
			t.Run(fmt.Sprint(test.name, policy), func(t *testing.T) {
				t.Parallel()
				p := newPool(policy, servers(1, 1))
				var tried Tried
				test.make(&p.backends[0], &tried)
				for key := range uint64(20) {
					again := tried
					b, err := p.Pick(key, now, &again)
					if err != nil || b != &p.backends[1] {
						t.Fatalf("got %v, %v, want the other one", b, err)
					}
				}
				p.backends[1].set(0)
				if _, err := p.Pick(0, now, &tried); !errors.Is(err, test.err) {
					t.Errorf("alone: got %v, want %v", err, test.err)
				}
			})
		}
	}
	if _, err := newPool(Hash, nil).Pick(0, 0, new(Tried)); !errors.Is(err, ErrNoneUp) {
		t.Errorf("empty pool: got %v", err)
	}
}

// TestCap: loops that pick at the same time do not pass the cap.
func TestCap(t *testing.T) {
	t.Parallel()
	s := servers(1, 1)
	s[0].Cap, s[1].Cap = 100, 50
	p := newPool(FewestFlows, s)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				p.Pick(0, 0, new(Tried))
			}
		})
	}
	wg.Wait()
	if a, b := p.backends[0].Flows(), p.backends[1].Flows(); a != 100 || b != 50 {
		t.Errorf("got %d and %d flows, want 100 and 50", a, b)
	}
}

func TestPickAllocs(t *testing.T) {
	for _, policy := range []Pick{RoundRobin, FewestFlows, Hash} {
		p := newPool(policy, servers(1, 2, 3, 4))
		n := testing.AllocsPerRun(100, func() {
			var tried Tried
			for range 3 {
				if b, err := p.Pick(7, 0, &tried); err == nil {
					b.Released()
				}
			}
		})
		if n != 0 {
			t.Errorf("pick %d: %v allocations", policy, n)
		}
	}
}

func BenchmarkPick(b *testing.B) {
	for _, policy := range []struct {
		name string
		pick Pick
	}{{"round-robin", RoundRobin}, {"fewest-flows", FewestFlows}, {"hash", Hash}} {
		for _, n := range []int{2, 10, 100} {
			weights := make([]int, n)
			for i := range weights {
				weights[i] = 1 + i%3
			}
			p := newPool(policy.pick, servers(weights...))
			b.Run(fmt.Sprintf("%s/%d", policy.name, n), func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for key := uint64(0); pb.Next(); key++ {
						var tried Tried
						if x, err := p.Pick(key, 0, &tried); err == nil {
							x.Released()
						}
					}
				})
			})
		}
	}
}

// TestUser: equal users get the same backend whatever a pool picks by, and whatever their addresses.
func TestUser(t *testing.T) {
	t.Parallel()
	user := Client{Addr: netip.MustParseAddrPort("[2001:db8::1]:1"), User: ip.Mix(7)}
	abroad := Client{Addr: netip.MustParseAddrPort("192.0.2.1:1"), User: ip.Mix(7)}
	if user.key() != abroad.key() || user.key() == (&Client{Addr: user.Addr}).key() {
		t.Errorf("keys are %d and %d, without the user %d", user.key(), abroad.key(), (&Client{Addr: user.Addr}).key())
	}
	byHash := newPool(Hash, servers(1, 1, 1, 1))
	for _, by := range []Pick{RoundRobin, FewestFlows} {
		p := newPool(by, servers(1, 1, 1, 1))
		for key := range uint64(100) {
			b, err := p.Pick(ip.Mix(key), 0, &Tried{byKey: true})
			if err != nil {
				t.Fatal(err)
			}
			if got, want := letter(p, b), letter(byHash, pick(t, byHash, ip.Mix(key), 0)); got != want {
				t.Errorf("%d: %s, want %s", key, got, want)
			}
		}
	}
}
