// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"testing"
	"time"
)

func TestParseIdle(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		stat string
		want time.Duration
		err  error
	}{
		{"cpu  10 20 30 400 50 6 7 8 9 0\ncpu0 1 2 3 4 5 6 7 8 9 0\n", 4500 * time.Millisecond, nil},
		{"cpu  0 0 0 0 0\n", 0, nil},
		{"cpu  0 0 0 0\n", 0, errNoStat},
		{"cpu0 1 2 3 4 5 6\n", 0, errNoStat},
		{"cpu  1 2 3 x 5 6\n", 0, errNoStat},
		{"cpu  1 2 3 -4 5 6\n", 0, errNoStat},
		{"", 0, errNoStat},
	} {
		if got, err := parseIdle([]byte(tt.stat)); got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%q: got %v, %v; want %v, %v", tt.stat, got, err, tt.want, tt.err)
		}
	}
}

func FuzzParseIdle(f *testing.F) {
	f.Add([]byte("cpu  10 20 30 400 50 6 7 8 9 0\n"))
	f.Fuzz(func(t *testing.T, stat []byte) {
		if d, err := parseIdle(stat); err == nil && d < 0 {
			t.Errorf("%q: %v", stat, d)
		}
	})
}
