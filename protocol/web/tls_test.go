// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bufio"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/metrics"
)

// named answers with a word and what it is told about the client.
func named(t testing.TB, f ip.Family, word string) netip.AddrPort {
	return servertest.HTTP(t, f, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprintf(w, "%s %s %s %d", word, r.Host, r.Header.Get("X-Forwarded-Proto"), n)
	}))
}

// withTLS is the options of a service for hosts.
func withTLS(t TLS, hosts ...string) *Options {
	o := defaults()
	o.Hosts, o.TLS = hosts, &t
	return o
}

// sayTLS connects, shakes hands and sends a request.
func sayTLS(t testing.TB, at netip.AddrPort, config *tls.Config, name, request string) (*tls.Conn, *bufio.Reader, error) {
	t.Helper()
	config = config.Clone()
	config.ServerName = name
	c := tls.Client(connect(t, at).TCPConn, config)
	if _, err := io.WriteString(c, request); err != nil {
		return nil, nil, err
	}
	return c, bufio.NewReader(c), nil
}

// Several services share an address: by Host where TLS is ended here, by server name where it is passed through.
func TestNamesOfOneAddress(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	shopCert, shopClient := certificate(t, t.TempDir(), "shop.example.jp")
	wildCert, wildClient := certificate(t, t.TempDir(), "*.example.jp")
	bankServer, bankClient := servertest.TLS(t, "bank.example.jp")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		bank := servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
			s := tls.Server(c, bankServer)
			if r, err := http.ReadRequest(bufio.NewReader(s)); err == nil {
				fmt.Fprintf(s, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nbank %s", r.Host)
				s.Close()
			}
		})
		at := b.freeAddr(x.Client)
		b.serve(
			b.service("shop", at, shared(named(t, x.Backend, "shop")), withTLS(shopCert, "shop.example.jp")),
			b.service("wild", at, private(named(t, x.Backend, "wild")), withTLS(wildCert, "*.example.jp")),
			b.service("bank", at, private(bank), withTLS(TLS{PassThrough: true}, "bank.example.jp")),
		)
		for _, tt := range []struct {
			name, host string
			config     *tls.Config
			want       string
		}{
			{"shop.example.jp", "shop.example.jp", shopClient, "200 shop shop.example.jp https 0"},
			{"www.example.jp", "www.example.jp", wildClient, "200 wild www.example.jp  0"},
			{"shop.example.jp", "www.example.jp", shopClient, "200 wild www.example.jp  0"},
			{"shop.example.jp", "bank.example.jp", shopClient, "421 "}, // the edge does not speak for those passed through
			{"shop.example.jp", "other.example.com", shopClient, "421 "},
			{"bank.example.jp", "bank.example.jp", bankClient, "200 bank bank.example.jp"},
			{"BANK.example.jp", "bank.example.jp", bankClient, "200 bank bank.example.jp"},
			{"", "shop.example.jp", &tls.Config{InsecureSkipVerify: true}, "200 shop shop.example.jp https 0"},
			{"nowhere.example.com", "shop.example.jp", &tls.Config{InsecureSkipVerify: true}, "200 shop shop.example.jp https 0"},
		} {
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				config := tt.config.Clone()
				config.MaxVersion = version
				_, r, err := sayTLS(t, at.AddrPort, config, tt.name, "GET / HTTP/1.1\r\nHost: "+tt.host+"\r\nConnection: close\r\n\r\n")
				if err != nil {
					t.Errorf("%s: %v", tt.name, err)
					continue
				}
				resp, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Errorf("%s, host %s: %v", tt.name, tt.host, err)
					continue
				}
				body, err := io.ReadAll(resp.Body)
				if got := fmt.Sprint(resp.StatusCode, " ", string(body)); err != nil || !strings.HasPrefix(got, tt.want) {
					t.Errorf("%s, host %s, TLS %x: got %q, %v, want %q", tt.name, tt.host, version, got, err, tt.want)
				}
			}
		}
	})
}

