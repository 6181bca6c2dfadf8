// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/kyozon/kyozon/service"
)

// maxRules bounds the patterns, and the routes, of a plan: the proof compares each with each.
const maxRules = 4096

// rule is one pattern, and what it stands for: a class of numbers, or what a route is for.
type rule struct {
	pattern Pattern
	class   string // "" if a route names the pattern
	place   place
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

// compiler gathers the rules on the way to a Plan. Of routes only owners are asked: to them the thousand patterns of a
// class are one.
type compiler struct {
	*Plan
	findings []Finding
	wrong    bool // one of them is no warning

	owners map[string]uint16 // a number for each
	to     map[uint16][]int  // by owner: the routes with it in their To
	from   [][]uint16        // by route: the owners of its From
	rows   [][]uint16        // the owners that routes to such a number may name, the narrowest first
	cols   [][]uint16        // of callers: those of them that a From names
}

// Compile proves that the country's classes, the site's numbers and its routes say one thing about each number, and
// returns them as one plan. Each finding has the place of what it is about, and where it can a number that shows it.
// The plan is nil if one is more than a warning.
func Compile(country *Country, own []string, routes []Route) (*Plan, []Finding) {
	c := &compiler{
		Plan:   &Plan{country: country, routes: routes},
		owners: map[string]uint16{}, to: map[uint16][]int{}, from: make([][]uint16, len(routes)),
	}
	c.read(own)
	for _, step := range []func(){c.ambiguous, c.shadowed, c.build, c.prove} {
		if c.wrong {
			return nil, c.findings
		}
		step()
	}
	if c.wrong {
		return nil, c.findings
	}
	return c.Plan, c.findings
}

// read makes rules of all that is written.
func (c *compiler) read(own []string) {
	if n := len(c.country.classes) + len(own) + len(c.routes); n > maxRules {
		c.fault(place{}, "%d patterns and routes, at most %d", n, maxRules)
		return
	}
	for _, cl := range c.country.classes {
		c.rules = append(c.rules, rule{cl.pattern, cl.name, cl.place})
	}
	for i, text := range own {
		c.add(text, Own, ownPlace(i))
	}
	for i := range c.rules {
		c.owner(c.rules[i].owner())
	}
	for i := range c.routes {
		c.route(i)
	}
	if len(c.rules) > maxRules {
		c.fault(place{}, "%d patterns, at most %d", len(c.rules), maxRules)
	}
}

// fault adds a finding.
func (c *compiler) fault(at place, format string, words ...any) {
	c.wrong = true
	text := fmt.Sprintf(format, words...)
	if at.line != "" {
		text = at.line + ": " + text
	}
	c.findings = append(c.findings, Finding{Path: at.path, Text: text})
}

// add appends a rule for a pattern that the site wrote, and says whether it could.
func (c *compiler) add(text, class string, at place) bool {
	p, err := ParsePattern(text)
	plain := strings.NewReplacer("-", "", " ", "").Replace(text)
	_, bad := ParsePattern(plain)
	switch {
	case err == nil:
	case text != "" && text[0] == '+':
		c.fault(at, "%q: numbers are written as they are dialled within the country%s", text, c.dialled(plain))
		return false
	case bad == nil:
		c.fault(at, "%q: leave hyphens and blanks out: %s", text, plain)
		return false
	default:
		c.fault(at, "%v", err)
		return false
	}
	c.rules = append(c.rules, rule{p, class, at})
	return true
}

// owner returns the number of an owner.
func (c *compiler) owner(name string) uint16 {
	id, ok := c.owners[name]
	if !ok {
		id = uint16(len(c.owners))
		c.owners[name] = id
	}
	return id
}

// route finds the owners that a route is for.
func (c *compiler) route(i int) {
	r := &c.routes[i]
	at := routePlace(i)
	if !r.one() {
		c.fault(at, "want one of via, announce and deny")
	}
	if len(r.To) == 0 {
		c.fault(at, "to whom?")
	}
	for _, word := range r.To {
		if o, ok := c.named(word, at); ok {
			c.to[o] = append(c.to[o], i)
		}
	}
	for _, word := range r.From {
		if o, ok := c.named(word, at); ok {
			c.from[i] = append(c.from[i], o)
		}
	}
}

// named returns the owner that a word of a route means: a class, or a pattern, which becomes a rule unless it is one.
func (c *compiler) named(word string, at place) (owner uint16, ok bool) {
	if _, ok := c.owners[word]; ok || word == Own {
		return c.owner(word), true
	}
	if word == "" || !isDigit(word[0]) && word[0] != '[' {
		switch like := service.Nearest(word, strings.Split(c.classes(), ", ")); {
		case like != "":
			c.fault(at, "no class %q; did you mean %q?", word, like)
		case word != "" && word[0] == '+':
			c.fault(at, "no class %q; numbers are written as they are dialled within the country%s", word, c.dialled(word))
		default:
			c.fault(at, "no class %q: want %s, or a pattern", word, c.classes())
		}
		return 0, false
	}
	return c.owner(word), c.add(word, "", at)
}

// dialled says how a pattern would be written that begins with the country code; "" if it is of no number here.
func (c *compiler) dialled(pattern string) string {
	if rest, ok := strings.CutPrefix(pattern, "+"+c.country.Code); ok {
		return ": " + c.country.Trunk + rest
	}
	return ""
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
func (c *compiler) build() {
	patterns := make([]*Pattern, len(c.rules))
	for i := range c.rules {
		patterns[i] = &c.rules[i].pattern
	}
	var err error
	if c.numbers, err = build(patterns, c.inner); err != nil {
		c.fault(place{}, "%v", err)
		return
	}
	c.gather()
	c.width = len(c.cols)
	c.table = make([]int16, 0, len(c.rows)*c.width)
	for _, to := range c.rows {
		for _, from := range c.cols {
			c.table = append(c.table, c.pick(to, from))
		}
	}
}

// inner says whether a counts before b. A pattern of a route that has just the numbers of a class's counts before that.
func (c *compiler) inner(a, b uint16) bool {
	p, q := &c.rules[a], &c.rules[b]
	return a != b && p.pattern.within(&q.pattern) && (p.class == "" && q.class != "" || !q.pattern.within(&p.pattern))
}

// gather puts numbers for which all routes are the same into one row, and callers into one column. The first column is
// that of callers who are in no From, and of nobody.
func (c *compiler) gather() {
	named := make([]bool, len(c.owners))
	for _, of := range c.from {
		for _, o := range of {
			named[o] = true
		}
	}
	rows, cols := map[string]uint16{}, map[string]uint16{}
	for _, chain := range c.numbers.chains {
		var row, col []uint16
		for _, r := range c.scope(chain) {
			o := c.owners[c.rules[r].owner()]
			if !slices.Contains(row, o) {
				row = append(row, o)
			}
			if named[o] && !slices.Contains(col, o) {
				col = append(col, o)
			}
		}
		c.called = append(c.called, enter(rows, &c.rows, row))
		c.callers = append(c.callers, enter(cols, &c.cols, col))
	}
}

// enter returns where key stands in list, and puts it there if it does not.
func enter(known map[string]uint16, list *[][]uint16, key []uint16) uint16 {
	id, ok := known[name(0, key)]
	if !ok {
		id = uint16(len(*list))
		known[name(0, key)] = id
		*list = append(*list, key)
	}
	return id
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
	for _, t := range to {
		best, depth := -1, len(from)+1
		for _, i := range c.to[t] {
			at := len(from)
			if len(c.from[i]) > 0 {
				at = slices.IndexFunc(from, func(o uint16) bool { return slices.Contains(c.from[i], o) })
			}
			if at >= 0 && at < depth {
				best, depth = i, at
			}
		}
		if best >= 0 {
			return int16(best)
		}
	}
	return -1
}
