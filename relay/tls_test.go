// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// role is which side of TLS the loop has; its peer has the other.
type role bool

const (
	asServer role = true
	asClient role = false
)

func (r role) String() string {
	if r == asServer {
		return "server"
	}
	return "client"
}

// ends is one TLS connection. The test reads and writes what the peer does.
type ends struct {
	t     testing.TB
	ls    *Loops
	ours  *Conn      // to be used on its loop
	ready chan error // how our handshake ended, once
	state chan tls.ConnectionState
	peer  *net.TCPConn
}

// connected returns two ends, the one on the loop not yet speaking TLS.
func connected(t testing.TB, ls *Loops, f ip.Family) *ends {
	t.Helper()
	l, err := net.Listen("tcp"+string('0'+byte(f)), netip.AddrPortFrom(iptest.Loopback(f), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr := ip.CanonicalPort(l.Addr().(*net.TCPAddr).AddrPort())
	e := &ends{t: t, ls: ls, ready: make(chan error, 1), state: make(chan tls.ConnectionState, 1)}
	done := make(chan error, 1)
	onLoop(ls, func() {
		ls.loops[0].Dial(DialOptions{Remote: addr, Timeout: patience}, func(c *Conn, err error) {
			e.ours = c
			done <- err
		})
	})
	c, err := l.Accept()
	if err = errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
	e.peer = c.(*net.TCPConn)
	e.peer.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { e.peer.Close() })
	return e
}

// start begins TLS on the loop, with h as the handler when it is done.
func (e *ends) start(r role, config *tls.Config, h Handler) {
	onLoop(e.ls, func() {
		ready := func(s tls.ConnectionState, err error) {
			if err == nil {
				e.ours.SetHandler(h)
				e.state <- s
			}
			e.ready <- err
		}
		if r == asClient {
			e.ours.StartClientTLS(config, ready)
			return
		}
		e.ours.SetHandler(h)
		e.ours.StartServerTLS(config, func(s tls.ConnectionState) { ready(s, nil) })
	})
}

// speak returns the peer's side of TLS over c.
func (r role) speak(c net.Conn, server, client *tls.Config) *tls.Conn {
	if r == asServer {
		return tls.Client(c, client)
	}
	return tls.Server(c, server)
}

func (r role) ours(server, client *tls.Config) *tls.Config {
	if r == asServer {
		return server
	}
	return client
}

// echoer sends back what it gets, ends its half with the peer's, and tells how the connection ended.
type echoer struct{ over chan error }

func newEchoer() *echoer { return &echoer{make(chan error, 1)} }

func (e *echoer) Data(c *Conn, p []byte) int {
	c.Write(p)
	if c.Full() {
		c.Pause()
	}
	return len(p)
}

func (e *echoer) Event(c *Conn, what Event) {
	switch what {
	case Drained:
		c.Resume()
	case Ended:
		c.Close()
		e.over <- nil
	case Timeout:
		c.Abort()
		e.over <- ErrTimeout
	}
}

func (e *echoer) Closed(_ *Conn, err error) { e.over <- err }

// eachTLS runs a test for both roles, versions and families.
func eachTLS(t *testing.T, run func(t *testing.T, e *ends, r role, server, client *tls.Config)) {
	t.Helper()
	ls := startLoops(t, 1)
	for _, r := range []role{asServer, asClient} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			t.Run(fmt.Sprintf("%v, %s", r, tls.VersionName(version)), func(t *testing.T) {
				iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
					server, client := servertest.TLS(t, "shop.example.jp")
					server.MaxVersion = version
					run(t, connected(t, ls, f), r, server, client)
				})
			})
		}
	}
}

// Bulk goes both ways at once and whole, and each half ends by itself with close_notify.
func TestTLSBulk(t *testing.T) {
	t.Parallel()
	big := make([]byte, 4<<20)
	rand.Read(big)
	eachTLS(t, func(t *testing.T, e *ends, r role, server, client *tls.Config) {
		h := newEchoer()
		e.start(r, r.ours(server, client), h)
		c := r.speak(e.peer, server, client)
		var wg sync.WaitGroup
		wg.Go(func() {
			c.Write(big)
			c.CloseWrite()
		})
		if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, big) {
			t.Errorf("got %d bytes, %v", len(got), err)
		}
		wg.Wait()
		if err := <-h.over; err != nil {
			t.Error(err)
		}
		if err := <-e.ready; err != nil {
			t.Error(err)
		}
		if s := <-e.state; s.Version != server.MaxVersion {
			t.Errorf("version %x", s.Version)
		}
	})
}

