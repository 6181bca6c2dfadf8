// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"

	"github.com/kyozon/kyozon/bench"
)

// goal is a ratio to a peer that is to be reached: at most that, or, of a rate, at least.
type goal struct {
	work   string
	metric bench.Metric
	peer   string
	ratio  float64
}

func goals() []goal {
	return []goal{
		{"tcp-keepalive", bench.CPU, "haproxy", 0.95}, {"tcp-keepalive", bench.CPU, "nginx", 0.95},
		{"tcp-bulk-1", bench.CPU, "haproxy", 1.05},
		{"tcp-idle", "kb_per_conn", "goal", 1},
		{"web-h1-keepalive", bench.CPU, "haproxy", 0.65}, {"web-h1-keepalive", bench.CPU, "nginx", 0.70},
		{"web-h1-keepalive", bench.Rate, "haproxy", 1.3}, {"web-h1-keepalive", bench.Rate, "nginx", 1.3},
		{"web-h1-keepalive", bench.P99, "haproxy", 1.1},
		{"web-h1-close", bench.CPU, "haproxy", 0.85}, {"web-h1-close", bench.CPU, "nginx", 0.85},
		{"web-tls-keepalive", bench.CPU, "haproxy", 0.65}, {"web-tls-keepalive", bench.CPU, "nginx", 0.65},
		{"web-tls-handshake", bench.CPU, "haproxy", 0.75}, {"web-tls-handshake", bench.CPU, "nginx", 0.75},
		{"web-h2", bench.CPU, "haproxy", 0.6}, {"web-h2", bench.CPU, "nginx", 0.6},
		{"web-h2-tls", bench.CPU, "haproxy", 0.6}, {"web-h2-tls", bench.CPU, "nginx", 0.6},
		{"web-idle", "kb_per_conn", "goal", 1},
	}
}

// reached returns what was to be reached and whether it was, as a cell of a table.
func reached(l bench.Line) string {
	for _, g := range goals() {
		if g.work != l.Name || g.metric != l.Metric || g.peer != l.Peer {
			continue
		}
		sign, ok := "≤", l.Ratio <= g.ratio
		if g.metric == bench.Rate {
			sign, ok = "≥", l.Ratio >= g.ratio
		}
		if ok {
			return fmt.Sprintf("%s %v reached", sign, g.ratio)
		}
		return fmt.Sprintf("%s %v **not reached**", sign, g.ratio)
	}
	return ""
}

// table returns the lines as a table, the ratio with its quartiles.
func table(lines []bench.Line) string {
	var b strings.Builder
	b.WriteString("| work | figure | ours | beside | theirs | ratio (middle half of the rounds) | goal |\n|---|---|---|---|---|---|---|\n")
	for _, l := range lines {
		ratio := fmt.Sprintf("%.2f", l.Ratio)
		if l.High != 0 {
			ratio += fmt.Sprintf(" (%.2f–%.2f)", l.Low, l.High)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s | %s |\n", l.Name, l.Metric, bench.Figure(l.Ours), l.Peer,
			bench.Figure(l.Theirs), ratio, reached(l))
	}
	return b.String()
}
