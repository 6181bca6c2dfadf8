// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"cmp"
	"runtime"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/ip"
)

// collector shows to Prometheus what an edge.Status says beside the flow counters, which metrics.Collector shows.
type collector struct {
	source Source
	build  prometheus.Metric

	ready, serviceOpen                                 *prometheus.Desc
	backendUp, backendFlows                            *prometheus.Desc
	generation, draining, reloadOK, reloadTime, ledger *prometheus.Desc
	ledgerSize, ledgerShared, ledgerOK                 *prometheus.Desc
	refused, refusals                                  *prometheus.Desc
	logLines, logDropped, logOK, literals              *prometheus.Desc
	certEnd, certOK                                    *prometheus.Desc
	kernelOpen, kernelPackets, kernelBytes             *prometheus.Desc
}

func newCollector(s Source, version string) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	build := desc("kyozon_build_info", "Always 1; what runs.", "version", "go_version")
	backend := []string{"service", "pool", "backend", "family"}
	packet := []string{"service", "client_family", "backend_family", "reason"}
	return &collector{
		source: s,
		build:  prometheus.MustNewConstMetric(build, prometheus.GaugeValue, 1, version, runtime.Version()),

		ready: desc("kyozon_ready", "1 if every service is open and the edge is not about to stop."),
		serviceOpen: desc("kyozon_service_open", "1 if the service takes clients of the family, also while degraded.",
			"service", "client_family"),
		backendUp:    desc("kyozon_backend_up", "1 if the backend is well and takes new flows.", backend...),
		backendFlows: desc("kyozon_backend_flows_active", "Flows under way on the backend.", backend...),
		generation:   desc("kyozon_config_generation", "Number of the generation in service, from 1."),
		draining:     desc("kyozon_generations_draining", "Older generations that still have flows."),
		reloadOK:     desc("kyozon_config_last_reload_successful", "1 if the last reload went into service."),
		reloadTime: desc("kyozon_config_last_reload_success_timestamp_seconds",
			"When the generation in service was loaded."),
		ledger:       desc("kyozon_ledger_leases", "Stand-ins given to a prefix."),
		ledgerSize:   desc("kyozon_ledger_size", "Stand-ins there are."),
		ledgerShared: desc("kyozon_ledger_leases_shared", "Leased stand-ins that several prefixes share."),
		ledgerOK:     desc("kyozon_ledger_ok", "1 if new prefixes get a stand-in."),
		refused: desc("kyozon_limit_refused_total", "What was refused to clients, or would have been, by kind, by the length of the prefix that had used up its part, and by outcome.",
			"service", "client_family", "kind", "prefix", "outcome"),
		refusals: desc("kyozon_refusals_total", "Clients that rules of a protocol have refused, or what they brought, or would have: by rule and outcome.",
			"service", "client_family", "rule", "outcome"),
		logLines:   desc("kyozon_access_log_lines_total", "Lines of the access log that were written."),
		logDropped: desc("kyozon_access_log_dropped_total", "Lines of the access log that were not written."),
		logOK:      desc("kyozon_access_log_ok", "1 if the access log can be written, or is off."),
		certEnd: desc("kyozon_certificate_expiry_timestamp_seconds", "When the certificate expires; without a value if there is none yet.",
			"certificate", "host"),
		certOK: desc("kyozon_certificate_ok", "1 if the certificate is valid, not near its end, and nothing hinders its renewal.",
			"certificate", "host"),
		kernelOpen: desc("kyozon_kernel_plane_open", "1 if the kernel plane is open."),
		kernelPackets: desc("kyozon_kernel_packets_total", "Packets that the kernel plane has looked at, by what became of them. Those of no service are not told apart by family.",
			packet...),
		kernelBytes: desc("kyozon_kernel_bytes_total", "Bytes of these packets, with their headers.", packet...),
		literals: desc("kyozon_ipv4_literals_total", "IPv4 addresses in responses, where IPv6 clients cannot reach them.",
			"service", "pool", "field"),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.build.Desc(), c.ready, c.serviceOpen, c.backendUp, c.backendFlows,
		c.generation, c.draining, c.reloadOK, c.reloadTime, c.ledger, c.ledgerSize, c.ledgerShared, c.ledgerOK,
		c.logLines, c.logDropped, c.logOK, c.literals, c.refused, c.refusals,
		c.certEnd, c.certOK, c.kernelOpen, c.kernelPackets, c.kernelBytes} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	of := func(kind prometheus.ValueType) func(d *prometheus.Desc, value float64, labels ...string) {
		return func(d *prometheus.Desc, value float64, labels ...string) {
			m, err := prometheus.NewConstMetric(d, kind, value, labels...)
			if err != nil {
				m = prometheus.NewInvalidMetric(d, err)
			}
			to <- m
		}
	}
	put, total := of(prometheus.GaugeValue), of(prometheus.CounterValue)
	st := c.source.Status()
	to <- c.build
	put(c.ready, one(st.Ready))
	put(c.generation, float64(st.Generation))
	put(c.draining, float64(st.Draining))
	put(c.reloadOK, one(st.ReloadErr == ""))
	if !st.Loaded.IsZero() {
		put(c.reloadTime, float64(st.Loaded.UnixMilli())/1000)
	}
	for _, s := range st.Services {
		put(c.serviceOpen, one(s.State != stateShut), s.Service, s.ClientFamily)
		for _, l := range s.Limits {
			to <- prometheus.MustNewConstMetric(c.refused, prometheus.CounterValue, float64(l.Refused), s.Service,
				s.ClientFamily, l.Kind, strconv.Itoa(l.Bits), cmp.Or(l.Outcome, "refused"))
		}
	}
	for _, b := range distinct(st.Backends) {
		put(c.backendUp, one(takesFlows(b.State)), b.Service, b.Pool, b.Address, b.Family)
		put(c.backendFlows, float64(b.Flows), b.Service, b.Pool, b.Address, b.Family)
	}
	total(c.logLines, float64(st.AccessLog.Lines))
	total(c.logDropped, float64(st.AccessLog.Dropped))
	put(c.logOK, one(st.AccessLog.Err == ""))
	for _, s := range st.Certificates {
		host := strings.Join(s.Names, " ")
		put(c.certOK, one(s.Reason == ""), s.Source, host)
		if !s.End.IsZero() {
			put(c.certEnd, float64(s.End.Unix()), s.Source, host)
		}
	}
	for f, n := range byField(st.Findings) {
		total(c.literals, float64(n), f.service, f.pool, f.field)
	}
	for _, r := range st.Refusals {
		total(c.refusals, float64(r.Count), r.Service, r.ClientFamily, r.Rule, r.Outcome)
	}
	for _, n := range st.Counts {
		to <- counted(n)
	}
	if k := st.Kernel; k != nil {
		put(c.kernelOpen, one(k.Open))
		for _, n := range k.Packets {
			x := crossingOf(n.Crossing)
			total(c.kernelPackets, float64(n.Packets), n.Service, x.Client.String(), x.Backend.String(), n.Reason)
			total(c.kernelBytes, float64(n.Bytes), n.Service, x.Client.String(), x.Backend.String(), n.Reason)
		}
	}
	if l := st.Ledger; l != nil {
		put(c.ledger, float64(l.Leased))
		put(c.ledgerSize, float64(l.Size))
		put(c.ledgerShared, float64(l.Shared))
		put(c.ledgerOK, one(l.Err == ""))
	}
}