// pieces writes a few bytes at a time.
type pieces struct {
	*net.TCPConn
	size int
}

func (c pieces) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = c.TCPConn.Write(p[n:min(n+c.size, len(p))])
		n += k
	}
	return n, err
}

// Records that arrive in pieces, in the handshake and after it, are put together.
func TestTLSPieces(t *testing.T) {
	t.Parallel()
	eachTLS(t, func(t *testing.T, e *ends, r role, server, client *tls.Config) {
		e.start(r, r.ours(server, client), newEchoer())
		c := r.speak(pieces{e.peer, 7}, server, client)
		sent, got := make([]byte, 40000), make([]byte, 40000)
		rand.Read(sent)
		var wg sync.WaitGroup
		wg.Go(func() { c.Write(sent) })
		if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
			t.Errorf("got something else, %v", err)
		}
		wg.Wait()
	})
}

// A peer that ends, resets or says nothing in the middle of the handshake: a dialer is told by ready, a handler by
// Ended, Closed or Timeout.
func TestTLSPeerStops(t *testing.T) {
	t.Parallel()
	for name, stop := range map[string]struct {
		after int // bytes
		end   func(*net.TCPConn)
		want  func(error) bool
	}{
		"ends at once":   {0, func(c *net.TCPConn) { c.CloseWrite() }, func(err error) bool { return errors.Is(err, io.EOF) }},
		"ends halfway":   {50, func(c *net.TCPConn) { c.CloseWrite() }, func(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }},
		"resets halfway": {50, func(c *net.TCPConn) { c.SetLinger(0); c.Close() }, func(err error) bool { return errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) }},
		"is silent":      {50, func(*net.TCPConn) {}, func(err error) bool { return errors.Is(err, ErrTimeout) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			eachTLS(t, func(t *testing.T, e *ends, r role, server, client *tls.Config) {
				h := newEchoer()
				onLoop(e.ls, func() { e.ours.SetTimeout(300 * time.Millisecond) })
				e.start(r, r.ours(server, client), h)
				io.Copy(cut{e.peer, stop.after}, strings.NewReader(halfHandshake(t, r, server, client)))
				stop.end(e.peer)
				var err error
				select {
				case err = <-e.ready:
				case err = <-h.over:
				}
				if !stop.want(err) {
					t.Errorf("got %v", err)
				}
				onLoop(e.ls, func() {
					if !e.ours.IsClosed() {
						t.Error("the connection is open")
					}
				})
			})
		})
	}
}

// cut writes only the first bytes.
type cut struct {
	*net.TCPConn
	left int
}

func (c cut) Write(p []byte) (int, error) {
	if c.left == 0 {
		return len(p), nil
	}
	_, err := c.TCPConn.Write(p[:min(c.left, len(p))])
	return len(p), err
}

// halfHandshake returns the first flight of our peer.
func halfHandshake(t *testing.T, r role, server, client *tls.Config) string {
	t.Helper()
	near, far := net.Pipe()
	defer far.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer near.Close()
	wg.Go(func() { r.speak(near, server, client).Handshake() })
	if r == asClient { // it answers to a hello
		wg.Go(func() { tls.Client(far, client).Handshake() })
		return "\x16\x03\x03\x10\x00\x02" + strings.Repeat("\x00", 100) // the beginning of a long one
	}
	p := make([]byte, 1<<14)
	n, err := far.Read(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(p[:n])
}

// What is wrong with a server is told by an error that says it.
func TestClientTLSRefuses(t *testing.T) {
	t.Parallel()
	ls := startLoops(t, 1)
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		server, client := servertest.TLS(t, "shop.example.jp")
		_, stranger := servertest.TLS(t, "shop.example.jp")
		other := client.Clone()
		other.ServerName = "mail.example.jp"
		later := client.Clone()
		later.Time = func() time.Time { return time.Now().Add(1000 * time.Hour) }
		for name, tt := range map[string]struct {
			config *tls.Config
			want   func(error) bool
		}{
			"wrong name": {other, is[x509.HostnameError]},
			"unknown CA": {stranger, is[x509.UnknownAuthorityError]},
			"expired":    {later, is[x509.CertificateInvalidError]},
		} {
			e := connected(t, ls, f)
			e.start(asClient, tt.config, newEchoer())
			tls.Server(e.peer, server).Handshake()
			if err := <-e.ready; !tt.want(err) {
				t.Errorf("%s: got %v", name, err)
			}
		}
		e := connected(t, ls, f)
		e.start(asClient, client, newEchoer())
		io.WriteString(e.peer, "HTTP/1.1 400 Bad Request\r\n\r\n")
		if err := <-e.ready; !is[tls.RecordHeaderError](err) {
			t.Errorf("no TLS: got %v", err)
		}
	})
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// A server that refuses our certificate says so in the handshake, or, in TLS 1.3, right after it.
func TestClientTLSIsRefused(t *testing.T) {
	t.Parallel()
	ls := startLoops(t, 1)
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			server, client := servertest.TLS(t, "shop.example.jp")
			server.MaxVersion, server.ClientAuth = version, tls.RequireAnyClientCert
			e, h := connected(t, ls, f), newEchoer()
			e.start(asClient, client, h)
			tls.Server(e.peer, server).Handshake()
			err := <-e.ready
			if version == tls.VersionTLS13 {
				if err != nil {
					t.Errorf("the handshake: %v", err)
				}
				err = <-h.over
			}
			if err == nil || !strings.HasPrefix(err.Error(), "remote error: tls: ") {
				t.Errorf("%s: got %v", tls.VersionName(version), err)
			}
		}
	})
}

