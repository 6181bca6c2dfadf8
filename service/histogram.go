// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package service

import "slices"

// Histogram is how large the values were that were measured.
type Histogram struct {
	Bounds []float64 `json:"bounds"` // ascending
	Counts []int64   `json:"counts"` // of values that are at most as large as each bound and larger than the one before; then those above all
	Sum    float64   `json:"sum"`    // of all values
}

// NewHistogram returns one in which nothing was measured.
func NewHistogram(bounds []float64) Histogram {
	return Histogram{Bounds: bounds, Counts: make([]int64, len(bounds)+1)}
}

// Add adds a value.
func (h *Histogram) Add(value float64) {
	i, _ := slices.BinarySearch(h.Bounds, value)
	h.Counts[i]++
	h.Sum += value
}

// Count returns how many values there are.
func (h *Histogram) Count() (n int64) {
	for _, c := range h.Counts {
		n += c
	}
	return n
}

// Clone returns a copy.
func (h *Histogram) Clone() *Histogram {
	return &Histogram{Bounds: h.Bounds, Counts: slices.Clone(h.Counts), Sum: h.Sum}
}
