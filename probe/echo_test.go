// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// inNetwork runs fn in a network of its own, with loopback, and a link at which nobody answers: 192.0.2.0/24 and
// 2001:db8::/64 are behind it. 100.64.0.0/16 and 2001:db8:64::/96 are local, as stand-ins are.
func inNetwork(t *testing.T, fn func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // ends with the goroutine, and the network with it
		err := os.NewSyscallError("unshare", unix.Unshare(unix.CLONE_NEWNET))
		if err == nil {
			if err = furnish(); err == nil {
				fn()
			}
		}
		done <- err
	}()
	err := <-done
	if errors.Is(err, syscall.EPERM) && os.Getenv("KYOZON_LAB") != "require" {
		t.Skip("needs root to make a network: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func furnish() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	silent, end := netlink.LinkAttrs{Name: "silent", Flags: net.FlagUp}, netlink.LinkAttrs{Name: "end"}
	errs := []error{netlink.LinkSetUp(lo), netlink.LinkAdd(&netlink.Veth{LinkAttrs: silent, PeerName: end.Name}),
		netlink.LinkSetUp(&netlink.Veth{LinkAttrs: end})}
	for _, at := range []string{"192.0.2.1/24", "2001:db8::1/64"} {
		a, err := netlink.ParseAddr(at)
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD
		errs = append(errs, netlink.AddrAdd(&netlink.Veth{LinkAttrs: silent}, a))
	}
	for _, p := range []string{"100.64.0.0/16", "2001:db8:64::/96"} {
		to, err := netlink.ParseIPNet(p)
		if err != nil {
			return err
		}
		errs = append(errs, netlink.RouteAdd(&netlink.Route{LinkIndex: lo.Attrs().Index, Dst: to, Type: unix.RTN_LOCAL,
			Table: unix.RT_TABLE_LOCAL, Scope: netlink.SCOPE_HOST}))
	}
	return errors.Join(errs...)
}

// mayPing says which groups may open sockets for pings. In a new network none may.
func mayPing(groups string) error {
	return os.WriteFile("/proc/sys/net/ipv4/ping_group_range", []byte(groups), 0)
}

// TestEcho: both kinds of sockets, also from an address that no interface has.
func TestEcho(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		inNetwork(t, func() { echoes(t, "raw", f) })
		inNetwork(t, func() {
			if err := errors.Join(mayPing("0 2147483647"), dropCapabilities()); err != nil { // of this thread, which ends
				t.Error(err)
			}
			echoes(t, "ping", f)
		})
	})
}

func echoes(t *testing.T, kind string, f ip.Family) {
	standIn, silent, away := netip.MustParseAddr("100.64.0.1"), netip.MustParseAddr("192.0.2.9"), netip.MustParseAddr("198.51.100.1")
	if f == ip.V6 {
		standIn, silent, away = netip.MustParseAddr("2001:db8:64::c000:201"), netip.MustParseAddr("2001:db8::9"),
			netip.MustParseAddr("2001:db8:1::1")
	}
	for _, test := range []struct{ at, from netip.Addr }{
		{iptest.Loopback(f), netip.Addr{}}, {iptest.Loopback(f), standIn}, {standIn, iptest.Loopback(f)}, {standIn, standIn.Next()},
	} {
		r := Echo(t.Context(), Target{Addr: netip.AddrPortFrom(test.at, 9), Local: test.from})
		if r.Err != nil || len(r.Phases) != 1 || r.Phases[0].Name != "echo" {
			t.Errorf("%s, from %v to %v: got %+v", kind, test.from, test.at, r)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if r := Echo(ctx, Target{Addr: netip.AddrPortFrom(silent, 9)}); !errors.Is(r.Err, ErrTimeout) {
		t.Errorf("%s, nobody there: got %v", kind, r.Err)
	}
	if r := Echo(t.Context(), Target{Addr: netip.AddrPortFrom(away, 9)}); !errors.Is(r.Err, syscall.ENETUNREACH) {
		t.Errorf("%s, no route: got %v", kind, r.Err)
	}
}

// TestEchoWithoutRight: who has neither right is told which there are.
func TestEchoWithoutRight(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		inNetwork(t, func() {
			if err := dropCapabilities(); err != nil {
				t.Error(err)
			}
			r := Echo(t.Context(), Target{Addr: netip.AddrPortFrom(iptest.Loopback(f), 9)})
			if !errors.Is(r.Err, ErrMayNotPing) || errors.Is(r.Err, syscall.EPERM) {
				t.Errorf("got %v", r.Err)
			}
		})
	})
}

