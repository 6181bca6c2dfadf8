// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// What a server says that can be understood in two ways, or not at all, reaches no client: 502, and the connection to
// the server is not used again.
func TestBadServer(t *testing.T) {
	t.Parallel()
	const ok = "HTTP/1.1 200 OK\r\n"
	tests := []struct{ name, says string }{
		{"garbage", "SSH-2.0-OpenSSH_9.6\r\n\r\n"},
		{"HTTP/0.9", "<html>hello</html>\r\n\r\n"},
		{"a request", "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
		{"TLS", "\x15\x03\x03\x00\x02\x02\x28\r\n\r\n"},
		{"both framings", ok + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		{"two lengths", ok + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello"},
		{"an odd length", ok + "Content-Length: +5\r\n\r\nhello"},
		{"an odd coding", ok + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"},
		{"LF for CRLF", "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"},
		{"CR in a value", ok + "X: a\rSet-Cookie: b\r\nContent-Length: 0\r\n\r\n"},
		{"LF in a value", ok + "X: a\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n"},
		{"NUL in a value", ok + "X: a\x00b\r\nContent-Length: 0\r\n\r\n"},
		{"CR in the reason", "HTTP/1.1 200 OK\rX: a\r\nContent-Length: 0\r\n\r\n"},
		{"a folded field", ok + "X: a\r\n b\r\nContent-Length: 0\r\n\r\n"},
		{"space before a colon", ok + "Content-Length : 5\r\n\r\nhello"},
		{"a head that is too long", ok + "X: " + strings.Repeat("x", 64<<10) + "\r\n\r\n"},
		{"a line that is too long", "HTTP/1.1 200 " + strings.Repeat("x", 64<<10) + "\r\n\r\n"},
		{"a body of 204", "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello"},
		{"nothing", ""},
		{"half a head", ok + "Content-Le"},
	}
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		for _, tt := range tests {
			var dials atomic.Int64
			server := servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
				dials.Add(1)
				readHead(c)
				io.WriteString(c, tt.says)
			})
			for kind, spec := range kinds(server) {
				dials.Store(0)
				at := b.freeAddr(x.Client)
				b.serve(b.service("shop", at, spec, defaults()))
				for i := range 2 {
					c := connect(t, at.AddrPort)
					c.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
					if r, body := c.answer("GET"); r.StatusCode != 502 || !r.Close || r.Header.Get("Set-Cookie") != "" {
						t.Errorf("%s, %s: got %d %q, close %v", tt.name, kind, r.StatusCode, body, r.Close)
					}
					c.end()
					if n := dials.Load(); n != int64(i+1) {
						t.Errorf("%s, %s: %d connections, want %d", tt.name, kind, n, i+1)
					}
				}
			}
		}
	})
}

// What comes after a response, or without a request, is never the answer to somebody else's.
func TestSurplus(t *testing.T) {
	t.Parallel()
	const poison = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		for name, surplus := range map[string]string{"a response": poison, "a byte": "x", "an empty line": "\r\n"} {
			for framing, body := range map[string]string{
				"Content-Length: 2":          "ok",
				"Transfer-Encoding: chunked": "2\r\nok\r\n0\r\n\r\n",
			} {
				server := servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
					if readHead(c) != "" {
						io.WriteString(c, "HTTP/1.1 200 OK\r\n"+framing+"\r\n\r\n"+body+surplus)
						io.Copy(io.Discard, c)
					}
				})
				for kind, spec := range kinds(server) {
					at := b.freeAddr(x.Client)
					b.serve(b.service("shop", at, spec, defaults()))
					one := connect(t, at.AddrPort)
					for range 3 {
						for _, c := range []*raw{one, connect(t, at.AddrPort)} {
							c.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
							if r, body := c.answer("GET"); r.StatusCode != 200 || body != "ok" {
								t.Fatalf("%s after %s, %s: got %d %q", name, framing, kind, r.StatusCode, body)
							}
							if c != one {
								c.Close()
							}
						}
					}
					one.Close()
				}
			}
		}
	})
}

// A server that ends anywhere in its response leaves none that looks whole, unless it was.
func TestServerEndsAnywhere(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		for _, whole := range []string{
			"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
			"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
		} {
			var cut atomic.Int64
			at := b.freeAddr(x.Client)
			b.serve(b.service("shop", at, shared(servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
				readHead(c)
				io.WriteString(c, whole[:cut.Load()])
			})), defaults()))
			for i := range len(whole) + 1 {
				cut.Store(int64(i))
				c := connect(t, at.AddrPort)
				c.say("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
				r, err := http.ReadResponse(c.r, nil)
				for err == nil && r.StatusCode == 103 {
					r, err = http.ReadResponse(c.r, nil)
				}
				status, body := 0, []byte(nil)
				if err == nil {
					status = r.StatusCode
					body, err = io.ReadAll(r.Body)
				}
				if complete := status == 200 && err == nil; complete != (i == len(whole)) || complete && string(body) != "hello" {
					t.Errorf("%q: got %d %q, %v", whole[:i], status, body, err)
				}
				c.Close()
			}
		}
	})
}

