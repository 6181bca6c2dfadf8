// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"maps"
	"net"
	"testing"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/metrics"
)

// A handshake that comes to nothing is counted once, by its reason, for the service that it was for, or else for the
// first of the address.
func TestFailedHandshakes(t *testing.T) {
	t.Parallel()
	cert, trusting := certificate(t, t.TempDir(), "shop.example.jp")
	hello := clientHello(t, trusting)
	say := func(text string, stay bool) func(c *net.TCPConn) {
		return func(c *net.TCPConn) {
			io.WriteString(c, text)
			if !stay {
				c.CloseWrite()
			}
			io.Copy(io.Discard, c) // until the edge has heard
		}
	}
	shake := func(change func(*tls.Config)) func(c *net.TCPConn) {
		return func(c *net.TCPConn) {
			config := trusting.Clone()
			change(config)
			if err := tls.Client(c, config).Handshake(); err == nil {
				c.Read(make([]byte, 1)) // TLS 1.3: why we are refused comes later
			}
		}
	}
	for _, tt := range []struct {
		name   string
		client func(c *net.TCPConn)
		want   metrics.Reason
	}{
		{"comes and goes", say("", false), metrics.Fine},
		{"says nothing", say("", true), metrics.Fine},
		{"plain HTTP", say("GET / HTTP/1.1\r\nHost: shop.example.jp\r\n\r\n", true), metrics.TLSFault},
		{"half a hello", say(hello[:len(hello)/2], true), metrics.TLSTimeout},
		{"half a hello, and gone", say(hello[:len(hello)/2], false), metrics.TLSReset},
		{"hello and no more", say(hello, true), metrics.TLSTimeout},
		{"hello, and gone", say(hello, false), metrics.TLSReset},
		{"does not trust", shake(func(c *tls.Config) { c.RootCAs = x509.NewCertPool() }), metrics.TLSRejected},
		{"does not trust, nobody's name", shake(func(c *tls.Config) { c.RootCAs, c.ServerName = x509.NewCertPool(), "a.example.jp" }), metrics.TLSRejected},
		{"too old", shake(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }), metrics.TLSRefused},
		{"another protocol", shake(func(c *tls.Config) { c.NextProtos = []string{"imap"} }), metrics.TLSRefused},
	} {
		within := patience
		switch tt.want {
		case metrics.Fine:
			within = short
		case metrics.TLSTimeout: // when all has been said
			within = ample
		}
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
				at := b.freeAddr(f)
				o := withTLS(cert, "shop.example.jp")
				o.Timeouts.Request = within
				other := withTLS(cert, "other.example.jp")
				other.Timeouts.Request = within
				spec := shared(servertest.HTTP(t, f, nil))
				b.serve(b.service(f.String(), at, spec, o), b.service("other", at, spec, other))
				want := make(map[metrics.Reason]int64)
				if tt.want != metrics.Fine {
					want[tt.want] = 1
				}
				tt.client(connect(t, at.AddrPort).TCPConn)
				waitFor(t, "the end of the handshake", func() bool { return len(b.sample(f.String()).Errors) >= len(want) })
				if got := b.sample(f.String()).Errors; !maps.Equal(got, want) {
					t.Errorf("counted %v, want %v", got, want)
				}
			})
			if got := b.sample("other").Errors; len(got) > 0 {
				t.Errorf("another service counted %v", got)
			}
		})
	}
}
