// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/service"
)

// told answers with the names in the certificates that it is told of: the client's, and those of its chain.
func told(t testing.TB, f ip.Family) netip.AddrPort {
	return servertest.HTTP(t, f, http.HandlerFunc(tell))
}

func tell(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%q %q", names(r.Header["Client-Cert"]), names(r.Header["Client-Cert-Chain"]))
}

// names reads certificates as RFC 9440 has them in fields.
func names(fields []string) (all []string) {
	for _, f := range fields {
		for one := range strings.SplitSeq(f, ", ") {
			der, err := base64.StdEncoding.DecodeString(strings.Trim(one, ":"))
			c, parseErr := x509.ParseCertificate(der)
			if err != nil || parseErr != nil || one[0] != ':' || one[len(one)-1] != ':' {
				all = append(all, one)
				continue
			}
			all = append(all, c.Subject.CommonName)
		}
	}
	return all
}

// saveFile writes a file in place of the one before, and returns its name.
func saveFile(t testing.TB, dir, name string, parts ...[]byte) service.Path {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path+".new", bytes.Join(parts, nil), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	return service.Path(path)
}

// showing is a client that shows a certificate, whoever the server says may sign it.
func showing(config *tls.Config, c ...tls.Certificate) *tls.Config {
	config = config.Clone()
	if len(c) > 0 {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &c[0], nil }
	}
	return config
}

// askTLS shakes hands for a name, then asks for each host in turn, and returns status and body of each.
func askTLS(t testing.TB, at netip.AddrPort, config *tls.Config, name string, hosts ...string) (answers []string, err error) {
	t.Helper()
	c, r, err := sayTLS(t, at, config, name, "")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	for _, host := range hosts {
		if _, err := fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nClient-Cert: :bGll:\r\n\r\n", host); err != nil {
			return answers, err
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return answers, err
		}
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return answers, err
		}
		answers = append(answers, fmt.Sprint(resp.StatusCode, " ", strings.TrimSpace(string(body))))
	}
	return answers, nil
}

const misdirected = "421 421 Misdirected Request"

