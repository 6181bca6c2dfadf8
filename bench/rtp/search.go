// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package main

import "math"

const (
	fine    = 1.025 // between two numbers of streams
	coarse  = 16    // as many of these steps are made at first: half as many again
	tries   = 3     // of one number; two that agree decide
	clearly = 0.05  // so much loss needs no second try
)

// search finds how many streams are borne. It is told what came of each try: numbers are tried that are half as large again each time, until one
// is too large; then what is in the middle.
type search struct {
	least, most    float64
	good, bad      int // steps above least: the largest that is borne, the smallest that is not
	passed, failed int // tries of the number that is tried
}

func newSearch(least, most float64) *search {
	s := &search{least: least, most: most, good: -1}
	s.bad = 1 + int(math.Log(most/least)/math.Log(fine)+1e-9)
	return s
}

func (s *search) number(step int) int { return int(s.least * math.Pow(fine, float64(step))) }

// next returns which number to try; false: it is known.
func (s *search) next() (n int, ok bool) {
	if s.good+1 == s.bad {
		return 0, false
	}
	return s.number(s.step()), true
}

func (s *search) step() int {
	if s.rising() {
		return min(s.good+coarse, s.limit())
	}
	return (s.good + s.bad) / 2
}

// limit is the last step that may be tried.
func (s *search) limit() int { return int(math.Log(s.most/s.least)/math.Log(fine) + 1e-9) }

// rising says whether nothing was too large yet.
func (s *search) rising() bool { return s.bad > s.limit() }

// tried returns how often the number that next returns was tried.
func (s *search) tried() int { return s.passed + s.failed }

// told takes what part was lost of the number that next has returned.
func (s *search) told(loss float64) {
	step := s.step()
	if loss <= allowed {
		s.passed++
	} else {
		s.failed++
	}
	switch {
	case loss <= allowed && s.rising(), s.passed > tries/2:
		s.good = step
	case loss > clearly, s.failed > tries/2:
		s.bad = step
	default:
		return
	}
	s.passed, s.failed = 0, 0
}

// borne returns the largest number that was borne; 0 if none was.
func (s *search) borne() int {
	if s.good < 0 {
		return 0
	}
	return s.number(s.good)
}
