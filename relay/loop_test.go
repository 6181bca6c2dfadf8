// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/metrics"
)

// startLoops runs n loops until the test ends.
func startLoops(t testing.TB, n int) *Loops {
	t.Helper()
	ls, err := Open(n)
	if err != nil {
		t.Fatal(err)
	}
	return runLoops(t, ls)
}

// eachWay runs fn with loops that batch their calls by io_uring, with some that do not, and with some whose every
// submission fails.
func eachWay(t *testing.T, n int, fn func(t *testing.T, ls *Loops)) {
	t.Helper()
	for way, ring := range map[string]func() (*ring, error){
		"batched": openRing,
		"plain":   func() (*ring, error) { return nil, unix.EPERM },
		"failing": brokenRing,
	} {
		t.Run(way, func(t *testing.T) {
			ls, err := open(n, ring)
			if err != nil {
				t.Fatal(err)
			}
			runLoops(t, ls)
			if why := ls.Unbatched(); why != nil && way != "plain" {
				skipIfForbidden(t, why)
			}
			fn(t, ls)
		})
	}
}

func runLoops(t testing.TB, ls *Loops) *Loops {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { ls.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		wg.Wait()
		ls.Close()
	})
	return ls
}

// listenTCP returns a listening socket of family f whose descriptor can be lent to loops.
func listenTCP(t testing.TB, f ip.Family) (fd int, addr netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp"+string('0'+byte(f)), netip.AddrPortFrom(iptest.Loopback(f), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	addr = l.Addr().(*net.TCPAddr).AddrPort()
	l.Close()
	t.Cleanup(func() { file.Close() })
	return int(file.Fd()), addr
}

// outcome is how one pair ended.
type outcome struct {
	counts metrics.Counts
	reason metrics.Reason
}

// proxy carries connections to backend as they are and returns where it listens.
func proxy(t testing.TB, ls *Loops, f ip.Family, backend netip.AddrPort, idle time.Duration) (netip.AddrPort, chan outcome) {
	t.Helper()
	fd, addr := listenTCP(t, f)
	nonblock(t, fd)
	outcomes := make(chan outcome, 64)
	a, err := ls.Listen(fd, func(c *Conn) {
		c.Pause()
		c.Loop().Dial(DialOptions{Remote: backend, Timeout: patience}, func(s *Conn, err error) {
			if err != nil {
				t.Errorf("dial: %v", err)
				c.Abort()
				return
			}
			Splice(c, s, idle, func(n metrics.Counts, r metrics.Reason) { outcomes <- outcome{n, r} })
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return addr, outcomes
}

func dial(t testing.TB, addr netip.AddrPort) *net.TCPConn {
	t.Helper()
	c, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func TestSpliceCarriesEveryByte(t *testing.T) { eachWay(t, 2, spliceCarriesEveryByte) }

func spliceCarriesEveryByte(t *testing.T, ls *Loops) {
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		for _, size := range []int{0, 1, 1000, 100_000, 8 << 20} {
			echo := servertest.Echo(t, x.Backend)
			addr, outcomes := proxy(t, ls, x.Client, echo, time.Minute)
			c := dial(t, addr)
			sent := make([]byte, size)
			rand.Read(sent)
			var wg sync.WaitGroup
			wg.Go(func() {
				c.Write(sent)
				c.CloseWrite() // the half-close must reach the server, and its answer still come back
			})
			got, err := io.ReadAll(c)
			wg.Wait()
			if err != nil || !bytes.Equal(got, sent) {
				t.Fatalf("size %d: got %d bytes, %v", size, len(got), err)
			}
			want := outcome{metrics.Counts{ToServer: uint64(size), ToClient: uint64(size)}, metrics.Fine}
			if o := <-outcomes; o != want {
				t.Errorf("size %d: got %+v, want %+v", size, o, want)
			}
		}
	})
}

func TestSpliceEndsWithTheServer(t *testing.T) { eachWay(t, 1, spliceEndsWithTheServer) }

func spliceEndsWithTheServer(t *testing.T, ls *Loops) {
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		server := servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
			c.SetLinger(0)
			c.Read(make([]byte, 1))
		})
		addr, outcomes := proxy(t, ls, x.Client, server, time.Minute)
		c := dial(t, addr)
		c.Write([]byte("x"))
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("read after the server's reset: no error")
		}
		if o := <-outcomes; o.reason != metrics.ServerReset {
			t.Errorf("got %v, want server-reset", o.reason)
		}
	})
}

func TestSpliceIdle(t *testing.T) {
	ls := startLoops(t, 1)
	addr, outcomes := proxy(t, ls, ip.V6, servertest.Echo(t, ip.V4), 200*time.Millisecond)
	c := dial(t, addr)
	c.Write([]byte("x"))
	io.ReadFull(c, make([]byte, 1))
	if o := <-outcomes; o.reason != metrics.ClientTimeout {
		t.Errorf("got %v, want client-timeout", o.reason)
	}
}

// A client that reads nothing must stop the server, not fill the edge's memory.
func TestSpliceHoldsBack(t *testing.T) { eachWay(t, 1, spliceHoldsBack) }

