// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// report is what wrk 4.1 writes; errors stand in the place of ERRORS.
const report = `Running 2s test @ http://[2001:db8:100::11]:80/
  2 threads and 64 connections
  Thread Stats   Avg      Stdev     Max   +/- Stdev
    Latency     1.66ms    1.03ms  18.46ms   79.44%
    Req/Sec    19.67k     2.31k   24.91k    70.00%
  79034 requests in 2.02s, 89.23MB read
ERRORSRequests/sec:  39139.87
Transfer/sec:     44.19MB
`

func TestParseWrk(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, out string
		want      Answers
		err       error
	}{
		{"fine", strings.Replace(report, "ERRORS", "", 1), Answers{Requests: 79034, Rate: 39139.87}, nil},
		{"sockets", strings.Replace(report, "ERRORS", "  Socket errors: connect 0, read 3, write 0, timeout 0\n", 1), Answers{}, ErrFailed},
		{"refused", strings.Replace(report, "ERRORS", "  Non-2xx or 3xx responses: 79034\n", 1), Answers{}, ErrFailed},
		{"short", strings.Replace(strings.Replace(report, "89.23MB", "14.23MB", 1), "ERRORS", "", 1), Answers{}, ErrShort},
		{"nothing", "  0 requests in 2.02s, 0.00B read\nRequests/sec:      0.00\n", Answers{}, ErrFailed},
		{"cut", "  79034 requests in 2.02s, 89.23MB read\n", Answers{}, errNoReport},
		{"usage", "Usage: wrk <options> <url>\n", Answers{}, errNoReport},
		{"empty", "", Answers{}, errNoReport},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseWrk([]byte(tt.out), 1024)
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("ParseWrk = %+v, %v; want %+v, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestWrkArgs(t *testing.T) {
	t.Parallel()
	w := Wrk{URL: "http://[2001:db8::1]/", Headers: []string{"Host: a", "Connection: close"}, Connections: 64,
		Time: 2 * time.Second}
	want := strings.Fields("wrk -t 2 -c 64 -d 2s --timeout 10s -H Host:_a -H Connection:_close http://[2001:db8::1]/")
	for i := range want {
		want[i] = strings.Replace(want[i], ":_", ": ", 1)
	}
	if d := cmp.Diff(want, w.Args()); d != "" {
		t.Error(d)
	}
}

func FuzzParseWrk(f *testing.F) {
	f.Add([]byte(strings.Replace(report, "ERRORS", "", 1)))
	f.Add([]byte(strings.Replace(report, "ERRORS", "  Non-2xx or 3xx responses: 79034\n", 1)))
	f.Add([]byte("1 requests in 1s, 2.5KB read\nRequests/sec: 0.5\n"))
	f.Fuzz(func(t *testing.T, out []byte) {
		given := slices.Clone(out)
		a, err := ParseWrk(out, 1024)
		if err == nil && (a.Requests <= 0 || a.Rate < 0) || err != nil && a != (Answers{}) {
			t.Errorf("%+v, %v", a, err)
		}
		if !slices.Equal(given, out) {
			t.Error("it has changed what it read")
		}
	})
}
