// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package edge_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/internal/acmetest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
)

// An ACME server asks at the doors of a service, which go on serving: the service gets its certificate by each of the
// challenges that are answered there, and shows it.
func TestACME(t *testing.T) {
	t.Parallel()
	for _, challenge := range []string{"http-01", "tls-alpn-01"} {
		t.Run(challenge, func(t *testing.T) {
			t.Parallel()
			iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
				b := newBench(t)
				plain, secure := b.free(listen.TCP, x.Client), b.free(listen.TCP, x.Client)
				var ca *acmetest.Server
				if challenge == "http-01" {
					ca = acmetest.Start(t, x.Client, acmetest.Options{HTTP: plain.Port()})
				} else {
					ca = acmetest.Start(t, x.Client, acmetest.Options{TLS: secure.Port()})
				}
				pool := servers([]netip.AddrPort{webTeller(t, x.Backend)}, "handover: header")
				serve := func(email string) {
					b.serve(fmt.Sprintf("  shop: {protocol: web, listen: [%q, %q], pools: {%s}, clients: {%v: existing}, "+
						"web: {hosts: [shop.example, www.shop.example], tls: {plain-ports: [%d], acme: {directory: %q, roots: %q, email: %s, challenge: %s}}}}\n",
						plain.String(), secure.String(), pool, x.Client, plain.Port(), ca.Directory, ca.Roots, email, challenge))
				}
				ca.SetDown(true)
				serve("web@shop.example")
				config := &tls.Config{RootCAs: ca.Issuer(), ServerName: "shop.example"}
				if _, err := tls.Dial("tcp", secure.String(), config); err == nil {
					t.Error("a client shook hands without a certificate")
				}
				if got := states(b); got != "[missing missing]" {
					t.Errorf("at first the certificates are %s", got)
				}
				ca.SetDown(false)
				serve("new@shop.example") // another order, which is due at once
				await(t, "the certificates are there", func() bool { return states(b) == "[valid valid]" })
				for _, name := range []string{"shop.example", "www.shop.example"} {
					config.ServerName = name
					for scheme, at := range map[string]netip.AddrPort{"http": plain, "https": secure} {
						if got := fetch(t, scheme, name, at, config); got != 200 {
							t.Errorf("%s://%s: got %d", scheme, name, got)
						}
					}
				}
			})
		})
	}
}

// states returns those of the certificates in the edge's picture.
func states(b *bench) string {
	var all []string
	for _, c := range b.edge.Status().Certificates {
		all = append(all, c.State)
	}
	return fmt.Sprint(all)
}

// fetch asks for a host at an address and returns the status.
func fetch(t *testing.T, scheme, host string, at netip.AddrPort, config *tls.Config) int {
	t.Helper()
	c := browser(t, ip.FamilyOf(at.Addr()), false)
	tr := c.Transport.(*http.Transport)
	tr.TLSClientConfig = config
	tr.DialContext = func(context.Context, string, string) (net.Conn, error) {
		return dialFrom(client(ip.FamilyOf(at.Addr())), at)
	}
	r, err := c.Get(scheme + "://" + host + "/.well-known/acme-challenge/of-the-service")
	if err != nil {
		t.Error(err)
		return 0
	}
	defer r.Body.Close()
	io.Copy(io.Discard, r.Body)
	return r.StatusCode
}

// A mail service gets certificates too, each name its own, and shows them without a reload: the ACME server asks at port 80 of a
// web service of the same site, or at the listen itself.
func TestACMEMail(t *testing.T) {
	t.Parallel()
	for _, challenge := range []string{"http-01", "tls-alpn-01"} {
		t.Run(challenge, func(t *testing.T) {
			t.Parallel()
			iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
				b := newBench(t)
				plain, secure, asks := b.free(listen.TCP, x.Client), b.free(listen.TCP, x.Client), b.free(listen.TCP, x.Client)
				options := acmetest.Options{HTTP: plain.Port()}
				if challenge == "tls-alpn-01" {
					options = acmetest.Options{TLS: secure.Port()}
				}
				ca := acmetest.Start(t, x.Client, options)
				pool := servers([]netip.AddrPort{webTeller(t, x.Backend)})
				b.serve(line("shop", "web", plain, pool), fmt.Sprintf("  mail: {protocol: mail, listen: {imaps: %q, pop3: %q}, pools: {%s}, clients: {%v: existing}, "+
					"mail: {name: mail.example, tls: {names: [mail.example, pop.example], acme: {directory: %q, roots: %q, challenge: %s}}}}\n",
					secure.String(), asks.String(), pool, x.Client, ca.Directory, ca.Roots, challenge))
				await(t, "the certificates are there", func() bool { return states(b) == "[valid valid]" })
				for _, name := range []string{"mail.example", "pop.example"} {
					config := &tls.Config{RootCAs: ca.Issuer(), ServerName: name}
					c, err := tls.Dial("tcp", secure.String(), config)
					if err != nil {
						t.Fatal(err)
					}
					c.Close()
					plain, err := net.Dial("tcp", asks.String())
					if err != nil {
						t.Fatal(err)
					}
					in := bufio.NewReader(plain)
					in.ReadString('\n')
					fmt.Fprint(plain, "STLS\r\n")
					if line, err := in.ReadString('\n'); !strings.HasPrefix(line, "+OK") {
						t.Fatalf("%q, %v", line, err)
					}
					if err := tls.Client(plain, config).Handshake(); err != nil {
						t.Errorf("%s behind STLS: %v", name, err)
					}
					plain.Close()
				}
			})
		})
	}
}
