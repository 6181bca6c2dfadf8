// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/probe"
)

// patience is how long anything may take on a busy machine before a test gives up.
const patience = time.Minute

// TestMain fails if the tests leave a goroutine behind.
func TestMain(m *testing.M) {
	before := runtime.NumGoroutine()
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	for deadline := time.Now().Add(patience); code == 0 && runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(deadline) {
			b := make([]byte, 1<<20)
			println("goroutines are left:\n" + string(b[:runtime.Stack(b, true)]))
			code = 1
		}
	}
	os.Exit(code)
}

var errIll = errors.New("connect: connection refused")

// world answers the questions of a keeper. It is a server park without a network.
type world struct {
	mu    sync.Mutex
	ill   map[netip.AddrPort]error
	hangs map[netip.AddrPort]bool
	asked map[netip.AddrPort][]time.Duration // when, since the start
	start time.Time
}

func newWorld() *world {
	return &world{ill: make(map[netip.AddrPort]error), hangs: make(map[netip.AddrPort]bool),
		asked: make(map[netip.AddrPort][]time.Duration), start: time.Now()}
}

func (w *world) ask(ctx context.Context, t probe.Target) probe.Result {
	w.mu.Lock()
	w.asked[t.Addr] = append(w.asked[t.Addr], time.Since(w.start))
	err, hangs := w.ill[t.Addr], w.hangs[t.Addr]
	w.mu.Unlock()
	if hangs {
		<-ctx.Done()
		err = probe.ErrTimeout
	}
	return probe.Result{Target: t, Err: err}
}

func (w *world) set(a netip.AddrPort, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ill[a] = err
}

func (w *world) times(a netip.AddrPort) []time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.asked[a])
}

func server(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 1, byte(i)}), 80)
}

func checkOf(i int) Check {
	return Check{Target: probe.Target{Addr: server(i)}, Every: 2 * time.Second, Timeout: time.Second, Rise: 2, Fall: 3}
}

// run runs k until the test calls what it returns, or ends.
func run(t *testing.T, k *Keeper) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); k.Run(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// TestVerdict: answers in a row, and what comes of them.
func TestVerdict(t *testing.T) {
	t.Parallel()
	const well, ill = true, false
	tests := []struct {
		name    string
		answers []bool
		want    string // after each answer: u up, d down
	}{
		{"the first decides", []bool{well}, "u"},
		{"either way", []bool{ill}, "d"},
		{"three bad ones", []bool{well, ill, ill, ill}, "uuud"},
		{"a good one between", []bool{well, ill, ill, well, ill, ill, ill}, "uuuuuud"},
		{"two good ones", []bool{ill, well, well}, "ddu"},
		{"a bad one between", []bool{ill, well, ill, well, well}, "ddddu"},
		{"and down again", []bool{ill, well, well, ill, ill, ill}, "dduuud"},
	}
	for _, test := range tests {
		v := newVerdict(checkOf(1))
		got := ""
		for i, a := range test.answers {
			var err error
			if a == ill {
				err = errIll
			}
			_, o := v.record(err, int64(i+1))
			got += o.State.String()[:1]
			if (v.up.Load() != 0) != (o.State == Up) {
				t.Errorf("%s: flows see something else than the status", test.name)
			}
			if (o.Reason != "") != (a == ill) {
				t.Errorf("%s: reason %q after answer %v", test.name, o.Reason, a)
			}
		}
		if got != test.want {
			t.Errorf("%s: got %s, want %s", test.name, got, test.want)
		}
	}
}

// TestKeeper follows one backend through a failure and back, by the clock.
func TestKeeper(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		var changes []string
		k := NewKeeper(KeeperOptions{Ask: w.ask, Changed: func(_ Check, was, now Opinion) {
			changes = append(changes, was.State.String()+" "+now.State.String()+" "+now.Reason)
		}})
		stop := run(t, k)
		v := k.Watch(checkOf(1))
		if o := v.Opinion(); o.State != Unknown || v.up.Load() != 0 || !v.Checked().IsZero() {
			t.Errorf("before the first answer: %+v", o)
		}
		if err := k.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(w.start); got != 0 {
			t.Errorf("the first answer took %v", got)
		}
		if v.up.Load() != longUp {
			t.Error("the first answer makes it start slowly")
		}
		time.Sleep(10 * time.Second)
		w.set(server(1), errIll)
		time.Sleep(3 * checkOf(1).Every)
		synctest.Wait()
		if o := v.Opinion(); o.State != Down || o.Reason != errIll.Error() {
			t.Errorf("after three bad answers: %+v", o)
		}
		w.set(server(1), nil)
		time.Sleep(2 * checkOf(1).Every)
		synctest.Wait()
		if v.Opinion().State != Up || v.up.Load() <= 0 || k.Now()-v.up.Load() > int64(checkOf(1).Every) {
			t.Errorf("after two good answers: %+v, up since %d of %d", v.Opinion(), v.up.Load(), k.Now())
		}
		stop()
		want := []string{"unknown up ", "up down " + errIll.Error(), "down up "}
		if !slices.Equal(changes, want) {
			t.Errorf("changes: got %q, want %q", changes, want)
		}
		asked := w.times(server(1))
		if first := asked[1]; first <= 0 || first > checkOf(1).Every+time.Nanosecond {
			t.Errorf("the second question came after %v", first)
		}
		for i := 2; i < len(asked); i++ {
			if d := asked[i] - asked[i-1]; d != checkOf(1).Every {
				t.Errorf("question %d came %v after the one before", i, d)
			}
		}
	})
}

