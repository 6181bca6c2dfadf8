// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// resumes asks for a host and says whether its session was resumed. It reads an answer, so that the client has the
// tickets of TLS 1.3, which come after the handshake.
func resumes(t *testing.T, at netip.AddrPort, config *tls.Config, host string) (bool, error) {
	t.Helper()
	c, r, err := sayTLS(t, at, config, config.ServerName, "GET / HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
	if err != nil {
		return false, err
	}
	defer c.Close()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return false, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return c.ConnectionState().DidResume, err
}

// A session is resumed after a reload, and at the other addresses of its service; under the name of another service it
// is not, though the client tries.
func TestResumption(t *testing.T) {
	t.Parallel()
	b, dir := newBench(t), t.TempDir()
	cert, client := certificate(t, dir, "*.example.jp")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		at, other, server := b.freeAddr(x.Client), b.freeAddr(x.Client), named(t, x.Backend, "shop")
		serve := func() {
			also := b.service("shop", at, shared(server), withTLS(cert, "shop.example.jp"))
			also.Listen = append(also.Listen, also.Listen[0])
			also.Listen[1].Addr = other
			b.serve(also, b.service("desk", at, shared(server), withTLS(cert, "desk.example.jp")))
		}
		serve()
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			config := client.Clone()
			config.MaxVersion, config.ServerName = version, "shop.example.jp"
			config.ClientSessionCache = oneSession{tls.NewLRUClientSessionCache(1)}
			check := func(what string, at netip.AddrPort, want bool) {
				t.Helper()
				if got, err := resumes(t, at, config, config.ServerName); err != nil || got != want {
					t.Errorf("TLS %x, %s: resumed %v, %v, want %v", version, what, got, err, want)
				}
			}
			check("first", at.AddrPort, false)
			check("again", at.AddrPort, true)
			serve()
			check("after a reload", at.AddrPort, true)
			check("at another address", other.AddrPort, true)
			config.ServerName = "desk.example.jp"
			check("at another service", at.AddrPort, false)
		}
	})
}

// oneSession shows the same session to every server, as a client should not.
type oneSession struct{ tls.ClientSessionCache }

func (s oneSession) Get(string) (*tls.ClientSessionState, bool) { return s.ClientSessionCache.Get("") }
func (s oneSession) Put(_ string, state *tls.ClientSessionState) {
	s.ClientSessionCache.Put("", state)
}

// A session of a client with a certificate is resumed with it, until it is revoked or its authority is another.
func TestResumptionWithCertificate(t *testing.T) {
	t.Parallel()
	b, dir := newBench(t), t.TempDir()
	cert, client := certificate(t, dir, "shop.example.jp")
	one, two := servertest.NewAuthority(t, "one"), servertest.NewAuthority(t, "two")
	alice := one.Issue("alice")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		at, server := b.freeAddr(x.Client), told(t, x.Backend)
		serve := func(authority *servertest.Authority, revoked ...*x509.Certificate) {
			cert.ClientCertificates = &ClientCertificates{CA: saveFile(t, dir, "ca.pem", authority.PEM()),
				CRL: saveFile(t, dir, "ca.crl", authority.CRL(time.Now().Add(time.Hour), revoked...))}
			b.serve(b.service("shop", at, shared(server), withTLS(cert, "shop.example.jp")))
		}
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			config := showing(client, alice)
			config.MaxVersion, config.ClientSessionCache = version, tls.NewLRUClientSessionCache(1)
			check := func(what, want string) {
				t.Helper()
				resumed, err := resumes(t, at.AddrPort, config, "shop.example.jp")
				if got := fmt.Sprint(resumed, " ", err == nil); got != want {
					t.Errorf("TLS %x, %s: resumed, fine: %s, %v, want %s", version, what, got, err, want)
				}
			}
			serve(one)
			check("first", "false true")
			check("again", "true true")
			serve(one)
			check("after a reload", "true true")
			serve(one, alice.Leaf)
			check("revoked", "false false")
			serve(two)
			check("of another authority", "false false")
		}
	})
}
