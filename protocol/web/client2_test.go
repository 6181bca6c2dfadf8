// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/metrics"
)

// newClient2 returns a client that speaks nothing but HTTP/2, in clear as well.
func newClient2(t testing.TB) *http.Client {
	tr := &http.Transport{DisableCompression: true, Protocols: new(http.Protocols)}
	tr.Protocols.SetHTTP2(true)
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: patience}
}

// over2 runs f for each way in which HTTP/2 comes, with the base of a service's URLs and a client for it.
func (b *bench) over2(t *testing.T, at listen.Addr, serve func(at listen.Addr, o *Options), f func(t *testing.T, url string, c *http.Client)) {
	t.Run("clear", func(t *testing.T) {
		serve(at, defaults())
		f(t, "http://"+at.AddrPort.String(), newClient2(t))
	})
	t.Run("tls", func(t *testing.T) {
		at := b.freeAddr(at.Family())
		cert, config := certificate(t, t.TempDir(), "shop.example.jp")
		config.ServerName = "shop.example.jp"
		serve(at, withTLS(cert))
		c := newClient2(t)
		c.Transport.(*http.Transport).TLSClientConfig = config
		f(t, "https://"+at.AddrPort.String(), c)
	})
}

// What goes through is what came, in both directions, whatever its size and framing, over HTTP/2 as over HTTP/1.1.
func TestBodies2(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		backendAddr := servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { returnBody(t, w, r) }))
		for kind, spec := range kinds(backendAddr) {
			serve := func(at listen.Addr, o *Options) { b.serve(b.service("shop", at, spec, o)) }
			b.over2(t, b.freeAddr(x.Client), serve, func(t *testing.T, url string, c *http.Client) {
				exchangeAll(t, c, url, kind == "shared", iptest.Loopback(x.Client).String())
			})
		}
	})
}

// returnBody answers with as many bytes as have come, and says what came.
func returnBody(t *testing.T, w http.ResponseWriter, r *http.Request) {
	hash := sha256.New()
	n, err := io.Copy(hash, r.Body)
	if err != nil {
		t.Errorf("read request: %v", err)
	}
	w.Header().Set("X-Sum", fmt.Sprintf("%d %x", n, hash.Sum(nil)))
	w.Header().Set("X-Trailer", r.Trailer.Get("X-End"))
	w.Header().Set("X-Client", r.Header.Get("X-Forwarded-For"))
	w.Header().Set("Trailer", "X-Hash")
	body := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(body)
	if r.URL.Query().Has("length") {
		w.Header().Set("Content-Length", fmt.Sprint(n))
	} else {
		w.(http.Flusher).Flush()
	}
	for len(body) > 0 {
		k := min(len(body), 1+rand.IntN(100_000))
		w.Write(body[:k])
		body = body[k:]
	}
	w.Header().Set("X-Hash", "end")
}

// exchangeAll exchanges bodies of all sizes at once. shared says that the backend is told of the client.
func exchangeAll(t *testing.T, c *http.Client, url string, shared bool, client string) {
	if !shared {
		client = ""
	}
	var wg sync.WaitGroup
	for i, size := range []int{0, 1, 1000, 65_535, 65_536, 300_000, 3 << 20} {
		for _, length := range []bool{false, true} {
			wg.Go(func() { exchangeOne(t, c, fmt.Sprintf("%s/%d", url, i), size, length, client) })
		}
	}
	wg.Wait()
}

// exchangeOne sends size bytes and reads as many.
func exchangeOne(t *testing.T, c *http.Client, url string, size int, length bool, client string) {
	in := make([]byte, size)
	rand.NewChaCha8([32]byte{2}).Read(in)
	var body io.Reader = bytes.NewReader(in)
	if !length {
		body = io.MultiReader(body)
	} else {
		url += "?length"
	}
	q, err := http.NewRequest("POST", url, body)
	if err != nil {
		t.Error(err)
		return
	}
	trailer := ""
	if !length && size > 0 {
		trailer = "is here"
		q.Trailer = http.Header{"X-End": {trailer}}
	}
	r, err := c.Do(q)
	if err != nil {
		t.Errorf("size %d length %v: %v", size, length, err)
		return
	}
	defer r.Body.Close()
	got, err := io.ReadAll(r.Body)
	want := make([]byte, size)
	rand.NewChaCha8([32]byte{1}).Read(want)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("size %d length %v: got %d bytes, %v", size, length, len(got), err)
	}
	if sum := fmt.Sprintf("%d %x", size, sha256.Sum256(in)); r.Header.Get("X-Sum") != sum {
		t.Errorf("size %d length %v: the backend got %q, want %q", size, length, r.Header.Get("X-Sum"), sum)
	}
	if two := c.Transport.(*http.Transport).Protocols != nil; r.StatusCode != 200 || two != (r.ProtoMajor == 2) {
		t.Errorf("got %s %d", r.Proto, r.StatusCode)
	}
	if got := r.Header.Get("X-Client"); got != client {
		t.Errorf("the backend was told of %q, want %q", got, client)
	}
	if got := r.Header.Get("X-Trailer"); got != trailer {
		t.Errorf("size %d: the backend got the trailer %q, want %q", size, got, trailer)
	}
	if got := r.Trailer.Get("X-Hash"); !length && got != "end" {
		t.Errorf("size %d: got the trailer %q", size, got)
	}
}

