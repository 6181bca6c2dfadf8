// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package acmetest is an ACME server on loopback, Let's Encrypt's own for tests (pebble), and the DNS that it sees the
// world through. For tests only.
//
//	client ─ orders ─▶ Server ─ who is shop.example? ─▶ its DNS ─▶ the loopback address of one family
//	                     └─ challenges that address at the ports of Options, or reads TXT records from the DNS
package acmetest

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// Options are the ports at which the server challenges. One that is zero is never asked.
type Options struct {
	HTTP, TLS uint16
}

// Server is an ACME server.
type Server struct {
	Directory string // its URL
	Roots     string // file with the CA of its own certificate
	DNS       *DNS

	t     testing.TB
	admin http.Handler
	down  atomic.Bool
}

// Quicken makes servers check at once and every time. It is for TestMain, since the server reads its environment.
func Quicken() {
	for name, value := range map[string]string{"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_AUTHZREUSE": "0", "PEBBLE_WFE_NONCEREJECT": "5"} {
		os.Setenv(name, value)
	}
}

// Remains says whether a goroutine, by its stack, is one that pebble never ends.
func Remains(stack string) bool {
	return strings.Contains(stack, "pebble/v2/va.VAImpl.processTasks")
}

// Start starts a server at the loopback address of f, which is also the address of all names. It ends with the test.
func Start(t testing.TB, f ip.Family, o Options) *Server {
	t.Helper()
	s := &Server{t: t, DNS: startDNS(t, f)}
	quiet := log.New(io.Discard, "", 0)
	store := db.NewMemoryStore()
	issuer := ca.New(quiet, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {}})
	checker := va.New(quiet, int(o.HTTP), int(o.TLS), false, s.DNS.Addr.String(), store)
	front := wfe.New(quiet, store, checker, issuer, []string{"ca.example"}, false, false, 1, 1)
	s.admin = front.ManagementHandler()

	network := map[ip.Family]string{ip.V4: "tcp4", ip.V6: "tcp6"}[f]
	l, err := net.ListenTCP(network, net.TCPAddrFromAddrPort(netip.AddrPortFrom(iptest.Loopback(f), 0)))
	if err != nil {
		t.Fatal(err)
	}
	handler := front.Handler()
	h := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.down.Load() {
			http.Error(w, "out of order", http.StatusServiceUnavailable)
			return
		}
		if strings.Contains(r.URL.Path, "/renewalInfo/") {
			w = eager{w}
		}
		handler.ServeHTTP(w, r)
	}))
	h.Listener.Close()
	h.Listener = l
	h.Config.ErrorLog = quiet
	h.StartTLS()
	t.Cleanup(h.Close)

	s.Directory = h.URL + wfe.DirectoryPath
	s.Roots = filepath.Join(t.TempDir(), "roots.pem")
	roots := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: h.Certificate().Raw})
	if err := os.WriteFile(s.Roots, roots, 0o600); err != nil {
		t.Fatal(err)
	}
	return s
}

// eager is a response that does not say when to ask again, so that the client may ask when it likes.
type eager struct{ http.ResponseWriter }

func (e eager) WriteHeader(status int) {
	e.Header().Del("Retry-After")
	e.ResponseWriter.WriteHeader(status)
}

func (e eager) Write(p []byte) (int, error) {
	e.Header().Del("Retry-After")
	return e.ResponseWriter.Write(p)
}

// Issuer returns what to trust to trust its certificates.
func (s *Server) Issuer() *x509.CertPool {
	s.t.Helper()
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, wfe.RootCertPath+"0", nil)
	r.Header.Set("User-Agent", "test")
	s.admin.ServeHTTP(w, r)
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(w.Body.Bytes()) {
		s.t.Fatalf("get issuer: %d %s", w.Code, w.Body)
	}
	return pool
}

// SetDown lets the server refuse everything, or answer again.
func (s *Server) SetDown(down bool) { s.down.Store(down) }

// RenewBy makes the server suggest that a certificate be renewed between begin and end.
func (s *Server) RenewBy(c *x509.Certificate, begin, end time.Time) {
	s.t.Helper()
	window := fmt.Sprintf(`{"suggestedWindow": {"start": %q, "end": %q}}`, begin.UTC().Format(time.RFC3339), end.UTC().Format(time.RFC3339))
	body, err := json.Marshal(map[string]string{"ARIResponse": window,
		"Certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))})
	if err != nil {
		s.t.Fatal(err)
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodPost, "/set-renewal-info/", bytes.NewReader(body))
	r.Header.Set("User-Agent", "test")
	s.admin.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		s.t.Fatalf("set renewal information: %d %s", w.Code, w.Body)
	}
}
