// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// gather returns what a scrape of r sees: "name label=value …" → value.
func gather(t *testing.T, r *Registry) map[string]float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(NewCollector(r)); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]float64)
	for _, f := range families {
		for _, m := range f.GetMetric() {
			key := f.GetName()
			for _, l := range m.GetLabel() { // sorted by name
				key += " " + l.GetName() + "=" + l.GetValue()
			}
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				got[key] = m.GetCounter().GetValue()
			case dto.MetricType_GAUGE:
				got[key] = m.GetGauge().GetValue()
			}
		}
	}
	return got
}

func TestCollectorCountsEachCrossing(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		t.Parallel()
		r := new(Registry)
		f := r.Flows("shop", c)
		f.Begin()
		f.Begin()
		f.Request()
		f.End(Counts{ToServer: 10, ToClient: 2000}, ServerReset)
		f.Fail(Denied)

		got := gather(t, r)
		mine := " backend_family=" + c.Backend.String() + " client_family=" + c.Client.String()
		want := map[string]float64{
			"kyozon_flows_opened_total" + mine + " service=shop":                      2,
			"kyozon_flows_active" + mine + " service=shop":                            1,
			"kyozon_flow_requests_total" + mine + " service=shop":                     1,
			"kyozon_flow_bytes_total" + mine + " service=shop to=server":              10,
			"kyozon_flow_bytes_total" + mine + " service=shop to=client":              2000,
			"kyozon_flow_errors_total" + mine + " reason=server-reset service=shop":   1,
			"kyozon_flow_errors_total" + mine + " reason=denied service=shop":         1,
			"kyozon_flow_errors_total" + mine + " reason=limited service=shop":        0,
			"kyozon_flow_errors_total" + mine + " reason=no-stand-in service=shop":    0,
			"kyozon_flow_errors_total" + mine + " reason=connect-failed service=shop": 0,
		}
		for key, value := range want {
			if v, ok := got[key]; !ok || v != value {
				t.Errorf("%s = %v, %v; want %v", key, v, ok, value)
			}
		}
		for key, value := range got {
			if value != 0 && !strings.Contains(key, mine) {
				t.Errorf("%s = %v although no flow took this crossing", key, value)
			}
		}
		if each := 5 + len(Reasons()); len(got) != 4*each {
			t.Errorf("got %d series, want %d for each of 4 crossings", len(got), each)
		}
	})
}

func TestCollectorOfNothing(t *testing.T) {
	t.Parallel()
	if got := gather(t, new(Registry)); len(got) != 0 {
		t.Errorf("an empty registry has series: %v", got)
	}
}

// BenchmarkScrape says what a scrape of a large edge costs.
func BenchmarkScrape(b *testing.B) {
	r := new(Registry)
	for i := range 100 {
		r.Flows("service"+string(rune('a'+i/26))+string(rune('a'+i%26)), ip.Crossing{Client: ip.V6, Backend: ip.V4})
	}
	reg := prometheus.NewRegistry()
	reg.MustRegister(NewCollector(r))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := reg.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}
