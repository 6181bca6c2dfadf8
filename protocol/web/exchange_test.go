// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/relay"
)

// A head that never came whole must not become part of the next client's request.
func TestHalfHeadsAreForgotten(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		at := b.freeAddr(x.Client)
		o := defaults()
		o.Hosts = []string{"shop.example.jp"}
		o.Timeouts.Request = time.Minute
		b.serve(b.service("shop", at, shared(servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.Path, r.Header.Get("Cookie"))
		}))), o))
		for i := range 30 {
			c := connect(t, at.AddrPort)
			c.say("DELETE /everything HTTP/1.1\r\nHost: shop.example.jp\r\nCookie: secret\r\nX-Pad: " + strings.Repeat("x", i))
			c.CloseWrite()
			c.end()
			c = connect(t, at.AddrPort)
			c.say("GET / HTTP/1.1\r\nHost: shop.example.jp\r\nConnection: close\r\n\r\n")
			if r, body := c.answer("GET"); r.StatusCode != 200 || body != "GET / " {
				t.Fatalf("got %d %q", r.StatusCode, body)
			}
		}
		// Nor does an answer to bytes that are no request depend on who asked before.
		c := connect(t, at.AddrPort)
		c.say("HEAD / HTTP/1.1\r\nHost: other.example.jp\r\n\r\n")
		c.answer("HEAD")
		for range 5 {
			c = connect(t, at.AddrPort)
			c.say("\x16\x03\x01\r\n\r\n")
			if r, body := c.answer("GET"); r.StatusCode != 400 || !strings.HasPrefix(body, "400 ") {
				t.Fatalf("got %d %q", r.StatusCode, body)
			}
		}
	})
}

// stall has the loops do nothing while fn runs, so that they find all that fn did at once.
func (b *bench) stall(fn func()) {
	free, blocked := make(chan struct{}), make(chan struct{}, b.loops.Len())
	var wg sync.WaitGroup
	wg.Go(func() {
		b.loops.Do(func(*relay.Loop) {
			blocked <- struct{}{}
			<-free
		})
	})
	for range b.loops.Len() {
		<-blocked
	}
	fn()
	close(free)
	wg.Wait()
}

// What comes behind a head in one go waits for the backend, however much it is; so do the requests of a pipeline.
func TestMuchAtOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, private(servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprint(w, n)
		}))), defaults()))
		for _, size := range []int{0, 32 << 10, 100_000, 200_000} {
			c := connect(t, at.AddrPort)
			c.SetWriteBuffer(1 << 20)
			b.stall(func() {
				c.say(fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", size, strings.Repeat("x", size)))
			})
			if _, body := c.answer("POST"); body != fmt.Sprint(size) {
				t.Errorf("the backend got %s of %d bytes", body, size)
			}
			c.CloseWrite()
			c.end()
		}
		c := connect(t, at.AddrPort)
		c.SetWriteBuffer(1 << 20)
		const many = 600
		var all strings.Builder
		for i := range many {
			fmt.Fprintf(&all, "POST /%d HTTP/1.1\r\nHost: a\r\nX-Pad: %s\r\nContent-Length: %d\r\n\r\n%s", i, strings.Repeat("p", 200), i, strings.Repeat("x", i))
		}
		b.stall(func() { c.say(all.String()) })
		for i := range many {
			if _, body := c.answer("POST"); body != fmt.Sprint(i) {
				t.Fatalf("request %d: the backend got %s bytes", i, body)
			}
		}
		c.CloseWrite()
		c.end()
	})
}

