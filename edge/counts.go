// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge

import (
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
				one.addSessions(c.Value, strings.TrimSuffix(c.Metric.Noun, " now"))
			}
		}
	}
}

func (s *ServiceStatus) addSessions(n int64, noun string) {
	if s.Sessions == nil {
		s.Sessions = new(int64)
	}
	*s.Sessions += n
	s.SessionNoun = noun
}
