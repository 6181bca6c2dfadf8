// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/listen"
)

// The network of the tests: the edge has one interface to clients and one to servers, and knows both neighbours.
//
//	client ── clients [edge] servers ── server
//	10.6.0.2, 2001:db8:6::2            10.1.0.2, fd00:1::2
const (
	mtu = 1500

	frontPort, serverPort, clientPort = 80, 8080, 40000
)

func address(f ip.Family, v4, v6 string) netip.Addr {
	if f == ip.V4 {
		return netip.MustParseAddr(v4)
	}
	return netip.MustParseAddr(v6)
}

func frontOf(f ip.Family) netip.AddrPort {
	return netip.AddrPortFrom(address(f, "203.0.113.10", "2001:db8:100::10"), frontPort)
}

func serverOf(f ip.Family) netip.AddrPort {
	return netip.AddrPortFrom(address(f, "10.1.0.2", "fd00:1::2"), serverPort)
}

func clientAt(f ip.Family) netip.AddrPort {
	return netip.AddrPortFrom(address(f, "10.6.0.2", "2001:db8:6::2"), clientPort)
}

// sourceOf is what the server sees of clientAt.
func sourceOf(c ip.Crossing) netip.AddrPort {
	switch {
	case c.Client == c.Backend:
		return clientAt(c.Client)
	case c.Client == ip.V6:
		return netip.AddrPortFrom(netip.MustParseAddr("100.64.0.17"), clientPort)
	}
	return netip.AddrPortFrom(ip.Embed(prefix96(), clientAt(ip.V4).Addr()), clientPort)
}

func prefix96() netip.Prefix { return netip.MustParsePrefix("fd00:46::/96") }

// rig is a plane in a namespace of its own, and the thread that is in there.
type rig struct {
	*Plane
	t       testing.TB
	space   netns.NsHandle
	clients netlink.Link
	servers netlink.Link
}

// skipOrFail skips a test that may not do what it needs, unless the environment says that it must run.
func skipOrFail(t testing.TB, err error) {
	t.Helper()
	if os.Getenv("KYOZON_LAB") != "require" && (errors.Is(err, unix.EPERM) || errors.Is(err, ebpf.ErrNotSupported)) {
		t.Skip(err)
	}
	t.Fatal(err)
}

// newRig must be the first call of a test. It binds the test to a thread in a new namespace.
func newRig(t testing.TB, o Options) *rig {
	t.Helper()
	r := newSpace(t)
	var err error
	if r.Plane, err = Open(o); err != nil {
		skipOrFail(t, err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// newSpace is newRig without a plane.
func newSpace(t testing.TB) *rig {
	t.Helper()
	runtime.LockOSThread() // never given back: the thread ends with the test's goroutine
	space, err := netns.New()
	if err != nil {
		skipOrFail(t, err)
	}
	t.Cleanup(func() {
		if err := space.Close(); err != nil {
			t.Error(err)
		}
	})
	r := &rig{t: t, space: space}
	r.clients = r.device("clients", ip.V4, "10.6.0.1/24", "2001:db8:6::1/48")
	r.servers = r.device("servers", ip.V6, "10.1.0.1/24", "fd00:1::1/64")
	r.neighbour(r.clients, clientAt(ip.V4).Addr(), clientMAC())
	r.neighbour(r.clients, clientAt(ip.V6).Addr(), clientMAC())
	r.neighbour(r.servers, serverOf(ip.V4).Addr(), serverMAC())
	r.neighbour(r.servers, serverOf(ip.V6).Addr(), serverMAC())
	return r
}

func clientMAC() net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, 6} }
func serverMAC() net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, 0, 1} }

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// device makes an interface with both families on it, which forwards.
func (r *rig) device(name string, _ ip.Family, addresses ...string) netlink.Link {
	r.t.Helper()
	r.must(netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, MTU: mtu}, PeerName: name + "1"}))
	l, err := netlink.LinkByName(name)
	r.must(err)
	for _, a := range addresses {
		parsed, err := netlink.ParseAddr(a)
		r.must(err)
		parsed.Flags = unix.IFA_F_NODAD
		r.must(netlink.AddrAdd(l, parsed))
	}
	peer, err := netlink.LinkByName(name + "1")
	r.must(err)
	r.must(netlink.LinkSetUp(peer))
	r.must(netlink.LinkSetUp(l))
	for _, family := range []string{"ipv4", "ipv6"} {
		r.must(os.WriteFile("/proc/sys/net/"+family+"/conf/"+name+"/forwarding", []byte("1"), 0))
	}
	return l
}

func (r *rig) neighbour(l netlink.Link, a netip.Addr, mac net.HardwareAddr) {
	r.t.Helper()
	family := unix.AF_INET6
	if a.Is4() {
		family = unix.AF_INET
	}
	r.must(netlink.NeighSet(&netlink.Neigh{
		LinkIndex: l.Attrs().Index, Family: family, State: netlink.NUD_PERMANENT, IP: a.AsSlice(), HardwareAddr: mac,
	}))
}

// serve makes a service for both transports with one crossing, and gives the client its stand-in.
func (r *rig) serve(c ip.Crossing) { r.serveAs(c, Service{Name: "shop"}) }

func (r *rig) spread(c ip.Crossing) { r.serveAs(c, Service{Name: "shop", Spread: true}) }

