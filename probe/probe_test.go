// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// listen returns a listening socket on the loopback of f.
func listen(t *testing.T, f ip.Family) (net.Listener, netip.AddrPort) {
	t.Helper()
	network := "tcp6"
	if f == ip.V4 {
		network = "tcp4"
	}
	l, err := net.Listen(network, netip.AddrPortFrom(iptest.Loopback(f), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l, ip.CanonicalPort(l.Addr().(*net.TCPAddr).AddrPort())
}

// serve answers every connection with the given bytes once the head of the question is read.
func serve(t *testing.T, f ip.Family, reply string) netip.AddrPort {
	t.Helper()
	l, addr := listen(t, f)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				io.WriteString(c, reply)
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return addr
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	const length = "Content-Length: 0\r\n\r\n"
	tests := []struct {
		name, reply string
		target      Target
		want        string
	}{
		{name: "well", reply: "HTTP/1.1 200 OK\r\n" + length},
		{name: "no length", reply: "HTTP/1.0 200 OK\r\n\r\nhello"},
		{name: "redirect is an answer", reply: "HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\n" + length},
		{name: "redirect is not what was wanted", reply: "HTTP/1.1 302 Found\r\nLocation: /\r\n" + length,
			target: Target{Status: [2]int{200, 299}}, want: "answer: status 302, want 200 to 299"},
		{name: "ill", reply: "HTTP/1.1 503 Service Unavailable\r\n" + length,
			want: "answer: status 503, want 200 to 399"},
		{name: "one status", reply: "HTTP/1.1 200 OK\r\n" + length, target: Target{Status: [2]int{204, 204}},
			want: "answer: status 200, want 204"},
		{name: "interim first", reply: "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\n" + length},
		{name: "only interim", reply: strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 9),
			want: "answer: only interim answers"},
		{name: "silent", reply: "", want: "answer: ended in the middle"},
		{name: "cut", reply: "HTTP/1.1 200 OK\r\nServer: x\r\n", want: "answer: ended in the middle"},
		{name: "not HTTP", reply: "220 mx.example.jp ESMTP\r\n", want: `answer: malformed HTTP status code "mx.example.jp"`},
		{name: "endless head", reply: "HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", headMax),
			want: "answer: ended in the middle"},
		{name: "not a path", target: Target{HTTP: "/a b"}, want: `question: ask "%[1]s" for "/a b": not a path and a host`},
		{name: "not a host", target: Target{Host: "a\r\nX: y"},
			want: `question: ask "a\r\nX: y" for "/healthz": not a path and a host`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
				target := test.target
				target.Addr = serve(t, f, test.reply)
				if target.HTTP == "" {
					target.HTTP = "/healthz"
				}
				r := Ask(t.Context(), target)
				got, want := "", test.want
				if r.Err != nil {
					got = r.Err.Error()
				}
				if strings.Contains(want, "%") {
					want = fmt.Sprintf(want, target.Addr)
				}
				if got != want {
					t.Errorf("got error %q, want %q", got, want)
				}
				if r.Target != target || r.Start.IsZero() {
					t.Errorf("got target %v, start %v", r.Target, r.Start)
				}
			})
		})
	}
}

func TestHTTPQuestion(t *testing.T) {
	t.Parallel()
	for _, host := range []string{"", "shop.example.jp"} {
		target := Target{Addr: netip.MustParseAddrPort("[2001:db8::1]:80"), HTTP: "/healthz?x=1", Host: host}
		q, err := question(target)
		if err != nil {
			t.Fatal(err)
		}
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(q)))
		if err != nil {
			t.Fatal(err)
		}
		if host == "" {
			host = "[2001:db8::1]:80"
		}
		if r.Host != host || r.RequestURI != target.HTTP || !r.Close || r.UserAgent() != "kyozon-probe" {
			t.Errorf("got %q", q)
		}
	}
}

func TestTCP(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		l, addr := listen(t, f)
		r := Ask(t.Context(), Target{Addr: addr})
		if r.Err != nil || len(r.Phases) != 1 || r.Phases[0].Name != "connect" {
			t.Errorf("open port: got %+v", r)
		}
		l.Close()
		r = Ask(t.Context(), Target{Addr: addr})
		if !errors.Is(r.Err, syscall.ECONNREFUSED) || r.Err.Error() != "connect: connection refused" {
			t.Errorf("closed port: got %v", r.Err)
		}
	})
}

// TestNoOtherFamily: a name or the other loopback would answer, the address that was asked does not.
func TestNoOtherFamily(t *testing.T) {
	t.Parallel()
	_, open := listen(t, ip.V4)
	asked := netip.AddrPortFrom(netip.IPv6Loopback(), open.Port())
	if r := TCP(t.Context(), Target{Addr: asked}); !errors.Is(r.Err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, want connection refused", r.Err)
	}
}

// overdue asks whom nobody answers until the time is over, with more of it if it was over before there was a connection.
func overdue(t *testing.T, ask Func, target Target) (r Result) {
	t.Helper()
	for d := 20 * time.Millisecond; len(r.Phases) == 0 && d < patience; d *= 4 {
		ctx, cancel := context.WithTimeout(t.Context(), d)
		r = ask(ctx, target)
		cancel()
	}
	return r
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		_, addr := listen(t, f) // the kernel accepts, nobody answers
		r := overdue(t, HTTP, Target{Addr: addr, HTTP: "/"})
		if !errors.Is(r.Err, ErrTimeout) || len(r.Phases) != 1 {
			t.Errorf("got %+v, want ErrTimeout after connect", r)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if r := HTTP(ctx, Target{Addr: addr, HTTP: "/"}); !errors.Is(r.Err, context.Canceled) {
			t.Errorf("got %v, want canceled", r.Err)
		}
	})
}

// TestLocal asks from an address that no interface has: on the loopback network any such address can be used.
func TestLocal(t *testing.T) {
	t.Parallel()
	tests := []struct {
		f     ip.Family
		local string
	}{{ip.V4, "127.64.3.2"}, {ip.V6, "::1"}}
	for _, test := range tests {
		l, addr := listen(t, test.f)
		want := netip.MustParseAddr(test.local)
		if r := TCP(t.Context(), Target{Addr: addr, Local: want}); r.Err != nil {
			t.Fatalf("from %v: %v", want, r.Err)
		}
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got := ip.Canonical(c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()); got != want {
			t.Errorf("the server saw %v, want %v", got, want)
		}
	}
}

// TestLocalForeign: an address that is not ours can be bound all the same; that no answer comes back is the finding.
func TestLocalForeign(t *testing.T) {
	t.Parallel()
	_, addr := listen(t, ip.V6)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	r := TCP(ctx, Target{Addr: addr, Local: netip.MustParseAddr("2001:db8::7")})
	if r.Err == nil || errors.Is(r.Err, syscall.EADDRNOTAVAIL) {
		t.Errorf("got %v, want no answer", r.Err)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"))
	f.Add([]byte("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		status, body, err := answer(bufio.NewReader(bytes.NewReader(b)))
		if (err == nil) != (body != nil) {
			t.Fatalf("body %v, error %v", body, err)
		}
		if err != nil {
			return
		}
		if status < 101 || status > 999 {
			t.Fatalf("status %d", status)
		}
		if n, _ := io.Copy(io.Discard, body); n > int64(len(b)) {
			t.Fatalf("%d bytes of body from %d", n, len(b))
		}
	})
}
