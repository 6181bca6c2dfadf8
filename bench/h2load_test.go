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

// h2report is the end of what h2load 1.52 writes.
const h2report = `Stopped all clients for thread #0

finished in 1.00s, 3199.00 req/s, 3.35MB/s
requests: 3199 total, 3203 started, 3199 done, 3199 succeeded, 0 failed, 0 errored, 0 timeout
status codes: 3200 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 3.35MB (3512220) total, 49.99KB (51184) headers (space savings 65.96%), 3.13MB (3276800) data
                     min         max         mean         sd        +/- sd
time for request:      253us     13.03ms      1.13ms       732us    89.17%
`

func TestParseH2load(t *testing.T) {
	t.Parallel()
	change := func(from, to string) string {
		if !strings.Contains(h2report, from) {
			t.Fatalf("no %q in the report", from)
		}
		return strings.Replace(h2report, from, to, 1)
	}
	tests := []struct {
		name, out string
		want      Answers
		err       error
	}{
		{"fine", h2report, Answers{Requests: 3199, Rate: 3199}, nil},
		{"failed", change("3199 succeeded, 0 failed", "3190 succeeded, 9 failed"), Answers{}, ErrFailed},
		{"refused", change("3200 2xx, 0 3xx, 0 4xx, 0", "0 2xx, 0 3xx, 0 4xx, 3200"), Answers{}, ErrFailed},
		{"short", change("(3276800) data", "(16000) data"), Answers{}, ErrShort},
		{"nothing", change("3199 done, 3199 succeeded", "0 done, 0 succeeded"), Answers{}, ErrFailed},
		{"cut", h2report[:200], Answers{}, errNoReport},
		{"empty", "", Answers{}, errNoReport},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseH2load([]byte(tt.out), 1024)
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("ParseH2load = %+v, %v; want %+v, %v", got, err, tt.want, tt.err)
			}
		})
	}
}

func TestH2loadArgs(t *testing.T) {
	t.Parallel()
	h := H2load{URL: "https://shop.example.jp:443/", Connections: 4, Streams: 100, Time: 2 * time.Second}
	want := strings.Fields("h2load -t 2 -c 4 -m 100 -D 2000ms --tls13-ciphers=TLS_AES_128_GCM_SHA256 --groups=X25519 " +
		"https://shop.example.jp:443/")
	if d := cmp.Diff(want, h.Args()); d != "" {
		t.Error(d)
	}
}

func FuzzParseH2load(f *testing.F) {
	f.Add([]byte(h2report))
	f.Add([]byte(strings.Replace(h2report, "3199 done", "0 done", 1)))
	f.Fuzz(func(t *testing.T, out []byte) {
		given := slices.Clone(out)
		a, err := ParseH2load(out, 1024)
		if err == nil && (a.Requests <= 0 || a.Rate < 0) || err != nil && a != (Answers{}) {
			t.Errorf("%+v, %v", a, err)
		}
		if !slices.Equal(given, out) {
			t.Error("it has changed what it read")
		}
	})
}
