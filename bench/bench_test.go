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
		"ours": {{Rate: 200, CPU: 5, P99: 30}, {Rate: 100, CPU: 10, P99: 40}, {Rate: 400, CPU: 2.5, P99: 10}},
		"peer": {{Rate: 100, CPU: 10, P99: 10}, {Rate: 50, CPU: 20, P99: 20}, {Rate: 200, CPU: 5, P99: 10}},
		"slow": {{Rate: 20, CPU: 50}, {Rate: 400, CPU: 100}, {Rate: 40, CPU: 25}},
	}
	lines := append(s.Compare("web", "ours", []Metric{Rate, CPU}, "peer", "slow"),
		s.Compare("web", "ours", []Metric{P99}, "peer")...)
	lines = append(lines, Line{Name: "idle", Metric: "kb_per_conn", Ours: 2, Peer: "goal", Theirs: 4, Ratio: 0.5})
	var got []string
	for _, l := range lines {
		got = append(got, l.String())
	}
	want := []string{
		"bench web rate ours=200.0 peer=100.0 ratio=2.000 quartiles=2.000..2.000",
		"bench web cpu_us ours=5.000 peer=10.00 ratio=0.500 quartiles=0.500..0.500",
		"bench web rate ours=200.0 slow=40.00 ratio=10.000 quartiles=0.250..10.000",
		"bench web cpu_us ours=5.000 slow=50.00 ratio=0.100 quartiles=0.100..0.100",
		"bench web p99_us ours=30.00 peer=10.00 ratio=2.000 quartiles=1.000..3.000",
		"bench idle kb_per_conn ours=2.000 goal=4.000 ratio=0.500",
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
