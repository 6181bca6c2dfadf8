// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/protocol/web/http2"
	"github.com/kyozon/kyozon/relay"
)

// A connection on which a server has fallen silent, as when its machine has gone, costs the requests that it carries, but
// no others: they get a new one.
func TestSilentServer2(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		for version, c := range map[string]*http.Client{"1": newClient(t), "2": newClient2(t)} {
			ended := make(chan int64, 10)
			server := framed(t, x.Backend, func(n int64, fr *xhttp2.Framer, _ *net.TCPConn) {
				for i, s := 0, nextRequest(fr); s != 0; i, s = i+1, nextRequest(fr) {
					if i == 0 || n == 2 {
						fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: s, BlockFragment: status200, EndHeaders: true, EndStream: true})
					}
				}
				ended <- n
			})
			at, o := b.freeAddr(x.Client), speaks2(defaults())
			o.Timeouts.Response = ample
			b.serve(b.service("shop", at, shared(server), o))
			for i, want := range []int{200, 504, 200} {
				if status, _, _ := get(t, c, "http://"+at.AddrPort.String()); status != want {
					t.Errorf("from HTTP/%s: request %d got %d, want %d", version, i, status, want)
				}
			}
			if n := receive(t, "the end of a connection", ended); n != 1 {
				t.Errorf("from HTTP/%s: connection %d has ended, want the first", version, n)
			}
		}
	})
}

// A client that has been told to open no more streams and does nevertheless is not served for ever.
func TestDeafClient2(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		t.Parallel()
		b := newBench(t)
		spec := shared(servertest.HTTP(t, x.Backend, http.HandlerFunc(nothing)))
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, spec, defaults()))
		c := connect2(t, at.AddrPort)
		get := []string{":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/"}
		if o := c.await(c.ask(true, get...)); o.status != "200" {
			t.Fatalf("got %+v", o)
		}
		b.serve(b.service("other", b.freeAddr(x.Client), spec, defaults()))
		for !c.await(c.ask(true, get...)).gone {
		}
		if _, err := c.TCPConn.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("it is served on and on")
		}
	})
}

// What a client goes on sending of a request that has been answered takes nothing from its other requests, though the
// answer waits for a window.
func TestAnsweredUpload2(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		s := b.service("shop", b.freeAddr(x.Client), shared(servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
			io.ReadFull(c, make([]byte, 20))
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"+string(make([]byte, 1000)))
			io.Copy(io.Discard, c)
		})), defaults())
		s.Timeouts.Idle = time.Hour
		b.serve(s)
		c := connect2(t, s.Listen[0].AddrPort)
		c.WriteSettings(xhttp2.Setting{ID: xhttp2.SettingInitialWindowSize, Val: 1})
		const streams, window, frame = 4, 256 << 10, 16 << 10
		room := int64(65535 - streams*window) // of the connection, when all of this has been sent
		note := func(f xhttp2.Frame) {
			if w, ok := f.(*xhttp2.WindowUpdateFrame); ok && w.StreamID == 0 {
				room += int64(w.Increment)
			}
		}
		for range streams {
			stream := c.ask(false, ":method", "POST", ":scheme", "http", ":authority", "a", ":path", "/")
			c.until(func(f xhttp2.Frame) bool {
				note(f)
				d, ok := f.(*xhttp2.DataFrame)
				return ok && d.StreamID == stream
			})
			for range window / frame {
				c.WriteData(stream, false, make([]byte, frame))
			}
		}
		c.until(func(f xhttp2.Frame) bool {
			note(f)
			return room > 0
		})
	})
}

// until reads frames until ok says yes.
func (c *raw2) until(ok func(f xhttp2.Frame) bool) {
	c.t.Helper()
	for {
		f, err := c.ReadFrame()
		if err != nil {
			c.t.Fatal(err)
		}
		if ok(f) {
			return
		}
	}
}

// A body that a server does not read takes the window of the connection, but nobody else's time: other requests go over
// another one.
func TestUnreadUploadToServer2(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		came := make(chan bool, 1)
		s := &http.Server{Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/unread" {
				came <- true
				<-r.Context().Done()
				return
			}
			io.Copy(io.Discard, r.Body)
		}), HTTP2: &http.HTTP2Config{MaxReceiveBufferPerConnection: 1 << 16, MaxReceiveBufferPerStream: 1 << 20}}
		at := b.freeAddr(x.Client)
		service := b.service("shop", at, shared(servertest.Serve2(t, x.Backend, s)), speaks2(defaults()))
		service.Timeouts.Idle = time.Hour
		b.serve(service)
		url := "http://" + at.AddrPort.String()
		ctx, cancel := context.WithCancel(t.Context())
		first, ended := newClient2(t), make(chan error, 1)
		go func() {
			q, _ := http.NewRequestWithContext(ctx, "POST", url+"/unread", io.LimitReader(zeros{}, 1<<30))
			_, err := first.Transport.RoundTrip(q)
			ended <- err
		}()
		receive(t, "a request at the server", came)
		waitFor(t, "a full window", func() bool { return b.waiting() > 0 })
		for range 2 * b.loops.Len() { // some on the loop of the first
			r, err := newClient(t).Post(url+"/read", "text/plain", strings.NewReader("body"))
			if err != nil {
				t.Fatal(err)
			}
			r.Body.Close()
			if r.StatusCode != 200 {
				t.Errorf("got %d", r.StatusCode)
			}
		}
		cancel()
		receive(t, "the end of the first", ended)
	})
}

// waiting returns how many requests wait for a window at a server.
func (b *bench) waiting() int64 {
	var n atomic.Int64
	b.loops.Do(func(l *relay.Loop) {
		l.Each(func(c *relay.Conn) {
			if u, ok := c.Handler().(*upstream); ok {
				u.http2.Each(func(s *http2.Stream) {
					if x := (*exchange)(s.Owner.(*server2)); len(x.answering.rest) > 0 {
						n.Add(1)
					}
				})
			}
		})
	})
	return n.Load()
}
