// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

func TestRequests(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		backendAddr := servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			fmt.Fprintf(w, "%s %s host=%s xff=%s fwd=%s body=%d", r.Method, r.RequestURI, r.Host, r.Header.Get("X-Forwarded-For"),
				r.Header.Get("Forwarded"), len(body))
		}))
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, shared(backendAddr), defaults()))
		c := newClient(t)
		url := "http://" + at.AddrPort.String()
		for range 3 {
			status, body, _ := get(t, c, url+"/a?b=c")
			client := iptest.Loopback(x.Client)
			fwd := client.String()
			if x.Client == ip.V6 {
				fwd = `"[` + fwd + `]"`
			}
			want := fmt.Sprintf(`GET /a?b=c host=%s xff=%s fwd=for=%s;proto=http;host="%s" body=0`, at.AddrPort, client, fwd, at.AddrPort)
			if status != 200 || body != want {
				t.Errorf("got %d %q\nwant 200 %q", status, body, want)
			}
		}
		for _, size := range []int{1, 1000, 200_000, 2 << 20} {
			for _, chunked := range []bool{false, true} {
				var in io.Reader = bytes.NewReader(make([]byte, size))
				if chunked {
					in = io.MultiReader(in) // hides the length
				}
				r, err := c.Post(url+"/up", "application/octet-stream", in)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(r.Body)
				r.Body.Close()
				if !strings.HasSuffix(string(body), fmt.Sprintf("body=%d", size)) {
					t.Errorf("size %d chunked %v: got %q", size, chunked, body)
				}
			}
		}
	})
}

func TestResponses(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	big := make([]byte, 2<<20)
	rand.Read(big)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		backendAddr := servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/length":
				w.Header().Set("Content-Length", fmt.Sprint(len(big)))
				w.Write(big)
			case "/chunked":
				for i := 0; i < len(big); i += 100_000 {
					w.Write(big[i:min(len(big), i+100_000)])
				}
			case "/close":
				w.Header().Set("Connection", "close")
				w.Write([]byte("bye"))
			case "/204":
				w.WriteHeader(204)
			case "/early":
				w.Header().Set("Link", "</x>; rel=preload")
				w.WriteHeader(103)
				w.Write([]byte("late"))
			case "/cut":
				w.Header().Set("Content-Length", "100")
				w.Write([]byte("short"))
				w.(http.Flusher).Flush()
				c, _, _ := w.(http.Hijacker).Hijack()
				c.Close()
			}
		}))
		for kind, spec := range kinds(backendAddr) {
			at := b.freeAddr(x.Client)
			b.serve(b.service("shop", at, spec, defaults()))
			c := newClient(t)
			url := "http://" + at.AddrPort.String()
			for range 2 {
				for _, path := range []string{"/length", "/chunked"} {
					if _, body, _ := get(t, c, url+path); body != string(big) {
						t.Errorf("%s %s: got %d bytes, not the same", kind, path, len(body))
					}
				}
				for path, want := range map[string]string{"/close": "bye", "/204": "", "/early": "late"} {
					if _, body, _ := get(t, c, url+path); body != want {
						t.Errorf("%s %s: got %q, want %q", kind, path, body, want)
					}
				}
			}
			r, err := c.Get(url + "/cut")
			if err == nil {
				_, err = io.ReadAll(r.Body)
				r.Body.Close()
			}
			if err == nil {
				t.Errorf("%s: a response that was cut off looks whole", kind)
			}
		}
	})
}

// exchangeRaw sends bytes and returns all that comes back until the edge closes.
func exchangeRaw(t testing.TB, at netip.AddrPort, send string) string {
	t.Helper()
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	c.Write([]byte(send))
	got, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("%q: %v", send, err)
	}
	return string(got)
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	var reached atomic.Int64
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		backendAddr := servertest.HTTP(t, x.Backend, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
		at := b.freeAddr(x.Client)
		o := defaults()
		o.Hosts = []string{"shop.example.jp"}
		b.serve(b.service("shop", at, shared(backendAddr), o))
		for send, want := range map[string]string{
			"GET / HTTP/1.1\r\nHost: shop.example.jp\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n": "400",
			"GET / HTTP/1.1\r\nHost: shop.example.jp\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello":              "400",
			"GET / HTTP/1.1\nHost: shop.example.jp\n\n":                                                                   "400",
			"GET / HTTP/1.1\r\n\r\n":                                                               "400",
			"GET / HTTP/2.0\r\nHost: shop.example.jp\r\n\r\n":                                      "505",
			"CONNECT a:1 HTTP/1.1\r\nHost: shop.example.jp\r\n\r\n":                                "501",
			"GET / HTTP/1.1\r\nHost: other.example.jp\r\n\r\n":                                     "421",
			"GET / HTTP/1.1\r\nHost: shop.example.jp\r\nX_Y: 1\r\n\r\n":                            "400",
			"POST / HTTP/1.1\r\nHost: shop.example.jp\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n": "400",
		} {
			got := exchangeRaw(t, at.AddrPort, send)
			if !strings.HasPrefix(got, "HTTP/1.1 "+want) && !(want == "501" && strings.HasPrefix(got, "HTTP/1.1 405")) {
				t.Errorf("%q: got %q, want %s", send, got, want)
			}
			if strings.Count(got, "HTTP/1.1 ") != 1 {
				t.Errorf("%q: got several responses: %q", send, got)
			}
		}
	})
	if n := reached.Load(); n != 0 {
		t.Errorf("%d of the refused requests reached the backend", n)
	}
}

func TestPipelining(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		backendAddr := servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.Copy(w, r.Body)
			fmt.Fprint(w, r.URL.Path)
		}))
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, shared(backendAddr), defaults()))
		var send strings.Builder
		for i := range 50 {
			fmt.Fprintf(&send, "POST /%d HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", i)
		}
		send.WriteString("GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at.AddrPort))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		c.Write([]byte(send.String()))
		r := bufio.NewReader(c)
		for i := range 51 {
			want := fmt.Sprintf("abc/%d", i)
			if i == 50 {
				want = "/last"
			}
			resp, err := http.ReadResponse(r, nil)
			if err != nil {
				t.Fatalf("response %d: %v", i, err)
			}
			if body, err := io.ReadAll(resp.Body); string(body) != want {
				t.Fatalf("response %d: got %q, %v, want %q", i, body, err, want)
			}
		}
	})
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, shared(webSocketEcho(t, x.Backend)), defaults()))
		c := connect(t, at.AddrPort)
		c.say(webSocketRequest("a"))
		if resp, err := http.ReadResponse(c.r, nil); err != nil || resp.StatusCode != 101 {
			t.Fatalf("got %v, %v", resp, err)
		}
		c.say(" world")
		c.CloseWrite()
		if got, err := io.ReadAll(c.r); string(got) != "hello world" {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// A connection that a backend has closed while nobody used it must not fail the next client's request.
func TestStaleConnection(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		var requests atomic.Int64
		backendAddr := servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
			r := bufio.NewReader(c)
			for range 2 { // answers one request, and closes without a word on the second
				if _, err := http.ReadRequest(r); err != nil {
					return
				}
				if requests.Add(1)%2 == 0 {
					return
				}
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
		})
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, shared(backendAddr), defaults()))
		c := newClient(t)
		for range 6 {
			if status, body, _ := get(t, c, "http://"+at.AddrPort.String()+"/"); status != 200 || body != "ok" {
				t.Fatalf("got %d %q", status, body)
			}
		}
	})
}