// A backend that floods the client with interim responses is cut off; a few go on.
func TestInterimFlood(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		for many, want := range map[int]int{1: 200, maxInterim: 200, 100_000: 502} {
			at := b.freeAddr(x.Client)
			b.serve(b.service("shop", at, shared(servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
				http.ReadRequest(bufio.NewReader(c))
				w := bufio.NewWriter(c)
				for range many {
					if _, err := w.WriteString("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"); err != nil {
						return
					}
				}
				w.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				w.Flush()
			})), defaults()))
			c := connect(t, at.AddrPort)
			c.say("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
			interim := 0
			r, _ := c.answer("GET")
			for ; r.StatusCode == 103; r, _ = c.answer("GET") {
				interim++
			}
			if r.StatusCode != want || interim > maxInterim+1 {
				t.Errorf("%d interim responses: got %d of them and %d, want %d", many, interim, r.StatusCode, want)
			}
			c.end()
		}
	})
	b.quiet(t)
	if n := b.sample("shop").Errors[metrics.ServerFault]; n != 4 {
		t.Errorf("%d server faults, want 4", n)
	}
}

// A backend may answer before it has the whole request, and need not read the rest: the client gets the answer, is told
// that its connection closes, and nobody else gets the backend's connection.
func TestAnswerBeforeBody(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		for _, hangUp := range []bool{false, true} {
			var dials atomic.Int64
			backendAddr := servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
				dials.Add(1)
				r := bufio.NewReader(c)
				http.ReadRequest(r)
				io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 4\r\n\r\nmuch")
				if !hangUp {
					io.Copy(io.Discard, r)
				}
			})
			for kind, spec := range kinds(backendAddr) {
				dials.Store(0)
				at := b.freeAddr(x.Client)
				b.serve(b.service("shop", at, spec, defaults()))
				for i := range 2 {
					c := connect(t, at.AddrPort)
					c.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n")
					var wg sync.WaitGroup
					wg.Go(func() { // until the edge has had enough
						for chunk := make([]byte, 64<<10); ; {
							if _, err := c.Write(chunk); err != nil {
								return
							}
						}
					})
					r, body := c.answer("POST")
					if r.StatusCode != 413 || body != "much" || !r.Close {
						t.Errorf("%s, backend hangs up %v: got %d %q, close %v", kind, hangUp, r.StatusCode, body, r.Close)
					}
					c.Close()
					wg.Wait()
					if n := dials.Load(); n != int64(i+1) {
						t.Errorf("%s: %d connections to the backend, want %d", kind, n, i+1)
					}
				}
			}
		}
	})
}

func TestExpectContinue(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, shared(servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/no" {
				http.Error(w, "no", http.StatusForbidden)
				return
			}
			io.Copy(w, r.Body)
		}))), defaults()))
		c := connect(t, at.AddrPort)
		for range 2 {
			c.say("PUT /yes HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
			if r, _ := c.answer("PUT"); r.StatusCode != 100 {
				t.Fatalf("got %d, want 100", r.StatusCode)
			}
			c.say("hello")
			if r, body := c.answer("PUT"); r.StatusCode != 200 || body != "hello" {
				t.Fatalf("got %d %q", r.StatusCode, body)
			}
		}
		c.say("PUT /no HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
		if r, _ := c.answer("PUT"); r.StatusCode != 403 || !r.Close {
			t.Fatalf("got %d, close %v", r.StatusCode, r.Close)
		}
		c.CloseWrite()
		c.end()
	})
}

// Clients of HTTP/1.0 need no Host, understand no chunks, and keep the connection only if they say so.
func TestHTTP10(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, shared(servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/chunks" {
				w.(http.Flusher).Flush()
			}
			io.WriteString(w, r.Host)
		}))), defaults()))
		host := at.AddrPort.String()
		for _, tt := range []struct{ path, fields, body string }{
			{"/", "", host},
			{"/", "Host: shop.example.jp\r\n", "shop.example.jp"},
			{"/chunks", "Connection: keep-alive\r\n", host},
		} {
			c := connect(t, at.AddrPort)
			c.say("GET " + tt.path + " HTTP/1.0\r\n" + tt.fields + "\r\n")
			if r, body := c.answer("GET"); body != tt.body || len(r.TransferEncoding) > 0 {
				t.Errorf("%+v: got %q in %v", tt, body, r.TransferEncoding)
			}
			c.end()
		}
		c := connect(t, at.AddrPort)
		for range 3 {
			c.say("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
			if r, body := c.answer("GET"); body != host || r.Header.Get("Connection") != "keep-alive" {
				t.Errorf("got %q, %v", body, r.Header)
			}
		}
		c.CloseWrite()
		c.end()
	})
}

