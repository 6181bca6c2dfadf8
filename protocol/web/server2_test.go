// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xhttp2 "golang.org/x/net/http2"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/metrics"
)

// servers2 starts servers that speak HTTP/2 only, in clear and in TLS, and returns pools of each kind for them.
func servers2(t testing.TB, f ip.Family, h http.Handler) map[string]backend.Spec {
	all := make(map[string]backend.Spec)
	server, _ := servertest.TLS(t, "origin.example.jp")
	for way, config := range map[string]*tls.Config{"clear": nil, "tls": server} {
		for kind, spec := range kinds(servertest.HTTP2(t, f, config, h)) {
			if config != nil {
				spec.TLS = &backend.ClientTLS{}
			}
			all[kind+"-"+way] = spec
		}
	}
	return all
}

// speaks2 has the servers of a service spoken to in HTTP/2.
func speaks2(o *Options) *Options {
	o.HTTP2 = []string{"existing"}
	return o
}

// What goes through is what came, whatever both sides speak.
func TestBodiesToServer2(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.ProtoMajor != 2 {
				t.Errorf("the backend was spoken to in %s", r.Proto)
			}
			returnBody(t, w, r)
		})
		for kind, spec := range servers2(t, x.Backend, h) {
			for client, c := range map[string]*http.Client{"1": newClient(t), "2": newClient2(t)} {
				t.Run(kind+"-from-"+client, func(t *testing.T) {
					at := b.freeAddr(x.Client)
					b.serve(b.service("shop", at, spec, speaks2(defaults())))
					exchangeAll(t, c, "http://"+at.AddrPort.String(), strings.HasPrefix(kind, "shared"), iptest.Loopback(x.Client).String())
				})
			}
		}
	})
}

// Requests of many clients share a connection to a Shared pool's server, and none where they must not.
func TestSharing2(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		var mu sync.Mutex
		from := make(map[string]map[string]bool) // connections of the edge, and the clients on each
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			if from[r.RemoteAddr] == nil {
				from[r.RemoteAddr] = make(map[string]bool)
			}
			from[r.RemoteAddr][r.URL.Path] = true
		})
		for kind, spec := range servers2(t, x.Backend, h) {
			clear(from)
			at := b.freeAddr(x.Client)
			b.serve(b.service("shop", at, spec, speaks2(defaults())))
			const clients, requests = 10, 20
			for i := range clients {
				c := newClient2(t)
				for range requests {
					if status, _, _ := get(t, c, fmt.Sprintf("http://%s/%d", at.AddrPort, i)); status != 200 {
						t.Fatalf("%s: got %d", kind, status)
					}
				}
			}
			switch shared := strings.HasPrefix(kind, "shared"); {
			case shared && len(from) > b.loops.Len():
				t.Errorf("%s: %d connections for %d loops", kind, len(from), b.loops.Len())
			case !shared && len(from) != clients:
				t.Errorf("%s: %d connections for %d clients", kind, len(from), clients)
			}
			for _, who := range from {
				if !strings.HasPrefix(kind, "shared") && len(who) != 1 {
					t.Errorf("%s: %d clients on a connection", kind, len(who))
				}
			}
		}
	})
}

// A client that does not read holds up nobody else on the connection that all share.
func TestUnreadResponseToServer2(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		const size = 8 << 20
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/large" {
				io.CopyN(w, zeros{}, size)
			}
		})
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, shared(servertest.HTTP2(t, x.Backend, nil, h)), speaks2(defaults())))
		url := "http://" + at.AddrPort.String()
		var unread []*http.Response
		for range 20 {
			r, err := newClient(t).Get(url + "/large")
			if err != nil {
				t.Fatal(err)
			}
			unread = append(unread, r)
		}
		for range 50 {
			if status, _, _ := get(t, newClient(t), url+"/small"); status != 200 {
				t.Fatalf("got %d", status)
			}
		}
		for _, r := range unread {
			if n, err := io.Copy(io.Discard, r.Body); n != size || err != nil {
				t.Errorf("got %d bytes, %v", n, err)
			}
			r.Body.Close()
		}
	})
}

