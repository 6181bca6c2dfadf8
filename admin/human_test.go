// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"math"
	"testing"
	"time"
)

func TestCount(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0", 7: "7", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1234: "-1,234",
		math.MinInt64: "-9,223,372,036,854,775,808"} {
		if got := count(n); got != want {
			t.Errorf("count(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0 B", 999: "999 B", 1000: "1.00 kB", 1234: "1.23 kB", 99_949: "99.9 kB", 99_951: "100 kB",
		999_499: "999 kB", 999_500: "1.00 MB", 12_345_678: "12.3 MB", 1_988_123_456_789: "1.99 TB", math.MaxInt64: "9.22 EB", -5: "-5 B"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestRate(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{0: "0", -1: "0", 0.001: "<0.1", 0.05: "0.1", 9.96: "10.0", 96.24: "96.2", 99.96: "100", 12345.6: "12,346", math.Inf(1): "∞"} {
		if got := rate(v); got != want {
			t.Errorf("rate(%v) = %q, want %q", v, got, want)
		}
	}
	if got := rate(math.NaN()); got != "0" {
		t.Errorf("rate(NaN) = %q, want 0", got)
	}
}

func TestPercent(t *testing.T) {
	t.Parallel()
	tests := []struct {
		part, whole int64
		want        string
	}{
		{0, 0, "0 %"}, {0, 10, "0 %"}, {1, 100000, "<0.1 %"}, {1, 100, "1.0 %"}, {1, 3, "33 %"}, {999, 1000, ">99 %"}, {10, 10, "100 %"}, {5, 0, "0 %"},
	}
	for _, test := range tests {
		if got := percent(test.part, test.whole); got != test.want {
			t.Errorf("percent(%d, %d) = %q, want %q", test.part, test.whole, got, test.want)
		}
	}
}

func TestAge(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{0: "0 s", -time.Hour: "0 s", 59 * time.Second: "59 s", 61 * time.Second: "1 min", 90 * time.Minute: "1 h 30 min", 27 * time.Hour: "1 d 3 h"} {
		if got := age(now(), now().Add(-d)); got != want {
			t.Errorf("age of %v = %q, want %q", d, got, want)
		}
	}
	if got := age(now(), time.Time{}); got != "never" {
		t.Errorf("age of nothing = %q, want never", got)
	}
	for then, want := range map[time.Time]string{{}: "never", now().Add(-time.Hour): "1 h 0 min ago", now().Add(50 * time.Hour): "in 2 d 2 h"} {
		if got := until(now(), then); got != want {
			t.Errorf("until %v = %q, want %q", then, got, want)
		}
	}
	if got := ago(now(), now().Add(-time.Minute)); got != "1 min ago" {
		t.Errorf("ago = %q", got)
	}
}

// What a backend sends does not reach a terminal as a command.
func TestClean(t *testing.T) {
	t.Parallel()
	for s, want := range map[string]string{"plain 共存": "plain 共存", "a\nb\tc": "a b c", "\x1b[2J": "�[2J", "a\x7f\u009bb": "a��b", "\u202eevil": "�evil", "\xff": "�"} {
		if got := clean(s); got != want {
			t.Errorf("clean(%q) = %q, want %q", s, got, want)
		}
	}
}