// Responses without a body end where they should, whatever their fields say, and the connection goes on.
func TestNoBody(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		backendAddr := servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/204":
				w.WriteHeader(204)
			case "/304":
				w.Header().Set("ETag", `"x"`)
				w.WriteHeader(304)
			default:
				w.Header().Set("Content-Length", "5")
				io.WriteString(w, "hello")
			}
		}))
		for kind, spec := range kinds(backendAddr) {
			at := b.freeAddr(x.Client)
			b.serve(b.service("shop", at, spec, defaults()))
			c := connect(t, at.AddrPort)
			for _, tt := range []struct {
				method, path string
				status       int
				body         string
			}{{"HEAD", "/", 200, ""}, {"GET", "/204", 204, ""}, {"GET", "/304", 304, ""}, {"HEAD", "/304", 304, ""}, {"GET", "/", 200, "hello"}} {
				c.say(tt.method + " " + tt.path + " HTTP/1.1\r\nHost: a\r\n\r\n")
				if r, body := c.answer(tt.method); r.StatusCode != tt.status || body != tt.body {
					t.Errorf("%s %+v: got %d %q", kind, tt, r.StatusCode, body)
				}
			}
			c.CloseWrite()
			c.end()
		}
	})
}

// A response that the backend cuts off must not look whole, however it was framed, with TLS or without.
func TestCutOff(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		for name, tt := range map[string]struct {
			head  string
			reset bool
		}{
			"length":     {"Content-Length: 100\r\n", false},
			"chunked":    {"Transfer-Encoding: chunked\r\n", false},
			"till close": {"", true},
		} {
			at := b.freeAddr(x.Client)
			heard := make(chan struct{})
			b.serve(b.service("shop", at, shared(servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
				http.ReadRequest(bufio.NewReader(c))
				io.WriteString(c, "HTTP/1.1 200 OK\r\n"+tt.head+"\r\n5\r\nhel")
				<-heard
				if tt.reset {
					c.SetLinger(0)
				}
			})), defaults()))
			c := connect(t, at.AddrPort)
			c.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
			r, err := http.ReadResponse(c.r, nil)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			close(heard)
			if body, err := io.ReadAll(r.Body); err == nil {
				t.Errorf("%s: %q looks whole", name, body)
			}
		}
	})
	b.quiet(t)
	if n := b.sample("shop").Errors[metrics.ServerReset]; n != 12 {
		t.Errorf("%d server resets, want 12", n)
	}
}

// A request that may be repeated goes once more over a new connection if the old one turns out to be dead, also when
// the client has ended its half; one that may not is 502.
func TestRetry(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		var second atomic.Bool
		backendAddr := servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
			for r := bufio.NewReader(c); ; {
				if _, err := http.ReadRequest(r); err != nil || second.CompareAndSwap(true, false) {
					return
				}
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
		})
		for kind, spec := range kinds(backendAddr) {
			at := b.freeAddr(x.Client)
			b.serve(b.service("shop", at, spec, defaults()))
			for method, want := range map[string]int{"GET": 200, "DELETE": 200, "POST": 502} {
				c := connect(t, at.AddrPort)
				c.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
				c.answer("GET")
				second.Store(true)
				c.say(method + " / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
				c.CloseWrite()
				if r, _ := c.answer(method); r.StatusCode != want {
					t.Errorf("%s %s: got %d, want %d", kind, method, r.StatusCode, want)
				}
				c.end()
				second.Store(false)
			}
		}
	})
}