func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return os.NewSyscallError("capset", unix.Capset(&header, &none[0]))
}

// TestUDP: a server that answers, one that does not, and a port at which nobody is.
func TestUDP(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		network := map[ip.Family]string{ip.V4: "udp4", ip.V6: "udp6"}[f]
		c, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.AddrPortFrom(iptest.Loopback(f), 0)))
		if err != nil {
			t.Fatal(err)
		}
		addr := ip.CanonicalPort(c.LocalAddr().(*net.UDPAddr).AddrPort())
		from := iptest.Loopback(f)
		if f == ip.V4 {
			from = netip.MustParseAddr("127.64.3.2")
		}
		done := make(chan struct{})
		go func() {
			defer close(done)
			p := make([]byte, 100)
			for n := 0; ; n++ {
				size, who, err := c.ReadFromUDPAddrPort(p)
				if err != nil {
					return
				}
				if size != 1 || ip.Canonical(who.Addr()) != from {
					t.Errorf("got %d bytes from %v", size, who)
				}
				if n > 0 { // as if the first had been lost
					c.WriteToUDPAddrPort(p[:size], who)
				}
			}
		}()
		if r := UDP(t.Context(), Target{Addr: addr, Local: from}); r.Err != nil || len(r.Phases) != 1 {
			t.Errorf("a server that answers: got %+v", r)
		}
		c.Close()
		<-done
		if r := UDP(t.Context(), Target{Addr: addr, Local: from}); !errors.Is(r.Err, syscall.ECONNREFUSED) {
			t.Errorf("nobody there: got %v", r.Err)
		}
	})
}

// TestUDPSilent: no answer is an error that says so, and the end of the context is obeyed.
func TestUDPSilent(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		network := map[ip.Family]string{ip.V4: "udp4", ip.V6: "udp6"}[f]
		c, err := net.ListenUDP(network, net.UDPAddrFromAddrPort(netip.AddrPortFrom(iptest.Loopback(f), 0)))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		addr := ip.CanonicalPort(c.LocalAddr().(*net.UDPAddr).AddrPort())
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		if r := UDP(ctx, Target{Addr: addr}); !errors.Is(r.Err, ErrTimeout) || len(r.Phases) != 0 {
			t.Errorf("got %+v", r)
		}
		ctx, cancel = context.WithCancel(t.Context())
		cancel()
		if r := UDP(ctx, Target{Addr: addr}); !errors.Is(r.Err, context.Canceled) {
			t.Errorf("got %v", r.Err)
		}
	})
}

func FuzzEchoReply(f *testing.F) {
	question := map[ip.Family][]byte{ip.V4: []byte("\x08\x00\x00\x00abcd0123456789abcdef"),
		ip.V6: []byte("\x80\x00\x00\x00abcd0123456789abcdef")}
	for family, q := range question {
		f.Add(q)
		reply := append([]byte(nil), q...)
		reply[0] = map[ip.Family]byte{ip.V4: echoReply4, ip.V6: echoReply6}[family]
		f.Add(reply)
		f.Add(reply[:len(reply)-1])
		f.Add(append(reply, 0))
		f.Add(reply[:7])
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		for family, q := range question {
			want := len(p) == len(q) && string(p[8:]) == string(q[8:]) && p[1] == 0 &&
				p[0] == map[ip.Family]byte{ip.V4: 0, ip.V6: 129}[family]
			if got := isEchoReply(family, p, q); got != want {
				t.Errorf("%v: % x: got %v, want %v", family, p, got, want)
			}
		}
	})
}

// TestEchoQuestion: each has other data, and the checksum that RFC 1071 asks for, so that the sum of all is -0.
func TestEchoQuestion(t *testing.T) {
	t.Parallel()
	a, b := echoQuestion(ip.V4), echoQuestion(ip.V4)
	if string(a[8:]) == string(b[8:]) {
		t.Error("two questions have the same data")
	}
	for _, q := range [][]byte{a, b} {
		if got := checksum(q); got != 0 {
			t.Errorf("% x: the checksum of a message with its checksum is %x, want 0", q, got)
		}
	}
}
