// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package bench is what comparisons with other programs have in common: paired rounds, the processor time of a
// process, the load of wrk, and the lines that say what came of it. README.md is the method; each folder in it is a
// comparison of its own.
//
//	round 1: ours, A, B      one Sample each
//	round 2: ours, A, B ──▶ Series ──Compare──▶ Line ──▶ "bench NAME METRIC ours=… A=… ratio=…"
//	…
package bench

import (
	"fmt"
	"slices"
	"strconv"
)

// Sample is what one program did in one round. A figure that the work does not have is 0.
type Sample struct {
	Rate float64 // units of work a second
	CPU  float64 // processor time of a unit of work, in µs
	P99  float64 // how long 99 of 100 units took at most, in µs
}

// Metric is the name of a figure, as it stands in a Line.
type Metric string

// The figures of a Sample.
const (
	Rate Metric = "rate"
	CPU  Metric = "cpu_us"
	P99  Metric = "p99_us"
)

func (s Sample) figure(m Metric) float64 {
	switch m {
	case Rate:
		return s.Rate
	case CPU:
		return s.CPU
	}
	return s.P99
}

// Series is the samples of the rounds, by program. All programs have as many.
type Series map[string][]Sample

// Line is a figure of ours beside that of a peer.
type Line struct {
	Name      string // of the work
	Metric    Metric
	Ours      float64 // median of the rounds
	Peer      string
	Theirs    float64 // median of the rounds
	Ratio     float64 // ours / theirs: median of the rounds' ratios
	Low, High float64 // first and third quartile of the rounds' ratios; 0 if there were no rounds
}

// String returns the line as it is printed.
func (l Line) String() string {
	s := fmt.Sprintf("bench %s %s ours=%s %s=%s ratio=%.3f", l.Name, l.Metric, Figure(l.Ours), l.Peer, Figure(l.Theirs),
		l.Ratio)
	if l.High != 0 {
		s += fmt.Sprintf(" quartiles=%.3f..%.3f", l.Low, l.High)
	}
	return s
}

// Figure writes a number with four digits, or all that it has before the point.
func Figure(v float64) string {
	switch {
	case v >= 1000:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}

// Compare returns a line for each peer and metric. The ratio is taken in each round, so that what slows down the
// machine for a while slows down both sides of it.
func (s Series) Compare(name, ours string, metrics []Metric, peers ...string) (lines []Line) {
	for _, peer := range peers {
		for _, m := range metrics {
			lines = append(lines, compare(Line{Name: name, Metric: m, Peer: peer}, s[ours], s[peer]))
		}
	}
	return lines
}

func compare(l Line, ours, theirs []Sample) Line {
	var a, b, ratios []float64
	for i := range ours {
		a, b = append(a, ours[i].figure(l.Metric)), append(b, theirs[i].figure(l.Metric))
		ratios = append(ratios, a[i]/b[i])
	}
	l.Ours, l.Theirs, l.Ratio = Median(a), Median(b), Median(ratios)
	l.Low, l.High = Quartiles(ratios)
	return l
}

// Median returns the middle value, or the mean of the two in the middle; 0 of nothing.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	half := len(v) / 2
	if len(v)%2 == 1 {
		return v[half]
	}
	return (v[half-1] + v[half]) / 2
}

// Quartiles returns between which values the middle half of all lies; 0 and 0 of nothing.
func Quartiles(values []float64) (low, high float64) {
	if len(values) == 0 {
		return 0, 0
	}
	v := slices.Sorted(slices.Values(values))
	return v[len(v)/4], v[len(v)*3/4]
}

// Spread returns how far the values lie apart: from the first quartile to the third, as a part of the median.
func Spread(values []float64) float64 {
	if len(values) < 2 {
		return 0
	}
	low, high := Quartiles(values)
	return (high - low) / Median(values)
}
