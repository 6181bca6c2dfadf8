// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"cmp"
	"fmt"
	"html/template"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/ip"
)

// States of a service, of a backend and of a certificate, as edge.Status writes them.
const (
	stateOpen      = "open"
	stateDegraded  = "degraded"
	stateShut      = "shut"
	stateUp        = "up"
	stateSlowStart = "slow-start"
	stateDraining  = "draining"
	stateEjected   = "ejected"
	stateValid     = "valid"
	stateEnding    = "ending"
)

// takesFlows says whether a backend in this state gets new flows.
func takesFlows(state string) bool { return state == stateUp || state == stateSlowStart }

// tone says how a state is to be taken. The page adds a shape and a colour to the word, the terminal a colour.
func tone(state string) string {
	switch state {
	case stateOpen, stateUp, stateValid:
		return "good"
	case stateDegraded, stateSlowStart, stateDraining, stateEjected, stateEnding:
		return "warn"
	}
	return "bad"
}

// certificateTone is tone for a certificate: one that is well but will not be followed by another is not.
func certificateTone(c edge.CertificateStatus) string {
	if t := tone(c.State); t != "good" || c.Reason == "" {
		return t
	}
	return "warn"
}

// page is what page.html shows: an edge.Status and what follows from it.
type page struct {
	edge.Status
	Now       time.Time
	NotReady  []string
	Trouble   int // services × family that are not open, backends that are down, certificates that no client takes
	Crossings []crossing
	Groups    []group
	Counted   []countRow
	Stuck     []string // messages that cannot go
	Flows     []edge.FlowStatus
	Active    int64 // flows under way, of which Flows are some
	Opened    int64 // flows so far
}

// group is the rows of one service.
type group struct {
	Service string
	Rows    []row
}

// row is one service for one client family, with the sums over its crossings.
type row struct {
	edge.ServiceStatus
	totals
}

// crossing is the sum of one crossing over all services.
type crossing struct {
	ip.Crossing
	edge.CrossingStatus
	Failed      int64
	SessionNoun string // "calls"; "" if no protocol has sessions of crossings
}

// SessionsSoFar is how many there are and were.
func (c *crossing) SessionsSoFar() int64 { return c.Sessions + c.SessionsEnded }

// sessions says how many there are and were, if there were any, after something else.
func (c *crossing) sessions() string {
	if c.SessionsSoFar() == 0 {
		return ""
	}
	return fmt.Sprintf("; %s %s now, %s so far", count(c.Sessions), some(c.Sessions, c.SessionNoun), count(c.SessionsSoFar()))
}

// totals sums crossings.
type totals struct {
	Active, Opened, Requests, ToServer, ToClient, Failed int64
	Sessions, SessionsEnded                              int64
	Rate                                                 float64
	Reasons                                              []reason
}

// reason is one line of what went wrong.
type reason struct {
	Name  string
	Count int64
}

// add sums c into t.
func (t *totals) add(c edge.CrossingStatus) {
	t.Active += c.Active
	t.Opened += c.Opened
	t.Requests += c.Requests
	t.ToServer += c.ToServer
	t.ToClient += c.ToClient
	t.Rate += c.Rate
	t.Failed += failed(c.Errors)
	t.Sessions += c.Sessions
	t.SessionsEnded += c.SessionsEnded
}

// sum returns the totals of one service × family, its errors the most frequent first.
func sum(s edge.ServiceStatus) totals {
	var t totals
	errors := make(map[string]int64)
	for _, c := range s.Crossings {
		t.add(c)
		for name, n := range c.Errors {
			errors[name] += n
		}
	}
	for _, name := range slices.Sorted(maps.Keys(errors)) {
		t.Reasons = append(t.Reasons, reason{name, errors[name]})
	}
	slices.SortStableFunc(t.Reasons, func(a, b reason) int { return cmp.Compare(b.Count, a.Count) })
	return t
}

func failed(errors map[string]int64) int64 {
	var n int64
	for _, c := range errors {
		n += c
	}
	return n
}

// newPage works out what the page shows. It does no I/O.
func newPage(st edge.Status, flows []edge.FlowStatus, now time.Time) page {
	p := page{Status: st, Now: now, NotReady: notReady(st), Crossings: crossings(st.Services), Flows: flows, Counted: countRows(st.Counts)}
	for _, s := range st.Services {
		last := len(p.Groups) - 1
		if last < 0 || p.Groups[last].Service != s.Service {
			p.Groups = append(p.Groups, group{Service: s.Service})
			last++
		}
		r := row{s, sum(s)}
		p.Groups[last].Rows = append(p.Groups[last].Rows, r)
		p.Active += r.Active
		p.Opened += r.Opened
		if s.State != stateOpen {
			p.Trouble++
		}
	}
	for _, b := range st.Backends {
		if tone(b.State) == "bad" {
			p.Trouble++
		}
	}
	for _, q := range st.Queues {
		if q.Stuck != "" {
			p.Trouble++
			p.Stuck = append(p.Stuck, stuck(q))
		}
	}
	for _, c := range st.Certificates {
		if tone(c.State) == "bad" {
			p.Trouble++
		}
	}
	return p
}

// crossings sums each crossing over all services.
func crossings(services []edge.ServiceStatus) []crossing {
	var all []crossing
	for _, c := range ip.Crossings() {
		var t totals
		noun := ""
		for _, s := range services {
			for _, x := range s.Crossings {
				if x.Crossing != c.String() {
					continue
				}
				t.add(x)
				if x.Sessions+x.SessionsEnded > 0 {
					noun = s.SessionNoun
				}
			}
		}
		all = append(all, crossing{Crossing: c, Failed: t.Failed, SessionNoun: noun, CrossingStatus: edge.CrossingStatus{
			Crossing: c.String(), Active: t.Active, Opened: t.Opened, Rate: t.Rate, ToServer: t.ToServer, ToClient: t.ToClient,
			Sessions: t.Sessions, SessionsEnded: t.SessionsEnded}})
	}
	return all
}

// thousandths is the width of a bar; what is not nothing is seen.
func thousandths(part, whole int64) int64 {
	if part <= 0 || whole <= 0 {
		return 0
	}
	return min(int64(math.Ceil(1000*float64(part)/float64(whole))), 1000)
}

// Headline is the verdict in a few words.
func (p page) Headline() string {
	switch {
	case p.Ready && p.Trouble == 0:
		return "ready"
	case p.Ready:
		return fmt.Sprintf("ready, %d in trouble", p.Trouble)
	}
	return "not ready"
}

// Tone is the verdict's tone.
func (p page) Tone() string {
	switch {
	case !p.Ready:
		return "bad"
	case p.Trouble > 0 || p.ReloadErr != "":
		return "warn"
	}
	return "good"
}

// parsePage returns the template of the page. It panics if the embedded file is wrong: a test fails first.
func parsePage() *template.Template {
	return template.Must(template.New("page.html").Funcs(template.FuncMap{
		"count":           count,
		"sessions":        sessions,
		"some":            some,
		"size":            size,
		"rate":            rate,
		"age":             age,
		"ago":             ago,
		"until":           until,
		"tone":            tone,
		"certificateTone": certificateTone,
		"family":          familyName,
		"percent":         percent,
		"thousandths":     thousandths,
		"join":            func(words []string) string { return strings.Join(words, ", ") },
		"int64":           func(n int) int64 { return int64(n) },
		"notCarrying":     notCarrying,
		"digit":           func(f ip.Family) string { return string(rune('0' + f)) },
		"datetime":        func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	}).ParseFS(assets, "assets/page.html"))
}
