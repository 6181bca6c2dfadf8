// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package listen

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// any0 returns the loopback of f with port 0.
func any0(t Transport, f ip.Family) Addr {
	return Addr{t, netip.AddrPortFrom(iptest.Loopback(f), 0)}
}

func newSet(t *testing.T) *Set {
	s := NewSet(Options{})
	t.Cleanup(s.Close)
	return s
}

func lend(t *testing.T, s *Set, a Addr) *Lease {
	t.Helper()
	l, err := s.lend(a, a.Transport)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// patience is how long anything may take on a busy machine before a test gives up.
const patience = time.Minute

// dial connects to a lease, whose queue the kernel serves: nobody needs to accept.
func dial(t *testing.T, a Addr) net.Conn {
	t.Helper()
	network := a.Transport.String() + "6"
	if a.Family() == ip.V4 {
		network = a.Transport.String() + "4"
	}
	c, err := net.Dial(network, a.AddrPort.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// accept takes one client, without waiting long: it is there already.
func accept(t *testing.T, l *Lease) net.Conn {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(l.FD()), Events: unix.POLLIN}}
	if n, err := unix.Poll(p, 5000); n != 1 {
		t.Fatalf("no client waits: %v", err)
	}
	fd, _, err := unix.Accept4(l.FD(), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	return connOf(t, fd)
}

func connOf(t *testing.T, fd int) net.Conn {
	t.Helper()
	f := os.NewFile(uintptr(fd), "client")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// answer proves that c has reached l.
func answer(t *testing.T, l *Lease, c net.Conn) {
	t.Helper()
	server := accept(t, l)
	if _, err := io.WriteString(server, "hello"); err != nil {
		t.Fatal(err)
	}
	server.Close()
	c.SetDeadline(time.Now().Add(patience))
	if got, err := io.ReadAll(c); string(got) != "hello" {
		t.Fatalf("got %q, %v", got, err)
	}
}

// TestReload: generation after generation takes the socket, in both orders of leasing and closing, and each client
// that waited is served.
func TestReload(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		s := newSet(t)
		l := lend(t, s, any0(TCP, f))
		a := l.Addr()
		for i := range 50 {
			waiting := dial(t, a)
			old := l
			if i%2 == 0 {
				l = lend(t, s, a)
				old.Close()
			} else {
				old.Close()
				l = lend(t, s, a)
			}
			s.Sweep()
			answer(t, l, waiting)
		}
	})
}

func TestSweep(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		s := newSet(t)
		a, err := servertest.FreeAddr(f) // nobody takes it when it has been closed
		if err != nil {
			t.Fatal(err)
		}
		l := lend(t, s, Addr{Transport: TCP, AddrPort: a})
		l.Close()
		l.Close() // once more changes nothing
		dial(t, l.Addr())
		s.Sweep()
		network := "tcp6"
		if f == ip.V4 {
			network = "tcp4"
		}
		if _, err := net.Dial(network, l.Addr().AddrPort.String()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("after Sweep: got %v, want connection refused", err)
		}
		lend(t, s, l.Addr()) // it can be opened again
	})
}

func TestClose(t *testing.T) {
	t.Parallel()
	s := newSet(t)
	l := lend(t, s, any0(TCP, ip.V6))
	s.Close()
	answer(t, l, dial(t, l.Addr())) // a lease outlives the set
	if _, err := s.Stream(l.Addr()); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
	l.Close()
}

func TestPort0(t *testing.T) {
	t.Parallel()
	s := newSet(t)
	a, b := lend(t, s, any0(TCP, ip.V4)), lend(t, s, any0(TCP, ip.V4))
	if a.Addr() == b.Addr() || a.Addr().AddrPort.Port() == 0 {
		t.Errorf("got %v and %v, want two ports", a.Addr(), b.Addr())
	}
	if again := lend(t, s, a.Addr()); again.kept != a.kept {
		t.Error("the actual address got another socket")
	}
}

// TestPacket: a packet that waits in the socket is read by the next lease.
func TestPacket(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		s := newSet(t)
		l := lend(t, s, any0(UDP, f))
		c := dial(t, l.Addr())
		if _, err := io.WriteString(c, "waiting"); err != nil {
			t.Fatal(err)
		}
		l.Close()
		l = lend(t, s, l.Addr())
		var b [16]byte
		n, from, err := unix.Recvfrom(l.FD(), b[:], 0)
		if err != nil || string(b[:n]) != "waiting" {
			t.Fatalf("got %q, %v", b[:n], err)
		}
		if err := unix.Sendto(l.FD(), []byte("answer"), 0, from); err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(patience))
		if n, err := c.Read(b[:]); string(b[:n]) != "answer" {
			t.Fatalf("got %q, %v", b[:n], err)
		}
	})
}

