// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"
	"strings"
)

// ambiguous finds two rules that share numbers while neither lies in the other: which of them counts would depend on
// nothing that is written.
func (c *compiler) ambiguous() {
	for i := range c.rules {
		for j := range c.rules[:i] {
			a, b := &c.rules[j], &c.rules[i]
			n, both := a.pattern.shared(&b.pattern)
			if !both {
				continue
			}
			inner, outer := a.pattern.within(&b.pattern), b.pattern.within(&a.pattern)
			switch same := a.owner() == b.owner(); {
			case inner && outer && same:
				c.fault(b.place, "%s is there twice: before at %s", b.pattern.text, a.place)
			case inner && outer && (a.class == "") == (b.class == ""):
				c.fault(b.place, "%s is exactly %s: write one of them", b.describe(), a.describe())
			case !inner && !outer && !same:
				c.fault(b.place, "ambiguous: %s is both %s and %s: let one lie in the other", n, a.describe(), b.describe())
			}
		}
	}
}

// shadowed finds rules that no dialled number reaches, since a prefix is taken off first, and numbers of the site that
// would take emergency calls.
func (c *compiler) shadowed() {
	for i := range c.rules {
		r := &c.rules[i]
		for _, p := range c.country.privacy {
			whole, err := ParsePattern(fmt.Sprintf("%sx{0,%d}", p.digits, maxDigits-len(p.digits)))
			if err != nil {
				c.fault(place{}, "%s: %v", c.country.Name, err)
				continue
			}
			if r.pattern.within(&whole) {
				c.fault(r.place, "unreachable: %s begins with %s, which is taken off first", r.pattern.example(), p.digits)
			}
		}
		if r.class != Own {
			continue
		}
		for j := range c.rules {
			if e := &c.rules[j]; e.class == Emergency {
				if n, ok := r.pattern.shared(&e.pattern); ok {
					c.fault(r.place, "%s, an emergency number, cannot be the site's own", n)
				}
			}
		}
	}
}

// prove walks all chains that can happen, and so all numbers.
func (c *compiler) prove() {
	numbers := c.numbers.examples()
	c.proveRules(numbers)
	c.proveRoutes(numbers)
	c.proveEmergency(numbers)
	c.missing(numbers)
}

// proveRules finds patterns of which narrower ones take every number. What routes name takes none from a class.
func (c *compiler) proveRules(numbers []Number) {
	first := make([]bool, len(c.rules))
	for _, chain := range c.numbers.chains[1:] {
		first[chain[0]] = true
		first[c.class(chain)] = true
	}
	for i := range c.rules {
		if first[i] {
			continue
		}
		r := &c.rules[i]
		for k, chain := range c.numbers.chains {
			if slices.Contains(chain, uint16(i)) {
				c.fault(r.place, "unreachable: %s has no number of its own: %s, for one, is %s", r.describe(), numbers[k],
					c.rules[chain[0]].describe())
				break
			}
		}
	}
}

// proveRoutes finds routes that no call takes, whoever calls whom.
func (c *compiler) proveRoutes(numbers []Number) {
	used := make([]bool, len(c.routes))
	for _, r := range c.table {
		if r >= 0 {
			used[r] = true
		}
	}
	for i := range c.routes {
		if !used[i] {
			c.unused(i, numbers)
		}
	}
}

// unused says of a route that no call takes which one a call to its numbers takes instead.
func (c *compiler) unused(i int, numbers []Number) {
	meant := false
	for k, to := range c.rows {
		if !slices.ContainsFunc(to, func(o uint16) bool { return slices.Contains(c.to[o], i) }) {
			continue
		}
		meant = true
		for l, from := range c.cols {
			r := c.table[k*c.width+l]
			if r < 0 || len(c.from[i]) > 0 && !slices.ContainsFunc(from, func(o uint16) bool { return slices.Contains(c.from[i], o) }) {
				continue
			}
			other, caller := &c.routes[r], ""
			if l > 0 {
				caller = " from " + c.someone(l, numbers)
			}
			called := numbers[slices.Index(c.called, uint16(k))]
			c.fault(routePlace(i), "unreachable: a call%s to %s goes %s (%s)", caller, called, other.action(), routePlace(int(r)))
			return
		}
	}
	if !meant {
		c.fault(routePlace(i), "unreachable: no number is %s", strings.Join(c.routes[i].To, ", "))
		return
	}
	c.fault(routePlace(i), "unreachable: nobody can be its caller")
}

// someone names a caller of a column.
func (c *compiler) someone(column int, numbers []Number) string {
	if column == 0 {
		return "an unknown number"
	}
	return numbers[slices.Index(c.callers, uint16(column))].String()
}

// proveEmergency demands that what becomes of an emergency call is decided for each caller, also for one whose number
// is not known.
func (c *compiler) proveEmergency(numbers []Number) {
	for k, to := range c.numbers.chains {
		if len(to) == 0 || c.rules[c.class(to)].class != Emergency {
			continue
		}
		row := c.row(k)
		if l := slices.Index(row, -1); l >= 0 {
			at := place{path: []string{"routes"}}
			c.fault(at, "a call from %s to %s has no route: say via, announce or deny", c.someone(l, numbers), numbers[k])
		}
	}
}

// row returns the routes to the numbers of a chain, by the caller's column.
func (c *compiler) row(chain int) []int16 {
	r := int(c.called[chain])
	return c.table[r*c.width : (r+1)*c.width]
}

// missing warns of classes that no route takes.
func (c *compiler) missing(numbers []Number) {
	routed, example := map[string]bool{}, map[string]Number{}
	var order []string
	for k, to := range c.numbers.chains {
		if k == 0 {
			continue
		}
		class := c.rules[c.class(to)].class
		if _, ok := example[class]; !ok {
			example[class] = numbers[k]
			order = append(order, class)
		}
		routed[class] = routed[class] || slices.Max(c.row(k)) >= 0
	}
	for _, class := range order {
		if !routed[class] && class != "" && class != Emergency {
			text := fmt.Sprintf("no route to %s: a call to %s, for one, is refused", class, example[class])
			c.findings = append(c.findings, Finding{Path: []string{"routes"}, Text: text, Warning: true})
		}
	}
}
