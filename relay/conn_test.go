// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// serveConns has accept called for the clients of an address of family f, which it returns.
func serveConns(t testing.TB, ls *Loops, f ip.Family, accept func(*Conn)) netip.AddrPort {
	t.Helper()
	fd, addr := listenTCP(t, f)
	nonblock(t, fd)
	a, err := ls.Listen(fd, accept)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return addr
}

// whileBlocked calls fn while the loops do nothing, so that they find all that fn did at once.
func whileBlocked(ls *Loops, fn func()) {
	blocked, free := make(chan struct{}), make(chan struct{})
	for _, l := range ls.loops {
		l.Post(func() {
			blocked <- struct{}{}
			<-free
		})
		<-blocked
	}
	fn()
	close(free)
}

// nibbler consumes some of what it is shown, and pauses in between. It must see every byte once and in order.
type nibbler struct {
	bite  int
	begun bool
	got   []byte
	done  chan []byte
}

func (n *nibbler) Data(c *Conn, p []byte) int {
	c.Pause()
	c.Loop().Post(c.Resume)
	if !n.begun { // at first it wants nothing
		n.begun = true
		return 0
	}
	k := min(len(p), n.bite)
	n.got = append(n.got, p[:k]...)
	return k
}

func (n *nibbler) Event(c *Conn, _ Event) {
	c.Close()
	n.done <- n.got
}

func (n *nibbler) Closed(_ *Conn, err error) { n.done <- append(n.got, "broken: "+err.Error()...) }

// Whatever a handler that pauses leaves of one read, however much, is kept and shown to it later.
func TestPausedHandlerLosesNothing(t *testing.T) {
	t.Parallel()
	eachWay(t, 1, pausedHandlerLosesNothing)
}

func pausedHandlerLosesNothing(t *testing.T, ls *Loops) {
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		for _, size := range []int{1, BufferSize - 1, BufferSize, BufferSize + 1, 100_000, 128 << 10, 300_000} {
			for _, bite := range []int{5000, BufferSize, 70_000} {
				n := &nibbler{bite: bite, done: make(chan []byte, 1)}
				addr := serveConns(t, ls, f, func(c *Conn) { c.SetHandler(n) })
				c := dial(t, addr)
				c.SetWriteBuffer(1 << 20)
				sent := make([]byte, size)
				rand.Read(sent)
				whileBlocked(ls, func() {
					c.Write(sent)
					c.CloseWrite()
				})
				if got := <-n.done; !bytes.Equal(got, sent) {
					t.Fatalf("%d bytes in bites of %d: got %d, %q", size, bite, len(got), got[max(0, len(got)-60):])
				}
			}
		}
	})
}

// The same through TLS, where bytes may also be left inside crypto/tls.
func TestPausedHandlerLosesNothingOfTLS(t *testing.T) {
	t.Parallel()
	eachWay(t, 1, pausedHandlerLosesNothingOfTLS)
}

func pausedHandlerLosesNothingOfTLS(t *testing.T, ls *Loops) {
	serverConfig, clientConfig := servertest.TLS(t, "shop.example.jp")
	for _, size := range []int{1, BufferSize, 300_000} {
		for _, bite := range []int{5000, BufferSize, 70_000} {
			n := &nibbler{bite: bite, done: make(chan []byte, 1)}
			addr := serveConns(t, ls, ip.V6, func(c *Conn) {
				c.SetHandler(n)
				c.StartServerTLS(serverConfig, func(tls.ConnectionState) {})
			})
			raw := dial(t, addr)
			raw.SetWriteBuffer(1 << 20)
			c := tls.Client(raw, clientConfig)
			if err := c.Handshake(); err != nil {
				t.Fatal(err)
			}
			sent := make([]byte, size)
			rand.Read(sent)
			whileBlocked(ls, func() {
				c.Write(sent)
				c.Close()
			})
			if got := <-n.done; !bytes.Equal(got, sent) {
				t.Fatalf("%d bytes in bites of %d: got %d, %q", size, bite, len(got), got[max(0, len(got)-60):])
			}
		}
	}
}

// greedy waits for more of whatever it is shown.
type greedy struct {
	most int
	end  chan error
}

func (g *greedy) Data(_ *Conn, p []byte) int {
	g.most = max(g.most, len(p))
	return 0
}

func (g *greedy) Event(c *Conn, _ Event) {
	c.Close()
	g.end <- nil
}

func (g *greedy) Closed(_ *Conn, err error) { g.end <- err }

