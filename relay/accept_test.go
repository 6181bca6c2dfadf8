// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// While the process has no descriptors left, clients wait, and the loop does not spin; then they are served. The test
// runs alone, since it takes the descriptors of all.
func TestNoDescriptors(t *testing.T) {
	ls := startLoops(t, 1)
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		fd, addr := listenTCP(t, f)
		nonblock(t, fd)
		a, err := ls.Listen(fd, func(c *Conn) { c.SetHandler(echo{}) })
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		var before unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Fatal(err)
		}
		restore := func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &before) }
		defer restore()
		var c *net.TCPConn
		whileBlocked(ls, func() {
			c = dial(t, addr)
			if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: before.Max}); err != nil {
				t.Error(err)
			}
		})
		waitFor(t, func() bool { return a.Failures() > 0 })
		restore()
		roundTrip(t, c, []byte("hello"), make([]byte, 5))
		if n := a.Failures(); n > 100 {
			t.Errorf("%d failures: the loop spins", n)
		}
	})
}
