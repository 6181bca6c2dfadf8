// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/metrics"
)

const (
	short = 250 * time.Millisecond // a deadline that a test waits for
	ample = time.Second            // one that must not pass before: the machine may be busy
)

// Each deadline ends what it is for, with the answer and the reason that say whose fault it was.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		set    func(o *Options)
		idle   time.Duration
		say    string // at first
		drip   string // and then, byte by byte, until the end
		status int    // 0: closed without a word
		reason metrics.Reason
	}{
		{"nothing is asked", func(o *Options) { o.Timeouts.KeepAlive = short }, time.Minute, "", "", 0, metrics.Fine},
		{"half a head", func(o *Options) { o.Timeouts.Request = short }, time.Minute,
			"GET / HTTP/1.1\r\nHo", "", 408, metrics.ClientTimeout},
		{"a head in drips", func(o *Options) { o.Timeouts.Request = short }, time.Minute,
			"GET / HTTP/1.1\r\nX: ", "x", 408, metrics.ClientTimeout},
		{"half a body", func(*Options) {}, short,
			"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc", "", 408, metrics.ClientTimeout},
		{"half a chunk", func(*Options) {}, short,
			"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc", "", 408, metrics.ClientTimeout},
		{"a body in drips", func(o *Options) { o.Timeouts.MinimumRate = 1 << 20 }, short,
			"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n", "x", 408, metrics.ClientTimeout},
		{"no answer", func(o *Options) { o.Timeouts.Response = short }, time.Minute,
			"GET /silent HTTP/1.1\r\nHost: a\r\n\r\n", "", 504, metrics.ServerTimeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
				quit := make(chan struct{})
				at := b.freeAddr(x.Client)
				o := defaults()
				tt.set(o)
				s := b.service("shop", at, shared(servertest.HTTP(t, x.Backend, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
					if io.Copy(io.Discard, r.Body); r.URL.Path == "/silent" {
						<-quit
					}
				}))), o)
				defer close(quit)
				s.Timeouts.Idle = tt.idle
				b.serve(s)
				start := time.Now()
				c := connect(t, at.AddrPort)
				c.say(tt.say)
				for tt.drip != "" {
					if _, err := io.WriteString(c, tt.drip); err != nil {
						break
					}
					c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
					if _, err := c.r.Peek(1); err == nil {
						break
					}
				}
				c.SetReadDeadline(time.Now().Add(patience))
				if tt.status == 0 {
					c.end()
				} else if r, _ := c.answer("GET"); r.StatusCode != tt.status {
					t.Errorf("got %d, want %d", r.StatusCode, tt.status)
				}
				if d := time.Since(start); d < short-50*time.Millisecond || d > patience/2 {
					t.Errorf("after %v", d)
				}
				c.Close()
			})
			b.quiet(t)
			if n := b.sample("shop").Errors[tt.reason]; tt.reason != metrics.Fine && n != 4 {
				t.Errorf("counted %v, want 4 %v", b.sample("shop").Errors, tt.reason)
			}
		})
	}
}

// A server that does not take a request's body is at fault, not the client who waits to send it.
func TestServerTakesNoBody(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		quit := make(chan struct{})
		defer close(quit)
		at := b.freeAddr(x.Client)
		s := b.service("shop", at, shared(servertest.TCP(t, x.Backend, func(c *net.TCPConn) { <-quit })), defaults())
		s.Timeouts.Idle = ample
		b.serve(s)
		c := connect(t, at.AddrPort)
		go c.Write([]byte("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n" + strings.Repeat("x", 16<<20)))
		if r, _ := c.answer("POST"); r.StatusCode != 504 {
			t.Errorf("got %d, want 504", r.StatusCode)
		}
		c.Close()
		b.quiet(t)
		if n := b.sample("shop").Errors[metrics.ServerTimeout]; n != 1 {
			t.Errorf("counted %v", b.sample("shop").Errors)
		}
	})
}

// A client that reads a byte now and then, to hold a server, loses its response.
func TestTrickleReader(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		at, o := b.freeAddr(x.Client), defaults()
		o.Timeouts.MinimumRate = 1 << 20
		s := b.service("shop", at, shared(servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Write(make([]byte, 32<<20))
		}))), o)
		s.Timeouts.Idle = short
		b.serve(s)
		c := connect(t, at.AddrPort)
		c.SetReadBuffer(16 << 10)
		c.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		waitFor(t, "the end of the response", func() bool {
			if _, err := c.Read(make([]byte, 1)); err != nil {
				return true
			}
			<-time.After(time.Millisecond)
			return b.sample("shop").Errors[metrics.ClientTimeout] > 0
		})
	})
}

// A client that reads slowly keeps its response; one that does not read at all loses it.
func TestSlowReader(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		const total = 32 << 20
		at := b.freeAddr(x.Client)
		s := b.service("shop", at, shared(servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Write(make([]byte, total))
		}))), defaults())
		s.Timeouts.Idle = ample
		b.serve(s)
		c := connect(t, at.AddrPort)
		c.SetReadBuffer(16 << 10)
		c.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		r, err := http.ReadResponse(c.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		for start := time.Now(); time.Since(start) < 3*ample; {
			if _, err := io.CopyN(io.Discard, r.Body, 64<<10); err != nil {
				t.Fatalf("a slow reader is cut off: %v", err)
			}
			<-time.After(ample / 20)
		}
		waitFor(t, "the end of who reads nothing", func() bool { return b.active() == 0 })
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			t.Error("the response that was given up looks whole")
		}
	})
}

// An upload may last longer than a connection to a backend may be idle, also over one that was.
func TestLongUpload(t *testing.T) {
	t.Parallel()
	if os.Getenv("KYOZON_SOAK") == "" {
		t.Skip("takes more than 30 s: KYOZON_SOAK=1")
	}
	b := newBench(t)
	at, o := b.freeAddr(ip.V6), defaults()
	o.Timeouts.MinimumRate = 0
	b.serve(b.service("shop", at, shared(servertest.HTTP(t, ip.V4, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, r.Body)
	}))), o))
	c := connect(t, at.AddrPort)
	c.SetDeadline(time.Now().Add(2 * time.Minute))
	c.say("GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	c.answer("GET")
	c.say("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 40\r\n\r\n")
	for range 40 {
		c.say("x")
		<-time.After(time.Second)
	}
	if r, body := c.answer("POST"); r.StatusCode != 200 || len(body) != 40 {
		t.Errorf("got %d %q", r.StatusCode, body)
	}
}
