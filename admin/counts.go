// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/ip"
)

// counted shows to Prometheus what a protocol counts by itself. Describe says nothing of it: protocols differ.
func counted(n edge.CountStatus) prometheus.Metric {
	names := slices.Sorted(maps.Keys(n.Labels))
	values := make([]string, 0, len(names))
	for _, name := range names {
		values = append(values, n.Labels[name])
	}
	kind, d := prometheus.GaugeValue, prometheus.NewDesc(n.Metric, n.Help, names, nil)
	if strings.HasSuffix(n.Metric, "_total") {
		kind = prometheus.CounterValue
	}
	m, err := prometheus.NewConstMetric(d, kind, float64(n.Value), values...)
	if h := n.Histogram; h != nil {
		below, sum := make(map[float64]uint64), int64(0) // Prometheus wants each with all below it
		for i, bound := range h.Bounds {
			sum += h.Counts[i]
			below[bound] = uint64(sum)
		}
		m, err = prometheus.NewConstHistogram(d, uint64(h.Count()), h.Sum, below, values...)
	}
	if err != nil {
		return prometheus.NewInvalidMetric(d, err)
	}
	return m
}

// countRow is what one metric counts of one thing, over the families, as tables show it.
type countRow struct {
	Key, Service, Noun, Which string
	Cells                     []countCell // from left to right, together as wide as the crossings
	Total                     int64
}

// countCell is a count of a crossing, or of a family, which is as wide as two crossings; or the room that a count of neither
// leaves.
type countCell struct {
	Families string // "6→4", "IPv6" or ""
	Span     int
	Value    int64
	Text     string // "" if nothing is counted there
	Mean     string // of what is counted, if it has values
}

// countRows returns the counts by service, each with those of other families beside it, but not those that are zero in all.
func countRows(all []edge.CountStatus) (rows []countRow) {
	places := make(map[string]int)
	for _, n := range all {
		if n.Noun == "" {
			continue
		}
		r, column := newCountRow(&n)
		at, ok := places[r.Key]
		if !ok {
			at = len(rows)
			places[r.Key] = at
			rows = append(rows, r)
		}
		rows[at].Total += n.Value
		rows[at].Cells[column].add(&n)
	}
	first := make(map[string]int) // of each service; those of none come last
	for i, r := range slices.Backward(rows) {
		first[r.Service] = i
	}
	first[""] = len(rows)
	slices.SortStableFunc(rows, func(a, b countRow) int { return first[a.Service] - first[b.Service] })
	return slices.DeleteFunc(rows, func(r countRow) bool { return r.Total == 0 })
}

// newCountRow returns the row that a count belongs to, empty, and in which of its cells.
func newCountRow(n *edge.CountStatus) (r countRow, column int) {
	client := cmp.Or(n.Labels["client_family"], n.Labels["from_family"], n.Labels["family"])
	backend := cmp.Or(n.Labels["backend_family"], n.Labels["to_family"])
	r = countRow{Key: n.Metric, Service: n.Labels["service"], Noun: n.Noun}
	switch {
	case client != "" && backend != "":
		r.Key += "/crossings"
		for _, c := range ip.Crossings() {
			r.Cells = append(r.Cells, countCell{Families: c.String(), Span: 1})
			if c.Client.String() == client && c.Backend.String() == backend {
				column = c.Index()
			}
		}
	case client != "":
		for i, f := range [...]ip.Family{ip.V4, ip.V6} {
			r.Cells = append(r.Cells, countCell{Families: familyName(f.String()), Span: 2})
			if f.String() == client {
				column = i
			}
		}
	default:
		r.Cells = []countCell{{Span: 4}}
	}
	var which []string
	for _, name := range slices.Sorted(maps.Keys(n.Labels)) {
		if name == "family" || strings.HasSuffix(name, "_family") {
			continue
		}
		r.Key += "/" + n.Labels[name]
		if name != "service" {
			which = append(which, name+" "+n.Labels[name])
		}
	}
	r.Which = strings.Join(which, ", ")
	return r, column
}

func (c *countCell) add(n *edge.CountStatus) {
	if c.Families == "" {
		return
	}
	c.Value += n.Value
	c.Text = count(c.Value)
	if h := n.Histogram; h != nil && h.Count() > 0 {
		c.Mean = fmt.Sprintf("mean %.2f", h.Sum/float64(h.Count()))
	}
}

// line is the row in a few words.
func (r countRow) line() string {
	text := r.Noun
	if r.Which != "" {
		text += ", " + r.Which
	}
	var counts []string
	for _, c := range r.Cells {
		if c.Value == 0 {
			continue
		}
		one := c.Families + " " + c.Text
		if c.Mean != "" {
			one += ", " + c.Mean
		}
		counts = append(counts, one)
	}
	return text + ": " + cmp.Or(strings.Join(counts, "; "), count(r.Total))
}
