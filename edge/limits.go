// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/limit"
)

// limitedShown is how many of the prefixes that are refused most are shown.
const limitedShown = 10

// limitsOf returns the limits of each service that has some. What its clients have used is known to every generation.
func limitsOf(cfg *config.Config, old *generation) map[string]*limit.Limits {
	all := make(map[string]*limit.Limits)
	for _, s := range cfg.Services {
		if s.Limits.IsZero() {
			continue
		}
		var table *limit.Table
		if old != nil && old.limits[s.Name] != nil && old.limits[s.Name].Observes() == s.Limits.Observe { // or its counts are of something else
			table = old.limits[s.Name].Table()
		} else {
			table = limit.NewTable(limit.DefaultSize)
		}
		all[s.Name] = table.Limits(s.Limits)
	}
	return all
}

// takeLimited notes which prefixes have been refused most in the last second, and logs the first of each service: a
// flood is one line a second.
func (e *Edge) takeLimited(g *generation) {
	var all []LimitedStatus
	for _, s := range g.config.Services {
		l := g.limits[s.Name]
		if l == nil {
			continue
		}
		heaviest := l.Table().Heaviest(limitedShown)
		for _, r := range heaviest {
			all = append(all, LimitedStatus{Service: s.Name, Prefix: r.Prefix, Kind: r.Kind.String(), Refused: r.Count, Outcome: outcomeOf(l)})
		}
		if len(heaviest) > 0 {
			most := heaviest[0]
			e.options.Log.Warn("clients limited", "service", s.Name, "client", most.Prefix.String(),
				"kind", most.Kind.String(), "refused", most.Count, "outcome", outcomeOf(l), "prefixes", len(heaviest))
		}
	}
	e.limited.Store(&all)
}

// limitStatus lists the limits that clients of a family have, the narrowest prefix of each kind first.
func limitStatus(l *limit.Limits, f ip.Family) (all []LimitStatus) {
	for _, c := range l.Counts(f) {
		all = append(all, LimitStatus{Kind: c.Kind.String(), Bits: c.Bits, Refused: c.Refused, Outcome: outcomeOf(l)})
	}
	return all
}

// outcomeOf says what becomes of who wants too much.
func outcomeOf(l *limit.Limits) string {
	if l.Observes() {
		return "observed"
	}
	return "refused"
}
