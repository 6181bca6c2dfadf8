// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package plan knows what a telephone number means and where a call to it goes. It does no I/O, knows no clock, and
// keeps nothing of a call.
//
//	japan.txt ─▶ ParseCountry ─┐
//	own numbers, routes ───────┴▶ Compile ─▶ findings: ambiguous, unreachable, without a route
//	                                 │
//	                                 ▼
//	"186 03-1234-5678" ─▶ Country.Read ─▶ Plan.Look ─▶ class, privacy, route
//	                      (national form)  (a table)
//
// A number belongs to the narrowest pattern that has it: 0120xxxxxx before 0[1-8][1-9]xxxxxxx. Two patterns that
// share numbers without one lying in the other are refused, so the order of lines means nothing. A number has one
// class. A route is found the same way: the narrowest `to` that has a route for the caller, patterns before the class,
// and of those the narrowest `from`.
//
// All patterns together become one automaton over digits, shared where its ends are alike. Compile walks it to prove
// that each pattern and each route is somebody's, and gives a number for each that is not.
//
// ITU-T E.164 (numbers), RFC 3966 (how a URI writes them).
package plan

// Kind says how much of a number there is.
type Kind uint8

// The kinds.
const (
	None       Kind = iota // no number begins so
	Incomplete             // digits are missing
	Complete
)

// String returns the kind in a word.
func (k Kind) String() string { return [...]string{"none", "incomplete", "complete"}[k] }

// Emergency, Own and Carrier are the classes with a meaning of their own. The others are the country's.
const (
	Emergency = "emergency" // every caller's is decided on load
	Own       = "own"       // numbers of the site
	Carrier   = "carrier"   // another carrier was chosen by the digits before the number
)

// Decision is what becomes of a call.
type Decision struct {
	Kind      Kind
	More      bool    // complete, and yet more digits would also be a number
	Class     string  // "" unless Kind is Complete, or if only a route names the number
	Privacy   Privacy // what the caller asked for by a prefix
	Emergency bool    // the call is never refused for want of room
	Number    Number  // in national form, without the prefix for privacy
	Chosen    int     // how many digits of Number choose another carrier
	Called    string  // with Chosen: the class of what follows, or ""
	Route     int     // index of the route, or -1
}

// Plan is a country's numbers, a site's own ones and its routes, compiled. It is immutable: share it freely.
type Plan struct {
	country *Country
	rules   []rule
	routes  []Route
	numbers automaton
	called  []uint16 // by chain: a row of the table
	callers []uint16 // by chain: a column
	width   int      // columns
	table   []int16  // a route, or -1
}

// Country returns the country whose numbers they are.
func (p *Plan) Country() *Country { return p.country }

// Route returns the route of a decision, or nil if it has none.
func (p *Plan) Route(d *Decision) *Route {
	if d.Route < 0 {
		return nil
	}
	return &p.routes[d.Route]
}

// Look says what becomes of a call to what was dialled by caller, who may be "" or unknown. It does not allocate.
func (p *Plan) Look(dialled, caller string) Decision {
	number, privacy, ok := p.country.Read(dialled)
	d := Decision{Privacy: privacy, Number: number, Route: -1}
	if !ok {
		return d
	}
	end := p.numbers.walk(&number)
	d.Kind, d.More = end.kind(), end.live
	if privacy == NoPrefix && p.country.begins(&number) {
		d.Kind, d.More = max(d.Kind, Incomplete), true
	}
	if d.Kind != Complete {
		return d
	}
	chain := p.numbers.chains[end.chain]
	d.Class = p.rules[p.class(chain)].class
	d.Emergency = d.Class == Emergency
	if d.Class == Carrier {
		p.chosen(&d)
		if d.Kind != Complete {
			d.Class = ""
			return d
		}
	}
	d.Route = int(p.table[int(p.called[end.chain])*p.width+int(p.callers[p.caller(caller)])])
	return d
}

// chosen finds the number behind the digits that choose a carrier. What does not begin like one is a service of that
// carrier's, whose length only it knows.
func (p *Plan) chosen(d *Decision) {
	d.Chosen = p.country.chosen(&d.Number)
	rest := d.Number.after(d.Chosen)
	if rest.n == 0 || !rest.begins(p.country.Trunk) {
		return
	}
	end := p.numbers.walk(&rest)
	if d.Kind, d.More = end.kind(), end.live; d.Kind == Complete {
		d.Called = p.rules[p.class(p.numbers.chains[end.chain])].class
	}
}

// class returns the narrowest rule of a chain that is a class: a pattern of a route has none.
func (p *Plan) class(chain []uint16) uint16 {
	for _, r := range chain {
		if p.rules[r].class != "" {
			return r
		}
	}
	return chain[len(chain)-1]
}

// caller returns the chain that a caller's number belongs to; 0 is that of nobody in particular.
func (p *Plan) caller(number string) uint16 {
	n, _, ok := p.country.Read(number)
	if !ok {
		return 0
	}
	return p.numbers.walk(&n).chain
}