// framed serves connections of HTTP/2 whose frames a test writes itself.
func framed(t testing.TB, f ip.Family, serve func(n int64, fr *xhttp2.Framer, c *net.TCPConn)) netip.AddrPort {
	var n atomic.Int64
	return servertest.TCP(t, f, func(c *net.TCPConn) {
		if _, err := io.ReadFull(c, make([]byte, len(xhttp2.ClientPreface))); err != nil {
			return
		}
		fr := xhttp2.NewFramer(c, c)
		fr.WriteSettings()
		serve(n.Add(1), fr, c)
	})
}

// nextRequest reads until a request has begun, and returns its stream; 0 at the end.
func nextRequest(fr *xhttp2.Framer) uint32 {
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return 0
		}
		if h, ok := f.(*xhttp2.HeadersFrame); ok {
			return h.StreamID
		}
	}
}

// status200 is :status 200, encoded.
var status200 = []byte{0x88}

// What a server does wrong costs the request that it concerns, and is counted; what it has refused unseen is asked again,
// once.
func TestBadServer2(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		serve  func(n int64, fr *xhttp2.Framer, c *net.TCPConn)
		want   int // 0: the answer is cut off
		reason metrics.Reason
	}{
		{"closes", func(_ int64, fr *xhttp2.Framer, _ *net.TCPConn) { nextRequest(fr) }, 502, metrics.ServerReset},
		{"resets", func(_ int64, fr *xhttp2.Framer, _ *net.TCPConn) {
			fr.WriteRSTStream(nextRequest(fr), xhttp2.ErrCodeInternal)
			nextRequest(fr)
		}, 502, metrics.ServerReset},
		{"refuses", func(n int64, fr *xhttp2.Framer, _ *net.TCPConn) {
			s := nextRequest(fr)
			if n == 1 {
				fr.WriteRSTStream(s, xhttp2.ErrCodeRefusedStream)
			} else {
				fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: s, BlockFragment: status200, EndHeaders: true, EndStream: true})
			}
			nextRequest(fr)
		}, 200, metrics.Fine},
		{"always refuses", func(_ int64, fr *xhttp2.Framer, _ *net.TCPConn) {
			fr.WriteRSTStream(nextRequest(fr), xhttp2.ErrCodeRefusedStream)
			nextRequest(fr)
		}, 502, metrics.ServerReset},
		{"goes away", func(n int64, fr *xhttp2.Framer, _ *net.TCPConn) {
			s := nextRequest(fr)
			if n == 1 {
				fr.WriteGoAway(s-1, xhttp2.ErrCodeNo, nil)
			} else {
				fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: s, BlockFragment: status200, EndHeaders: true, EndStream: true})
			}
			nextRequest(fr)
		}, 200, metrics.Fine},
		{"answers with nonsense", func(_ int64, fr *xhttp2.Framer, _ *net.TCPConn) {
			fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: nextRequest(fr), BlockFragment: []byte{0x82}, EndHeaders: true, EndStream: true})
			nextRequest(fr)
		}, 502, metrics.ServerReset},
		{"speaks another protocol", func(_ int64, _ *xhttp2.Framer, c *net.TCPConn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}, 502, metrics.ServerReset},
		{"ends in the middle", func(_ int64, fr *xhttp2.Framer, _ *net.TCPConn) {
			s := nextRequest(fr)
			fr.WriteHeaders(xhttp2.HeadersFrameParam{StreamID: s, BlockFragment: status200, EndHeaders: true})
			fr.WriteData(s, false, []byte("half"))
		}, 0, metrics.ServerReset},
		{"says nothing", func(_ int64, fr *xhttp2.Framer, _ *net.TCPConn) {
			for nextRequest(fr) != 0 {
			}
		}, 504, metrics.ServerTimeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
				for _, spec := range kinds(framed(t, x.Backend, tt.serve)) {
					at := b.freeAddr(x.Client)
					o := speaks2(defaults())
					o.Timeouts.Response = 200 * time.Millisecond
					b.serve(b.service("shop", at, spec, o))
					r, err := newClient(t).Get("http://" + at.AddrPort.String())
					if err != nil {
						if tt.want > 0 {
							t.Error(err)
						}
						continue
					}
					_, err = io.ReadAll(r.Body)
					if tt.want == 0 && err == nil || tt.want > 0 && (r.StatusCode != tt.want || err != nil) {
						t.Errorf("got %d, %v; want %d", r.StatusCode, err, tt.want)
					}
				}
			})
			b.quiet(t)
			errs := b.sample("shop").Errors
			delete(errs, metrics.Fine)
			if want := tt.reason != metrics.Fine; want != (errs[tt.reason] > 0) {
				t.Errorf("errors: %v, want %v", errs, tt.reason)
			}
		})
	}
}

