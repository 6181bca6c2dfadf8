// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
	"slices"
	"strings"

	"github.com/kyozon/kyozon/service"
)

// addCounts adds what a protocol counts by itself; services are shown how many clients are connected to them.
func (s *Status) addCounts(server service.Server) {
	if server.Counts == nil {
		return
	}
	for _, c := range server.Counts() {
		labels := make(map[string]string, len(c.Values))
		for i, v := range c.Values {
			labels[c.Metric.Labels[i]] = v
		}
		s.Counts = append(s.Counts, CountStatus{Metric: c.Metric.Name, Help: c.Metric.Help, Noun: c.Metric.Noun, Labels: labels, Value: c.Value,
			Histogram: c.Histogram})
		for i := range s.Services {
			if one := &s.Services[i]; c.Metric.Sessions && one.Service == labels["service"] && one.ClientFamily == labels["client_family"] {
				one.addSessions(&c, labels["backend_family"])
			}
		}
	}
}

// addSessions adds a series of sessions, and to a crossing if they are known to be of one.
func (s *ServiceStatus) addSessions(c *service.Count, backend string) {
	ended := strings.HasSuffix(c.Metric.Name, "_total")
	if s.Sessions == nil {
		s.Sessions = new(int64)
	}
	if !ended {
		*s.Sessions += c.Value
		s.SessionNoun = strings.TrimSuffix(c.Metric.Noun, " now")
	}
	i := slices.IndexFunc(s.Crossings, func(x CrossingStatus) bool { return x.Crossing == crossingNamed(s.ClientFamily, backend) })
	switch {
	case i < 0:
	case ended:
		s.Crossings[i].SessionsEnded += c.Value
	default:
		s.Crossings[i].Sessions += c.Value
	}
}

// crossingNamed returns what ip.Crossing writes, by the names of its families.
func crossingNamed(client, backend string) string {
	return strings.TrimPrefix(client, "ipv") + "→" + strings.TrimPrefix(backend, "ipv")
}
