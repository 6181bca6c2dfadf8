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
	network := map[ip.Family]string{ip.V4: "tcp4", ip.V6: "tcp6"}[f]
	l, err := net.ListenTCP(network, net.TCPAddrFromAddrPort(netip.AddrPortFrom(iptest.Loopback(f), 0)))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute, ErrorLog: log.New(io.Discard, "", 0)}
	go func() {
		if config == nil {
			s.Serve(l)
			return
		}
		s.Serve(tls.NewListener(l, config))
	}()
	t.Cleanup(func() { s.Close() })
	return ip.CanonicalPort(l.Addr().(*net.TCPAddr).AddrPort())
}
