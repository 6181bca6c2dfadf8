// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/metrics"
)

// serve listens on the loopback address of f and serves s there until the test ends. It returns the URL.
func serve(t *testing.T, f ip.Family, s Source, registry *metrics.Registry, o Options) string {
	t.Helper()
	network := map[ip.Family]string{ip.V4: "tcp4", ip.V6: "tcp6"}[f]
	l, err := net.Listen(network, netip.AddrPortFrom(iptest.Loopback(f), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(Handler(s, registry, o))
	server.Listener.Close()
	server.Listener = l
	server.Start()
	t.Cleanup(server.Close)
	return server.URL
}

// get returns the answer to a GET and its body.
func get(t *testing.T, url string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(body)
}

func TestEndpoints(t *testing.T) {
	t.Parallel()
	tests := []struct {
		path   string
		status int
		kind   string
		want   string // a part of the body
	}{
		{"/", 200, "text/html; charset=utf-8", "<h1>example-idc</h1>"},
		{"/style.css", 200, "text/css; charset=utf-8", "prefers-color-scheme"},
		{"/app.js", 200, "text/javascript; charset=utf-8", "fetch("},
		{"/icon.svg", 200, "image/svg+xml", "<svg"},
		{"/status.json", 200, "application/json", `"generation": 7`},
		{"/services.json", 200, "application/json", `"client-family": "ipv6"`},
		{"/backends.json", 200, "application/json", `"address": "[fd00:1::22]:80"`},
		{"/certificates.json", 200, "application/json", `"state": "ending"`},
		{"/flows.json", 200, "application/json", `"source": "100.64.1.17:51234"`},
		{"/flows.json?limit=0", 400, "text/plain; charset=utf-8", "want a number from 1 to 10000"},
		{"/flows.json?limit=10001", 400, "text/plain; charset=utf-8", "want a number from 1 to 10000"},
		{"/flows.json?limit=many", 400, "text/plain; charset=utf-8", `limit "many"`},
		{"/metrics", 200, "text/plain; version=0.0.4; charset=utf-8; escaping=underscores", "kyozon_config_generation 7"},
		{"/healthz", 200, "text/plain; charset=utf-8", "ok\n"},
		{"/readyz", 503, "text/plain; charset=utf-8", "service game is shut for IPv6 clients: 10.0.6.11:27015 does not answer"},
		{"/debug/pprof/", 200, "text/html; charset=utf-8", "goroutine"},
		{"/debug/pprof/cmdline", 200, "text/plain; charset=utf-8", ""},
		{"/debug/pprof/goroutine?debug=1", 200, "text/plain; charset=utf-8", "goroutine profile"},
		{"/nothing", 404, "text/plain; charset=utf-8", "not found"},
	}
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		url := serve(t, f, newFake(fixedStatus(), fixedFlows()), new(metrics.Registry), Options{Version: "0.1.0", PProf: true})
		for _, test := range tests {
			res, body := get(t, url+test.path)
			if res.StatusCode != test.status || res.Header.Get("Content-Type") != test.kind || !strings.Contains(body, test.want) {
				t.Errorf("GET %s: %d %s, want %d %s with %q in it; got %.200s", test.path, res.StatusCode, res.Header.Get("Content-Type"), test.status, test.kind, test.want, body)
			}
			for name, want := range map[string]string{"X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY", "Referrer-Policy": "no-referrer"} {
				if got := res.Header.Get(name); got != want {
					t.Errorf("GET %s: %s: %q, want %q", test.path, name, got, want)
				}
			}
			csp := res.Header.Get("Content-Security-Policy")
			if !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") && !strings.HasPrefix(test.path, "/debug/") {
				t.Errorf("GET %s: policy %q", test.path, csp)
			}
		}
	})
}

// Nothing changes anything: no method but GET and HEAD is known to any endpoint.
func TestOnlyReads(t *testing.T) {
	t.Parallel()
	h := Handler(newFake(fixedStatus(), nil), new(metrics.Registry), Options{PProf: true})
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "CONNECT"} {
		for _, path := range []string{"/", "/status.json", "/flows.json", "/metrics", "/healthz", "/readyz", "/app.js", "/debug/pprof/", "/debug/pprof/symbol"} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(method, path, nil))
			if w.Code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d, want %d", method, path, w.Code, http.StatusMethodNotAllowed)
			}
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("HEAD", "/", nil))
	if w.Code != http.StatusOK {
		t.Errorf("HEAD /: %d, want 200", w.Code)
	}
}

func TestTwins(t *testing.T) {
	t.Parallel()
	st, flows := fixedStatus(), fixedFlows()
	h := Handler(newFake(st, flows), new(metrics.Registry), Options{})
	check := func(path string, got, want any) {
		t.Helper()
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if err := json.Unmarshal(w.Body.Bytes(), got); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
			t.Errorf("%s (-want +got):\n%s", path, d)
		}
	}
	check("/status.json", new(edge.Status), &st)
	check("/services.json", new([]edge.ServiceStatus), &st.Services)
	check("/backends.json", new([]edge.BackendStatus), &st.Backends)
	check("/certificates.json", new([]edge.CertificateStatus), &st.Certificates)
	check("/flows.json", new([]edge.FlowStatus), &flows)
	two := flows[:2]
	check("/flows.json?limit=2", new([]edge.FlowStatus), &two)
}

// A reader of JSON finds a list even where there is nothing.
func TestTwinsOfNothing(t *testing.T) {
	t.Parallel()
	h := Handler(newFake(edge.Status{}, nil), new(metrics.Registry), Options{})
	for _, path := range []string{"/services.json", "/backends.json", "/certificates.json", "/flows.json"} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if got := w.Body.String(); got != "[]\n" {
			t.Errorf("%s: %q, want an empty list", path, got)
		}
	}
}

