// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package media

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/relay"
)

const (
	inside   = "KYOZON_MEDIA_INSIDE"
	patience = time.Minute // for anything, on a machine that has much to do
)

// TestMain runs the tests in a network of their own, where prefixes can be given to the loopback interface. Without root
// there is none, and tests that need a prefix are skipped.
func TestMain(m *testing.M) {
	if os.Getenv(inside) == "" && os.Geteuid() == 0 {
		os.Exit(unshared())
	}
	servertest.Main(m)
}

func unshared() int {
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Args[0] = os.Args[0]
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.Env = append(os.Environ(), inside+"=1")
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	err := c.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return max(exit.ExitCode(), 1)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// needNetwork gives the test's network its loopback interface.
func needNetwork(t testing.TB) {
	t.Helper()
	if os.Getenv(inside) == "" {
		if os.Getenv("KYOZON_LAB") == "require" {
			t.Fatal("needs root")
		}
		t.Skip("needs root, for a network of its own")
	}
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// place is a plane that runs, and a client of it.
type place struct {
	t      testing.TB
	plane  *Plane
	loops  *relay.Loops
	client *control.Client
	path   string
	stop   func() // ends the plane
	ended  chan control.Stats
}

func networks() []Network {
	prefix := func(s string) netip.Prefix { return netip.MustParsePrefix(s) }
	return []Network{
		{Name: "four", Media: prefix("127.0.0.1/32"), Low: 20000, High: 20999, Kernel: true},
		{Name: "other", Media: prefix("127.0.0.2/32"), Low: 20000, High: 20007},
		{Name: "six", Media: prefix("fd00:50::/64"), Kernel: true},
		{Name: "ports", Media: prefix("fd00:51::1/128"), Low: 20000, High: 20999},
	}
}

// inFamily is the network of the tests for a family.
func inFamily(f ip.Family) string { return map[ip.Family]string{ip.V4: "four", ip.V6: "six"}[f] }

// open starts a plane with n loops, and a client.
func open(t testing.TB, n int, o Options) *place {
	t.Helper()
	needNetwork(t)
	route, err := addRoute(netip.MustParsePrefix("fd00:51::/48"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(route)
	p := &place{t: t, path: filepath.Join(t.TempDir(), "media.sock"), ended: make(chan control.Stats, 100)}
	p.start(n, o)
	t.Cleanup(func() { p.stop() })
	up := make(chan error, 100)
	p.client = control.NewClient(control.Options{Path: p.path, Link: func(err error) { up <- err }})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { p.client.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	if err := <-up; err != nil {
		t.Fatal(err)
	}
	return p
}

// start starts the plane.
func (p *place) start(n int, o Options) {
	p.t.Helper()
	ls, err := relay.Open(n)
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { ls.Run(ctx) })
	o.Loops, o.Networks = ls, networks()
	plane, err := Open(o)
	if err != nil {
		p.t.Fatal(err)
	}
	l, err := control.Listen(p.path)
	if err != nil {
		p.t.Fatal(err)
	}
	wg.Go(func() { plane.Run(ctx) })
	wg.Go(func() {
		if err := control.Serve(ctx, l, plane); err != nil {
			p.t.Error(err)
		}
	})
	p.plane, p.loops = plane, ls
	p.stop = func() {
		cancel()
		wg.Wait()
		plane.Close()
		ls.Close()
		p.stop = func() {}
	}
}

func now(fn func()) { fn() }

// result is what a request came to.
type result struct {
	call control.Call
	err  error
}

func (p *place) open(networks [2]string, streams int) control.Call {
	p.t.Helper()
	r := p.try(networks, streams)
	if r.err != nil {
		p.t.Fatal(r.err)
	}
	return r.call
}

func (p *place) try(networks [2]string, streams int) result {
	results := make(chan result, 1)
	p.client.Open(control.Opening{Spec: control.Spec{Networks: networks, Streams: streams}, Post: now,
		Done:  func(c control.Call, err error) { results <- result{c, err} },
		Ended: func(s control.Stats) { p.ended <- s }})
	return <-results
}

func (p *place) reshape(id control.ID, networks [2]string, streams int) result {
	results := make(chan result, 1)
	p.client.Reshape(id, control.Spec{Networks: networks, Streams: streams}, now, func(c control.Call, err error) { results <- result{c, err} })
	return <-results
}

// stats asks what a call has carried. What was told before has been done by then.
func (p *place) stats(id control.ID) control.Stats {
	p.t.Helper()
	told := make(chan control.Stats, 1)
	p.client.Stats(id, now, func(s control.Stats, err error) {
		if err != nil {
			p.t.Error(err)
		}
		told <- s
	})
	return <-told
}

// awaitHeard waits until so many packets of a side have been taken.
func (p *place) awaitHeard(id control.ID, side int, n uint64) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		got := p.stats(id).Heard[side][0].Packets
		if got == n {
			return
		}
		if got > n || time.Now().After(deadline) {
			p.t.Fatalf("%d packets were heard, want %d", got, n)
		}
	}
}

// strangers waits until so many packets of strangers have been dropped.
func (p *place) strangers(id control.ID, n uint64) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		s := p.stats(id)
		got := uint64(0)
		for _, side := range s.Heard {
			for _, q := range side {
				got += q.Strangers
			}
		}
		if got == n {
			return
		}
		if got > n || time.Now().After(deadline) {
			p.t.Fatalf("%d packets of strangers were dropped, want %d", got, n)
		}
	}
}