// A client that reads nothing holds back the server, and one whose server reads nothing is held back: the edge keeps
// little. When they go on, every byte arrives.
func TestBackPressure(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	const total = 14 << 20
	full := func() bool {
		n := mostBuffered(b)
		if n > relay.HighWater+256<<10 {
			t.Fatalf("%d bytes wait in the edge", n)
		}
		return n >= relay.HighWater
	}
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		read := make(chan struct{})
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, shared(servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Method == "POST" {
				<-read
				n, _ := io.Copy(io.Discard, r.Body)
				fmt.Fprint(w, n)
				return
			}
			w.Write(make([]byte, total))
		}))), defaults()))
		c := connect(t, at.AddrPort)
		c.SetReadBuffer(64 << 10)
		c.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		waitFor(t, "a full client", full)
		if _, body := c.answer("GET"); len(body) != total {
			t.Errorf("got %d bytes, want %d", len(body), total)
		}
		var wg sync.WaitGroup
		wg.Go(func() {
			c.say(fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", total))
			c.Write(make([]byte, total))
		})
		waitFor(t, "a full server", full)
		close(read)
		if _, body := c.answer("POST"); body != fmt.Sprint(total) {
			t.Errorf("the server got %s bytes, want %d", body, total)
		}
		wg.Wait()
	})
}

// A client that asks and asks without taking an answer is not answered without end.
func TestPipelineUnread(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b := newBench(t)
		var asked atomic.Int64
		answer := strings.Repeat("x", 3000) // one write, so that it comes whole
		server := servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			io.WriteString(w, answer)
		}))
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, shared(server), defaults()))
		c := connect(t, at.AddrPort)
		c.SetReadBuffer(64 << 10)
		const many = 2000
		go c.say(strings.Repeat("GET / HTTP/1.1\r\nHost: a\r\n\r\n", many))
		waitFor(t, "a full client", func() bool { return mostBuffered(b) >= relay.HighWater })
		for range 200 { // rounds of the loops, in which they might go on
			if n := mostBuffered(b); n > relay.HighWater+64<<10 {
				t.Fatalf("%d bytes wait in the edge after %d requests", n, asked.Load())
			}
		}
		for i := range many {
			if _, body := c.answer("GET"); body != answer {
				t.Fatalf("answer %d has %d bytes", i, len(body))
			}
		}
		if most := mostBuffered(b); most > 0 || asked.Load() != many {
			t.Errorf("%d requests reached the server, %d bytes are left", asked.Load(), most)
		}
	})
}

// mostBuffered returns the most that waits to be sent to one peer.
func mostBuffered(b *bench) (most int) {
	var mu sync.Mutex
	b.loops.Do(func(l *relay.Loop) {
		l.Each(func(c *relay.Conn) {
			mu.Lock()
			defer mu.Unlock()
			most = max(most, c.Buffered())
		})
	})
	return most
}

// When the client goes away, so does its flow, whatever it waited for.
func TestClientGoes(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		asked, gone := make(chan struct{}, 1), make(chan error, 1)
		silent := servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
			c.SetDeadline(time.Now().Add(patience))
			c.Read(make([]byte, 1))
			asked <- struct{}{}
			_, err := io.Copy(io.Discard, c)
			gone <- err
		})
		at := b.freeAddr(x.Client)
		s := b.service("shop", at, shared(silent), defaults())
		b.serve(s)
		for name, request := range map[string]string{
			"in the body":     "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nabc",
			"with the answer": "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		} {
			c := connect(t, at.AddrPort)
			c.say(request)
			<-asked
			c.SetLinger(0)
			c.Close()
			if err := <-gone; errors.Is(err, net.ErrClosed) {
				t.Errorf("%s: %v", name, err)
			}
			waitFor(t, name, func() bool { return b.active() == 0 })
		}
		s = b.service("shop", at, shared(blackhole(t, x.Backend)), defaults())
		s.Timeouts.Connect = 100 * time.Millisecond
		b.serve(s)
		c := connect(t, at.AddrPort)
		before := b.sample("shop").Errors[metrics.ConnectTimeout]
		c.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		c.Close()
		waitFor(t, "the connect's timeout", func() bool { return b.sample("shop").Errors[metrics.ConnectTimeout] > before })
	})
}
