// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// Somebody else's socket is read on the loop, what he puts off is done at the end of the round, and after Unwatch he is
// left alone.
func TestWatch(t *testing.T) {
	ls := startLoops(t, 1)
	l := ls.loops[0]
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		fd, at := listenUDP(t, iptest.Loopback(f))
		got := make(chan string, 10)
		var b [100]byte
		n := 0
		flush := func() { got <- string(b[:n]) }
		l.do(func() {
			err := l.Watch(fd, func() {
				n, _, _ = unix.Recvfrom(fd, b[:], unix.MSG_DONTWAIT)
				l.AtEnd(flush)
			})
			if err != nil {
				t.Error(err)
			}
		})
		c := dialUDP(t, at)
		for _, text := range []string{"one", "two"} {
			c.Write([]byte(text))
			if s := <-got; s != text {
				t.Errorf("got %q, want %q", s, text)
			}
		}
		l.do(func() { l.Unwatch(fd) })
		c.Write([]byte("three"))
		l.do(func() {})
		if len(got) > 0 {
			t.Error("read after Unwatch")
		}
		if a := LocalAddr(fd); a.Addr() != iptest.Loopback(f) || a == (netip.AddrPort{}) {
			t.Errorf("bound to %v", a)
		}
	})
}
