// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/metrics"
)

// scrape returns the lines of /metrics that begin with kyozon_.
func scrape(t *testing.T, s Source, r *metrics.Registry) string {
	t.Helper()
	w := httptest.NewRecorder()
	Handler(s, r, Options{Version: "0.1.0"}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("got %d: %s", w.Code, w.Body)
	}
	for _, part := range []string{"go_goroutines ", "process_open_fds "} {
		if !strings.Contains(w.Body.String(), "\n"+part) {
			t.Errorf("no %s", part)
		}
	}
	var own strings.Builder
	for line := range strings.Lines(w.Body.String()) {
		if strings.Contains(line, "kyozon_") && !strings.Contains(line, "go_version") {
			own.WriteString(line)
		}
	}
	return own.String()
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	r := new(metrics.Registry)
	r.Flows("shop", ip.Crossing{Client: ip.V6, Backend: ip.V4}).Begin()
	st := fixedStatus()
	st.Backends = append(st.Backends, st.Backends[3]) // Prometheus refuses the same labels twice
	golden(t, "metrics.txt", []byte(scrape(t, newFake(st, nil), r)))
}

func TestMetricsWithoutLedger(t *testing.T) {
	t.Parallel()
	if got := scrape(t, newFake(edge.Status{}, nil), new(metrics.Registry)); strings.Contains(got, "ledger") {
		t.Errorf("a site without a ledger has series of one:\n%s", got)
	}
}

func TestDistinct(t *testing.T) {
	t.Parallel()
	b := func(state string, flows int64) edge.BackendStatus {
		return edge.BackendStatus{Service: "s", Pool: "p", Address: "10.0.0.1:80", Family: "ipv4", State: state, Flows: flows}
	}
	tests := []struct {
		name   string
		in     []edge.BackendStatus
		state  string
		flows  int64
		length int
	}{
		{"one", []edge.BackendStatus{b("up", 1)}, "up", 1, 1},
		{"the bad verdict counts", []edge.BackendStatus{b("up", 1), b("down", 2)}, "down", 3, 1},
		{"in any order", []edge.BackendStatus{b("down", 1), b("up", 2)}, "down", 3, 1},
		{"others stay", []edge.BackendStatus{b("up", 1), {Address: "[fd00::1]:80"}}, "up", 1, 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := distinct(test.in)
			if len(got) != test.length || got[0].State != test.state || got[0].Flows != test.flows {
				t.Errorf("got %+v", got)
			}
		})
	}
}