// A certificate of a client is verified, and its servers are told. Services at one address ask for certificates of their
// own: what was not shown for a service is not taken by it.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	b, dir := newBench(t), t.TempDir()
	all, client := certificate(t, dir, "*.example.jp")
	partners, staff := servertest.NewAuthority(t, "partners"), servertest.NewAuthority(t, "staff")
	branch := partners.Below("branch")
	alice, bob, carol := partners.Issue("alice"), branch.Issue("bob"), staff.Issue("carol")
	dave := partners.Issue("dave")
	shop := ClientCertificates{CA: saveFile(t, dir, "partners.pem", partners.PEM()), Chain: true,
		CRL: saveFile(t, dir, "partners.crl", partners.CRL(time.Now().Add(time.Hour), dave.Leaf))}
	desk := ClientCertificates{CA: saveFile(t, dir, "staff.pem", staff.PEM()), Verify: VerifyOptional}
	both := ClientCertificates{CA: saveFile(t, dir, "both.pem", staff.PEM(), partners.PEM()), Verify: VerifyOptional}
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		at := b.freeAddr(x.Client)
		with := func(name string, spec backend.Spec, clients *ClientCertificates, minimum Version) *service.Service {
			tls := all
			tls.ClientCertificates, tls.Minimum = clients, minimum
			return b.service(name, at, spec, withTLS(tls, name+".example.jp"))
		}
		server := told(t, x.Backend)
		b.serve(with("shop", shared(server), &shop, 0), with("desk", shared(server), &desk, 0), with("both", shared(server), &both, 0),
			with("open", shared(server), nil, 0), with("new", shared(server), nil, tls.VersionTLS13), with("mute", private(server), &shop, 0))
		for _, tt := range []struct {
			name  string
			shown []tls.Certificate
			hosts string
			want  []string // nil if the handshake fails
		}{
			{"shop", []tls.Certificate{alice}, "shop", []string{`200 ["alice"] []`}},
			{"shop", []tls.Certificate{bob}, "shop shop", []string{`200 ["bob"] ["branch"]`, `200 ["bob"] ["branch"]`}},
			{"shop", []tls.Certificate{bob}, "shop both shop", []string{`200 ["bob"] ["branch"]`, `200 ["bob"] []`, `200 ["bob"] ["branch"]`}},
			{"shop", nil, "shop", nil},
			{"shop", []tls.Certificate{carol}, "shop", nil},
			{"shop", []tls.Certificate{dave}, "shop", nil}, // revoked
			{"both", []tls.Certificate{dave}, "both shop", []string{`200 ["dave"] []`, misdirected}},
			{"desk", []tls.Certificate{carol}, "desk", []string{`200 ["carol"] []`}},
			{"desk", nil, "desk", []string{`200 [] []`}},
			{"desk", []tls.Certificate{alice}, "desk", nil}, // not good is worse than none
			{"open", []tls.Certificate{alice}, "open shop", []string{`200 [] []`, misdirected}},
			{"open", []tls.Certificate{alice}, "open desk", []string{`200 [] []`, misdirected}},
			{"shop", []tls.Certificate{alice}, "open shop desk", []string{`200 [] []`, `200 ["alice"] []`, misdirected}},
			{"desk", nil, "shop", []string{misdirected}},
			{"desk", nil, "both", []string{misdirected}}, // who else may sign, the client was not told
			{"mute", []tls.Certificate{alice}, "mute", []string{`200 [] []`}},
			{"both", []tls.Certificate{alice}, "both shop", []string{`200 ["alice"] []`, `200 ["alice"] []`}},
			{"both", []tls.Certificate{carol}, "desk shop", []string{`200 ["carol"] []`, misdirected}},
		} {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				config := showing(client, tt.shown...)
				config.MaxVersion = version
				hosts := strings.Fields(tt.hosts)
				for i := range hosts {
					hosts[i] += ".example.jp"
				}
				got, err := askTLS(t, at.AddrPort, config, tt.name+".example.jp", hosts...)
				if (err != nil) != (tt.want == nil) || fmt.Sprint(got) != fmt.Sprint(tt.want) {
					t.Errorf("%s for %s, TLS %x: got %q, %v, want %q", tt.name, tt.hosts, version, got, err, tt.want)
				}
			}
		}
		old := client.Clone()
		old.MaxVersion = tls.VersionTLS12
		if got, err := askTLS(t, at.AddrPort, old, "open.example.jp", "open.example.jp", "new.example.jp"); err != nil || got[1] != misdirected {
			t.Errorf("a service of TLS 1.3 on a connection of TLS 1.2: got %q, %v", got, err)
		}
		if _, err := askTLS(t, at.AddrPort, old, "new.example.jp", "new.example.jp"); err == nil {
			t.Error("a service of TLS 1.3 shook hands for TLS 1.2")
		}
	})
}

// A port in clear has no certificates: a service that must have one is not there, one that may is.
func TestClientCertificatesInClear(t *testing.T) {
	t.Parallel()
	b, dir := newBench(t), t.TempDir()
	cert, _ := certificate(t, dir, "*.example.jp")
	ca := saveFile(t, dir, "ca.pem", servertest.NewAuthority(t, "ca").PEM())
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		at := b.freeAddr(x.Client)
		var services []*service.Service
		for name, verify := range map[string]Verify{"must": VerifyRequired, "may": VerifyOptional} {
			tls := cert
			tls.ClientCertificates = &ClientCertificates{CA: ca, Verify: verify}
			tls.PlainPorts = []int{int(at.AddrPort.Port())}
			services = append(services, b.service(name, at, shared(told(t, x.Backend)), withTLS(tls, name+".example.jp")))
		}
		b.serve(services...)
		for name, want := range map[string]int{"must": 421, "may": 200} {
			c := connect(t, at.AddrPort)
			c.say("GET / HTTP/1.1\r\nHost: " + name + ".example.jp\r\n\r\n")
			if r, _ := c.answer("GET"); r.StatusCode != want {
				t.Errorf("%s: got %d, want %d", name, r.StatusCode, want)
			}
		}
	})
}