// What is no ClientHello, or never becomes a handshake, ends without an answer and without a flow.
func TestNoHandshake(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cert, client := certificate(t, t.TempDir(), "shop.example.jp")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		at := b.freeAddr(f)
		o := withTLS(cert, "shop.example.jp")
		o.Timeouts.Request = short
		b.serve(b.service("shop", at, shared(named(t, f, "shop")), o))
		hello := clientHello(t, client)
		for name, send := range map[string]string{
			"plain HTTP": "GET / HTTP/1.1\r\nHost: shop.example.jp\r\n\r\n", "nothing": "", "half a hello": hello[:len(hello)/2],
			"hello and no more": hello, "hello and rubbish": hello + strings.Repeat("rubbish", 5000),
		} {
			c := connect(t, at.AddrPort)
			c.Write([]byte(send))
			if _, err := io.Copy(io.Discard, c); errors.Is(err, net.ErrClosed) {
				t.Errorf("%s: %v", name, err)
			}
		}
	})
	b.quiet(t)
	if n := b.sample("shop").Opened; n != 0 {
		t.Errorf("%d flows", n)
	}
}

// clientHello returns the first bytes of a client.
func clientHello(t testing.TB, config *tls.Config) string {
	t.Helper()
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	go tls.Client(near, config).Handshake()
	p := make([]byte, 1<<14)
	n, err := far.Read(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(p[:n])
}

// Bodies both ways through TLS arrive whole, also when both sides speak at once and when the client ends its half.
func TestBodiesThroughTLS(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cert, client := certificate(t, t.TempDir(), "shop.example.jp")
	big := make([]byte, 3<<20)
	rand.Read(big)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, private(servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).EnableFullDuplex()
			io.Copy(w, r.Body)
		}))), withTLS(cert, "shop.example.jp")))
		c, r, err := sayTLS(t, at.AddrPort, client, "shop.example.jp",
			fmt.Sprintf("POST / HTTP/1.1\r\nHost: shop.example.jp\r\nContent-Length: %d\r\n\r\n", len(big)))
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			c.Write(big)
			c.CloseWrite()
		}()
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, err := io.ReadAll(resp.Body); err != nil || string(body) != string(big) {
			t.Errorf("got %d bytes, %v", len(body), err)
		}
	})
}

// A response that is cut off inside TLS must not end in close_notify: to a client that would be its end.
func TestCutOffTLS(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cert, client := certificate(t, t.TempDir(), "shop.example.jp")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		at := b.freeAddr(x.Client)
		heard := make(chan struct{})
		b.serve(b.service("shop", at, shared(servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\nhalf")
			<-heard
			c.SetLinger(0)
		})), withTLS(cert, "shop.example.jp")))
		_, r, err := sayTLS(t, at.AddrPort, client, "shop.example.jp", "GET / HTTP/1.1\r\nHost: shop.example.jp\r\n\r\n")
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		close(heard)
		if body, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("%q looks whole", body)
		}
	})
}

// A WebSocket goes through TLS that is ended here.
func TestWebSocketThroughTLS(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	cert, client := certificate(t, t.TempDir(), "shop.example.jp")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		for kind, spec := range kinds(webSocketEcho(t, x.Backend)) {
			at := b.freeAddr(x.Client)
			b.serve(b.service("shop", at, spec, withTLS(cert, "shop.example.jp")))
			c, r, err := sayTLS(t, at.AddrPort, client, "shop.example.jp", webSocketRequest("shop.example.jp")+"early")
			if err != nil {
				t.Fatal(err)
			}
			resp, err := http.ReadResponse(r, nil)
			if err != nil || resp.StatusCode != 101 {
				t.Fatalf("%s: got %v, %v", kind, resp, err)
			}
			for _, size := range []int{1, 1000, 1 << 20} {
				sent := make([]byte, size)
				rand.Read(sent)
				go c.Write(sent)
				want := string(sent)
				if size == 1 {
					want = "helloearly" + want
				}
				got := make([]byte, len(want))
				if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
					t.Fatalf("%s: got %d bytes, %v", kind, len(got), err)
				}
			}
			c.CloseWrite()
			if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
				t.Errorf("%s: ends with %q, %v", kind, rest, err)
			}
		}
	})
}

