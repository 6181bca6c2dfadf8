// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// maxRules bounds the patterns, and the routes, of a plan: the proof compares each with each.
const maxRules = 4096

// rule is one pattern, and what it stands for: a class of numbers, or what a route is for.
type rule struct {
	pattern Pattern
	class   string // "" if a route names the pattern
	place   string
}

// owner is what a rule stands for. Patterns of one owner may share numbers.
func (r *rule) owner() string {
	if r.class != "" {
		return r.class
	}
	return r.pattern.text
}

// describe names the rule and its place in a finding.
func (r *rule) describe() string {
	if r.class != "" {
		return fmt.Sprintf("%s %s (%s)", r.class, r.pattern.text, r.place)
	}
	return fmt.Sprintf("%s (%s)", r.pattern.text, r.place)
}

// compiler gathers the rules on the way to a Plan.
type compiler struct {
	*Plan
	wrong    []error
	warnings []error
	whose    [2][][]uint16 // by route: the rules of its To and its From
}

// Compile proves that the country's classes, the site's numbers and its routes say one thing about each number, and
// returns them as one plan. Findings are errors, each with the place of what it is about and a number that shows it;
// a plan with only warnings is good.
func Compile(country *Country, site Site) (p *Plan, warnings []error, err error) {
	c := &compiler{Plan: &Plan{country: country, routes: site.Routes}}
	for _, cl := range country.classes {
		c.rules = append(c.rules, rule{cl.pattern, cl.name, cl.place})
	}
	for _, o := range site.Own {
		c.add(o.Pattern, Own, o.Place)
	}
	for i := range site.Routes {
		c.route(&site.Routes[i])
	}
	if n := max(len(c.rules), len(c.routes)); n > maxRules {
		return nil, nil, fmt.Errorf("plan: %d patterns or routes, at most %d", n, maxRules)
	}
	if err := errors.Join(c.wrong...); err != nil {
		return nil, nil, err
	}
	c.ambiguous()
	c.shadowed()
	if err := errors.Join(c.wrong...); err != nil {
		return nil, nil, err
	}
	if err := c.build(); err != nil {
		return nil, nil, err
	}
	c.prove()
	if err := errors.Join(c.wrong...); err != nil {
		return nil, nil, err
	}
	return c.Plan, c.warnings, nil
}

// add appends a rule for a pattern that the site wrote.
func (c *compiler) add(text, class, place string) (id uint16, ok bool) {
	p, err := ParsePattern(text)
	if err != nil {
		c.wrong = append(c.wrong, fmt.Errorf("%s: %w", place, err))
		return 0, false
	}
	c.rules = append(c.rules, rule{p, class, place})
	return uint16(len(c.rules) - 1), true
}

// route finds the rules of what a route is for. A pattern that was named before is that rule again.
func (c *compiler) route(r *Route) {
	if !r.one() {
		c.wrong = append(c.wrong, fmt.Errorf("%s: want one of via, announce and deny", r.Place))
	}
	if len(r.To) == 0 {
		c.wrong = append(c.wrong, fmt.Errorf("%s: to whom?", r.Place))
	}
	for side, words := range [...][]string{r.To, r.From} {
		var of []uint16
		for _, word := range words {
			of = append(of, c.named(word, r.Place)...)
		}
		c.whose[side] = append(c.whose[side], of)
	}
}

// named returns the rules of a class, or the one of a pattern.
func (c *compiler) named(word, place string) (of []uint16) {
	for i := range c.rules {
		if c.rules[i].owner() == word {
			of = append(of, uint16(i))
		}
	}
	if len(of) > 0 || word == Own {
		return of
	}
	if word == "" || !isDigit(word[0]) && word[0] != '[' {
		c.wrong = append(c.wrong, fmt.Errorf("%s: no class %q: want %s, or a pattern", place, word, c.classes()))
		return nil
	}
	if id, ok := c.add(word, "", place); ok {
		of = append(of, id)
	}
	return of
}

// classes lists the names there are.
func (c *compiler) classes() string {
	names := []string{Own}
	for i := range c.rules {
		if n := c.rules[i].class; n != "" && !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	return strings.Join(names, ", ")
}

// build makes the automata, and the table of what both say together.
func (c *compiler) build() (err error) {
	patterns := make([]*Pattern, len(c.rules))
	for i := range c.rules {
		patterns[i] = &c.rules[i].pattern
	}
	inner := func(a, b uint16) bool { return a != b && patterns[a].within(patterns[b]) }
	if c.numbers, err = build(patterns, inner); err != nil {
		return err
	}
	c.gather()
	c.table = make([]int16, 0, len(c.numbers.chains)*len(c.columns))
	for _, to := range c.numbers.chains {
		for _, from := range c.columns {
			c.table = append(c.table, c.pick(to, from))
		}
	}
	return nil
}

// gather puts callers for whom all routes are the same into one column. The first one is that of callers who are in no
// From, and of nobody.
func (c *compiler) gather() {
	named := make([]bool, len(c.rules))
	for _, of := range c.whose[1] {
		for _, r := range of {
			named[r] = true
		}
	}
	known := map[string]uint16{}
	for _, chain := range c.numbers.chains {
		var column []uint16
		for _, r := range c.scope(chain) {
			if named[r] {
				column = append(column, r)
			}
		}
		id, ok := known[name(0, column)]
		if !ok {
			id = uint16(len(c.columns))
			known[name(0, column)] = id
			c.columns = append(c.columns, column)
		}
		c.callers = append(c.callers, id)
	}
}

// scope returns the rules of a chain that routes may name: up to the narrowest class. A number has one class; that
// 0990 is 0ab-j too, as far as its digits go, must not send it where 0ab-j goes.
func (p *Plan) scope(chain []uint16) []uint16 {
	class := ""
	for i, r := range chain {
		switch name := p.rules[r].class; {
		case class == "":
			class = name
		case name != class:
			return chain[:i]
		}
	}
	return chain
}

// pick returns the route from a caller's column to a number: the narrowest To that has one for the caller, then the
// narrowest From. Without a From a route is for everybody, and wider than any.
func (c *compiler) pick(to, from []uint16) int16 {
	for _, t := range c.scope(to) {
		best, depth := int16(-1), len(from)+1
		for i := range c.routes {
			if !slices.Contains(c.whose[0][i], t) {
				continue
			}
			at := len(from)
			if len(c.routes[i].From) > 0 {
				if at = slices.IndexFunc(from, func(f uint16) bool { return slices.Contains(c.whose[1][i], f) }); at < 0 {
					continue
				}
			}
			if at < depth {
				best, depth = int16(i), at
			}
		}
		if best >= 0 {
			return best
		}
	}
	return -1
}
