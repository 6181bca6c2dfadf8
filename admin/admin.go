// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package admin shows the running edge: a status page, its JSON twins, metrics, health and profiles over HTTP,
// and the same tables as text for the command line. It reads and never changes anything.
//
//	            ┌─ / ─▶ newPage ─▶ page.html         /status.json /services.json /backends.json
//	            │                                    /certificates.json /flows.json
//	edge.Status ┼─ /metrics ─▶ collector, metrics.Collector
//	            ├─ /readyz
//	            └─ WriteStatus, WriteServices … ─▶ terminal
//
// The page works without JavaScript; with it app.js asks for the page again and changes what differs.
package admin

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"net/http/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/metrics"
)

// Limits of /flows.json. The page shows the first pageFlows.
const (
	defaultFlows = 100
	maxFlows     = 10000
	pageFlows    = 20
)

//go:embed assets
var assets embed.FS

// Source is what is shown. Its methods are called by many goroutines at once; the caller owns what they return.
type Source interface {
	Status() edge.Status
	Flows(limit int) []edge.FlowStatus // at most limit, the newest first
}

// Options of a Handler. The zero value works.
type Options struct {
	Version string // for kyozon_build_info
	PProf   bool   // serve /debug/pprof/ to requests that came to a loopback address or a Unix socket
}

// Handler serves everything that the package comment lists. It starts nothing; serve it on loopback, on a Unix
// socket or on a network of operators: whoever reaches it sees the addresses of clients.
func Handler(s Source, registry *metrics.Registry, o Options) http.Handler {
	h := &handler{source: s, page: parsePage()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", h.servePage)
	for _, a := range [][2]string{
		{"style.css", "text/css; charset=utf-8"},
		{"app.js", "text/javascript; charset=utf-8"},
		{"icon.svg", "image/svg+xml"},
	} {
		mux.HandleFunc("GET /"+a[0], serveAsset(a[0], a[1]))
	}

	mux.HandleFunc("GET /status.json", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, h.status()) })
	mux.HandleFunc("GET /services.json", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, h.status().Services) })
	mux.HandleFunc("GET /backends.json", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, h.status().Backends) })
	mux.HandleFunc("GET /certificates.json", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, h.status().Certificates) })
	mux.HandleFunc("GET /flows.json", h.serveFlows)

	mux.Handle("GET /metrics", metricsHandler(s, registry, o))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", h.serveReady)

	if o.PProf {
		// Importing the package also registers it in http.DefaultServeMux, which kyozon never serves.
		mux.Handle("GET /debug/pprof/", onlyHere(pprof.Index))
		mux.Handle("GET /debug/pprof/cmdline", onlyHere(pprof.Cmdline))
		mux.Handle("GET /debug/pprof/profile", onlyHere(pprof.Profile))
		mux.Handle("GET /debug/pprof/symbol", onlyHere(pprof.Symbol))
		mux.Handle("GET /debug/pprof/trace", onlyHere(pprof.Trace))
	}
	return guard(mux)
}

type handler struct {
	source Source
	page   *template.Template
}

// status is the source's with empty lists in place of nil ones: a JSON reader then always finds a list.
func (h *handler) status() edge.Status {
	st := h.source.Status()
	if st.Services == nil {
		st.Services = []edge.ServiceStatus{}
	}
	if st.Backends == nil {
		st.Backends = []edge.BackendStatus{}
	}
	if st.Certificates == nil {
		st.Certificates = []edge.CertificateStatus{}
	}
	if st.Findings == nil {
		st.Findings = []edge.FindingStatus{}
	}
	if st.Refusals == nil {
		st.Refusals = []edge.RefusalStatus{}
	}
	if st.Queues == nil {
		st.Queues = []edge.QueueStatus{}
	}
	if st.Counts == nil {
		st.Counts = []edge.CountStatus{}
	}
	return st
}

func (h *handler) flows(limit int) []edge.FlowStatus {
	flows := h.source.Flows(limit)
	if flows == nil {
		return []edge.FlowStatus{}
	}
	return flows[:min(len(flows), limit)]
}

// servePage writes nothing until the whole page is there, so that a fault is a 500 and not half a page.
func (h *handler) servePage(w http.ResponseWriter, _ *http.Request) {
	var body bytes.Buffer
	if err := h.page.Execute(&body, newPage(h.status(), h.flows(pageFlows), time.Now())); err != nil {
		http.Error(w, "render page: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write(body.Bytes())
}

func (h *handler) serveFlows(w http.ResponseWriter, r *http.Request) {
	limit := defaultFlows
	if text := r.URL.Query().Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxFlows {
			http.Error(w, fmt.Sprintf("limit %q: want a number from 1 to %d", text, maxFlows), http.StatusBadRequest)
			return
		}
		limit = n
	}
	writeJSON(w, h.flows(limit))
}

// serveReady answers 200 or 503 with the reasons, one a line. Older generations that drain after a reload are no
// reason: the present one takes new clients. An edge that is about to stop is not ready.
func (h *handler) serveReady(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	reasons := notReady(h.source.Status())
	if len(reasons) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		fmt.Fprintln(w, strings.Join(reasons, "\n"))
		return
	}
	fmt.Fprintln(w, "ready")
}

// notReady says why the edge is not ready, or nothing if it is.
func notReady(st edge.Status) []string {
	if st.Ready {
		return nil
	}
	var reasons []string
	for _, s := range st.Services {
		if s.State != stateShut {
			continue
		}
		reason := s.Reason
		if reason == "" {
			reason = "no reason given"
		}
		reasons = append(reasons, fmt.Sprintf("service %s is shut for %s clients: %s", clean(s.Service), familyName(s.ClientFamily), clean(reason)))
	}
	if reasons == nil {
		return []string{"the edge is starting or draining"}
	}
	return reasons
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.Encode(v) // fails only if the client is gone
}

// metricsHandler has a registry of its own, so that two edges in one process do not meet.
func metricsHandler(s Source, registry *metrics.Registry, o Options) http.Handler {
	own := prometheus.NewRegistry()
	own.MustRegister(
		metrics.NewCollector(registry),
		newCollector(s, o.Version),
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	// One series that cannot be read must not hide the others from whoever is paged.
	return promhttp.HandlerFor(own, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}
