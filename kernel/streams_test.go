// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/media/stream"
)

// streamRig is the relay's part of the kernel between a client and a server: it has an address on each side.
type streamRig struct {
	*rig
	*Streams
}

func newStreamRig(t testing.TB, o StreamsOptions) *streamRig {
	t.Helper()
	r := &streamRig{rig: newSpace(t)}
	var err error
	if r.Streams, err = OpenStreams(o); err != nil {
		skipOrFail(t, err)
	}
	t.Cleanup(func() {
		if err := r.Streams.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// relayAt is the relay's port towards the client, or the server.
func relayAt(f ip.Family, toServer bool) netip.AddrPort {
	if toServer {
		return netip.AddrPortFrom(address(f, "10.1.0.1", "fd00:1::1"), 20006)
	}
	return netip.AddrPortFrom(address(f, "10.6.0.1", "2001:db8:6::1"), 20004)
}

// laneFor is the lane from the client to the server.
func laneFor(c ip.Crossing) *stream.Lane {
	l := &stream.Lane{LaneKey: stream.LaneKey{Local: relayAt(c.Client, false), Remote: clientAt(c.Client)},
		From: relayAt(c.Backend, true), To: serverOf(c.Backend), Call: 7, Stream: 3, DSCP: 46, Clock: 8000}
	l.SSRC, l.Max, l.Base, l.Received, l.Packets, l.Bytes = 7, 99, 90, 10, 10, 1720
	l.Timestamp, l.Arrival = 99*160, monotonic()
	return l
}

func monotonic() int64 {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}

// spoken is a packet of RTP of the client to the relay.
func spoken(c ip.Crossing, number uint16) packet {
	return packet{from: clientAt(c.Client), to: relayAt(c.Client, false), protocol: protocolUDP, ttl: 7, class: 0xb8, payload: rtp(number)}
}

func rtp(number uint16) []byte {
	p := make([]byte, 172)
	p[0] = 0x80
	binary.BigEndian.PutUint16(p[2:], number)
	binary.BigEndian.PutUint32(p[4:], uint32(number)*160)
	binary.BigEndian.PutUint32(p[8:], 7)
	return p
}

// left is the packet that leaves.
func left(l *stream.Lane, p packet) packet {
	p.from, p.to, p.ttl, p.class, p.df = l.From, l.To, 64, l.DSCP<<2, true
	return p
}

// come has a frame come in from the client, addressed to this machine.
func (r *streamRig) come(frame []byte) (verdict uint32, out []byte) {
	r.t.Helper()
	return r.comeAs(frame, skb{Index: uint32(r.clients.Attrs().Index)}, 0)
}

func (r *streamRig) comeAs(frame []byte, s skb, flags uint32) (verdict uint32, out []byte) {
	r.t.Helper()
	copy(frame, r.clients.Attrs().HardwareAddr)
	o := ebpf.RunOptions{Data: frame, DataOut: make([]byte, 4096), Context: s, Flags: flags}
	verdict, err := r.Streams.objects.Streams.Run(&o)
	r.must(err)
	return verdict, o.DataOut
}

// TestStreams: what was heard is sent on as a packet of the relay, with its class and hop limit, whatever the family, and counted.
func TestStreams(t *testing.T) {
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		r := newStreamRig(t, StreamsOptions{Lanes: 10})
		l := laneFor(c)
		r.must(r.Put(l))
		for number := uint16(100); number < 110; number++ {
			verdict, got := r.come(spoken(c, number).bytes())
			if verdict != actRedirect {
				t.Fatalf("packet %d: verdict %d, want redirect", number, int32(verdict))
			}
			expect(t, "packet", got, left(l, spoken(c, number)))
		}
		before, ok := r.Look(l.LaneKey)
		got, taken := r.Take(l.LaneKey)
		if !ok || !taken || got != before {
			t.Errorf("%+v is looked at, %+v taken", before, got)
		}
		if got.Packets != 20 || got.Bytes != 20*172 || got.Max != 109 || got.Received != 20 || got.Base != 90 || got.SSRC != 7 ||
			got.Timestamp != 109*160 || got.Heard < l.Arrival || got.Arrival != got.Heard {
			t.Errorf("counted: %+v", got)
		}
		if verdict, _ := r.come(spoken(c, 110).bytes()); verdict != actUnspec {
			t.Errorf("the lane is gone: verdict %d, want pass", int32(verdict))
		}
	})
}

// relayPort is the nth port of the relay: at an address of its own out of a prefix, or at a single address.
func relayPort(first netip.AddrPort, n int) netip.AddrPort {
	if first.Addr().Is4() {
		return netip.AddrPortFrom(first.Addr(), uint16(20000+n))
	}
	a := first.Addr().As16()
	binary.BigEndian.PutUint64(a[8:], ip.Mix(uint64(n)))
	return netip.AddrPortFrom(netip.AddrFrom16(a), 5004)
}

// benchLanes is what the program costs for a packet of RTP, with another of n lanes each time, in an order that no processor can guess.
func BenchmarkStreams(b *testing.B) {
	for _, c := range ip.Crossings() {
		for _, n := range []int{64, turn} {
			b.Run(c.String()+fmt.Sprint("/streams=", n), func(b *testing.B) { benchLanes(b, c, n) })
		}
	}
}

func benchLanes(b *testing.B, c ip.Crossing, n int) {
	r := newStreamRig(b, StreamsOptions{Lanes: n})
	frames := make([][]byte, n)
	for i, at := range rand.Perm(n) {
		l, p := laneFor(c), spoken(c, 100)
		l.Remote, l.Local = clientOfFlow(c, i), relayPort(l.Local, i)
		l.To = netip.AddrPortFrom(l.To.Addr(), uint16(1024+i))
		r.must(r.Put(l))
		p.from, p.to = l.Remote, l.Local
		frames[at] = p.bytes()
		copy(frames[at], r.clients.Attrs().HardwareAddr)
	}
	size := uint32(len(frames[0]) - 14 - 160)
	t := &turns{in: r.clients, ours: r.Streams.objects.Streams, tick: slices.Concat(add(int16(size)-10, asm.Half, 1), add(int16(size)-8, asm.Word, 160))}
	t.write(r.rig, b, c, frames, size)
	t.program(b)
	var ours, restore []float64
	b.ResetTimer()
	for range max(5, b.N/turn) {
		ours, restore = append(ours, t.program(b)), append(restore, t.restore(b))
	}
	b.ReportMetric(median(ours)-median(restore), "ns/packet")
	b.ReportMetric(slices.Min(ours)-slices.Min(restore), "ns/least")
	b.ReportMetric(median(restore), "ns/restore")
	var got uint64
	r.must(r.All(func(l *stream.Lane) { got += uint64(l.Packets) - 10 }))
	if got != t.ran && !t.interrupted {
		b.Errorf("%d packets were forwarded, want %d", got, t.ran)
	}
}
