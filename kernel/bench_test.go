// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
)

// BenchmarkProgram is what the program costs for a packet, in ns/packet, as the kernel measures it, less what its two readings
// of the clock cost, shown by a packet that passes at once.
//
//	flows=1         one flow: everything is in the processor's caches
//	flows=32768     another flow each time
//	flows=1000000   the same, and what a flow takes of memory; for the long tests
//	new             the first packet of a flow
//
// The kernel can run the program on a packet again and again, but does not restore it. So a flow has a second path here, which
// turns what the program has made of the packet into the packet again: 6→4 and 4→6 in turn.
func BenchmarkProgram(b *testing.B) {
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		b.Skip(err)
	}
	defer stats.Close()
	for _, c := range ip.Crossings() {
		for _, flows := range []int{1, 32_768, 1_000_000} {
			b.Run(fmt.Sprintf("%v/flows=%d", c, flows), func(b *testing.B) {
				if flows > 100_000 && os.Getenv("KYOZON_SOAK") == "" {
					b.Skip("runs with KYOZON_SOAK=1")
				}
				benchFlows(b, c, flows)
			})
		}
		b.Run(c.String()+"/new", func(b *testing.B) { benchNew(b, c) })
	}
}

// there and back again, while the hop limit lasts.
const (
	oneFlow  = 250
	eachFlow = 2
)

func benchFlows(b *testing.B, c ip.Crossing, n int) {
	r := newRig(b, Options{Flows: 2 * n, Pending: 4096, StandIns: 10})
	r.serve(c)
	before := r.memory()
	front := address(c.Client, "10.6.0.77", "2001:db8:6::77") // that there is a way to
	r.neighbour(r.clients, front, clientMAC())
	frames := make([][]byte, min(n, 32_768))
	for i := range n {
		p := question(c, make([]byte, 64))
		p.ttl = 255
		p.from = netip.AddrPortFrom(p.from.Addr(), uint16(1024+i%64_000))
		p.to = netip.AddrPortFrom(front, uint16(1024+i/64_000))
		if frame := p.bytes(); i < len(frames) {
			frames[i] = frame
		}
		r.loop(c, p)
	}
	if n > 100_000 {
		b.Logf("%d flows take %d bytes each", n, (r.memory()-before)/int64(n))
	}
	repeat := uint32(oneFlow)
	if n > 1 {
		repeat = eachFlow
	}
	rand.Shuffle(len(frames), func(i, j int) { frames[i], frames[j] = frames[j], frames[i] })
	pass := r.cost(b, repeat, 20_000, func(int) []byte { return arp() })
	each := func(i int) []byte { return frames[i%len(frames)] }
	r.cost(b, repeat, len(frames), each) // their routes are looked up, once a second
	done := r.forwarded()
	b.ResetTimer()
	b.ReportMetric(r.cost(b, repeat, b.N, each)-pass, "ns/packet")
	if got, want := r.forwarded()-done, uint64(b.N)*uint64(repeat); got < want { // more if a signal has come in between
		b.Errorf("%d packets were forwarded, want at least %d; %s", got, want, r.reasons())
	}
}

// forwarded counts the packets of flows.
func (r *rig) forwarded() (n uint64) {
	r.must(r.Counts(func(_ string, _ ip.Crossing, reason Reason, t Traffic) {
		if reason == Reason(forwardReasonFORWARDED) {
			n += t.Packets
		}
	}))
	return n
}

// loop makes a flow whose packet becomes another one, which becomes the first.
func (r *rig) loop(c ip.Crossing, p packet) {
	there := forwardPath{
		Saddr: sourceOf(c).Addr().As16(), Daddr: serverOf(c.Backend).Addr().As16(), Sport: port(p.from.Port()), Dport: port(p.to.Port()),
		Service: 1, Backend: 1, Mtu: mtu, Kind: forwardKindTO_SERVER, Family: uint8(c.Backend), Crossing: uint8(c.Index()), ClassMask: 255,
	}
	back := there
	back.Saddr, back.Daddr, back.Kind, back.Family = p.from.Addr().As16(), p.to.Addr().As16(), forwardKindTO_CLIENT, uint8(c.Client)
	first := tuple(transportOf(protocolUDP), p.from, p.to)
	second := forwardTuple{Saddr: there.Saddr, Daddr: there.Daddr, Sport: there.Sport, Dport: there.Dport, Protocol: protocolUDP}
	there.Addresses, back.Addresses = difference(first, second), difference(second, first)
	r.must(r.objects.Flows.Put(first, there))
	r.must(r.objects.Flows.Put(second, back))
}

// difference is what the change of addresses adds to a checksum, as the program works it out. RFC 1624
func difference(from, to forwardTuple) (sum uint32) {
	for _, a := range [][2][16]uint8{{from.Saddr, to.Saddr}, {from.Daddr, to.Daddr}} {
		for i := 0; i < 16; i += 2 {
			sum += uint32(^binary.NativeEndian.Uint16(a[0][i:])) + uint32(binary.NativeEndian.Uint16(a[1][i:]))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return sum
}

// memory returns what the established flows take, in bytes.
func (r *rig) memory() int64 {
	info, err := r.objects.Flows.Info()
	r.must(err)
	n, _ := info.Memlock()
	return int64(n)
}

func benchNew(b *testing.B, c ip.Crossing) {
	r := newRig(b, Options{Flows: 1000, Pending: 1 << 20, StandIns: 10})
	r.serve(c)
	pass := r.cost(b, 1, 20_000, func(int) []byte { return arp() })
	p := question(c, make([]byte, 64))
	b.ResetTimer()
	b.ReportMetric(r.cost(b, 1, b.N, func(i int) []byte {
		p.from = netip.AddrPortFrom(p.from.Addr(), uint16(1024+i%64_000))
		return p.bytes()
	})-pass, "ns/packet")
}

func arp() []byte { return append(append(make([]byte, 12), 0x08, 0x06), make([]byte, 92)...) }

// cost runs the program on n packets, each so many times, and returns the time of one run in nanoseconds.
func (r *rig) cost(b *testing.B, repeat uint32, n int, frame func(i int) []byte) float64 {
	before, err := r.objects.Forward.Stats()
	r.must(err)
	for i := range n {
		o := ebpf.RunOptions{Data: frame(i), Context: skb{Index: uint32(r.clients.Attrs().Index)}, Repeat: repeat}
		if _, err := r.objects.Forward.Run(&o); err != nil {
			b.Fatal(err)
		}
	}
	after, err := r.objects.Forward.Stats()
	r.must(err)
	return float64(after.Runtime-before.Runtime) / float64(after.RunCount-before.RunCount)
}