func TestReady(t *testing.T) {
	t.Parallel()
	reloading := wellStatus()
	reloading.Draining = 2
	stopping := wellStatus()
	stopping.Ready = false
	nasty := fixedStatus()
	nasty.Services = nasty.Services[3:]
	nasty.Services[0].Reason = "banner \x1b[2J\r\nservice b"
	tests := []struct {
		name   string
		status edge.Status
		code   int
		want   string
	}{
		{"every service open", wellStatus(), 200, "ready\n"},
		{"older generations drain", reloading, 200, "ready\n"},
		{"about to stop", stopping, 503, "the edge is starting or draining\n"},
		{"nothing yet", edge.Status{}, 503, "the edge is starting or draining\n"},
		{"one reason is one line", nasty, 503, "service game is shut for IPv6 clients: banner �[2J� service b\n"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := httptest.NewRecorder()
			Handler(newFake(test.status, nil), new(metrics.Registry), Options{}).ServeHTTP(w, httptest.NewRequest("GET", "/readyz", nil))
			if w.Code != test.code || w.Body.String() != test.want {
				t.Errorf("got %d %q, want %d %q", w.Code, w.Body, test.code, test.want)
			}
		})
	}
}

// A browser asks again with the ETag and is told to keep what it has.
func TestAssetIsKept(t *testing.T) {
	t.Parallel()
	h := Handler(newFake(edge.Status{}, nil), new(metrics.Registry), Options{})
	first := httptest.NewRecorder()
	h.ServeHTTP(first, httptest.NewRequest("GET", "/style.css", nil))
	again := httptest.NewRequest("GET", "/style.css", nil)
	again.Header.Set("If-None-Match", first.Header().Get("ETag"))
	second := httptest.NewRecorder()
	h.ServeHTTP(second, again)
	if second.Code != http.StatusNotModified || second.Body.Len() != 0 {
		t.Errorf("got %d with %d bytes, want 304 with none", second.Code, second.Body.Len())
	}
}

// cameTo returns a request that came to the local address a.
func cameTo(a net.Addr, host, path string) *http.Request {
	r := httptest.NewRequest("GET", path, nil)
	r.Host = host
	return r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, a))
}

func tcp(addr string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr)) }

func TestGuard(t *testing.T) {
	t.Parallel()
	unix := &net.UnixAddr{Name: "admin.sock", Net: "unix"}
	tests := []struct {
		name    string
		local   net.Addr
		host    string
		page    int
		profile int
	}{
		{"loopback", tcp("127.0.0.1:8464"), "127.0.0.1:8464", 200, 200},
		{"loopback, IPv6", tcp("[::1]:8464"), "[::1]:8464", 200, 200},
		{"loopback by name", tcp("[::1]:8464"), "localhost:8464", 200, 200},
		{"forwarded by ssh from another port", tcp("127.0.0.1:8464"), "localhost:9000", 200, 200},
		{"no Host, as HTTP/1.0", tcp("127.0.0.1:8464"), "", 200, 200},
		{"a dual-stack listener's address", tcp("[::ffff:127.0.0.1]:8464"), "127.0.0.1", 200, 200},
		{"rebinding", tcp("127.0.0.1:8464"), "evil.example:8464", 421, 421},
		{"rebinding, IPv6", tcp("[::1]:8464"), "evil.example", 421, 421},
		{"rebinding, hidden in a name", tcp("127.0.0.1:8464"), "127.0.0.1.evil.example", 421, 421},
		{"a network of operators", tcp("10.9.0.1:8464"), "admin.example.jp", 200, 403},
		{"a network of operators, IPv6", tcp("[fd00::1]:8464"), "admin.example.jp", 200, 403},
		{"a Host does not make a loopback", tcp("[fd00::1]:8464"), "localhost", 200, 403},
		{"a Unix socket", unix, "kyozon", 200, 200},
	}
	h := Handler(newFake(fixedStatus(), nil), new(metrics.Registry), Options{PProf: true})
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for path, want := range map[string]int{"/": test.page, "/debug/pprof/cmdline": test.profile} {
				w := httptest.NewRecorder()
				h.ServeHTTP(w, cameTo(test.local, test.host, path))
				if w.Code != want {
					t.Errorf("%s: %d, want %d", path, w.Code, want)
				}
			}
		})
	}
}

func TestProfilesAreOffByDefault(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	Handler(newFake(fixedStatus(), nil), new(metrics.Registry), Options{}).ServeHTTP(w, cameTo(tcp("127.0.0.1:1"), "localhost", "/debug/pprof/"))
	if w.Code != http.StatusNotFound {
		t.Errorf("got %d, want 404", w.Code)
	}
}

// Whatever a Host header holds, only what means this machine is taken for it.
func FuzzLocalHost(f *testing.F) {
	for _, host := range []string{"localhost", "LOCALHOST.:80", "a.localhost", "127.0.0.1", "127.9.9.9:1", "[::1]:80", "::1", "[::ffff:127.0.0.1]", "evil.example", "localhost.evil.example", "[::1", "]:[", "[::1%eth0]:1"} {
		f.Add(host)
	}
	f.Fuzz(func(t *testing.T, host string) {
		if !localHost(host) || host == "" {
			return
		}
		lower := strings.ToLower(host)
		if !strings.Contains(lower, "localhost") && !strings.Contains(lower, "127.") && !strings.Contains(lower, ":") {
			t.Errorf("%q is taken for this machine", host)
		}
		if localHost(host + ".evil.example") {
			t.Errorf("%q is taken for this machine", host+".evil.example")
		}
	})
}