// What a reload changes holds for connections that are open, at their next request; a certificate that is still good
// does not notice.
func TestClientCertificatesReload(t *testing.T) {
	t.Parallel()
	b, dir := newBench(t), t.TempDir()
	cert, client := certificate(t, dir, "shop.example.jp")
	one, two := servertest.NewAuthority(t, "one"), servertest.NewAuthority(t, "two")
	alice, bob := one.Issue("alice"), one.Issue("bob")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		at, server := b.freeAddr(x.Client), told(t, x.Backend)
		serve := func(revoked []*x509.Certificate, authorities ...[]byte) {
			cert.ClientCertificates = &ClientCertificates{CA: saveFile(t, dir, "ca.pem", authorities...),
				CRL: saveFile(t, dir, "ca.crl", one.CRL(time.Now().Add(time.Hour), revoked...))}
			b.serve(b.service("shop", at, shared(server), withTLS(cert, "shop.example.jp")))
		}
		serve(nil, one.PEM())
		open := make(map[string]func() string)
		for name, c := range map[string]tls.Certificate{"alice": alice, "bob": bob} {
			conn, r, err := sayTLS(t, at.AddrPort, showing(client, c), "shop.example.jp", "")
			if err != nil {
				t.Fatal(err)
			}
			open[name] = func() string {
				io.WriteString(conn, "GET / HTTP/1.1\r\nHost: shop.example.jp\r\n\r\n")
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					return err.Error()
				}
				body, _ := io.ReadAll(resp.Body)
				return fmt.Sprint(resp.StatusCode, " ", strings.TrimSpace(string(body)))
			}
		}
		check := func(when string, want map[string]string) {
			t.Helper()
			for name, want := range want {
				if got := open[name](); got != want {
					t.Errorf("%s, %s: got %s, want %s", when, name, got, want)
				}
			}
		}
		check("before", map[string]string{"alice": `200 ["alice"] []`, "bob": `200 ["bob"] []`})
		serve([]*x509.Certificate{bob.Leaf}, two.PEM(), one.PEM())
		check("bob is revoked", map[string]string{"alice": `200 ["alice"] []`, "bob": misdirected})
		serve(nil, two.PEM(), one.PEM())
		check("and no more", map[string]string{"alice": `200 ["alice"] []`})
	})
}