func TestOptions(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		addr  Addr
		level int
		opt   int
	}{
		{"only IPv6", any0(TCP, ip.V6), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY},
		{"only IPv6, UDP", any0(UDP, ip.V6), unix.IPPROTO_IPV6, unix.IPV6_V6ONLY},
		{"reuse", any0(TCP, ip.V4), unix.SOL_SOCKET, unix.SO_REUSEADDR},
		{"keep-alive", any0(TCP, ip.V6), unix.SOL_SOCKET, unix.SO_KEEPALIVE},
		{"no delay", any0(TCP, ip.V6), unix.IPPROTO_TCP, unix.TCP_NODELAY},
		{"packet info", Addr{UDP, netip.MustParseAddrPort("0.0.0.0:0")}, unix.IPPROTO_IP, unix.IP_PKTINFO},
		{"packet info", Addr{UDP, netip.MustParseAddrPort("[::]:0")}, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO},
	}
	s := newSet(t)
	for _, test := range tests {
		l := lend(t, s, test.addr)
		if on, err := unix.GetsockoptInt(l.FD(), test.level, test.opt); err != nil || on == 0 {
			t.Errorf("%s of %v: got %d, %v", test.name, test.addr, on, err)
		}
		if flags, _ := unix.FcntlInt(uintptr(l.FD()), unix.F_GETFL, 0); flags&unix.O_NONBLOCK == 0 {
			t.Errorf("%v blocks", test.addr)
		}
		if flags, _ := unix.FcntlInt(uintptr(l.FD()), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("%v would be inherited by every child", test.addr)
		}
	}
	big := NewSet(Options{ReceiveBuffer: 1 << 17, SendBuffer: 1 << 16})
	t.Cleanup(big.Close)
	l := lend(t, big, any0(UDP, ip.V4))
	for opt, want := range map[int]int{unix.SO_RCVBUF: 1 << 17, unix.SO_SNDBUF: 1 << 16} {
		if n, _ := unix.GetsockoptInt(l.FD(), unix.SOL_SOCKET, opt); n < want {
			t.Errorf("buffer %d: got %d, want %d or more", opt, n, want)
		}
	}
}

// TestInheritedByAccepted: the options of the listening socket spare a system call for each connection.
func TestInheritedByAccepted(t *testing.T) {
	t.Parallel()
	l := lend(t, newSet(t), any0(TCP, ip.V6))
	dial(t, l.Addr())
	fd, _, err := unix.Accept(l.FD())
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if on, _ := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY); on == 0 {
		t.Error("no TCP_NODELAY")
	}
	if on, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE); on == 0 {
		t.Error("no SO_KEEPALIVE")
	}
}

// TestBothWildcards: the same port of both families, each its own socket.
func TestBothWildcards(t *testing.T) {
	t.Parallel()
	s := newSet(t)
	for range 10 { // another test may hold the port of the other family
		l := lend(t, s, Addr{TCP, netip.MustParseAddrPort("[::]:0")})
		a := Addr{TCP, netip.AddrPortFrom(netip.IPv4Unspecified(), l.Addr().AddrPort.Port())}
		if _, err := s.Stream(a); err == nil {
			return
		}
	}
	t.Error("no port could be had for both families")
}

func TestErrors(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		for _, transport := range []Transport{TCP, UDP} {
			s := newSet(t)
			a := lend(t, s, any0(transport, f)).Addr()
			_, err := newSet(t).lend(a, transport)
			if want := "open " + a.String() + ": address in use by this process: "; !errors.Is(err, syscall.EADDRINUSE) ||
				!strings.HasPrefix(err.Error(), want) {
				t.Errorf("got %v, want %s…", err, want)
			}
		}
	})
	for _, addr := range []string{"192.0.2.7:8080", "[2001:db8::7]:8080"} {
		a := Addr{TCP, netip.MustParseAddrPort(addr)}
		_, err := newSet(t).Stream(a)
		if !errors.Is(err, syscall.EADDRNOTAVAIL) || !strings.Contains(err.Error(), "does not have the address") {
			t.Errorf("got %v", err)
		}
		free := NewSet(Options{FreeBind: true})
		t.Cleanup(free.Close)
		if _, err := free.Stream(Addr{TCP, netip.AddrPortFrom(a.AddrPort.Addr(), 0)}); err != nil {
			t.Errorf("with FreeBind: %v", err)
		}
	}
	if _, err := newSet(t).Packet(any0(TCP, ip.V4)); !errors.Is(err, ErrTransport) {
		t.Errorf("got %v, want ErrTransport", err)
	}
	for cause, want := range map[error]string{syscall.EACCES: "CAP_NET_BIND_SERVICE", syscall.EAFNOSUPPORT: "no ipv6",
		syscall.ENOBUFS: "no buffer space"} {
		if err := explain(any0(TCP, ip.V6), cause); !errors.Is(err, cause) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want … %s …", err, want)
		}
	}
}

func TestFindInode(t *testing.T) {
	t.Parallel()
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0 100 0 0 10 0
   1: 0100007F:1F91 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 12 1 0 20 4 30 10 -1
   2: 00000000:1F92 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 13 1 0 100 0 0 10 0
   3: 000080FE00000000FF005450B6AD1DFE:1F93 00000000000000000000000000000000:0000 0A 0:0 0:0 0 0 0 14 1 0 100 0 0 10 0
`
	tests := []struct{ addr, want string }{
		{"127.0.0.1:8080", "11"}, {"127.0.0.2:8080", ""}, {"0.0.0.0:8080", "11"}, {"127.0.0.1:8081", ""},
		{"10.0.0.1:8082", "13"}, {"[fe80::5054:ff:fe1d:adb6]:8083", "14"},
	}
	for _, test := range tests {
		got, ok := findInode(strings.NewReader(table), Addr{TCP, netip.MustParseAddrPort(test.addr)})
		if got != test.want || ok != (test.want != "") {
			t.Errorf("%s: got %q, want %q", test.addr, got, test.want)
		}
	}
}

func FuzzFindInode(f *testing.F) {
	f.Add("   0: 0100007F:1F90 00000000:0000 0A 0:0 0:0 0 0 0 11 1 0 100 0 0 10 0\n")
	f.Add("   0: 0100007F00000000:1F90 : 0A\n")
	f.Fuzz(func(t *testing.T, table string) {
		if inode, ok := findInode(strings.NewReader(table), any0(TCP, ip.V4)); ok && inode == "" {
			t.Error("found a socket without a name")
		}
	})
}