// Each side may speak while the other does, and hears at once.
func TestBothWays2(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		backendAddr := servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.NewResponseController(w).EnableFullDuplex()
			w.(http.Flusher).Flush()
			in := make([]byte, 5)
			for {
				if _, err := io.ReadFull(r.Body, in); err != nil {
					return
				}
				w.Write(in)
				w.(http.Flusher).Flush()
			}
		}))
		serve := func(at listen.Addr, o *Options) { b.serve(b.service("shop", at, shared(backendAddr), o)) }
		b.over2(t, b.freeAddr(x.Client), serve, func(t *testing.T, url string, c *http.Client) {
			in, out := io.Pipe()
			r, err := c.Post(url, "text/plain", in)
			if err != nil {
				t.Fatal(err)
			}
			for i := range 50 {
				want := fmt.Sprintf("%05d", i)
				io.WriteString(out, want)
				got := make([]byte, 5)
				if _, err := io.ReadFull(r.Body, got); err != nil || string(got) != want {
					t.Fatalf("got %q, %v; want %q", got, err, want)
				}
			}
			out.Close()
			if rest, err := io.ReadAll(r.Body); err != nil || len(rest) > 0 {
				t.Errorf("in the end got %q, %v", rest, err)
			}
		})
	})
}

// What the edge answers itself, over HTTP/2.
func TestRefusals2(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		up := servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/hang":
				<-r.Context().Done()
			case "/cut":
				w.Header().Set("Content-Length", "100")
				w.Write(make([]byte, 50))
				w.(http.Flusher).Flush()
				panic(http.ErrAbortHandler)
			}
		}))
		down := closed(t, x.Backend)
		for _, tt := range []struct {
			path string
			down bool
			host string
			want int // 0: cut off
		}{
			{"/", false, "shop.example.jp", 200}, {"/", false, "other.example.jp", 421}, {"/", true, "shop.example.jp", 502},
			{"/hang", false, "shop.example.jp", 504}, {"/cut", false, "shop.example.jp", 0},
		} {
			to := up
			if tt.down {
				to = down
			}
			serve := func(at listen.Addr, o *Options) {
				o.Hosts = []string{"shop.example.jp"}
				o.Timeouts.Response = 100 * time.Millisecond
				b.serve(b.service("shop", at, shared(to), o))
			}
			b.over2(t, b.freeAddr(x.Client), serve, func(t *testing.T, url string, c *http.Client) {
				q, _ := http.NewRequest("GET", url+tt.path, nil)
				q.Host = tt.host
				r, err := c.Do(q)
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(r.Body)
				switch {
				case tt.want == 0 && err == nil:
					t.Errorf("%s: %d bytes look like all there is", tt.path, len(body))
				case tt.want > 0 && (r.StatusCode != tt.want || err != nil):
					t.Errorf("%s %s: got %d, %v; want %d", tt.host, tt.path, r.StatusCode, err, tt.want)
				}
			})
		}
	})
}

// A client that goes, or cancels, frees its backends.
func TestCancel2(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		began, gone := make(chan bool, 100), make(chan bool, 100)
		backendAddr := servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			began <- true
			<-r.Context().Done()
			gone <- true
		}))
		serve := func(at listen.Addr, o *Options) { b.serve(b.service("shop", at, shared(backendAddr), o)) }
		b.over2(t, b.freeAddr(x.Client), serve, func(t *testing.T, url string, c *http.Client) {
			const many = 20
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			for range many {
				wg.Go(func() {
					q, _ := http.NewRequestWithContext(ctx, "GET", url, nil)
					r, err := c.Do(q)
					if err == nil {
						_, err = io.ReadAll(r.Body)
					}
					if !errors.Is(err, context.Canceled) {
						t.Errorf("ended with %v", err)
					}
				})
			}
			for range many {
				<-began
			}
			cancel()
			wg.Wait()
			for range many {
				<-gone
			}
		})
	})
	b.quiet(t)
	if got := b.sample("shop").Errors; got[metrics.ClientReset] != 4*2*20 {
		t.Errorf("errors: %v", maps.Collect(maps.All(got)))
	}
}

// A client that does not read one response gets the others, and the backend of that one is not read either.
func TestUnreadStream2(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		const size = 32 << 20
		backendAddr := servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/large" {
				io.CopyN(w, zeros{}, size)
				return
			}
			io.WriteString(w, "small")
		}))
		serve := func(at listen.Addr, o *Options) { b.serve(b.service("shop", at, shared(backendAddr), o)) }
		b.over2(t, b.freeAddr(x.Client), serve, func(t *testing.T, url string, c *http.Client) {
			large, err := c.Get(url + "/large")
			if err != nil {
				t.Fatal(err)
			}
			for range 50 {
				if status, body, _ := get(t, c, url+"/small"); status != 200 || body != "small" {
					t.Fatalf("got %d %q", status, body)
				}
			}
			if n, err := io.Copy(io.Discard, large.Body); n != size || err != nil {
				t.Errorf("got %d bytes, %v", n, err)
			}
		})
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// A reload loses no request of a connection that stays.
func TestReload2(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		backendAddr := servertest.HTTP(t, x.Backend, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, r.URL.Path)
		}))
		var again func()
		serve := func(at listen.Addr, o *Options) {
			again = func() { b.serve(b.service("shop", at, shared(backendAddr), o)) }
			again()
		}
		b.over2(t, b.freeAddr(x.Client), serve, func(t *testing.T, url string, c *http.Client) {
			ctx, cancel := context.WithCancel(t.Context())
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() {
					for k := 0; ctx.Err() == nil; k++ {
						path := fmt.Sprintf("/%d/%d", i, k)
						if status, body, _ := get(t, c, url+path); status != 200 || body != path {
							t.Errorf("got %d %q, want %q", status, body, path)
							return
						}
					}
				})
			}
			for range 10 {
				again()
			}
			cancel()
			wg.Wait()
		})
	})
}

// closed returns an address of family f at which nobody listens.
func closed(t testing.TB, f ip.Family) netip.AddrPort {
	t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(iptest.Loopback(f), 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}