func spliceHoldsBack(t *testing.T, ls *Loops) {
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		const total = 16 << 20
		server := servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
			chunk := make([]byte, 50_000) // below bulk, so that bytes are copied
			for n := 0; n < total; n += len(chunk) {
				if _, err := c.Write(chunk); err != nil {
					return
				}
			}
		})
		addr, _ := proxy(t, ls, x.Client, server, time.Minute)
		c := dial(t, addr)
		first := make([]byte, 1)
		io.ReadFull(c, first)
		waitFor(t, func() bool {
			most := 0
			ls.Do(func(l *Loop) { l.Each(func(c *Conn) { most = max(most, c.Buffered()) }) })
			if most > HighWater+len(ls.loops[0].scratch) {
				t.Fatalf("%d bytes wait in the edge", most)
			}
			return most >= HighWater || hasPump(ls)
		})
		if n, err := io.Copy(io.Discard, c); err != nil || n < total-1 {
			t.Errorf("read the rest: %d, %v", n, err)
		}
	})
}

func hasPump(ls *Loops) (yes bool) {
	ls.Do(func(l *Loop) { l.Each(func(c *Conn) { yes = yes || c.pump != nil }) })
	return yes
}

func TestDialErrors(t *testing.T) {
	ls := startLoops(t, 1)
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		_, addr := listenTCP(t, f)
		refused := netip.AddrPortFrom(addr.Addr(), 1)
		got := make(chan error, 1)
		ls.Do(func(l *Loop) {
			l.Dial(DialOptions{Remote: refused, Timeout: patience}, func(_ *Conn, err error) { got <- err })
		})
		if err := <-got; err == nil {
			t.Error("dial to a closed port: no error")
		}
	})
}

func TestServerTLS(t *testing.T) { eachWay(t, 2, serverTLS) }

func serverTLS(t *testing.T, ls *Loops) {
	serverConfig, clientConfig := servertest.TLS(t, "shop.example.jp")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		fd, addr := listenTCP(t, f)
		nonblock(t, fd)
		a, err := ls.Listen(fd, func(c *Conn) {
			c.SetHandler(echo{})
			c.StartServerTLS(serverConfig, func(tls.ConnectionState) {})
		})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			config := clientConfig.Clone()
			config.MaxVersion = version
			c := tls.Client(dial(t, addr), config)
			sent := make([]byte, 2<<20)
			rand.Read(sent)
			var wg sync.WaitGroup
			wg.Go(func() {
				if _, err := c.Write(sent); err != nil {
					t.Errorf("write: %v", err)
				}
				c.CloseWrite()
			})
			got, err := io.ReadAll(c)
			wg.Wait()
			if err != nil || !bytes.Equal(got, sent) {
				t.Fatalf("TLS %x: got %d bytes, %v", version, len(got), err)
			}
		}
	})
}

// A peer that begins a handshake and says no more must not hold up the others.
func TestServerTLSStalledHandshakes(t *testing.T) {
	ls := startLoops(t, 1)
	serverConfig, clientConfig := servertest.TLS(t, "shop.example.jp")
	fd, addr := listenTCP(t, ip.V6)
	nonblock(t, fd)
	a, err := ls.Listen(fd, func(c *Conn) {
		c.SetHandler(echo{})
		c.StartServerTLS(serverConfig, func(tls.ConnectionState) {})
	})
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for range 50 {
		dial(t, addr).Write([]byte{22, 3, 1})
	}
	c := tls.Client(dial(t, addr), clientConfig)
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
}

// echo sends back what comes, and ends its half when the client ends his.
type echo struct{}

func (echo) Data(c *Conn, p []byte) int {
	c.Write(p)
	if c.Full() {
		c.Pause()
	}
	return len(p)
}

func (echo) Event(c *Conn, e Event) {
	switch e {
	case Ended:
		c.Close()
	case Drained:
		c.Resume()
	}
}

func (echo) Closed(*Conn, error) {}

// A handler that waits for more is shown all of it at once, one that pauses sees the rest after Resume.
func TestDataIsHeld(t *testing.T) { eachWay(t, 1, dataIsHeld) }

func dataIsHeld(t *testing.T, ls *Loops) {
	fd, addr := listenTCP(t, ip.V6)
	nonblock(t, fd)
	lines := make(chan string, 10)
	a, err := ls.Listen(fd, func(c *Conn) { c.SetHandler(lineReader{lines}) })
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	c := dial(t, addr)
	for _, b := range []byte("one\ntwo\nthree") {
		c.Write([]byte{b})
	}
	c.CloseWrite()
	for _, want := range []string{"one\n", "two\n"} {
		if got := <-lines; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want EOF", err)
	}
}

type lineReader struct{ lines chan string }

func (r lineReader) Data(c *Conn, p []byte) int {
	i := bytes.IndexByte(p, '\n')
	if i < 0 {
		return 0
	}
	r.lines <- string(p[:i+1])
	c.Pause()
	c.Loop().Post(c.Resume)
	return i + 1
}

func (r lineReader) Event(c *Conn, _ Event) { c.Close() }
func (r lineReader) Closed(*Conn, error)    {}
