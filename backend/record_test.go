// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/kyozon/kyozon/accesslog"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/relay"
)

// logged calls fn on a loop with a flow over a route whose access log is on.
func logged(tb testing.TB, fn func(f *Flow)) accesslog.Status {
	loops, err := relay.Open(1)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { loops.Run(ctx) })
	log := accesslog.New(accesslog.Options{Loops: 1, Now: func() int64 { return 0 }, Log: slog.New(slog.DiscardHandler)})
	target, err := log.Open("/dev/null")
	if err != nil {
		tb.Fatal(err)
	}
	log.Use(target)
	pool := &Pool{Spec: Spec{Name: "existing"}}
	route := &Route{Access: Access{Service: "shop", Log: log}}
	loops.Do(func(l *relay.Loop) {
		fn(&Flow{Client: Client{Addr: netip.MustParseAddrPort("[2001:db8::7]:1")}, known: netip.MustParseAddr("100.64.0.17"),
			Backend: &Backend{Server: Server{Addr: netip.MustParseAddrPort("10.0.1.11:80")}, pool: pool}, Pool: pool, route: route,
			loop: l, wait: int64(time.Millisecond)})
	})
	stop()
	wg.Wait()
	loops.Close()
	log.Use(nil).Close()
	return log.Status()
}

// TestLineAllocs: a line of the access log costs no allocation.
func TestLineAllocs(t *testing.T) {
	n := 0.0
	s := logged(t, func(f *Flow) {
		n = testing.AllocsPerRun(100, func() { f.writeLine(metrics.Counts{ToServer: 1}, metrics.Fine) })
		f.route.Refused(f.loop, f.Client, ErrDenied)
	})
	if n != 0 || s.Lines != 102 {
		t.Errorf("%v allocations, %+v", n, s)
	}
}

// TestDescribe: a flow says who was served and by whom.
func TestDescribe(t *testing.T) {
	t.Parallel()
	var got accesslog.Record
	logged(t, func(f *Flow) { f.Describe(&got) })
	want := accesslog.Record{Service: "shop", Client: netip.MustParseAddrPort("[2001:db8::7]:1"), Pool: "existing",
		StandIn: netip.MustParseAddr("100.64.0.17"), Backend: netip.MustParseAddrPort("10.0.1.11:80"), Wait: time.Millisecond}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// BenchmarkLine is what the access log adds to the end of a flow.
func BenchmarkLine(b *testing.B) {
	logged(b, func(f *Flow) {
		for b.Loop() {
			f.writeLine(metrics.Counts{ToServer: 1}, metrics.Fine)
		}
	})
}
