// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"math/bits"
	"strings"
)

// ErrPattern is wrapped by what ParsePattern returns.
var ErrPattern = errors.New("pattern")

// maxDigits is the longest that can be dialled: three for privacy, six that choose a carrier, 010, and the 15 of the
// longest number there is (ITU-T E.164).
const maxDigits = 27

// digits is a set of them: bit 4 is the digit 4.
type digits uint16

const anyDigit digits = 1<<10 - 1

// Pattern is a set of numbers: a set of digits for each place, and how many places there are at least.
type Pattern struct {
	text     string
	sets     [maxDigits]digits
	min, max int
}

// ParsePattern reads a digit, x for any, [2-9] for some; {3} repeats what stands before it, and {3,9}, at the end, so
// often. The error wraps ErrPattern.
func ParsePattern(text string) (Pattern, error) {
	p := Pattern{text: text}
	fail := func(why string) (Pattern, error) { return Pattern{}, fmt.Errorf("%w %q: %s", ErrPattern, text, why) }
	if text == "" || len(text) > 64 {
		return fail("not 1 to 64 characters")
	}
	for rest := text; rest != ""; {
		if p.min != p.max {
			return fail("{,} does not stand at the end")
		}
		set, after := element(rest)
		if set == 0 {
			return fail(fmt.Sprintf("at %q: want a digit, x, or a set like [2-9]", rest))
		}
		low, high, after, ok := times(after)
		if !ok {
			return fail(fmt.Sprintf("at %q: want {3} or {3,9}", after))
		}
		if p.max+high > maxDigits {
			return fail(fmt.Sprintf("more than %d digits", maxDigits))
		}
		for range high {
			p.sets[p.max] = set
			p.max++
		}
		p.min, rest = p.max-high+low, after
	}
	if p.min == 0 {
		return fail("may be empty")
	}
	return p, nil
}

// element reads one place; the set is empty if there is none.
func element(s string) (set digits, rest string) {
	switch c := s[0]; {
	case isDigit(c):
		return 1 << (c - '0'), s[1:]
	case c == 'x':
		return anyDigit, s[1:]
	case c != '[':
		return 0, s
	}
	inside, rest, ok := strings.Cut(s[1:], "]")
	if !ok {
		return 0, s
	}
	for i := 0; i < len(inside); i++ {
		from := inside[i]
		to := from
		if i+2 < len(inside) && inside[i+1] == '-' {
			to, i = inside[i+2], i+2
		}
		if !isDigit(from) || !isDigit(to) || from > to {
			return 0, s
		}
		for c := from; c <= to; c++ {
			set |= 1 << (c - '0')
		}
	}
	return set, rest
}

// times reads how often a place is repeated. On failure rest is where.
func times(s string) (low, high int, rest string, ok bool) {
	if !strings.HasPrefix(s, "{") {
		return 1, 1, s, true
	}
	inside, rest, found := strings.Cut(s[1:], "}")
	first, second, two := strings.Cut(inside, ",")
	low, ok = small(first)
	high = low
	if two && ok {
		high, ok = small(second)
	}
	if !found || !ok || low > high || high == 0 || !two && low == 0 {
		return 0, 0, s, false
	}
	return low, high, rest, true
}

// small reads a number below 100.
func small(s string) (n int, ok bool) {
	if len(s) < 1 || len(s) > 2 {
		return 0, false
	}
	for i := range len(s) {
		if !isDigit(s[i]) {
			return 0, false
		}
		n = n*10 + int(s[i]-'0')
	}
	return n, true
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

// String returns the pattern as it was written.
func (p *Pattern) String() string { return p.text }

// Match says whether n is of the pattern. Plan.Look asks all patterns at once and is what calls use.
func (p *Pattern) Match(n Number) bool {
	if int(n.n) < p.min || int(n.n) > p.max {
		return false
	}
	for i := range int(n.n) {
		if !p.sets[i].has(n.digits[i]) {
			return false
		}
	}
	return true
}

func (s digits) has(c byte) bool { return s>>(c-'0')&1 == 1 }

// within says whether q has all numbers of p.
func (p *Pattern) within(q *Pattern) bool {
	if p.min < q.min || p.max > q.max {
		return false
	}
	for i := range p.max {
		if p.sets[i]&^q.sets[i] != 0 {
			return false
		}
	}
	return true
}

// shared returns the least number that both have.
func (p *Pattern) shared(q *Pattern) (n Number, ok bool) {
	length := max(p.min, q.min)
	if length > min(p.max, q.max) {
		return n, false
	}
	for i := range length {
		both := p.sets[i] & q.sets[i]
		if both == 0 {
			return n, false
		}
		n.digits[i] = '0' + byte(bits.TrailingZeros16(uint16(both)))
	}
	n.n = uint8(length)
	return n, true
}

// example returns the least number of p.
func (p *Pattern) example() Number {
	n, _ := p.shared(p)
	return n
}
