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

// Sample is what one program did in one round.
type Sample struct {
	Rate float64 // units of work a second
	CPU  float64 // processor time of a unit of work, in µs
}

// Series is the samples of the rounds, by program. All programs have as many.
type Series map[string][]Sample

// Line is a figure of ours beside that of a peer.
type Line struct {
	Name   string // of the work
	Metric string
	Ours   float64 // median of the rounds
	Peer   string
	Theirs float64 // median of the rounds
	Ratio  float64 // ours / theirs: median of the rounds' ratios
}

// String returns the line as it is printed.
func (l Line) String() string {
	return fmt.Sprintf("bench %s %s ours=%s %s=%s ratio=%.3f", l.Name, l.Metric, figure(l.Ours), l.Peer, figure(l.Theirs),
		l.Ratio)
}

// figure writes a number with four digits, or all that it has before the point.
func figure(v float64) string {
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

// Compare returns two lines for each peer, its rate and its CPU. The ratio is taken in each round, so that what slows
// down the machine for a while slows down both sides of it.
func (s Series) Compare(name, ours string, peers ...string) (lines []Line) {
	for _, peer := range peers {
		lines = append(lines,
			compare(Line{Name: name, Metric: "rate", Peer: peer}, s[ours], s[peer], func(s Sample) float64 { return s.Rate }),
			compare(Line{Name: name, Metric: "cpu_us", Peer: peer}, s[ours], s[peer], func(s Sample) float64 { return s.CPU }))
	}
	return lines
}

func compare(l Line, ours, theirs []Sample, of func(Sample) float64) Line {
	var a, b, ratios []float64
	for i := range ours {
		a, b = append(a, of(ours[i])), append(b, of(theirs[i]))
		ratios = append(ratios, a[i]/b[i])
	}
	l.Ours, l.Theirs, l.Ratio = Median(a), Median(b), Median(ratios)
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

// Spread returns how far the values lie apart: from the first quartile to the third, as a part of the median.
func Spread(values []float64) float64 {
	if len(values) < 2 {
		return 0
	}
	v := slices.Sorted(slices.Values(values))
	return (v[len(v)*3/4] - v[len(v)/4]) / Median(v)
}
