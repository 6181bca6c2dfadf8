// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/listen"
)

// lab is a rig with a client and a server that has one family, in namespaces of their own, as sockets of this process.
type lab struct {
	*rig
	c              ip.Crossing
	client, server netns.NsHandle
}

func newLab(t *testing.T, c ip.Crossing, o Options) *lab {
	t.Helper()
	r := newRig(t, o)
	l := &lab{rig: r, c: c}
	gateway4, gateway6 := netip.MustParseAddr("10.6.0.1"), netip.MustParseAddr("2001:db8:6::1")
	l.client = l.host("clients1", clientMAC(), address(c.Client, "10.6.0.2", "2001:db8:6::2"), address(c.Client, gateway4.String(), gateway6.String()))
	l.server = l.host("servers1", serverMAC(), serverOf(c.Backend).Addr(), address(c.Backend, "10.1.0.1", "fd00:1::1"))
	l.serve(c)
	r.must(l.Attach("clients"))
	r.must(l.Attach("servers"))
	return l
}

// host moves an interface into a new namespace, gives it an address and a way out, and comes back.
func (l *lab) host(iface string, mac net.HardwareAddr, a, gateway netip.Addr) netns.NsHandle {
	l.t.Helper()
	space, err := netns.New()
	l.must(err)
	l.t.Cleanup(func() { _ = space.Close() })
	l.must(netns.Set(l.space))
	link, err := netlink.LinkByName(iface)
	l.must(err)
	l.must(netlink.LinkSetNsFd(link, int(space)))
	l.must(netns.Set(space))
	l.must(netlink.LinkSetHardwareAddr(link, mac))
	bits := 64
	if a.Is4() {
		bits = 24
	}
	l.must(netlink.AddrAdd(link, &netlink.Addr{
		IPNet: &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(bits, a.BitLen())}, Flags: unix.IFA_F_NODAD,
	}))
	l.must(netlink.LinkSetUp(link))
	l.must(netlink.RouteAdd(&netlink.Route{LinkIndex: link.Attrs().Index, Gw: gateway.AsSlice()}))
	l.must(netns.Set(l.space))
	return space
}

// within calls f with the thread in a namespace. A socket that is made there stays there.
func (l *lab) within(space netns.NsHandle, f func() error) {
	l.t.Helper()
	l.must(netns.Set(space))
	err := f()
	l.must(netns.Set(l.space))
	l.must(err)
}

func network(t listen.Transport, f ip.Family) string {
	return t.String() + fmt.Sprint(byte(f))
}

// connect opens a listening socket at the server, and a connection of the client to the front; accepted is the server's end.
func (l *lab) connect() (client, accepted net.Conn) {
	l.t.Helper()
	var door net.Listener
	l.within(l.server, func() (err error) {
		door, err = net.Listen(network(listen.TCP, l.c.Backend), serverOf(l.c.Backend).String())
		return err
	})
	defer door.Close()
	l.within(l.client, func() (err error) {
		client, err = net.Dial(network(listen.TCP, l.c.Client), frontOf(l.c.Client).String())
		return err
	})
	accepted, err := door.Accept()
	l.must(err)
	l.t.Cleanup(func() { _, _ = client.Close(), accepted.Close() })
	return client, accepted
}

// copies sends data from one to the other and wants it whole.
func (l *lab) copies(from, to net.Conn, data []byte) {
	l.t.Helper()
	sent := make(chan error, 1)
	go func() {
		_, err := from.Write(data)
		sent <- err
	}()
	got := make([]byte, len(data))
	_, err := io.ReadFull(to, got)
	l.must(errors.Join(err, <-sent))
	if !bytes.Equal(got, data) {
		l.t.Fatal("the data are not the same")
	}
}

// segmentAtEdge switches off what the edge's interfaces would leave to a card, so that the receivers must check each checksum.
func (l *lab) segmentAtEdge() {
	l.t.Helper()
	for _, iface := range []string{"clients", "servers"} {
		if out, err := exec.Command("ethtool", "-K", iface, "tx", "off", "tso", "off", "gso", "off").CombinedOutput(); err != nil {
			if os.Getenv("KYOZON_LAB") != "require" && errors.Is(err, exec.ErrNotFound) {
				l.t.Skip(err)
			}
			l.t.Fatalf("ethtool: %v: %s", err, out)
		}
	}
}

func random(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{})
	_, _ = r.Read(b)
	return b
}

