// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package metrics

import "github.com/prometheus/client_golang/prometheus"

// Collector shows a Registry to Prometheus. It keeps nothing: a scrape reads the counters that the flows write.
//
// Every service has all four crossings and every error all its reasons from the first scrape on, most of them
// zero: rate() and increase() do not see the step of a series that begins at one.
type Collector struct {
	registry *Registry

	opened, active, requests, bytes, errors *prometheus.Desc
}

// NewCollector returns a collector of r. Register it with one Prometheus registry.
func NewCollector(r *Registry) *Collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		labels = append([]string{"service", "client_family", "backend_family"}, labels...)
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &Collector{
		registry: r,
		opened:   desc("kyozon_flows_opened_total", "Flows that have reached a backend."),
		active:   desc("kyozon_flows_active", "Flows under way."),
		requests: desc("kyozon_flow_requests_total", "Requests, of protocols that have several in a flow."),
		bytes: desc("kyozon_flow_bytes_total", "Bytes carried, by where they went: to the server or to the client. Payload; where the kernel plane carries, packets with their headers.",
			"to"),
		errors: desc("kyozon_flow_errors_total", "Flows that did not come about or ended early, by reason.", "reason"),
	}
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.opened, c.active, c.requests, c.bytes, c.errors} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(to chan<- prometheus.Metric) {
	for _, s := range c.registry.Samples() {
		c.collect(s, to)
	}
}

func (c *Collector) collect(s Sample, to chan<- prometheus.Metric) {
	put := func(d *prometheus.Desc, kind prometheus.ValueType, value int64, labels ...string) {
		labels = append([]string{s.Service, s.Crossing.Client.String(), s.Crossing.Backend.String()}, labels...)
		m, err := prometheus.NewConstMetric(d, kind, float64(value), labels...)
		if err != nil {
			m = prometheus.NewInvalidMetric(d, err)
		}
		to <- m
	}
	put(c.opened, prometheus.CounterValue, s.Opened)
	put(c.active, prometheus.GaugeValue, s.Active)
	put(c.requests, prometheus.CounterValue, s.Requests)
	put(c.bytes, prometheus.CounterValue, s.ToServer, "server")
	put(c.bytes, prometheus.CounterValue, s.ToClient, "client")
	for _, r := range Reasons() {
		put(c.errors, prometheus.CounterValue, s.Errors[r], r.String())
	}
}