// crossingOf reads a crossing as edge.Status writes it.
func crossingOf(text string) ip.Crossing {
	for _, c := range ip.Crossings() {
		if c.String() == text {
			return c
		}
	}
	return ip.Crossing{}
}

type fieldOfPool struct{ service, pool, field string }

// byField sums findings over the addresses.
func byField(findings []edge.FindingStatus) map[fieldOfPool]int64 {
	sums := make(map[fieldOfPool]int64)
	for _, f := range findings {
		sums[fieldOfPool{f.Service, f.Pool, f.Field}] += f.Count
	}
	return sums
}

// distinct merges backends that have the same labels, which Prometheus refuses: a server may be in a pool twice,
// or be asked by two checks. The merged one is up only if all are.
func distinct(backends []edge.BackendStatus) []edge.BackendStatus {
	type key struct{ service, pool, address, family string }
	place := make(map[key]int, len(backends))
	merged := make([]edge.BackendStatus, 0, len(backends))
	for _, b := range backends {
		k := key{b.Service, b.Pool, b.Address, b.Family}
		i, again := place[k]
		if !again {
			place[k] = len(merged)
			merged = append(merged, b)
			continue
		}
		merged[i].Flows += b.Flows
		if takesFlows(merged[i].State) {
			merged[i].State = b.State
		}
	}
	return merged
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