// A handler that wants more is shown all of it in one piece, up to a full buffer and no further.
func TestHandlerWantsMore(t *testing.T) {
	t.Parallel()
	eachWay(t, 1, handlerWantsMore)
}

func handlerWantsMore(t *testing.T, ls *Loops) {
	for _, tt := range []struct {
		size int
		want error
	}{{1, nil}, {BufferSize - 1, nil}, {BufferSize, errFull}, {BufferSize + 1, errFull}, {200_000, errFull}} {
		for _, pieces := range []int{1, 7} {
			t.Run(fmt.Sprintf("%d bytes in %d", tt.size, pieces), func(t *testing.T) {
				g := &greedy{end: make(chan error, 1)}
				c := dial(t, serveConns(t, ls, ip.V6, func(c *Conn) { c.SetHandler(g) }))
				sent := make([]byte, tt.size)
				for len(sent) > 0 {
					n := min(len(sent), tt.size/pieces+1)
					if _, err := c.Write(sent[:n]); err != nil {
						break
					}
					sent = sent[n:]
				}
				c.CloseWrite()
				if err := <-g.end; !errors.Is(err, tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				if tt.want == nil && g.most != tt.size {
					t.Errorf("saw %d in one piece, want %d", g.most, tt.size)
				}
			})
		}
	}
}

// starter starts TLS when it has seen the beginning of the handshake, of which it consumes nothing.
type starter struct {
	config *tls.Config
	need   int
}

func (s starter) Data(c *Conn, p []byte) int {
	if len(p) >= s.need {
		c.SetHandler(echo{})
		c.StartServerTLS(s.config, func(tls.ConnectionState) {})
	}
	return 0
}

func (s starter) Event(c *Conn, _ Event) { c.Close() }
func (s starter) Closed(*Conn, error)    {}

// trickled writes in small pieces.
type trickled struct {
	net.Conn
	size int
}

func (c trickled) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = c.Conn.Write(p[n:min(len(p), n+c.size)])
		n += k
	}
	return n, err
}

// A handler may look at the ClientHello before it starts TLS, whether it comes in one piece or in many.
func TestStartTLSInData(t *testing.T) {
	t.Parallel()
	eachWay(t, 2, startTLSInData)
}

func startTLSInData(t *testing.T, ls *Loops) {
	serverConfig, clientConfig := servertest.TLS(t, "shop.example.jp")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		for _, need := range []int{1, 200} {
			addr := serveConns(t, ls, f, func(c *Conn) { c.SetHandler(starter{serverConfig, need}) })
			for _, size := range []int{1 << 20, 100, 1} {
				c := tls.Client(trickled{dial(t, addr), size}, clientConfig)
				if _, err := c.Write([]byte("hello")); err != nil {
					t.Fatalf("pieces of %d: %v", size, err)
				}
				got := make([]byte, 5)
				if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
					t.Fatalf("pieces of %d: got %q, %v", size, got, err)
				}
			}
		}
	})
}

// After close_notify a client has nothing to say: what it sends must not pile up.
func TestBytesAfterCloseNotify(t *testing.T) {
	t.Parallel()
	eachWay(t, 1, bytesAfterCloseNotify)
}

func bytesAfterCloseNotify(t *testing.T, ls *Loops) {
	serverConfig, clientConfig := servertest.TLS(t, "shop.example.jp")
	quiet := &deaf{ended: make(chan *Conn, 1)}
	raw := dial(t, serveConns(t, ls, ip.V6, func(c *Conn) {
		c.SetHandler(quiet)
		c.StartServerTLS(serverConfig, func(tls.ConnectionState) {})
	}))
	c := tls.Client(raw, clientConfig)
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	c.CloseWrite()
	s := <-quiet.ended
	raw.SetWriteDeadline(time.Now().Add(patience)) // crypto/tls has let it pass
	for range 50 {
		if _, err := raw.Write(make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, func() bool {
		kept := 0
		ls.Do(func(*Loop) { kept = cap(s.tls.in) })
		if kept > 0 {
			t.Fatalf("%d bytes kept", kept)
		}
		return unread(s) == 0
	})
}

// deaf does nothing with what it is told, and tells when the peer has ended.
type deaf struct{ ended chan *Conn }

func (d *deaf) Data(_ *Conn, p []byte) int { return len(p) }
func (d *deaf) Event(c *Conn, e Event)     { d.ended <- c }
func (d *deaf) Closed(*Conn, error)        {}

// unread returns how many bytes wait in c's socket.
func unread(c *Conn) int {
	n, err := unix.IoctlGetInt(int(c.fd), unix.SIOCINQ)
	if err != nil {
		return -1
	}
	return n
}
