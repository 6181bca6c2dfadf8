// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"testing"

	"github.com/kyozon/kyozon/ip"
)

// BenchmarkProgram is what the program costs for a packet of TCP, in ns/packet.
//
//	flows=1         one flow: everything is in the processor's caches
//	flows=32768     another flow each time, in an order that no processor can guess
//	flows=1000000   the same, and what a flow takes of memory; for the long tests
//	new             the first packet of a flow
//
// The kernel runs a program on a packet again and again (BPF_PROG_TEST_RUN), but does not restore it. So it runs another one,
// which puts the next flow's headers in the place of what has become of the last ones, and then goes on in ours:
//
//	┌─▶ the packet is of the other family now? change it back ─▶ write the next headers into it ─▶ ours ─┐
//	└───────────────────────────────────────────────────────────────────────────────────────────────────┘
//
// Turns of that and turns that do not go on in ours follow one another; the figure is the difference of the medians.
func BenchmarkProgram(b *testing.B) {
	for _, c := range ip.Crossings() {
		for _, flows := range []int{1, 32_768, 1_000_000} {
			for _, way := range []string{"to-server", "to-client"} {
				b.Run(fmt.Sprintf("%v/flows=%d/%s", c, flows, way), func(b *testing.B) {
					if flows > 100_000 && os.Getenv("KYOZON_SOAK") == "" {
						b.Skip("runs with KYOZON_SOAK=1")
					}
					benchFlows(b, c, flows, way == "to-server")
				})
			}
		}
		b.Run(c.String()+"/new", func(b *testing.B) { benchNew(b, c) })
	}
}

const perHost = 60_000 // ports of a client that the flows have

func benchFlows(b *testing.B, c ip.Crossing, n int, toServer bool) {
	r := newRig(b, Options{Flows: 2 * n, Pending: 4096, StandIns: 10})
	r.serve(c)
	before := r.memory()
	frames := make([][]byte, n)
	for i := range n {
		p := r.flow(c, i)
		if !toServer {
			p.from, p.to = serverOf(c.Backend), serverSees(c, i)
		}
		frames[i] = p.bytes()
	}
	if n > 100_000 {
		b.Logf("%d flows take %d bytes each", n, (r.memory()-before)/int64(n))
	}
	rand.Shuffle(n, func(i, j int) { frames[i], frames[j] = frames[j], frames[i] })
	t := r.turns(b, c, frames, toServer)
	for range (n + turn - 1) / turn { // each once
		t.program(b) // routes are looked up, once a second
	}
	done, first := r.counter(Reason(forwardReasonFORWARDED)), t.ran
	var ours, restore []float64
	b.ResetTimer()
	for range max(5, b.N/turn) {
		ours, restore = append(ours, t.program(b)), append(restore, t.restore(b))
	}
	b.ReportMetric(median(ours)-median(restore), "ns/packet")
	b.ReportMetric(slices.Min(ours)-slices.Min(restore), "ns/least")
	b.ReportMetric(median(restore), "ns/restore")
	if got, want := r.counter(Reason(forwardReasonFORWARDED))-done, t.ran-first; got != want && !t.interrupted {
		b.Errorf("%d packets were forwarded, want %d; %s", got, want, r.reasons())
	}
}

// benchNew has all flows be new ones again and again. Their SYN has the option that is amended.
func benchNew(b *testing.B, c ip.Crossing) {
	r := newRig(b, Options{Flows: 1000, StandIns: 10})
	r.serve(c)
	frames := make([][]byte, turn)
	for i := range frames {
		p := question(c, nil)
		p.protocol, p.flags, p.options = protocolTCP, 0x02, []byte{2, 4, 1460 >> 8, 1460 & 255}
		p.from = clientOfFlow(c, i)
		frames[i] = p.bytes()
	}
	t := r.turns(b, c, frames, true)
	var ours, restore []float64
	for i := range max(5, b.N/turn) {
		cost, rest := t.program(b), t.restore(b)
		if i > 0 { // from now on, memory has been touched
			ours, restore = append(ours, cost), append(restore, rest)
		}
		r.clearPending(c)
	}
	b.ReportMetric(median(ours)-median(restore), "ns/packet")
	b.ReportMetric(slices.Min(ours)-slices.Min(restore), "ns/least")
	if got := r.counter(Reason(forwardReasonFORWARDED_NEW)); got != t.ran && !t.interrupted {
		b.Errorf("%d flows were made, want %d; %s", got, t.ran, r.reasons())
	}
}