// TestTraffic: a client's connection reaches a server of one family, which sees the client's stand-in; bulk goes both ways whole, as
// super-packets and in segments that the receivers check.
func TestTraffic(t *testing.T) {
	for _, segments := range []bool{false, true} {
		t.Run(fmt.Sprintf("segments=%v", segments), func(t *testing.T) {
			iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
				l := newLab(t, c, Options{Flows: 100, Pending: 100, StandIns: 10})
				if segments {
					l.segmentAtEdge()
				}
				client, server := l.connect()
				seen := server.RemoteAddr().(*net.TCPAddr).AddrPort()
				if seen.Addr() != sourceOf(c).Addr() || seen.Port() != client.LocalAddr().(*net.TCPAddr).AddrPort().Port() {
					t.Errorf("the server sees %v", seen)
				}
				data := random(8 << 20)
				l.copies(client, server, data)
				l.copies(server, client, data)
				l.noBadSegments()
			})
		})
	}
}

// noBadSegments asks both hosts whether a checksum was wrong.
func (l *lab) noBadSegments() {
	l.t.Helper()
	for _, space := range []netns.NsHandle{l.client, l.server} {
		l.within(space, func() error {
			out, err := exec.Command("nstat", "-asz", "TcpInCsumErrors", "UdpInCsumErrors", "Udp6InCsumErrors").CombinedOutput()
			if err != nil {
				return fmt.Errorf("nstat: %w: %s", err, out)
			}
			for line := range bytes.Lines(out) {
				if f := bytes.Fields(line); len(f) == 3 && string(f[1]) != "0" {
					l.t.Errorf("checksums were wrong: %s", line)
				}
			}
			return nil
		})
	}
}

// TestDatagrams: datagrams of all lengths are echoed, also those that must be sent in fragments.
func TestDatagrams(t *testing.T) {
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		l := newLab(t, c, Options{Flows: 100, Pending: 100, StandIns: 10})
		l.segmentAtEdge()
		var server net.PacketConn
		var client net.Conn
		l.within(l.server, func() (err error) {
			server, err = net.ListenPacket(network(listen.UDP, c.Backend), serverOf(c.Backend).String())
			return err
		})
		defer server.Close()
		l.within(l.client, func() (err error) {
			client, err = net.Dial(network(listen.UDP, c.Client), frontOf(c.Client).String())
			return err
		})
		defer client.Close()
		go func() {
			b := make([]byte, 9000)
			for {
				n, from, err := server.ReadFrom(b)
				if err != nil {
					return
				}
				_, _ = server.WriteTo(b[:n], from)
			}
		}()
		got := make([]byte, 9000)
		for _, n := range []int{0, 1, 1231, 1232, 1233, 1400, 1452, 1900, 4000} {
			data := random(n)
			if _, err := client.Write(data); err != nil {
				t.Fatal(err)
			}
			m, err := client.Read(got)
			if err != nil || !bytes.Equal(got[:m], data) {
				t.Fatalf("%d bytes: %d came back, %v; %s", n, m, err, l.reasons())
			}
		}
		l.noBadSegments()
	})
}

// TestKill: flows go on when the process closes its plane without a word and another takes over; with TCX, and as on a
// kernel that has only clsact.
func TestKill(t *testing.T) {
	pin := bpffs(t)
	for name, filters := range map[string]bool{"tcx": false, "clsact": true} {
		t.Run(name, func(t *testing.T) { killPlane(t, pin+"/"+name, filters) })
	}
}

func killPlane(t *testing.T, pin string, filters bool) {
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		o := Options{Flows: 100, Pending: 100, StandIns: 10, Pin: pin + fmt.Sprint(c.Index()), filters: filters}
		l := newLab(t, c, o)
		client, server := l.connect()
		data := random(1 << 20)
		l.copies(client, server, data)
		l.must(l.Close())
		l.copies(server, client, data) // nobody is there
		var err error
		l.Plane, err = Open(o)
		l.must(err)
		if len(l.applied.fronts) != 2 || len(l.applied.backends) != 1 {
			t.Errorf("took over %d fronts and %d backends", len(l.applied.fronts), len(l.applied.backends))
		}
		l.must(l.Attach("clients"))
		l.must(l.Attach("servers"))
		l.serve(c)
		l.copies(client, server, data)
		n := 0
		l.must(l.Flows(func(Flow) bool { n++; return true }))
		if n != 1 {
			t.Errorf("%d flows, want 1", n)
		}
		link, err := netlink.LinkByName("clients")
		l.must(err)
		if got := hasFilter(t, link); got != filters {
			t.Errorf("there is a filter: %v, want %v", got, filters)
		}
		l.must(Detach(o.Pin))
		if hasFilter(t, link) {
			t.Error("a filter is left")
		}
	})
}

// hasFilter says whether an interface has a filter of clsact.
func hasFilter(t *testing.T, l netlink.Link) bool {
	t.Helper()
	all, err := netlink.FilterList(l, netlink.HANDLE_MIN_INGRESS)
	if err != nil && !errors.Is(err, unix.EINVAL) { // there is no clsact
		t.Fatal(err)
	}
	return len(all) > 0
}

// bpffs mounts a BPF file system for a test.
func bpffs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("bpf", dir, "bpf", 0, ""); err != nil {
		skipOrFail(t, err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}
