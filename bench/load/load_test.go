// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

func TestMain(m *testing.M) {
	Main()
	code := m.Run()
	if left := leaked(); code == 0 && len(left) > 0 {
		fmt.Fprintf(os.Stderr, "goroutines are left:\n%s\n", strings.Join(left, "\n\n"))
		code = 1
	}
	os.Exit(code)
}

// leaked returns the stacks of the goroutines beside this one, once those that are ending have had time to. The one
// that the standard library keeps for signals does not count.
func leaked() (left []string) {
	stacks := make([]byte, 1<<20)
	for deadline := time.Now().Add(time.Minute); time.Now().Before(deadline); runtime.Gosched() {
		all := strings.Split(string(stacks[:runtime.Stack(stacks, true)]), "\n\n")
		left = slices.DeleteFunc(all[1:], func(s string) bool { return strings.Contains(s, "os/signal.loop") })
		if len(left) == 0 {
			break
		}
	}
	return left
}

const body = "hello, this is the body"

// server answers, and counts its requests and its connections. What it hands out can be changed by how.
type server struct {
	*httptest.Server
	requests, conns atomic.Int64
	resumed         atomic.Int64
}

func newServer(t *testing.T, f ip.Family, how http.HandlerFunc) *server {
	t.Helper()
	network := map[ip.Family]string{ip.V4: "tcp4", ip.V6: "tcp6"}[f]
	l, err := net.Listen(network, netip.AddrPortFrom(iptest.Loopback(f), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	s := &server{}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.requests.Add(1)
		if r.TLS != nil && r.TLS.DidResume {
			s.resumed.Add(1)
		}
		if how != nil {
			how(w, r)
			return
		}
		io.WriteString(w, body)
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.conns.Add(1)
		}
	}
	s.Listener.Close()
	s.Listener = l
	t.Cleanup(s.Close)
	return s
}

func (s *server) plan() Plan {
	return Plan{To: netip.MustParseAddrPort(s.Listener.Addr().String()), Connections: 4, Host: "shop.example.jp", Body: body,
		Time: 100 * time.Millisecond}
}

// Each connection asks once before the count begins. What is counted was asked, and nothing else.
func TestAsk(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		for name, rate := range map[string]float64{"closed": 0, "paced": 500} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				s := newServer(t, f, nil)
				s.Start()
				p := s.plan()
				p.Rate = rate
				readies, before := 0, int64(0)
				r, err := Ask(p, func() error {
					readies++
					before = s.requests.Load()
					return nil
				})
				if err != nil || readies != 1 || before != 4 {
					t.Fatalf("Ask: %v; ready %d times, after %d requests", err, readies, before)
				}
				if got := s.requests.Load() - before; got != int64(r.Requests) || r.Requests < 4 || s.conns.Load() != 4 {
					t.Errorf("%d requests reported, %d made, on %d connections", r.Requests, got, s.conns.Load())
				}
				if rate > 0 && r.Requests > 51 {
					t.Errorf("%d requests in a tenth of a second at %v a second", r.Requests, rate)
				}
				if r.Time < p.Time || r.P50 <= 0 || r.P99 < r.P50 || r.Rate() <= 0 {
					t.Errorf("report %+v", r)
				}
			})
		}
	})
}

// A program that stops for a while is late for all who ask meanwhile, not only for those that it has before it.
func TestNothingOmitted(t *testing.T) {
	t.Parallel()
	const pause = 100 * time.Millisecond
	var n atomic.Int64
	s := newServer(t, ip.V6, func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 3 { // two connections have asked before the count begins
			<-time.After(pause)
		}
		io.WriteString(w, body)
	})
	s.Start()
	p := s.plan()
	p.Connections, p.Rate, p.Time = 2, 1000, 50*time.Millisecond
	r, err := Ask(p, func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	// The first request waits for all of the pause, and so do the 24 that are due on its connection after it.
	if r.Requests < 30 || r.P50 > r.P99 || r.P99 < pause-10*time.Millisecond {
		t.Errorf("%+v", r)
	}
}

// Who is told to come again before the count begins does; afterwards that is a wrong answer.
func TestAskLater(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		var n atomic.Int64
		refuse := atomic.Int64{}
		refuse.Store(6)
		s := newServer(t, f, func(w http.ResponseWriter, r *http.Request) {
			if n.Add(1) <= refuse.Load() {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			io.WriteString(w, body)
		})
		s.Start()
		if r, err := Ask(s.plan(), func() error { return nil }); err != nil || r.Requests < 4 {
			t.Errorf("Ask = %+v, %v", r, err)
		}
		_, err := Ask(s.plan(), func() error {
			refuse.Store(1 << 40)
			return nil
		})
		if !errors.Is(err, ErrWrong) {
			t.Errorf("Ask = %v, want %v", err, ErrWrong)
		}
	})
}

