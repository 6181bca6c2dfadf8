// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// chaos is random clients and servers. Each says how much it will say, says it, and ends its half, or breaks off.
type chaos struct {
	t     testing.TB
	whole atomic.Int64
	cut   atomic.Int64
}

// talk says something and hears the other side out. Half of what is said is long enough to be moved in bulk.
func (c *chaos) talk(conn *net.TCPConn) {
	conn.SetDeadline(time.Now().Add(patience))
	r := rand.New(rand.NewPCG(rand.Uint64(), 3))
	var wg sync.WaitGroup
	var failed atomic.Bool
	wg.Go(func() { failed.Store(!c.say(r, conn)) })
	announced, got, err := c.hear(rand.IntN(4) == 0, conn)
	wg.Wait()
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.t.Errorf("stuck after %d bytes of %d", got, announced)
	case err == nil && got == announced:
		c.whole.Add(1)
	case err == nil && !failed.Load(): // a write that fails takes the error that the read should have had
		c.t.Errorf("%d bytes of %d look whole", got, announced)
	default:
		c.cut.Add(1)
	}
}

// say returns false if it broke off, or was.
func (c *chaos) say(r *rand.Rand, conn *net.TCPConn) bool {
	n := r.IntN(2000)
	if r.IntN(2) == 0 {
		n = r.IntN(2 << 20)
	}
	p := make([]byte, 8+n)
	binary.BigEndian.PutUint64(p, uint64(n))
	for i := range p[8:] {
		p[8+i] = byte(i * 7)
	}
	if r.IntN(3) == 0 {
		conn.Write(p[:r.IntN(len(p))])
		conn.SetLinger(0)
		conn.Close()
		return false
	}
	for len(p) > 0 {
		k := 1 + r.IntN(len(p))
		if _, err := conn.Write(p[:k]); err != nil {
			return false
		}
		p = p[k:]
	}
	return conn.CloseWrite() == nil
}

// hear reads to the end of the other side's half.
func (c *chaos) hear(slow bool, conn *net.TCPConn) (announced, got int, err error) {
	var head [8]byte
	if n, err := io.ReadFull(conn, head[:]); err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return 8, n, nil
		}
		return 8, n, err
	}
	announced = int(binary.BigEndian.Uint64(head[:]))
	buffer := make([]byte, 64<<10)
	if slow {
		buffer = buffer[:8<<10]
	}
	for {
		n, err := conn.Read(buffer)
		for i, b := range buffer[:n] {
			if b != byte((got+i)*7) {
				c.t.Errorf("byte %d is wrong", got+i)
				return announced, got, err
			}
		}
		got += n
		if errors.Is(err, io.EOF) {
			return announced, got, nil
		}
		if err != nil {
			return announced, got, err
		}
	}
}

// Whatever clients and servers do and wherever they break off, what looks whole is, and no flow is left.
func TestChaos(t *testing.T) {
	t.Parallel()
	length := 250 * time.Millisecond
	if os.Getenv("KYOZON_SOAK") != "" {
		length = time.Minute
	}
	b := newBench(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		c := &chaos{t: t}
		at := b.serve(t, TCP(), x.Client, to(servertest.TCP(t, x.Backend, c.talk)), nil)
		end := time.Now().Add(length)
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for time.Now().Before(end) {
					conn, err := net.DialTCP("tcp", nil, net.TCPAddrFromAddrPort(at))
					if errors.Is(err, syscall.ECONNRESET) { // its server has broken off already
						continue
					}
					if err != nil {
						t.Errorf("dial: %v", err)
						return
					}
					c.talk(conn)
					conn.Close()
				}
			})
		}
		wg.Wait()
		b.waitFor("the end of all flows", func() bool { return b.sum().Active == 0 })
		if c.whole.Load() == 0 || c.cut.Load() == 0 {
			t.Errorf("%d came whole, %d were cut off", c.whole.Load(), c.cut.Load())
		}
	})
}
