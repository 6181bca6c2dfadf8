// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"context"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/kyozon/kyozon/accesslog"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/protocol/web/http1"
	"github.com/kyozon/kyozon/relay"
)

// recorded returns what is in the access log after fn has been called on a loop; on says whether there is one.
func recorded(t *testing.T, on bool, fn func(log *accesslog.Log, l *relay.Loop)) string {
	t.Helper()
	loops, err := relay.Open(1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { loops.Run(ctx) })
	log := accesslog.New(accesslog.Options{Loops: 1, Now: func() int64 { return 0 }, Log: slog.New(slog.DiscardHandler)})
	name := filepath.Join(t.TempDir(), "access.log")
	if on {
		target, err := log.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		log.Use(target)
	}
	loops.Do(func(l *relay.Loop) { fn(log, l) })
	stop()
	wg.Wait()
	loops.Close()
	log.Use(nil).Close()
	data, err := os.ReadFile(name)
	if on && err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// TestRecord: a request that comes to nothing after it was sent again, and what is left out while the log is off.
func TestRecord(t *testing.T) {
	q := new(http1.Request)
	if n, err := q.Parse([]byte("GET /a?b HTTP/1.1\r\nHost: Shop.example:80\r\n\r\n"), &http1.Limits{}); n == 0 || err != nil {
		t.Fatal(n, err)
	}
	var allocations float64
	exchange := func(log *accesslog.Log, l *relay.Loop) {
		x := new(record)
		once := func() {
			x.begin(log, l, netip.MustParseAddrPort("[2001:db8::7]:1"), 0)
			x.asked(q, 11)
			x.routed("shop")
			x.failed(metrics.ServerReset)
			x.again()
			x.heard()
			x.failed(metrics.ServerTimeout)
			x.answered(504)
			x.end(metrics.Counts{ToServer: 3})
			x.end(metrics.Counts{}) // writes nothing more
		}
		allocations = testing.AllocsPerRun(10, once)
	}
	text := recorded(t, true, exchange)
	_, line, _ := strings.Cut(strings.SplitN(text, "\n", 2)[0], `"level":`)
	want := `"INFO","msg":"request","service":"shop","client":"2001:db8::7","port":1,"protocol":"HTTP/1.1","method":"GET",` +
		`"host":"shop.example","path":"/a?b","status":504,"to-server-bytes":3,"to-client-bytes":0,"total-us":0,"retries":1,` +
		`"reason":"server-timeout"}`
	if line != want || strings.Count(text, "\n") != 11 || allocations != 0 {
		t.Errorf("%v allocations, %d lines, the first\n%s\nwant\n%s", allocations, strings.Count(text, "\n"), line, want)
	}
	if text := recorded(t, false, exchange); text != "" || allocations != 0 {
		t.Errorf("%q, %v allocations", text, allocations)
	}
}