func TestAskFails(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		how  http.HandlerFunc
		want error
	}{
		"status": {func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusBadGateway) }, ErrWrong},
		"body":   {func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello, this is another") }, ErrWrong},
		"long":   {func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, body+"!") }, ErrWrong},
		"closed": {func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) }, ErrEnded},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, ip.V4, tt.how)
			s.Start()
			if r, err := Ask(s.plan(), func() error { return nil }); !errors.Is(err, tt.want) {
				t.Errorf("Ask = %+v, %v; want %v", r, err, tt.want)
			}
		})
	}
	t.Run("nobody", func(t *testing.T) {
		t.Parallel()
		s := newServer(t, ip.V4, nil)
		p := s.plan()
		s.Listener.Close()
		if r, err := Ask(p, func() error { return nil }); err == nil {
			t.Errorf("Ask = %+v", r)
		}
	})
}

func TestShake(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		t.Parallel()
		s := newServer(t, f, nil)
		s.TLS = &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
		s.StartTLS()
		r, err := Shake(s.plan(), func() error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if n := s.requests.Load(); r.Requests < 4 || n != int64(r.Requests) || s.conns.Load() != n || s.resumed.Load() != 0 {
			t.Errorf("%d requests reported, %d made, over %d connections, of which %d resumed", r.Requests, n, s.conns.Load(),
				s.resumed.Load())
		}
	})
}

func TestShakeFails(t *testing.T) {
	t.Parallel()
	rsa := newServer(t, ip.V6, nil)
	rsa.StartTLS() // httptest's own certificate has RSA
	if r, err := Shake(rsa.plan(), func() error { return nil }); !errors.Is(err, ErrSuite) {
		t.Errorf("a certificate with RSA: %+v, %v", r, err)
	}
	wrong := newServer(t, ip.V6, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "other") })
	wrong.TLS = &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
	wrong.StartTLS()
	if r, err := Shake(wrong.plan(), func() error { return nil }); !errors.Is(err, ErrWrong) {
		t.Errorf("a wrong body: %+v, %v", r, err)
	}
}

// The whole way: a client in another process, and the clocks read at the right moments.
func TestDrive(t *testing.T) {
	t.Parallel()
	s := newServer(t, ip.V6, nil)
	s.Start()
	var moments []int64
	look := func() error {
		moments = append(moments, s.requests.Load())
		return nil
	}
	args, err := s.plan().Args()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	r, err := Drive(ctx, exec.CommandContext(ctx, args[0], args[1:]...), look, look)
	if err != nil {
		t.Fatal(err)
	}
	if want := []int64{4, 4 + int64(r.Requests)}; r.Requests == 0 || !slices.Equal(moments, want) {
		t.Errorf("looked at %v requests, want %v", moments, want)
	}
	bad := s.plan()
	bad.Body = "something else"
	if args, err = bad.Args(); err != nil {
		t.Fatal(err)
	}
	if r, err := Drive(ctx, exec.CommandContext(ctx, args[0], args[1:]...), look, look); err == nil {
		t.Errorf("a client that has failed reports %+v", r)
	}
}

func TestSource(t *testing.T) {
	t.Parallel()
	p := Plan{From: netip.MustParsePrefix("2001:db8:200::/48"), Sources: 1000}
	for n, want := range map[int]string{0: "2001:db8:200::1", 1: "2001:db8:200:1::1", 999: "2001:db8:200:3e7::1", 1000: "2001:db8:200::1"} {
		if got := p.source(n).String(); got != want {
			t.Errorf("source(%d) = %s, want %s", n, got, want)
		}
	}
	if got := (Plan{}).source(7); got.IsValid() {
		t.Errorf("without a prefix: %v", got)
	}
}

func TestReport(t *testing.T) {
	t.Parallel()
	var all []time.Duration
	for i := range 200 {
		all = append(all, time.Duration(200-i))
	}
	if d := cmp.Diff(Report{Requests: 200, Time: time.Second, P50: 101, P99: 199}, report(time.Second, all)); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(Report{Time: 1}, report(1, nil)); d != "" {
		t.Error(d)
	}
}

// An answer is whole when all of it is there, however it was cut, and then only.
func FuzzWhole(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"))
	f.Add([]byte("HTTP/1.1 200 OK\r\n\r\nhellO"))
	f.Add([]byte("HTTP/1.1 502 Bad Gateway\r\n\r\n"))
	f.Add([]byte("HT"))
	p := Plan{Body: "hello"}
	f.Fuzz(func(t *testing.T, data []byte) {
		given := slices.Clone(data)
		whole, err := p.whole(data)
		if whole && (err != nil || !strings.HasPrefix(string(data), "HTTP/1.1 200 ") || !strings.HasSuffix(string(data), "\r\n\r\nhello")) {
			t.Errorf("whole: %q, %v", data, err)
		}
		for i := range data {
			part, errPart := p.whole(data[:i])
			if part && len(data[:i]) != len(data) && err == nil {
				t.Errorf("whole before its end, at %d of %q", i, data)
			}
			if errPart != nil && err == nil {
				t.Errorf("a beginning of a good answer is wrong, at %d of %q: %v", i, data, errPart)
			}
		}
		if !slices.Equal(given, data) {
			t.Error("it has changed what it read")
		}
	})
}
