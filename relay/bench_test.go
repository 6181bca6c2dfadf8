// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/metrics"
)

// pairs is the address of an edge that carries every client to server.
func pairs(t testing.TB, ls *Loops, f ip.Family, server netip.AddrPort) netip.AddrPort {
	return serveConns(t, ls, f, func(c *Conn) {
		c.Pause()
		c.Loop().Dial(DialOptions{Remote: server, Timeout: patience}, func(s *Conn, err error) {
			if err != nil {
				c.Abort()
				return
			}
			Splice(c, s, time.Minute, func(metrics.Counts, metrics.Reason) {})
		})
	})
}

// roundTrip sends p and waits for it to come back.
func roundTrip(t testing.TB, c net.Conn, p, answer []byte) {
	if _, err := c.Write(p); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c, answer[:len(p)]); err != nil {
		t.Fatal(err)
	}
}

// Bytes that trickle through a pair cost no allocation, copied or held back by a slow receiver.
func TestPairAllocations(t *testing.T) {
	ls := startLoops(t, 1)
	c := dial(t, pairs(t, ls, ip.V6, servertest.Echo(t, ip.V4)))
	for _, size := range []int{1, 1000, 60_000} {
		p, answer := bytes.Repeat([]byte("x"), size), make([]byte, size)
		roundTrip(t, c, p, answer)
		if n := testing.AllocsPerRun(100, func() { roundTrip(t, c, p, answer) }); n >= 1 {
			t.Errorf("%d bytes: %v allocations a round trip", size, n)
		}
	}
}

// Bytes through TLS cost what crypto/tls allocates: 32 bytes for each look for a record. The edge looks twice a round
// trip, for the record and for one behind it, the client once.
func TestTLSAllocations(t *testing.T) {
	ls := startLoops(t, 1)
	serverConfig, clientConfig := servertest.TLS(t, "shop.example.jp")
	c := tls.Client(dial(t, serveConns(t, ls, ip.V6, func(c *Conn) {
		c.SetHandler(echo{})
		c.StartServerTLS(serverConfig, func(tls.ConnectionState) {})
	})), clientConfig)
	p, answer := bytes.Repeat([]byte("x"), 1000), make([]byte, 1000)
	roundTrip(t, c, p, answer)
	if n := fewestAllocs(4, func() { roundTrip(t, c, p, answer) }); n > 4 { // one more: the race detector has pools forget some
		t.Errorf("%v allocations a round trip", n)
	}
}

// fewestAllocs measures f until it costs as many allocations as wanted, but not for ever, and returns the least. The whole
// process is measured, and a busy machine cuts what is sent in pieces: both can add allocations, and none of them stays.
func fewestAllocs(want float64, f func()) float64 {
	least := testing.AllocsPerRun(100, f)
	for range 9 {
		if least <= want {
			break
		}
		least = min(least, testing.AllocsPerRun(100, f))
	}
	return least
}

// What a handler leaves costs buffers of the pool, and what is posted a place in a list.
func TestQueueAllocations(t *testing.T) {
	var pool buffers
	var q queue
	p := make([]byte, 100_000)
	step := func() {
		q.append(p, &pool)
		q.drop(1000, &pool)
		for q.join(&pool) {
		}
		q.clear(&pool)
	}
	step()
	if n := testing.AllocsPerRun(100, step); n >= 3 { // of 4 buffers; the race detector has the pool forget some
		t.Errorf("%v allocations", n)
	}
}

// Small round trips: the cost of a wake-up, and of copying.
func BenchmarkPair(b *testing.B) {
	for _, x := range []ip.Crossing{{Client: ip.V4, Backend: ip.V4}, {Client: ip.V6, Backend: ip.V4}} {
		b.Run(x.String(), func(b *testing.B) {
			ls := startLoops(b, 1)
			c := dial(b, pairs(b, ls, x.Client, servertest.Echo(b, x.Backend)))
			c.SetDeadline(time.Time{})
			p, answer := make([]byte, 1000), make([]byte, 1000)
			b.ReportAllocs()
			for b.Loop() {
				roundTrip(b, c, p, answer)
			}
		})
	}
}

// Bulk through one pair.
func BenchmarkSplice(b *testing.B) {
	for _, x := range []ip.Crossing{{Client: ip.V4, Backend: ip.V4}, {Client: ip.V6, Backend: ip.V4}} {
		b.Run(x.String(), func(b *testing.B) {
			ls := startLoops(b, 1)
			chunk := make([]byte, 1<<20)
			server := servertest.TCP(b, x.Backend, func(c *net.TCPConn) {
				for {
					if _, err := c.Write(chunk); err != nil {
						return
					}
				}
			})
			c := dial(b, pairs(b, ls, x.Client, server))
			c.SetDeadline(time.Time{})
			into := make([]byte, len(chunk))
			b.SetBytes(int64(len(chunk)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := io.ReadFull(c, into); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkIdle says what a pair of idle connections costs the process, with 10,000 of them if there may be so many
// descriptors. The peers are bare descriptors.
func BenchmarkIdle(b *testing.B) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		b.Fatal(err)
	}
	many := min(10_000, int(limit.Cur-500)/4)
	for b.Loop() {
		ls := startLoops(b, 1)
		peers, pairs := make([]int, 0, 2*many), make([]*Pair, 0, many)
		heap, rss := memory()
		for range many {
			client, server := socketPairFDs(b), socketPairFDs(b)
			peers = append(peers, client[1], server[1])
			onLoop(ls, func() { pairs = append(pairs, idlePair(b, ls.loops[0], client[0], server[0])) })
		}
		for _, fd := range peers { // each has carried something
			unix.Write(fd, []byte("hello"))
		}
		onLoop(ls, func() {})
		heapNow, rssNow := memory()
		b.ReportMetric(float64(heapNow-heap)/float64(many), "heap-B/pair")
		b.ReportMetric(float64(rssNow-rss)/float64(many), "rss-B/pair")
		runtime.KeepAlive(pairs)
		for _, fd := range peers {
			unix.Close(fd)
		}
	}
}

func socketPairFDs(b *testing.B) [2]int {
	both, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	return both
}

func idlePair(b *testing.B, l *Loop, client, server int) *Pair {
	c, errC := l.newConn(client, nobody{})
	s, errS := l.newConn(server, nobody{})
	if errC != nil || errS != nil {
		b.Error(errC, errS)
		return nil
	}
	return Splice(c, s, time.Hour, func(metrics.Counts, metrics.Reason) {})
}

// memory returns the live heap and the resident set, in bytes.
func memory() (heap, rss int64) {
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	text, err := os.ReadFile("/proc/self/statm")
	if err == nil {
		fmt.Sscan(strings.Fields(string(text))[1], &rss)
	}
	return int64(m.HeapAlloc), rss * int64(os.Getpagesize())
}