// A server takes as many streams at once as it says, and the rest goes over another connection.
func TestFewStreams2(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		var many, most atomic.Int64
		var all sync.WaitGroup
		const requests = 12
		all.Add(requests)
		s := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			most.Store(max(most.Load(), many.Add(1)))
			all.Done()
			all.Wait() // all at once
			many.Add(-1)
		}), HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 3}}
		at := b.freeAddr(x.Client)
		b.serve(b.service("shop", at, shared(servertest.Serve2(t, x.Backend, s)), speaks2(defaults())))
		var wg sync.WaitGroup
		c := newClient2(t)
		for range requests {
			wg.Go(func() {
				if status, _, _ := get(t, c, "http://"+at.AddrPort.String()); status != 200 {
					t.Errorf("got %d", status)
				}
			})
		}
		wg.Wait()
		if most.Load() != requests {
			t.Errorf("%d at once, want %d", most.Load(), requests)
		}
	})
}

// A server that is to speak HTTP/2 over TLS, but does not choose it, is spoken to in HTTP/1.1.
func TestNoHTTP2AtServer(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		config, _ := servertest.TLS(t, "origin.example.jp")
		for kind, spec := range kinds(servertest.HTTPS(t, x.Backend, config, http.HandlerFunc(returnBodyOf1(t)))) {
			spec.TLS = &backend.ClientTLS{}
			at := b.freeAddr(x.Client)
			b.serve(b.service("shop", at, spec, speaks2(defaults())))
			exchangeAll(t, newClient2(t), "http://"+at.AddrPort.String(), kind == "shared", iptest.Loopback(x.Client).String())
		}
	})
}

func returnBodyOf1(t *testing.T) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 1 {
			t.Errorf("the backend was spoken to in %s", r.Proto)
		}
		returnBody(t, w, r)
	}
}

// A WebSocket cannot be had from a server of HTTP/2: the request goes as an ordinary one.
func TestUpgradeToServer2(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		at := b.freeAddr(x.Client)
		h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Upgrade") != "" || r.Header.Get("Connection") != "" {
				t.Errorf("the backend got %v", r.Header)
			}
			http.Error(w, "no", http.StatusUpgradeRequired)
		})
		b.serve(b.service("shop", at, shared(servertest.HTTP2(t, x.Backend, nil, h)), speaks2(defaults())))
		c := connect(t, at.AddrPort)
		c.say("GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n")
		if r, _ := c.answer("GET"); r.StatusCode != http.StatusUpgradeRequired {
			t.Errorf("got %d", r.StatusCode)
		}
	})
}

// A reload loses no request on a connection that is shared, also one that changes what the servers speak.
func TestReloadToServer2(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		s := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
		spec, at := shared(servertest.Serve2(t, x.Backend, s)), b.freeAddr(x.Client)
		serve := func(o *Options) { b.serve(b.service("shop", at, spec, o)) }
		serve(speaks2(defaults()))
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for c := newClient2(t); ; {
					if status, _, _ := get(t, c, "http://"+at.AddrPort.String()); status != 200 {
						t.Errorf("got %d", status)
						return
					}
					select {
					case <-stop:
						return
					default:
					}
				}
			})
		}
		for i := range 10 {
			o := defaults()
			if i%2 == 0 {
				o = speaks2(o)
			}
			serve(o)
		}
		close(stop)
		wg.Wait()
	})
}
