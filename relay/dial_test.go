// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/metrics"
)

// TestDialHearsGreeting: what a server says first is carried even if it comes before the loop has looked at the
// connection at all, so that one event tells both.
func TestDialHearsGreeting(t *testing.T) {
	ls := startLoops(t, 1)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		const greeting = "220 mx.example ESMTP\r\n"
		greeted := make(chan struct{})
		server := servertest.TCP(t, x.Backend, func(c *net.TCPConn) {
			io.WriteString(c, greeting)
			close(greeted)
			io.Copy(io.Discard, c)
		})
		fd, addr := listenTCP(t, x.Client)
		nonblock(t, fd)
		a, err := ls.Listen(fd, func(c *Conn) {
			c.Pause()
			c.Loop().Dial(DialOptions{Remote: server, Timeout: patience}, func(s *Conn, err error) {
				if err != nil {
					t.Errorf("dial: %v", err)
					c.Abort()
					return
				}
				Splice(c, s, time.Minute, func(metrics.Counts, metrics.Reason) {})
			})
			<-greeted // a loop that is late
		})
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		c := dial(t, addr)
		got := make([]byte, len(greeting))
		if _, err := io.ReadFull(c, got); err != nil || string(got) != greeting {
			t.Fatalf("got %q, %v", got, err)
		}
	})
}