// What was written before TLS was started goes first, even while the server takes nothing.
func TestClientTLSAfterClear(t *testing.T) {
	t.Parallel()
	ls := startLoops(t, 1)
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		server, client := servertest.TLS(t, "shop.example.jp")
		for _, size := range []int{10, 8 << 20} {
			e, before := connected(t, ls, f), make([]byte, size)
			rand.Read(before)
			onLoop(ls, func() { e.ours.Write(before) })
			e.start(asClient, client, newEchoer())
			got := make([]byte, size)
			if _, err := io.ReadFull(e.peer, got); err != nil || !bytes.Equal(got, before) {
				t.Fatalf("got something else, %v", err)
			}
			c := tls.Server(e.peer, server)
			io.WriteString(c, "hello")
			if _, err := io.ReadFull(c, got[:5]); err != nil || string(got[:5]) != "hello" {
				t.Errorf("got %q, %v", got[:5], err)
			}
		}
	})
}

// A client with a cache shakes hands in short the second time.
func TestClientTLSResumes(t *testing.T) {
	t.Parallel()
	ls := startLoops(t, 1)
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			server, client := servertest.TLS(t, "shop.example.jp")
			server.MaxVersion, client.ClientSessionCache = version, tls.NewLRUClientSessionCache(1)
			for i, want := range []bool{false, true, true} {
				e := connected(t, ls, f)
				e.start(asClient, client, newEchoer())
				c := tls.Server(e.peer, server)
				io.WriteString(c, "hello")
				if _, err := io.ReadFull(c, make([]byte, 5)); err != nil { // the ticket has come before it
					t.Fatal(err)
				}
				if s := <-e.state; s.DidResume != want {
					t.Errorf("%s: connection %d: resumed %v", tls.VersionName(version), i+1, s.DidResume)
				}
			}
		}
	})
}

// Handshakes beyond the bound are refused.
func TestTLSBusy(t *testing.T) {
	t.Parallel()
	ls := startLoops(t, 1)
	ls.handshakes.mu.Lock()
	ls.handshakes.all = maxHandshakes
	ls.handshakes.mu.Unlock()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		server, client := servertest.TLS(t, "shop.example.jp")
		for _, r := range []role{asServer, asClient} {
			e, h := connected(t, ls, f), newEchoer()
			e.start(r, r.ours(server, client), h)
			var err error
			select {
			case err = <-e.ready:
			case err = <-h.over:
			}
			if !errors.Is(err, ErrBusy) {
				t.Errorf("%v: got %v", r, err)
			}
		}
	})
}

// Loops that stop end handshakes that are under way; an owner that has closed is told nothing.
func TestTLSStop(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		ls, err := Open(1)
		if err != nil {
			t.Fatal(err)
		}
		defer ls.Close()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var wg sync.WaitGroup
		wg.Go(func() { ls.Run(ctx) })
		_, client := servertest.TLS(t, "shop.example.jp")
		told := make(chan error, 2)
		for _, closes := range []bool{true, false} {
			e := connected(t, ls, f)
			onLoop(ls, func() {
				e.ours.StartClientTLS(client, func(_ tls.ConnectionState, err error) { told <- err })
				if closes {
					e.ours.Close()
				}
			})
		}
		cancel()
		wg.Wait()
		if err := <-told; !errors.Is(err, ErrStopped) || len(told) > 0 {
			t.Errorf("got %v and %d more", err, len(told))
		}
	})
}