// TestKeeperSpread: a hundred checks do not come all together for ever.
func TestKeeperSpread(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		k := NewKeeper(KeeperOptions{Ask: w.ask})
		stop := run(t, k)
		for i := range 100 {
			k.Watch(checkOf(i))
		}
		time.Sleep(3 * time.Second)
		stop()
		early := 0
		for i := range 100 {
			if w.times(server(i))[1] < time.Second {
				early++
			}
		}
		if early < 20 || early > 80 {
			t.Errorf("%d of 100 second questions came in the first half", early)
		}
	})
}

// TestKeeperTimeout: who does not answer is down after the timeout, and asked no faster for it.
func TestKeeperTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		w.hangs[server(1)] = true
		k := NewKeeper(KeeperOptions{Ask: w.ask})
		stop := run(t, k)
		v := k.Watch(checkOf(1))
		k.Wait(t.Context())
		if got := time.Since(w.start); got != time.Second || v.Opinion().State != Down {
			t.Errorf("%v after %v, want down after a second", v.Opinion().State, got)
		}
		time.Sleep(20 * time.Second)
		stop()
		if n := len(w.times(server(1))); n < 9 || n > 12 {
			t.Errorf("asked %d times in 20 s, every 2 s", n)
		}
	})
}

// TestKeeperReload: a generation adopts what the one before knows; what nobody watches is asked no more.
func TestKeeperReload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		k := NewKeeper(KeeperOptions{Ask: w.ask})
		stop := run(t, k)
		kept, removed := k.Watch(checkOf(1)), k.Watch(checkOf(2))
		k.Wait(t.Context())
		time.Sleep(10 * time.Second)

		again, added := k.Watch(checkOf(1)), k.Watch(checkOf(3))
		if again != kept || again.Opinion().State != Up {
			t.Error("the verdict was not adopted")
		}
		k.Wait(t.Context())
		if added.Opinion().State != Up {
			t.Error("the new one has not been asked before the generation takes over")
		}
		k.Release(kept)
		k.Release(removed)
		synctest.Wait()
		before := len(w.times(server(2)))
		time.Sleep(10 * time.Second)
		if after := len(w.times(server(2))); after != before {
			t.Errorf("the removed one was asked %d times more", after-before)
		}
		if n := len(w.times(server(1))); n < 10 || n > 12 {
			t.Errorf("the kept one was asked %d times in 20 s, every 2 s", n)
		}
		stop()
		if n := len(k.watched); n != 2 {
			t.Errorf("%d checks are watched, want 2", n)
		}
	})
}

// TestKeeperAside: a generation that is dropped before anything runs leaves nothing.
func TestKeeperAside(t *testing.T) {
	t.Parallel()
	k := NewKeeper(KeeperOptions{})
	k.Release(k.Watch(checkOf(1)))
	if len(k.watched) != 0 {
		t.Error("a check is left")
	}
	k.Watch(checkOf(1))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
}

// TestTwoChecks: two questions to one address have a verdict each; the same question has one.
func TestTwoChecks(t *testing.T) {
	t.Parallel()
	k := NewKeeper(KeeperOptions{})
	a, b := checkOf(1), checkOf(1)
	b.Target.HTTP = "/healthz"
	if k.Watch(a) == k.Watch(b) {
		t.Error("two checks share a verdict")
	}
	zero, one := a, a
	zero.Timeout, zero.Rise, zero.Fall = 0, 0, 0
	one.Timeout, one.Rise, one.Fall = one.Every, 1, 1
	if k.Watch(zero) != k.Watch(one) {
		t.Error("one check has two verdicts")
	}
}

// TestFlapping: a real server goes and comes back; pools of two generations follow, and a dead family shows.
func TestFlapping(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		var ill atomic.Bool
		addr := serveHTTP(t, f, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/healthz" || r.Host != "shop.example.jp" || ill.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		}))
		changed := make(chan Opinion, 100)
		k := NewKeeper(KeeperOptions{Changed: func(_ Check, _, now Opinion) { changed <- now }})
		run(t, k)
		o := PoolOptions{Service: "shop", Spec: Spec{Name: "existing", Servers: []Server{{Addr: addr}}}, Keeper: k, Book: NewBook(1),
			Health: Health{Every: 5 * time.Millisecond, Timeout: patience, Rise: 2, Fall: 2, HTTP: "/healthz",
				Host: "shop.example.jp", Status: [2]int{200, 200}}}
		p := NewPool(o)
		for i := range 3 {
			expect(t, changed, Up, "")
			if _, err := p.Pick(0, k.Now(), new(Tried)); err != nil {
				t.Fatal(err)
			}
			next := NewPool(o)
			p.Close()
			p = next
			ill.Store(true)
			expect(t, changed, Down, "answer: status 503, want 200")
			if _, err := p.Pick(0, k.Now(), new(Tried)); !errors.Is(err, ErrNoneUp) {
				t.Fatalf("round %d: got %v, want ErrNoneUp", i, err)
			}
			ill.Store(false)
		}
		p.Close()
	})
}

func expect(t *testing.T, changed <-chan Opinion, want HealthState, reason string) {
	t.Helper()
	select {
	case o := <-changed:
		if o.State != want || !strings.HasPrefix(o.Reason, reason) {
			t.Fatalf("got %+v, want %v %q", o, want, reason)
		}
	case <-time.After(patience):
		t.Fatalf("no answer, want %v", want)
	}
}

// serveHTTP serves on the loopback of f until the test ends.
func serveHTTP(t *testing.T, f ip.Family, h http.Handler) netip.AddrPort {
	t.Helper()
	network := "tcp6"
	if f == ip.V4 {
		network = "tcp4"
	}
	l, err := net.Listen(network, netip.AddrPortFrom(iptest.Loopback(f), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return ip.CanonicalPort(l.Addr().(*net.TCPAddr).AddrPort())
}
