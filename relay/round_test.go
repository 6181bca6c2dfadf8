// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// skipIfForbidden skips a test for which the kernel does not allow io_uring: no machine is asked to. Whatever else is
// in the way is ours.
func skipIfForbidden(t *testing.T, why error) {
	t.Helper()
	if errors.Is(why, unix.EPERM) || errors.Is(why, unix.ENOSYS) {
		t.Skip(why)
	}
	t.Fatal(why)
}

// brokenRing opens a ring that makes no call.
func brokenRing() (*ring, error) {
	r, err := openRing()
	if err != nil {
		return nil, err
	}
	null, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(null)
	return r, unix.Dup3(null, r.fd, unix.O_CLOEXEC)
}

// Many clients that ask and hear in turn, in pieces small and large, get each his own bytes, whatever else is in the
// same round.
func TestManyAtOnce(t *testing.T) { eachWay(t, 1, manyAtOnce) }

func manyAtOnce(t *testing.T, ls *Loops) {
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		addr, _ := proxy(t, ls, x.Client, servertest.Echo(t, x.Backend), time.Minute)
		var wg sync.WaitGroup
		for i := range 64 {
			c := dial(t, addr)
			wg.Go(func() {
				random := rand.New(rand.NewPCG(uint64(i), 1))
				for range 20 {
					sent := make([]byte, 1+random.IntN(1<<(1+random.IntN(16))))
					for k := range sent {
						sent[k] = byte(random.Uint32())
					}
					got := make([]byte, len(sent))
					go c.Write(sent)
					if _, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, sent) {
						t.Errorf("client %d: %d bytes came back wrong, %v", i, len(sent), err)
						return
					}
				}
				c.Close()
			})
		}
		wg.Wait()
	})
}

// Writes that were put off keep their order with those that were not, also when the peer takes only a part of them,
// and the end comes after all.
func TestWritesKeepTheirOrder(t *testing.T) { eachWay(t, 1, writesKeepTheirOrder) }

func writesKeepTheirOrder(t *testing.T, ls *Loops) {
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		var want []byte
		for i := range 400 {
			want = append(want, bytes.Repeat([]byte{byte(i)}, 1+i*i%9_000)...)
		}
		fd, addr := listenTCP(t, f)
		nonblock(t, fd)
		a, err := ls.Listen(fd, func(c *Conn) {
			rest := want
			for i := range 400 {
				n := 1 + i*i%9_000
				c.Write(rest[:n])
				rest = rest[n:]
			}
			c.Close()
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(a.Close)
		c := dial(t, addr)
		c.SetReadBuffer(32 << 10)
		got, err := io.ReadAll(c)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %d bytes, %v, want %d in order", len(got), err, len(want))
		}
	})
}

// A connection that is closed in the same round in which it was written to, or in which it had bytes to read, takes
// nothing along to the next one that gets its descriptor.
func TestClosedInTheRound(t *testing.T) { eachWay(t, 1, closedInTheRound) }

func closedInTheRound(t *testing.T, ls *Loops) {
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		server := servertest.Echo(t, f)
		fd, addr := listenTCP(t, f)
		nonblock(t, fd)
		first := true
		a, err := ls.Listen(fd, func(c *Conn) {
			if first {
				first = false
				c.Write([]byte("for nobody"))
				c.Abort()
				c.Loop().Dial(DialOptions{Remote: server, Timeout: patience}, func(s *Conn, err error) { s.Abort() })
				return
			}
			c.Write([]byte("hello"))
			c.Close()
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(a.Close)
		if aborted, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(addr)); err == nil { // else it is reset already
			if got, err := io.ReadAll(aborted); err == nil {
				t.Errorf("aborted connection: %q and an end", got)
			}
			aborted.Close()
		}
		if got, _ := io.ReadAll(dial(t, addr)); string(got) != "hello" {
			t.Errorf("got %q", got)
		}
	})
}