// A client that ends anywhere in its request leaves no flow behind, and no server takes what came for a whole request.
func TestClientEndsAnywhere(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		w := newWitness(t, x.Backend)
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, shared(w.addr), defaults()))
		for _, whole := range []string{
			"POST /cut HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
			"POST /cut HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		} {
			for i := range len(whole) {
				c := connect(t, at.AddrPort)
				c.say(whole[:i])
				if i%2 == 0 {
					c.SetLinger(0) // a reset
				}
				c.Close()
				victim := connect(t, at.AddrPort)
				victim.say("GET /victim HTTP/1.1\r\nHost: a\r\n\r\n")
				if r, body := victim.answer("GET"); r.StatusCode != 200 || body != "GET /victim " {
					t.Fatalf("after %q the next client got %d %q", whole[:i], r.StatusCode, body)
				}
				victim.Close()
			}
		}
		b.quiet(t)
		for _, s := range w.take() {
			if s != "GET /victim " {
				t.Errorf("the server understood %q", s)
			}
		}
	})
}

// A body that a server has not read, because it answered at once, is no request: not to us, and not to the server.
func TestUnreadBodyIsNoRequest(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		var smuggled atomic.Int64
		server := servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
			for first := true; ; first = false {
				head := readHead(c)
				if head == "" {
					return
				}
				if !first && strings.Contains(head, "/smuggled") {
					smuggled.Add(1)
				}
				text, _, _ := strings.Cut(head, " HTTP")
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
				if strings.HasPrefix(text, "POST") {
					io.Copy(io.Discard, c) // as a server must that keeps no count
					return
				}
			}
		})
		for kind, spec := range kinds(server) {
			at := b.freeAddr(x.Client)
			b.serve(b.service("shop", at, spec, defaults()))
			c := connect(t, at.AddrPort)
			c.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n")
			if r, body := c.answer("POST"); r.StatusCode != 200 || body != "POST /" || !r.Close {
				t.Errorf("%s: got %d %q, close %v", kind, r.StatusCode, body, r.Close)
			}
			c.say("GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
			victim := connect(t, at.AddrPort)
			victim.say("GET /victim HTTP/1.1\r\nHost: a\r\n\r\n")
			if r, body := victim.answer("GET"); r.StatusCode != 200 || body != "GET /victim" {
				t.Errorf("%s: the next client got %d %q", kind, r.StatusCode, body)
			}
			c.CloseWrite()
			c.end()
			victim.Close()
		}
		if n := smuggled.Load(); n != 0 {
			t.Errorf("%d bodies were taken for requests", n)
		}
	})
}

// What may be sent again: a request without a body, over one new connection, if its method allows it and nothing of a
// response has come. RFC 9110 §9.2.2.
func TestRetryRules(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, request, says string // what the dying server says at last
		always              bool   // new connections die, too
		status, sent        int    // how often the request reaches a server
	}{
		{"GET", "GET /it HTTP/1.1\r\nHost: a\r\n\r\n", "", false, 200, 2},
		{"GET, which fails again", "GET /it HTTP/1.1\r\nHost: a\r\n\r\n", "", true, 502, 2},
		{"GET, after a byte", "GET /it HTTP/1.1\r\nHost: a\r\n\r\n", "H", false, 502, 1},
		{"GET, after half a head", "GET /it HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 200 OK\r\nX: ", false, 502, 1},
		{"PUT with nothing", "PUT /it HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "", false, 200, 2},
		{"PUT with a body", "PUT /it HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "", false, 502, 1},
		{"GET with a body", "GET /it HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "", false, 502, 1},
		{"POST with nothing", "POST /it HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "", false, 502, 1},
		{"PATCH", "PATCH /it HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", "", false, 502, 1},
		{"a method nobody knows", "FROB /it HTTP/1.1\r\nHost: a\r\n\r\n", "", false, 502, 1},
	}
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		for _, tt := range tests {
			var sent atomic.Int64
			server := servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
				for r := bufio.NewReader(c); ; {
					request, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					io.Copy(io.Discard, request.Body)
					if request.URL.Path == "/it" && (sent.Add(1) == 1 || tt.always) {
						io.WriteString(c, tt.says)
						return
					}
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
			})
			for kind, spec := range kinds(server) {
				sent.Store(0)
				at := b.freeAddr(x.Client)
				b.serve(b.service("shop", at, spec, defaults()))
				c := connect(t, at.AddrPort)
				c.say("GET /before HTTP/1.1\r\nHost: a\r\n\r\n") // so that the connection is one that was kept
				c.answer("GET")
				c.say(tt.request)
				if r, _ := c.answer("GET"); r.StatusCode != tt.status || sent.Load() != int64(tt.sent) {
					t.Errorf("%s, %s: got %d after %d times, want %d after %d", tt.name, kind, r.StatusCode, sent.Load(), tt.status, tt.sent)
				}
				c.Close()
			}
		}
	})
}

// A request is refused in the middle of a client's connection: the server's connection that was kept for the client goes
// with it.
func TestRefusalFreesServer(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		for _, request := range []string{"GET\r\n\r\n", "GET / HTTP/1.1\r\nHost: other\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n"} {
			gone := make(chan error, 1)
			o := defaults()
			o.Hosts = []string{"shop.example.jp"}
			at := b.freeAddr(x.Client)
			b.serve(b.service("shop", at, private(servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
				readHead(c)
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				c.SetReadDeadline(time.Now().Add(patience / 2))
				_, err := c.Read(make([]byte, 1))
				gone <- err
			})), o))
			c := connect(t, at.AddrPort)
			c.say("GET / HTTP/1.1\r\nHost: shop.example.jp\r\n\r\n")
			c.answer("GET")
			c.say(request)
			if r, _ := c.answer("GET"); r.StatusCode < 400 {
				t.Errorf("%q: got %d", request, r.StatusCode)
			}
			c.Close()
			if err := <-gone; err == nil || os.IsTimeout(err) {
				t.Errorf("%q: the server's connection is still there: %v", request, err)
			}
		}
	})
}