// clearPending forgets the flows of benchNew in the order in which they came, as flows do that become established, or that others
// push out.
func (r *rig) clearPending(c ip.Crossing) {
	var path forwardPath
	for i := range turn {
		key := tuple(transportOf(protocolTCP), clientOfFlow(c, i), frontOf(c.Client))
		r.must(r.objects.Pending.Lookup(key, &path))
		r.must(r.objects.Pending.Delete(key))
		r.must(r.objects.Pending.Delete(turned(&path, protocolTCP)))
	}
}

// counter counts the packets that had a reason.
func (r *rig) counter(of Reason) (n uint64) {
	r.must(r.Counts(func(_ string, _ ip.Crossing, reason Reason, t Traffic) {
		if reason == of {
			n += t.Packets
		}
	}))
	return n
}

// flow makes the nth flow as one that is established, and returns what its client says.
func (r *rig) flow(c ip.Crossing, n int) packet {
	p := question(c, make([]byte, 64))
	p.protocol, p.flags = protocolTCP, 0x10
	p.from, p.to = clientOfFlow(c, n), frontOf(c.Client)
	sees := serverSees(c, n)
	there := forwardPath{
		Saddr: sees.Addr().As16(), Daddr: serverOf(c.Backend).Addr().As16(), Sport: port(sees.Port()), Dport: port(serverPort),
		Service: 1, Backend: 1, Mtu: mtu, Kind: forwardKindTO_SERVER, Family: uint8(c.Backend), Crossing: uint8(c.Index()),
	}
	back := there
	back.Saddr, back.Daddr, back.Sport, back.Dport = p.to.Addr().As16(), p.from.Addr().As16(), port(p.to.Port()), port(p.from.Port())
	back.Kind, back.Family = forwardKindTO_CLIENT, uint8(c.Client)
	first, second := tuple(transportOf(protocolTCP), p.from, p.to), tuple(transportOf(protocolTCP), serverOf(c.Backend), sees)
	there.Addresses, there.Ports = difference(first, turned(&there, protocolTCP))
	back.Addresses, back.Ports = difference(second, turned(&back, protocolTCP))
	r.must(r.objects.Flows.Put(first, there))
	r.must(r.objects.Flows.Put(second, back))
	return p
}

// clientOfFlow is who has the nth flow: hosts of one subscriber, each with so many ports.
func clientOfFlow(c ip.Crossing, n int) netip.AddrPort {
	a := clientAt(c.Client).Addr()
	for range n / perHost {
		a = a.Next()
	}
	return netip.AddrPortFrom(a, uint16(1024+n%perHost))
}

// serverSees is what the server sees of clientOfFlow.
func serverSees(c ip.Crossing, n int) netip.AddrPort {
	a := sourceOf(c).Addr()
	for range n / perHost {
		a = a.Next()
	}
	return netip.AddrPortFrom(a, uint16(1024+n%perHost))
}

// difference is what a packet that turns from one tuple into another adds to a checksum, as the program works it out:
// its addresses and its ports. to is turned round. RFC 1624
func difference(from, to forwardTuple) (uint16, uint16) {
	var addresses, ports uint32
	for _, a := range [][2][16]uint8{{from.Saddr, to.Daddr}, {from.Daddr, to.Saddr}} {
		for i := 0; i < 16; i += 2 {
			addresses += uint32(^binary.NativeEndian.Uint16(a[0][i:])) + uint32(binary.NativeEndian.Uint16(a[1][i:]))
		}
	}
	ports += uint32(^from.Sport) + uint32(to.Dport) + uint32(^from.Dport) + uint32(to.Sport)
	return fold(addresses), fold(ports)
}

func fold(sum uint32) uint16 {
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// memory returns what the established flows take, in bytes.
func (r *rig) memory() int64 {
	info, err := r.objects.Flows.Info()
	r.must(err)
	n, _ := info.Memlock()
	return int64(n)
}

func median(all []float64) float64 {
	slices.Sort(all)
	return all[len(all)/2]
}