// webSocketEcho switches protocols, says hello, and sends back what it gets.
func webSocketEcho(t testing.TB, f ip.Family) netip.AddrPort {
	return servertest.HTTP(t, f, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, rw, _ := w.(http.Hijacker).Hijack()
		defer c.Close()
		rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello")
		rw.Flush()
		io.Copy(c, rw)
	}))
}

func webSocketRequest(host string) string {
	return "GET /ws HTTP/1.1\r\nHost: " + host + "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n"
}

// A certificate that is replaced on disk is in use for new connections; established ones go on.
func TestCertificateReload(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for the look at the files, which is every 5 s")
	}
	b := newBench(t)
	dir := t.TempDir()
	cert, before := certificate(t, dir, "shop.example.jp")
	at := b.freeAddr(ip.V6)
	b.serve(b.service("shop", at, shared(named(t, ip.V4, "shop")), withTLS(cert, "shop.example.jp")))
	const request = "GET / HTTP/1.1\r\nHost: shop.example.jp\r\n\r\n"
	old, r, err := sayTLS(t, at.AddrPort, before, "shop.example.jp", request)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := http.ReadResponse(r, nil); err != nil {
		t.Fatal(err)
	}
	_, after := certificate(t, dir, "shop.example.jp")
	waitFor(t, "the new certificate", func() bool {
		<-time.After(short)
		_, _, err := sayTLS(t, at.AddrPort, after, "shop.example.jp", request)
		return err == nil
	})
	io.WriteString(old, request)
	if _, err := io.ReadAll(io.LimitReader(r, 15)); err != nil {
		t.Errorf("the connection from before: %v", err)
	}
}

// A backend behind TLS passed through gets the PROXY header first, then the ClientHello.
func TestPassThroughWithProxy(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	bankServer, bankClient := servertest.TLS(t, "bank.example.jp")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		bank := servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
			line := make([]byte, 0, 110)
			for one := make([]byte, 1); len(line) < 108 && !strings.HasSuffix(string(line), "\r\n"); {
				if _, err := c.Read(one); err != nil {
					return
				}
				line = append(line, one...)
			}
			s := tls.Server(c, bankServer)
			if _, err := http.ReadRequest(bufio.NewReader(s)); err == nil {
				fmt.Fprintf(s, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(line), line)
				s.Close()
			}
		})
		at := b.freeAddr(x.Client)
		spec := private(bank)
		spec.Handover = backend.HandoverProxyV1
		b.serve(b.service("bank", at, spec, withTLS(TLS{PassThrough: true}, "bank.example.jp")))
		c, r, err := sayTLS(t, at.AddrPort, bankClient, "bank.example.jp", "GET / HTTP/1.1\r\nHost: bank.example.jp\r\n\r\n")
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		client := c.LocalAddr().(*net.TCPAddr).AddrPort()
		want := fmt.Sprintf("PROXY TCP%v %v %v %d %d\r\n", x.Client, client.Addr(), at.AddrPort.Addr(), client.Port(), at.AddrPort.Port())
		want = strings.Replace(want, "TCPipv", "TCP", 1)
		if line, err := io.ReadAll(resp.Body); err != nil || string(line) != want {
			t.Errorf("got %q, %v, want %q", line, err, want)
		}
	})
	b.quiet(t)
	if s := b.sample("bank"); s.Opened != 4 || len(s.Errors) > 0 && s.Errors[metrics.ClientReset] == 0 {
		t.Errorf("counted %+v", s)
	}
}
