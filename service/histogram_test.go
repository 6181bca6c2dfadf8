// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"slices"
	"testing"
)

func TestHistogram(t *testing.T) {
	t.Parallel()
	h := NewHistogram([]float64{1, 2})
	for _, v := range []float64{0, 1, 1.5, 2, 3, 4} {
		h.Add(v)
	}
	c := h.Clone()
	h.Add(9)
	if !slices.Equal(c.Counts, []int64{2, 2, 2}) || c.Sum != 11.5 || c.Count() != 6 || h.Count() != 7 {
		t.Errorf("got %+v, then %+v", c, h)
	}
}
