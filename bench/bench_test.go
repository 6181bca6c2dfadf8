// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The machine halves its pace in the second round: the medians of the two sides then come from different rounds, and
// their quotient would say 0.5 where each round says 2.
func TestCompare(t *testing.T) {
	t.Parallel()
	s := Series{
		"ours": {{Rate: 200, CPU: 5}, {Rate: 100, CPU: 10}, {Rate: 400, CPU: 2.5}},
		"peer": {{Rate: 100, CPU: 10}, {Rate: 50, CPU: 20}, {Rate: 200, CPU: 5}},
		"slow": {{Rate: 20, CPU: 50}, {Rate: 400, CPU: 100}, {Rate: 40, CPU: 25}},
	}
	var got []string
	for _, l := range s.Compare("web", "ours", "peer", "slow") {
		got = append(got, l.String())
	}
	want := []string{
		"bench web rate ours=200.0 peer=100.0 ratio=2.000",
		"bench web cpu_us ours=5.000 peer=10.00 ratio=0.500",
		"bench web rate ours=200.0 slow=40.00 ratio=10.000",
		"bench web cpu_us ours=5.000 slow=50.00 ratio=0.100",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestMedianAndSpread(t *testing.T) {
	t.Parallel()
	tests := []struct {
		values         []float64
		median, spread float64
	}{
		{nil, 0, 0},
		{[]float64{3}, 3, 0},
		{[]float64{4, 1}, 2.5, 1.2},
		{[]float64{9, 1, 5}, 5, 1.6},
		{[]float64{10, 10, 10, 10}, 10, 0},
		{[]float64{100, 2, 4, 1, 3}, 3, 2.0 / 3},
	}
	for _, tt := range tests {
		if got := Median(tt.values); got != tt.median {
			t.Errorf("Median(%v) = %v, want %v", tt.values, got, tt.median)
		}
		if got := Spread(tt.values); math.Abs(got-tt.spread) > 1e-9 {
			t.Errorf("Spread(%v) = %v, want %v", tt.values, got, tt.spread)
		}
	}
}
