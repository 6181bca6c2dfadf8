// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package plan

import (
	_ "embed" // this file
	"strconv"
	"strings"
)

//go:embed route.go
var source string

// Source is the Go source of Numbers and Route, whose comments describe their keys.
func Source() string { return source }

// Words are classes of numbers, or patterns. In a site file one needs no brackets.
type Words []string

// UnmarshalText takes one word.
func (w *Words) UnmarshalText(text []byte) error {
	*w = Words{string(text)}
	return nil
}

// Numbers says which numbers there are.
type Numbers struct {
	// The numbers of the subscribers: 0501000xxxx is a block of ten thousand.
	Own Words `yaml:"own"`

	// The country whose numbers they are: japan.
	Plan string `yaml:"plan,required"`
}

// Route is where calls go. Exactly one of Via, Announce and Deny is set.
type Route struct {
	// The numbers called: classes like mobile, or patterns like 0120444xxx. A pattern counts before the class.
	To Words `yaml:"to,required"`

	// Whose calls, in the same words. Where nothing is written, everybody's.
	From Words `yaml:"from"`

	// The trunk that takes them, or subscribers.
	Via string `yaml:"via"`

	// The announcement that the caller hears instead.
	Announce string `yaml:"announce"`

	// What the caller is told instead.
	Deny string `yaml:"deny"`

	// What becomes of calls between telephones that share no network or no address family, so that their media cannot go directly:
	// relay, which is the default; refuse; or the trunk by which they go out instead, as if the number were not ours.
	Apart string `yaml:"apart"`

	// The one family, ipv4 or ipv6, that telephones use for these calls. A telephone that is reached over the other alone is not
	// called, and a caller over the other is refused. Where nothing is written, either.
	Family string `yaml:"family"`
}

// The words of Route.Apart that are no trunks.
const (
	Relay  = "relay"
	Refuse = "refuse"
)

// action says in words what a route does.
func (r *Route) action() string {
	switch {
	case r.Via != "":
		return "via " + r.Via + r.media()
	case r.Announce != "":
		return "announce " + r.Announce
	}
	return "deny: " + r.Deny
}

// media says in words what it says of media.
func (r *Route) media() (text string) {
	switch r.Apart {
	case "", Relay:
	case Refuse:
		text = "; refused where telephones share no network or family"
	default:
		text = "; out by " + r.Apart + " where telephones share no network or family"
	}
	if r.Family != "" {
		text += "; telephones over " + r.Family + " alone"
	}
	return text
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

// Finding is something wrong with numbers and routes, or with a country, or a warning.
type Finding struct {
	Path    []string // keys and indices in the section with numbers and routes: "routes", "3"
	Text    string
	Warning bool // the plan is good nevertheless
}

// place is where something is written.
type place struct {
	path []string // in the site file
	line string   // in a country's file, if it is there
}

// String returns numbers.own[0] or japan.txt:12.
func (p place) String() string {
	if p.line != "" {
		return p.line
	}
	var s strings.Builder
	for i, key := range p.path {
		switch _, err := strconv.Atoi(key); {
		case err == nil:
			s.WriteString("[" + key + "]")
		case i > 0:
			s.WriteString("." + key)
		default:
			s.WriteString(key)
		}
	}
	return s.String()
}

func ownPlace(i int) place   { return place{path: []string{"numbers", "own", strconv.Itoa(i)}} }
func routePlace(i int) place { return place{path: []string{"routes", strconv.Itoa(i)}} }
