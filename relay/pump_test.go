// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
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
	peer.SetDeadline(time.Now().Add(patience))
	return both[0], peer
}

// A pump whose receiver takes nothing hears no more of what arrives; when the receiver takes something, every byte comes,
// and the end.
func TestPumpMuted(t *testing.T) {
	t.Parallel()
	ls := startLoops(t, 1)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		client, clientPeer := tcpPair(t, x.Client)
		server, serverPeer := tcpPair(t, x.Backend)
		_, s := pumping(t, ls, client, server)
		want := make([]byte, 32<<20)
		rand.NewChaCha8([32]byte{1}).Read(want)
		var wg sync.WaitGroup
		wg.Go(func() {
			serverPeer.Write(want)
			serverPeer.CloseWrite()
		})
		waitFor(t, func() (muted bool) {
			ls.Do(func(*Loop) { muted = s.pump != nil && s.pump.muted })
			return muted
		})
		got := make([]byte, len(want))
		if n, err := io.ReadFull(clientPeer, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %d bytes, %v", n, err)
		}
		if n, err := clientPeer.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("after the last byte: %d, %v", n, err)
		}
		wg.Wait()
	})
}

// A connection that is pumped from, and so does not hear that it can be written to, hears it when bytes wait for it.
func TestPumpedFromAndFull(t *testing.T) {
	t.Parallel()
	ls := startLoops(t, 1)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		client, _ := tcpPair(t, x.Client)
		server, serverPeer := tcpPair(t, x.Backend)
		_, s := pumping(t, ls, client, server)
		want := make([]byte, 16<<20)
		rand.NewChaCha8([32]byte{2}).Read(want)
		ls.Do(func(*Loop) {
			s.Write(want)
			if s.pump == nil || s.out.size == 0 {
				t.Error("the kernel has taken all at once, or the pump has stopped")
			}
		})
		got := make([]byte, len(want))
		if n, err := io.ReadFull(serverPeer, got); err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %d bytes, %v", n, err)
		}
	})
}

// pumping splices two connections, of which the server's is pumped from.
func pumping(t *testing.T, ls *Loops, client, server int) (c, s *Conn) {
	t.Helper()
	ls.Do(func(l *Loop) {
		var errC, errS error
		c, errC = l.newConn(client, nobody{})
		s, errS = l.newConn(server, nobody{})
		if err := errors.Join(errC, errS); err != nil {
			t.Error(err)
		}
	})
	if t.Failed() {
		t.FailNow()
	}
	ls.Do(func(*Loop) { // in another round: by now their events are waited for
		p := Splice(c, s, time.Minute, func(metrics.Counts, metrics.Reason) {})
		if !s.startPump(c, &p.server.moved, func() {}) {
			t.Error("no pump")
		}
	})
	return c, s
}

// tcpPair returns one end of a connection of family f to be given to a loop, and the other.
func tcpPair(t *testing.T, f ip.Family) (fd int, peer *net.TCPConn) {
	t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(iptest.Loopback(f), 0)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if peer, err = net.DialTCP("tcp", nil, l.Addr().(*net.TCPAddr)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { peer.Close() })
	peer.SetDeadline(time.Now().Add(patience))
	ours, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	raw, err := ours.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var dupErr error
	err = raw.Control(func(of uintptr) { fd, dupErr = unix.FcntlInt(of, unix.F_DUPFD_CLOEXEC, 0) })
	if err := errors.Join(err, dupErr); err != nil {
		t.Fatal(err)
	}
	return fd, peer
}
