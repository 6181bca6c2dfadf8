// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"strings"
)

// Explain returns, step by step, why a call from caller to what was dialled is treated as Look says.
func (p *Plan) Explain(dialled, caller string) (steps []string) {
	add := func(format string, words ...any) { steps = append(steps, fmt.Sprintf(format, words...)) }
	d := p.Look(dialled, caller)
	if d.Privacy != NoPrefix {
		add("the prefix asks to %s the caller's number", d.Privacy)
	}
	switch n := d.Number.String(); {
	case n == "" && d.Kind == None:
		add("%s is not a telephone number: digits, or + and a country code, without a 0 behind +%s", dialled, p.country.Code)
		return steps
	case n == "":
		add("nothing else was dialled yet")
		return steps
	case n != dialled:
		add("%s in national form is %s", dialled, n)
	}
	switch d.Kind {
	case None:
		add("%s: no number of %s begins so, or it is too long", d.Number, p.country.Name)
		return steps
	case Incomplete:
		add("%s: digits are missing", d.Number)
		return steps
	}
	chain := p.numbers.chains[p.numbers.walk(&d.Number).chain]
	for i, r := range chain {
		word := "is"
		if i > 0 {
			word = "is wider:"
		}
		add("%s %s %s", d.Number, word, p.rules[r].describe())
	}
	p.parts(&d, add)
	if d.Emergency {
		add("an emergency call: never refused for want of room")
	}
	if caller != "" {
		add("the caller, %s, is %s", caller, p.who(caller))
	}
	r := p.Route(&d)
	if r == nil {
		add("no route: refused")
		return steps
	}
	whose := "for everybody"
	if len(r.From) > 0 {
		whose = "for callers of " + strings.Join(r.From, ", ")
	}
	add("%s: to %s, %s: %s", routePlace(d.Route), strings.Join(r.To, ", "), whose, r.action())
	return steps
}

// parts explains what the digits of a number are.
func (p *Plan) parts(d *Decision, add func(string, ...any)) {
	switch {
	case d.Chosen > 0:
		rest := d.Number.after(d.Chosen)
		called := d.Called
		if called == "" {
			called = "a service of that carrier"
		}
		add("%s chooses a carrier; %s behind it is %s", d.Number.first(d.Chosen), rest, called)
	case p.country.Area(d.Number) > 0:
		area := p.country.Area(d.Number)
		add("%s is the area code, %s the number there", d.Number.first(area), d.Number.after(area))
	}
	if global, ok := p.country.AppendGlobal(nil, d.Number); ok {
		add("its global form is %s", global)
	}
	if d.More {
		add("more digits would be a number too")
	}
}

// who names the class of a caller.
func (p *Plan) who(caller string) string {
	if chain := p.numbers.chains[p.caller(caller)]; len(chain) > 0 {
		return p.rules[p.class(chain)].describe()
	}
	return "of no class"
}
