// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
)

// saved writes the certificate of a server into dir, and its key, and returns their names.
func saved(t *testing.T, dir, name string, server *tls.Config) (certificate, key string) {
	t.Helper()
	c := server.Certificates[0]
	der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certificate, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	for path, block := range map[string]*pem.Block{
		certificate: {Type: "CERTIFICATE", Bytes: c.Certificate[0]}, key: {Type: "PRIVATE KEY", Bytes: der},
	} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}

// whoServer answers the name that it was asked for in TLS, in the request, and whose certificate the edge has shown.
func whoServer(t *testing.T, f ip.Family, config *tls.Config) netip.AddrPort {
	t.Helper()
	return servertest.HTTPS(t, f, config, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := "nobody"
		if shown := r.TLS.PeerCertificates; len(shown) > 0 {
			who = shown[0].Subject.CommonName
		}
		fmt.Fprintf(w, "%q for %s", r.TLS.ServerName, who)
	}))
}

// Servers are verified as the site says. One that cannot be is down, and the status says whose fault it is.
func TestTLSToServers(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		dir := t.TempDir()
		address := iptest.Loopback(x.Backend).String()
		named, _ := servertest.TLS(t, "shop.example.jp")
		numbered, _ := servertest.TLS(t, address)
		us, _ := servertest.TLS(t, "edge.example.jp")
		namedCA, _ := saved(t, dir, "named", named)
		numberedCA, _ := saved(t, dir, "numbered", numbered)
		certificate, key := saved(t, dir, "us", us)
		late, _ := servertest.Expired(t, "shop.example.jp")
		lateCA, _ := saved(t, dir, "late", late)
		strict := named.Clone()
		strict.ClientAuth, strict.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		strict.ClientCAs.AddCert(us.Certificates[0].Leaf)
		strict12 := strict.Clone()
		strict12.MaxVersion = tls.VersionTLS12

		shop := "name: shop.example.jp, ca: " + namedCA
		ours := fmt.Sprintf(", certificate: %s, key: %s", certificate, key)
		theirs, theirKey := saved(t, dir, "theirs", named)
		for _, tt := range []struct {
			name   string
			server *tls.Config
			keys   string
			want   string // of the page
			reason string // of the status
		}{
			{"name", named, "{" + shop + "}", `"shop.example.jp" for nobody`, ""},
			{"address", numbered, "{ca: " + numberedCA + "}", `"" for nobody`, ""},
			{"not verified", named, "{verify: none}", `"" for nobody`, ""},
			{"not verified, asked for", named, "{verify: none, name: shop.example.jp}", `"shop.example.jp" for nobody`, ""},
			{"client certificate", strict, "{" + shop + ours + "}", `"shop.example.jp" for edge.example.jp`, ""},
			{"client certificate, TLS 1.2", strict12, "{" + shop + ours + "}", `"shop.example.jp" for edge.example.jp`, ""},
			{"wrong name", named, "{name: www.example.jp, ca: " + namedCA + "}", "",
				"tls: certificate is for shop.example.jp, not www.example.jp"},
			{"name for an address", named, "{ca: " + namedCA + "}", "", "tls: certificate is for shop.example.jp, not " + address},
			{"unknown CA", named, "{name: shop.example.jp, ca: " + numberedCA + "}", "",
				`tls: certificate was issued by "shop.example.jp", who is not trusted`},
			{"system's CAs", named, "{name: shop.example.jp}", "", `tls: certificate was issued by "shop.example.jp", who is not trusted`},
			{"expired", late, "{name: shop.example.jp, ca: " + lateCA + "}", "", "tls: certificate expired on "},
			{"no client certificate, TLS 1.2", strict12, "{" + shop + "}", "", "tls: the server refuses us: "},
			{"wrong client certificate", strict, "{" + shop + fmt.Sprintf(", certificate: %s, key: %s}", theirs, theirKey), "",
				"tls: the server refuses us: "},
			{"no TLS", nil, "{verify: none}", "", "tls: the server answers, but not in TLS"},
		} {
			t.Run(tt.name, func(t *testing.T) {
				t.Parallel()
				b := newBench(t)
				var server netip.AddrPort
				if tt.server != nil {
					server = whoServer(t, x.Backend, tt.server)
				} else {
					server = servertest.TCP(t, x.Backend, func(c *net.TCPConn) { fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\n\r\n") })
				}
				at, tcp := b.free(listen.TCP, x.Client), b.free(listen.TCP, x.Client)
				pool := servers([]netip.AddrPort{server}, "tls: "+tt.keys)
				b.serve(line("web", "web", at, pool, "health: {every: 10s, timeout: 10s}"), line("tcp", "tcp", tcp, pool, "health: {every: 10s, timeout: 10s}"))
				status := b.edge.Status().Backends[0]
				if !strings.HasPrefix(status.Reason, tt.reason) || (tt.reason == "") != (status.Reason == "") {
					t.Errorf("the status says %q, want %q", status.Reason, tt.reason)
				}
				if tt.want == "" {
					if status.State != "down" {
						t.Errorf("the server is %s", status.State)
					}
					return
				}
				if got := mustGet(t, browser(t, x.Client, false), at); got != tt.want {
					t.Errorf("web: got %s, want %s", got, tt.want)
				}
				c := dial(t, tcp) // in clear to us, in TLS to the server
				fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
				r, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil || r.StatusCode != 200 {
					t.Errorf("tcp: got %v, %v", r, err)
				}
			})
		}
	})
}

