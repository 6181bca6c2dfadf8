// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package service

// Nearest returns the word that was probably meant, or "": one change in three letters is forgiven.
func Nearest(text string, words []string) string {
	best, distance := "", len(text)/3+1
	for _, w := range words {
		if d := changes(text, w); d < distance {
			best, distance = w, d
		}
	}
	return best
}

// changes returns how many letters must be added, removed, replaced, or exchanged with their neighbour to make b
// of a: the restricted Damerau-Levenshtein distance, in three rows of its table.
func changes(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	var before, above, row [65]int
	for j := range row {
		above[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(above[j]+1, row[j-1]+1, above[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, above = above, row
	}
	return above[len(b)]
}