func (r *rig) clear(c ip.Crossing) { r.serveAs(c, Service{Name: "shop", ClearClass: true}) }

func (r *rig) serveAs(c ip.Crossing, s Service) {
	r.t.Helper()
	b := Backend{Addr: serverOf(c.Backend), Weight: 1, Source: SourceClient, Prefix: prefix96()}
	for _, t := range []listen.Transport{listen.TCP, listen.UDP} {
		s.Fronts = append(s.Fronts, Front{Addr: listen.Addr{Transport: t, AddrPort: frontOf(c.Client)}, Backends: []Backend{b}})
	}
	r.must(r.Apply([]Service{s}))
	r.must(r.Lease(clientAt(ip.V6).Addr(), netip.MustParseAddr("100.64.0.17")))
}

// skb is the context of a packet.
type skb struct {
	_       [36]byte
	Ingress uint32
	Index   uint32
	_       [120]byte
	Segs    uint32
	_       uint64
	GSO     uint32
	_       [12]byte
}

const (
	actUnspec   = ^uint32(0)
	actShot     = 2
	actRedirect = 7
)

// in lets a packet come in on an interface and returns the verdict and what became of it.
func (r *rig) in(l netlink.Link, frame []byte) (verdict uint32, out []byte) {
	return r.run(l, frame, 0)
}

// run is in for a super-packet with segments of the given payload; 0 is none.
func (r *rig) run(l netlink.Link, frame []byte, segment uint32) (verdict uint32, out []byte) {
	r.t.Helper()
	out = make([]byte, 4096)
	o := ebpf.RunOptions{Data: frame, DataOut: out, Context: skb{Index: uint32(l.Attrs().Index), GSO: segment}}
	verdict, err := r.objects.Forward.Run(&o)
	if len(frame) < 14+40 && errors.Is(err, unix.EINVAL) {
		return actUnspec, frame // this kernel tests no packet without a base header
	}
	r.must(err)
	return verdict, o.DataOut
}

// packet is an Ethernet frame to be built.
type packet struct {
	from, to netip.AddrPort
	protocol uint8
	ttl      uint8
	class    uint8
	id       uint16 // of IPv4
	df       bool
	label    uint32
	flags    uint8 // of TCP
	seq, ack uint32
	options  []byte // of TCP
	payload  []byte
	noSum    bool // UDP without a checksum
}

// bytes returns the frame.
func (p packet) bytes() []byte {
	var l4 []byte
	if p.protocol == protocolTCP {
		l4 = make([]byte, 20)
		binary.BigEndian.PutUint32(l4[4:], p.seq)
		binary.BigEndian.PutUint32(l4[8:], p.ack)
		l4[12], l4[13] = byte(5+len(p.options)/4)<<4, p.flags
		binary.BigEndian.PutUint16(l4[14:], 1000)
		l4 = append(l4, p.options...)
	} else {
		l4 = make([]byte, 8)
		binary.BigEndian.PutUint16(l4[4:], uint16(8+len(p.payload)))
	}
	binary.BigEndian.PutUint16(l4[0:], p.from.Port())
	binary.BigEndian.PutUint16(l4[2:], p.to.Port())
	l4 = append(l4, p.payload...)
	if !p.noSum {
		at := map[uint8]int{protocolTCP: 16, protocolUDP: 6}[p.protocol]
		sum := checksum(l4, pseudo(p.from.Addr(), p.to.Addr(), p.protocol, len(l4)))
		if sum == 0 && p.protocol == protocolUDP {
			sum = 0xffff
		}
		binary.BigEndian.PutUint16(l4[at:], sum)
	}
	return append(p.headers(len(l4)), l4...)
}

func (p packet) headers(length int) []byte {
	if p.from.Addr().Is4() {
		h := append(make([]byte, 12), 8, 0, 0x45, p.class, 0, 0, 0, 0, 0, 0, p.ttl, p.protocol, 0, 0)
		h = append(append(h, p.from.Addr().AsSlice()...), p.to.Addr().AsSlice()...)
		binary.BigEndian.PutUint16(h[16:], uint16(20+length))
		binary.BigEndian.PutUint16(h[18:], p.id)
		if p.df {
			h[20] = 0x40
		}
		binary.BigEndian.PutUint16(h[24:], checksum(h[14:34], 0))
		return h
	}
	h := append(make([]byte, 12), 0x86, 0xdd, 0, 0, 0, 0, 0, 0, p.protocol, p.ttl)
	binary.BigEndian.PutUint32(h[14:], 6<<28|uint32(p.class)<<20|p.label)
	binary.BigEndian.PutUint16(h[18:], uint16(length))
	return append(append(h, p.from.Addr().AsSlice()...), p.to.Addr().AsSlice()...)
}

func pseudo(from, to netip.Addr, protocol uint8, length int) uint32 {
	return partial(from.AsSlice(), 0) + partial(to.AsSlice(), 0) + uint32(protocol) + uint32(length)
}

func partial(b []byte, sum uint32) uint32 {
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(b[i])<<8 | uint32(b[i+1])
	}
	if len(b)%2 == 1 {
		sum += uint32(b[len(b)-1]) << 8
	}
	return sum
}

func checksum(b []byte, sum uint32) uint16 {
	sum = partial(b, sum)
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
