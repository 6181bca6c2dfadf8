// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/bench"
)

func TestTable(t *testing.T) {
	t.Parallel()
	got := table([]bench.Line{
		{Name: "web-h1-keepalive", Metric: bench.CPU, Ours: 7.5, Peer: "haproxy", Theirs: 12, Ratio: 0.625, Low: 0.61, High: 0.7},
		{Name: "web-h1-keepalive", Metric: bench.Rate, Ours: 90e3, Peer: "nginx", Theirs: 80e3, Ratio: 1.125, Low: 1.1, High: 1.2},
		{Name: "web-idle", Metric: "kb_per_conn", Ours: 2, Peer: "goal", Theirs: 4, Ratio: 0.5},
		{Name: "tcp-bulk-8", Metric: bench.CPU, Ours: 100, Peer: "nginx", Theirs: 200, Ratio: 0.5, Low: 0.5, High: 0.5},
	})
	want := strings.Join([]string{
		"| work | figure | ours | beside | theirs | ratio (middle half of the rounds) | goal |",
		"|---|---|---|---|---|---|---|",
		"| `web-h1-keepalive` | cpu_us | 7.500 | haproxy | 12.00 | 0.62 (0.61–0.70) | ≤ 0.65 reached |",
		"| `web-h1-keepalive` | rate | 90000 | nginx | 80000 | 1.12 (1.10–1.20) | ≥ 1.3 **not reached** |",
		"| `web-idle` | kb_per_conn | 2.000 | goal | 4.000 | 0.50 | ≤ 1 reached |",
		"| `tcp-bulk-8` | cpu_us | 100.0 | nginx | 200.0 | 0.50 (0.50–0.50) |  |",
		"",
	}, "\n")
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// Each goal is of something that is measured, and each work has its limit explained.
func TestGoalsAndLimits(t *testing.T) {
	t.Parallel()
	for _, g := range goals() {
		if !slices.Contains(names(), g.work) {
			t.Errorf("a goal of %s, which nobody measures", g.work)
		}
	}
	for _, name := range names() {
		if limitOf(limits, name) == "" {
			t.Errorf("limits.md does not say what limits %s", name)
		}
	}
	for line := range strings.Lines(limits) {
		if name, ok := strings.CutPrefix(line, "## "); ok && !slices.Contains(names(), strings.TrimSpace(name)) {
			t.Errorf("limits.md says what limits %q, which nobody measures", name)
		}
	}
}

func TestTurn(t *testing.T) {
	t.Parallel()
	var got []string
	for round := range 4 {
		got = append(got, strings.Join(turn([]string{"a", "b", "c"}, round), ""))
	}
	if d := cmp.Diff([]string{"abc", "bca", "cab", "abc"}, got); d != "" {
		t.Error(d)
	}
}