func (p *place) close(id control.ID) control.Stats {
	p.t.Helper()
	told := make(chan control.Stats, 1)
	p.client.Close(id, now, func(s control.Stats, err error) {
		if err != nil {
			p.t.Error(err)
		}
		told <- s
	})
	return <-told
}

// phone is a socket of somebody who speaks.
type phone struct {
	t    testing.TB
	conn *net.UDPConn
	at   netip.AddrPort
}

func newPhone(t testing.TB, a netip.Addr) *phone {
	t.Helper()
	free := func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) {
			if a.Is6() {
				syscall.SetsockoptInt(int(fd), syscall.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
			}
		})
	}
	l := net.ListenConfig{Control: free}
	pc, err := l.ListenPacket(t.Context(), "udp"+map[bool]string{true: "4", false: "6"}[a.Is4()], netip.AddrPortFrom(a, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	c := pc.(*net.UDPConn)
	t.Cleanup(func() { c.Close() })
	return &phone{t: t, conn: c, at: ip.CanonicalPort(c.LocalAddr().(*net.UDPAddr).AddrPort())}
}

// phoneIn returns a phone at an address of a family that nobody else of the test has.
func phoneIn(t testing.TB, f ip.Family, n byte) *phone {
	t.Helper()
	if f == ip.V4 {
		return newPhone(t, netip.AddrFrom4([4]byte{127, 1, 0, n}))
	}
	return newPhone(t, netip.AddrFrom16([16]byte{0: 0xfd, 3: 0x51, 7: n, 15: 1}))
}

func (p *phone) say(to netip.AddrPort, packet []byte) {
	p.t.Helper()
	if _, err := p.conn.WriteToUDPAddrPort(packet, to); err != nil {
		p.t.Fatal(err)
	}
}

// hear returns the next packet and who it is from.
func (p *phone) hear() ([]byte, netip.AddrPort) {
	p.t.Helper()
	b := make([]byte, 4096)
	p.conn.SetReadDeadline(time.Now().Add(patience))
	n, from, err := p.conn.ReadFromUDPAddrPort(b)
	if err != nil {
		p.t.Fatal(err)
	}
	return b[:n], ip.CanonicalPort(from)
}

// silent says whether nothing has come.
func (p *phone) silent() bool {
	p.t.Helper()
	raw, err := p.conn.SyscallConn()
	if err != nil {
		p.t.Fatal(err)
	}
	nothing := false
	raw.Control(func(fd uintptr) {
		_, _, err := syscall.Recvfrom(int(fd), make([]byte, 1), syscall.MSG_DONTWAIT|syscall.MSG_PEEK)
		nothing = errors.Is(err, syscall.EAGAIN)
	})
	return nothing
}

func rtp(number uint16) []byte {
	p := make([]byte, 172)
	p[0] = 0x80
	binary.BigEndian.PutUint16(p[2:], number)
	binary.BigEndian.PutUint32(p[4:], uint32(number)*160)
	p[11] = 7
	return p
}

func rtcp(n byte) []byte { return []byte{0x80, 200, 0, 6, 1, 2, 3, n, 0, 0, 0, 0} }
