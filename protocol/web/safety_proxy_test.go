// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/kyozon/kyozon/config"
	"github.com/kyozon/kyozon/edge"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/protocol/web"
	"github.com/kyozon/kyozon/service"
)

// open runs an edge with one web service, until the test ends, and returns where it listens. PROXY headers are taken
// from the network.
func open(t *testing.T, f ip.Family, server netip.AddrPort, network string) netip.AddrPort {
	t.Helper()
	sockets := listen.NewSet(listen.Options{})
	lease, err := sockets.Stream(listen.Addr{AddrPort: netip.AddrPortFrom(iptest.Loopback(f), 0)})
	if err != nil {
		t.Fatal(err)
	}
	at := lease.Addr().AddrPort
	protocols := []service.Protocol{web.Protocol()}
	text := fmt.Sprintf("site: test\nservices:\n  shop: {protocol: web, listen: [%q], proxy-from: [%q], pools: {existing: {servers: [%q], handover: header}},"+
		" clients: {%v: existing}}\nstate: {directory: %q}\nadmin: {listen: off}\n", at, network, server, f, t.TempDir())
	site, err := config.Parse("site.yaml", []byte(text), protocols, config.Options{})
	if err != nil {
		t.Fatalf("%v\nin\n%s", err, text)
	}
	e, err := edge.New(edge.Options{Log: slog.New(slog.DiscardHandler), Version: "test", Protocols: protocols, Loops: 1, Sockets: sockets})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	started, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- e.Run(ctx, site, func() { close(started) }) }()
	select {
	case err := <-ended:
		cancel()
		t.Fatal(err)
	case <-started:
	}
	lease.Close()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return at
}

// Who is trusted to name clients names them, and an IPv4 address in IPv6 clothes is an IPv4 address to the server. The
// header of a stranger is no request, and names nobody.
func TestProxyFrom(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		server := servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s %s", r.Header.Get("X-Forwarded-For"), r.Header.Get("Forwarded"))
		}))
		trusted := open(t, x.Client, server, iptest.Loopback(x.Client).String())
		strange := open(t, x.Client, server, "192.0.2.0/24")
		const v2 = "\r\n\r\n\x00\r\nQUIT\n\x21"
		mapped := string(append(make([]byte, 10), 0xff, 0xff, 198, 51, 100, 7))
		for _, tt := range []struct {
			name, header string
			at           netip.AddrPort
			status       int
			body         string // the beginning
		}{
			{"IPv4", "PROXY TCP4 198.51.100.7 203.0.113.1 4321 80\r\n", trusted, 200, "198.51.100.7 for=198.51.100.7;"},
			{"IPv6", "PROXY TCP6 2001:DB8:0::7 2001:db8::1 4321 80\r\n", trusted, 200, `2001:db8::7 for="[2001:db8::7]";`},
			{"mapped", "PROXY TCP6 ::ffff:198.51.100.7 ::ffff:203.0.113.1 4321 80\r\n", trusted, 200, "198.51.100.7 for=198.51.100.7;"},
			{"mapped, in hexadecimal", "PROXY TCP6 ::ffff:c633:6407 ::ffff:cb00:7101 4321 80\r\n", trusted, 200, "198.51.100.7 for=198.51.100.7;"},
			{"mapped, version 2", v2 + "\x21\x00\x24" + mapped + mapped + "\x10\xe1\x00\x50", trusted, 200, "198.51.100.7 for=198.51.100.7;"},
			{"of a stranger", "PROXY TCP4 198.51.100.7 203.0.113.1 4321 80\r\n", strange, 400, "400 "},
			{"of a stranger, version 2", v2 + "\x21\x00\x24" + mapped + mapped + "\x10\xe1\x00\x50", strange, 400, "400 "},
		} {
			c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(tt.at))
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(20 * time.Second))
			io.WriteString(c, tt.header+"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.1\r\nConnection: close\r\n\r\n")
			r, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			body, _ := io.ReadAll(r.Body)
			if r.StatusCode != tt.status || len(body) < len(tt.body) || string(body[:len(tt.body)]) != tt.body {
				t.Errorf("%s: got %d %q, want %d %q", tt.name, r.StatusCode, body, tt.status, tt.body)
			}
			c.Close()
		}
	})
}