// A server whose certificate does not fit costs clients nothing while another is well, with nobody asking.
func TestTLSRetry(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b := newBench(t)
		good, _ := servertest.TLS(t, "shop.example.jp")
		other, _ := servertest.TLS(t, "shop.example.jp")
		ca, _ := saved(t, t.TempDir(), "ca", good)
		at := b.free(listen.TCP, x.Client)
		addrs := []netip.AddrPort{whoServer(t, x.Backend, other), whoServer(t, x.Backend, good), nowhere(t, x.Backend)}
		pool := servers(addrs, "tls: {name: shop.example.jp, ca: "+ca+"}")
		b.serve(line("web", "web", at, pool, "health: {every: never, eject: 0}"))
		for range 10 {
			mustGet(t, browser(t, x.Client, false), at)
		}
		if n := b.errors("web", "connect-failed"); n != 0 {
			t.Errorf("%d clients were told", n)
		}
		b.serve(line("web", "web", at, servers(addrs[:1], "tls: {name: shop.example.jp, ca: "+ca+"}"), "health: {every: never}"))
		if status, _, err := get(browser(t, x.Client, false), at); status != 502 || err != nil {
			t.Errorf("got %d, %v", status, err)
		}
		if n := b.errors("web", "connect-failed"); n != 1 {
			t.Errorf("counted %d, want 1", n)
		}
	})
}

// A reload takes a changed CA although the site file is the same: connections that were kept under the old one are used
// no more. A file that cannot be read changes nothing.
func TestTLSReload(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b, dir := newBench(t), t.TempDir()
		before, _ := servertest.TLS(t, "shop.example.jp")
		after, _ := servertest.TLS(t, "shop.example.jp")
		ca, _ := saved(t, dir, "ca", before)
		at := b.free(listen.TCP, x.Client)
		pool := servers([]netip.AddrPort{whoServer(t, x.Backend, before), whoServer(t, x.Backend, after)},
			"tls: {name: shop.example.jp, ca: "+ca+"}", "handover: header")
		site := line("web", "web", at, pool, "health: {every: 10s, timeout: 10s}")
		up := func() (states string) {
			for _, s := range b.edge.Status().Backends {
				states += s.State + " "
			}
			return states
		}
		b.serve(site)
		if got := up(); got != "up down " {
			t.Errorf("before: %s", got)
		}
		keep := browser(t, x.Client, true)
		mustGet(t, keep, at)
		if err := b.edge.Reload(b.parse(site)); !errors.Is(err, edge.ErrNoChange) {
			t.Errorf("nothing has changed: got %v", err)
		}
		saved(t, dir, "ca", after)
		b.serve(site)
		if got := up(); got != "down up " {
			t.Errorf("after: %s", got)
		}
		mustGet(t, keep, at)
		if err := os.WriteFile(ca, []byte("nothing"), 0o600); err != nil {
			t.Fatal(err)
		}
		want := regexp.MustCompile(`^site\.yaml:\d+:\d+: ` + regexp.QuoteMeta(ca) + `: holds no certificate in PEM form$`)
		if err := b.edge.Reload(b.parse(site)); err == nil || !want.MatchString(err.Error()) {
			t.Errorf("got %v, want %v", err, want)
		}
		mustGet(t, keep, at)
	})
}

// A server that waits for a PROXY header gets it before TLS, from flows and from health checks.
func TestTLSAfterProxy(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b := newBench(t)
		config, _ := servertest.TLS(t, "shop.example.jp")
		ca, _ := saved(t, t.TempDir(), "ca", config)
		server := servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
			var head strings.Builder
			for one := make([]byte, 1); !strings.HasSuffix(head.String(), "\r\n"); head.Write(one) {
				if _, err := c.Read(one); err != nil {
					return
				}
			}
			s := tls.Server(c, config)
			defer s.Close()
			if _, err := http.ReadRequest(bufio.NewReader(s)); err == nil {
				fmt.Fprintf(s, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", head.Len(), head.String())
			}
		})
		at := b.free(listen.TCP, x.Client)
		pool := servers([]netip.AddrPort{server}, "handover: proxy-v1", "tls: {name: shop.example.jp, ca: "+ca+"}")
		b.serve(line("web", "web", at, pool, "health: {every: 10s, timeout: 10s, http: /}"))
		if s := b.edge.Status().Backends[0]; s.State != "up" {
			t.Errorf("the server is %s: %s", s.State, s.Reason)
		}
		want := fmt.Sprintf("PROXY TCP%c ", '0'+byte(x.Client))
		if got := mustGet(t, browser(t, x.Client, false), at); !strings.HasPrefix(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}
