// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// HTTP serves HTTP/1.1 until the test ends.
func HTTP(t testing.TB, f ip.Family, h http.Handler) netip.AddrPort {
	t.Helper()
	return HTTPS(t, f, nil, h)
}

// HTTPS serves HTTP/1.1 in TLS, or in clear if config is nil, until the test ends.
func HTTPS(t testing.TB, f ip.Family, config *tls.Config, h http.Handler) netip.AddrPort {
	t.Helper()
	s := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP1(true)
	return serve(t, f, config, s)
}

// HTTP2 serves HTTP/2 in TLS, or in clear if config is nil, and nothing else, until the test ends.
func HTTP2(t testing.TB, f ip.Family, config *tls.Config, h http.Handler) netip.AddrPort {
	t.Helper()
	s := &http.Server{Handler: h, Protocols: new(http.Protocols)}
	s.Protocols.SetHTTP2(config != nil)
	s.Protocols.SetUnencryptedHTTP2(config == nil)
	if config != nil {
		config = config.Clone()
		config.NextProtos = []string{"h2"}
	}
	return serve(t, f, config, s)
}

// Serve2 has s serve in clear, both HTTP/1.1 and HTTP/2, until the test ends.
func Serve2(t testing.TB, f ip.Family, s *http.Server) netip.AddrPort {
	t.Helper()
	s.Protocols = new(http.Protocols)
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	return serve(t, f, nil, s)
}

func serve(t testing.TB, f ip.Family, config *tls.Config, s *http.Server) netip.AddrPort {
	t.Helper()
	network := map[ip.Family]string{ip.V4: "tcp4", ip.V6: "tcp6"}[f]
	l, err := net.ListenTCP(network, net.TCPAddrFromAddrPort(netip.AddrPortFrom(iptest.Loopback(f), 0)))
	if err != nil {
		t.Fatal(err)
	}
	s.ReadHeaderTimeout, s.ErrorLog = time.Minute, log.New(io.Discard, "", 0)
	go func() {
		if config == nil {
			s.Serve(l)
			return
		}
		s.TLSConfig = config
		s.ServeTLS(l, "", "")
	}()
	t.Cleanup(func() { s.Close() })
	return ip.CanonicalPort(l.Addr().(*net.TCPAddr).AddrPort())
}
