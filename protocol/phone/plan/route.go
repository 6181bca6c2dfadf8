// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package plan

// Route is where calls go. Exactly one of Via, Announce and Deny is set.
type Route struct {
	To   []string // classes, or patterns of numbers
	From []string // the same, of the caller; none means everybody

	Via      string // a trunk, or "subscribers"
	Announce string // the announcement that is played
	Deny     string // what the caller is told

	Place string // where it is written, for findings
}

// OwnNumbers is a pattern of numbers of the site.
type OwnNumbers struct {
	Pattern string
	Place   string
}

// Site is what a site says about numbers.
type Site struct {
	Own    []OwnNumbers
	Routes []Route
}

// action says in words what a route does.
func (r *Route) action() string {
	switch {
	case r.Via != "":
		return "via " + r.Via
	case r.Announce != "":
		return "announce " + r.Announce
	}
	return "deny: " + r.Deny
}

// one says whether a route does exactly one thing.
func (r *Route) one() bool {
	n := 0
	for _, s := range []string{r.Via, r.Announce, r.Deny} {
		if s != "" {
			n++
		}
	}
	return n == 1
}
