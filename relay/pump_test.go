// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/metrics"
)

// A pipe that is full to the last byte, because the receiver is slow, must not be taken for the sender's end: splice(2)
// of no bytes returns 0 in both cases. And when the sender really ends, what is still in the pipe must arrive first.
func TestPumpFullPipe(t *testing.T) {
	t.Parallel()
	ls := startLoops(t, 1)
	client, clientPeer := socketPair(t)
	server, serverPeer := socketPair(t)
	if err := unix.SetsockoptInt(client, unix.SOL_SOCKET, unix.SO_SNDBUF, 16<<10); err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("12345678"), pipeSize/8)
	ls.Do(func(l *Loop) {
		c, errC := l.newConn(client, nobody{})
		s, errS := l.newConn(server, nobody{})
		if err := errors.Join(errC, errS); err != nil {
			t.Error(err)
			return
		}
		p := Splice(c, s, time.Minute, func(metrics.Counts, metrics.Reason) {})
		if !s.startPump(c, &p.server.moved, func() {}) {
			t.Error("no pump")
			return
		}
		for s.pump.held < s.pump.pipe.size {
			n, err := unix.Write(s.pump.pipe.w, want[s.pump.held:])
			if errors.Is(err, syscall.EAGAIN) {
				t.Errorf("the pipe holds %d bytes, not %d", s.pump.held, s.pump.pipe.size)
				return
			}
			s.pump.held += n
		}
		s.flags |= readable
	})

	more := bytes.Repeat([]byte("more"), 300_000)
	var wg sync.WaitGroup
	wg.Go(func() {
		serverPeer.Write(more)
		serverPeer.Close()
	})
	got, err := io.ReadAll(clientPeer)
	wg.Wait()
	if want = append(want, more...); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v; want %d", len(got), err, len(want))
	}
}

// socketPair returns one end to be given to a loop, and the other.
func socketPair(t *testing.T) (fd int, peer *os.File) {
	t.Helper()
	both, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	peer = os.NewFile(uintptr(both[1]), "peer")
	t.Cleanup(func() { peer.Close() })
	peer.SetDeadline(time.Now().Add(20 * time.Second))
	return both[0], peer
}
