// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"fmt"
	"strings"

	"github.com/kyozon/kyozon/protocol/phone/plan"
)

// Explain says step by step where a call to a number goes, by options that have been checked; nil if they have no numbers.
func (o *Options) Explain(number, from string) []string {
	p := o.Compile()
	if p == nil {
		return nil
	}
	return o.explain(p, number, from)
}

// explain is Explain by the plan of these options.
func (o *Options) explain(p *plan.Plan, number, from string) []string {
	steps := p.Explain(number, from)
	d := p.Look(number, from)
	r := p.Route(&d)
	if r == nil {
		return steps
	}
	t, ok := o.Trunks[r.Via]
	if !ok {
		return steps
	}
	var all []string
	for i := range t.Gateways {
		g := &t.Gateways[i]
		text := g.At.text
		if g.Weight > 0 {
			text += fmt.Sprintf(" (weight %d)", g.Weight)
		}
		all = append(all, text)
	}
	steps = append(steps, fmt.Sprintf("trunk %s, in network %s: %s", r.Via, t.Network, strings.Join(all, ", ")))
	if t.Channels > 0 {
		steps = append(steps, fmt.Sprintf("at most %d calls at once", t.Channels))
	}
	if t.Rate.Count > 0 {
		steps = append(steps, fmt.Sprintf("at most %d calls in %v", t.Rate.Count, t.Rate.Per))
	}
	return steps
}