// TestCheckClientCertificates finds the mistakes in the section client-certificates.
func TestCheckClientCertificates(t *testing.T) {
	t.Parallel()
	files := TLS{Certificate: "a.pem", Key: "a.key", ClientCertificates: &ClientCertificates{CA: "ca.pem"}}
	for _, tt := range []struct {
		name     string
		tls      TLS
		handover backend.Handover
		want     []error
		warns    bool
	}{
		{"told", files, backend.HandoverHeader, nil, false},
		{"not told", files, backend.HandoverProxyV2, []error{errUntold}, true},
		{"passed through", TLS{PassThrough: true, ClientCertificates: files.ClientCertificates}, backend.HandoverNone, []error{errPassBoth}, false},
	} {
		s := &service.Service{Pools: map[string]backend.Spec{"only": {Handover: tt.handover}}}
		var got []error
		for _, err := range withTLS(tt.tls, "shop.example.jp").Check(s) {
			at, _ := errors.AsType[*service.Error](err)
			if got = append(got, at.Err); at.Warning != tt.warns {
				t.Errorf("%s: %v: warning is %v, want %v", tt.name, err, at.Warning, tt.warns)
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
	var v Verify
	if err := v.UnmarshalText([]byte("optional")); err != nil || v != VerifyOptional {
		t.Errorf("optional is %v, %v", v, err)
	}
	if err := v.UnmarshalText([]byte("required")); err != nil || v != VerifyRequired {
		t.Errorf("required is %v, %v", v, err)
	}
	if err := v.UnmarshalText([]byte("on")); !errors.Is(err, errVerify) {
		t.Errorf("on: got %v", err)
	}
}

// Over HTTP/2, requests for services with authorities of their own come at once on one connection, to servers that speak
// either version: each server is told what its service asks for, and no more. 421 ends a request, not the others.
func TestClientCertificates2(t *testing.T) {
	t.Parallel()
	b, dir := newBench(t), t.TempDir()
	all, client := certificate(t, dir, "*.example.jp")
	partners, staff := servertest.NewAuthority(t, "partners"), servertest.NewAuthority(t, "staff")
	bob := partners.Below("branch").Issue("bob")
	rules := map[string]*ClientCertificates{
		"shop": {CA: saveFile(t, dir, "partners.pem", partners.PEM()), Chain: true},
		"both": {CA: saveFile(t, dir, "both.pem", staff.PEM(), partners.PEM()), Verify: VerifyOptional},
		"desk": {CA: saveFile(t, dir, "staff.pem", staff.PEM()), Verify: VerifyOptional},
		"open": nil,
	}
	want := map[string]string{"shop": `200 ["bob"] ["branch"]`, "both": `200 ["bob"] []`, "desk": misdirected, "open": `200 [] []`}
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		specs := servers2(t, x.Backend, http.HandlerFunc(tell))
		specs["1"] = shared(told(t, x.Backend))
		for kind, spec := range specs {
			spec.Handover = backend.HandoverHeader
			at := b.freeAddr(x.Client)
			var services []*service.Service
			for name, rule := range rules {
				files := all
				files.ClientCertificates = rule
				o := withTLS(files, name+".example.jp")
				if kind != "1" {
					o = speaks2(o)
				}
				services = append(services, b.service(name, at, spec, o))
			}
			b.serve(services...)
			c := newClient2(t)
			c.Transport.(*http.Transport).TLSClientConfig = showing(client, bob)
			c.Transport.(*http.Transport).TLSClientConfig.ServerName = "shop.example.jp"
			var wg sync.WaitGroup
			for range 10 {
				for name, want := range want {
					wg.Go(func() {
						r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+at.AddrPort.String(), nil)
						if err != nil {
							t.Error(err)
							return
						}
						r.Host = name + ".example.jp"
						r.Header.Set("Client-Cert", ":bGll:")
						resp, err := c.Do(r)
						if err != nil {
							t.Errorf("%s, %s: %v", kind, name, err)
							return
						}
						defer resp.Body.Close()
						body, err := io.ReadAll(resp.Body)
						if got := fmt.Sprint(resp.StatusCode, " ", strings.TrimSpace(string(body))); err != nil || got != want {
							t.Errorf("%s, %s: got %s, %v, want %s", kind, name, got, err, want)
						}
					})
				}
			}
			wg.Wait()
		}
	})
}

// A list that is replaced on disk holds without a reload: who is in it can neither come nor stay.
func TestRevocation(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for the look at the files, which is every 5 s")
	}
	b, dir := newBench(t), t.TempDir()
	cert, client := certificate(t, dir, "shop.example.jp")
	ca := servertest.NewAuthority(t, "ca")
	alice := ca.Issue("alice")
	cert.ClientCertificates = &ClientCertificates{CA: saveFile(t, dir, "ca.pem", ca.PEM()),
		CRL: saveFile(t, dir, "ca.crl", ca.CRL(time.Now().Add(time.Hour)))}
	at := b.freeAddr(ip.V6)
	b.serve(b.service("shop", at, shared(told(t, ip.V4)), withTLS(cert, "shop.example.jp")))
	const host = "shop.example.jp"
	config := showing(client, alice)
	stays, r, err := sayTLS(t, at.AddrPort, config, host, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("before: got %v, %v", resp, err)
	}
	io.Copy(io.Discard, resp.Body)
	saveFile(t, dir, "ca.crl", ca.CRL(time.Now().Add(time.Hour), alice.Leaf))
	waitFor(t, "nobody comes with the certificate", func() bool {
		<-time.After(short)
		_, err := askTLS(t, at.AddrPort, config, host, host)
		return err != nil
	})
	io.WriteString(stays, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
	if resp, err = http.ReadResponse(r, nil); err != nil || resp.StatusCode != 421 {
		t.Errorf("the connection from before: got %v, %v", resp, err)
	}
}
