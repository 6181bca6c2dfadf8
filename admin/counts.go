// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kyozon/kyozon/edge"
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

// countRow is a count as tables show it.
type countRow struct {
	Key, Service, Noun, Clients, Which string
	Value                              int64
}

// countRows returns the counts that are not zero.
func countRows(all []edge.CountStatus) (rows []countRow) {
	for _, n := range all {
		if n.Value == 0 || n.Noun == "" {
			continue
		}
		r := countRow{Key: n.Metric, Service: n.Labels["service"], Noun: n.Noun, Clients: familyName(n.Labels["client_family"]), Value: n.Value}
		if to := n.Labels["backend_family"]; to != "" {
			r.Clients = strings.TrimPrefix(r.Clients, "IPv") + "→" + strings.TrimPrefix(to, "ipv") // as ip.Crossing writes it
		}
		var which []string
		for _, name := range slices.Sorted(maps.Keys(n.Labels)) {
			r.Key += "/" + n.Labels[name]
			if name != "service" && name != "client_family" && name != "backend_family" {
				which = append(which, n.Labels[name])
			}
		}
		r.Which = strings.Join(which, " ")
		if h := n.Histogram; h != nil {
			r.Which = strings.TrimPrefix(fmt.Sprintf("%s, %.2f on average", r.Which, h.Sum/float64(h.Count())), ", ")
		}
		rows = append(rows, r)
	}
	return rows
}

// line is the row in a few words.
func (r countRow) line() string {
	text := count(r.Value) + " " + r.Noun
	if r.Service != "" {
		text = r.Service + ": " + text
	}
	for _, more := range []string{r.Which, r.Clients} {
		if more != "" {
			text += ", " + more
		}
	}
	return text
}
