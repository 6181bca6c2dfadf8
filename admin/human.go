// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// count writes n with its digits in groups: 1,234,567.
func count(n int64) string {
	digits := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// size writes bytes in three digits and a decimal unit, as traffic is sold: 1.23 MB is 1,230,000 bytes.
func size(bytes int64) string {
	if bytes < 1000 {
		return strconv.FormatInt(bytes, 10) + " B"
	}
	value, unit := float64(bytes), 0
	for value >= 999.5 && unit < len("kMGTPE") {
		value /= 1000
		unit++
	}
	return three(value) + " " + "kMGTPE"[unit-1:unit] + "B"
}

// rate writes how often a second something happens; a trickle is not shown as nothing.
func rate(perSecond float64) string {
	switch {
	case perSecond <= 0 || math.IsNaN(perSecond):
		return "0"
	case perSecond < 0.05:
		return "<0.1"
	case perSecond < 99.95:
		return strconv.FormatFloat(perSecond, 'f', 1, 64)
	case perSecond >= math.MaxInt64:
		return "∞"
	}
	return count(int64(math.Round(perSecond)))
}

// three writes 0 < v < 1000 in three digits.
func three(v float64) string {
	switch {
	case v < 9.995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case v < 99.95:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

// percent writes part of whole; what is not nothing is not shown as 0 %.
func percent(part, whole int64) string {
	if part <= 0 || whole <= 0 {
		return "0 %"
	}
	p := 100 * float64(part) / float64(whole)
	switch {
	case p < 0.1:
		return "<0.1 %"
	case p < 9.95:
		return strconv.FormatFloat(p, 'f', 1, 64) + " %"
	case part < whole && p > 99.5:
		return ">99 %"
	}
	return strconv.FormatFloat(p, 'f', 0, 64) + " %"
}

// age writes how long it is since then, in its two largest units at most; "never" if then is zero. A clock that
// was set back makes no negative ages.
func age(now, then time.Time) string {
	if then.IsZero() {
		return "never"
	}
	s := max(int64(now.Sub(then)/time.Second), 0)
	switch {
	case s < 60:
		return fmt.Sprintf("%d s", s)
	case s < 3600:
		return fmt.Sprintf("%d min", s/60)
	case s < 86400:
		return fmt.Sprintf("%d h %d min", s/3600, s/60%60)
	}
	return fmt.Sprintf("%d d %d h", s/86400, s/3600%24)
}

// ago is age as an answer to "when".
func ago(now, then time.Time) string {
	if then.IsZero() {
		return "never"
	}
	return age(now, then) + " ago"
}

// until is age as an answer to "until when".
func until(now, then time.Time) string {
	switch {
	case then.IsZero():
		return "never"
	case then.Before(now):
		return ago(now, then)
	}
	return "in " + age(then, now)
}

// familyName writes "ipv6" as people do.
func familyName(f string) string { return strings.Replace(f, "ipv", "IPv", 1) }

// clean replaces what would move the cursor of a terminal: reasons quote what backends sent. A line break is kept
// as a blank.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r):
			return '�'
		}
		return r
	}, s)
}
