// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/media/stream"
)

// fate counts the packets of a fate that came in a family.
func (r *streamRig) fate(why string, from ip.Family) (n uint64) {
	r.t.Helper()
	r.must(r.Fates(func(fate control.Fate, came ip.Family, packets uint64) {
		if "passed "+fate.String() == why && came == from {
			n = packets
		}
	}))
	return n
}

// TestStreamsPass: what is not exactly a packet of the lane goes to the process, as it came, and the lane does not count it. From
// anybody else not one goes by.
func TestStreamsPass(t *testing.T) {
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		r := newStreamRig(t, StreamsOptions{Lanes: 10})
		l := laneFor(c)
		r.must(r.Put(l))
		for name, tt := range map[string]struct {
			change  func(*packet)
			frame   func([]byte) []byte
			fate    string
			several bool // as a super-packet
		}{
			"another port":          {change: func(p *packet) { p.from = netip.AddrPortFrom(p.from.Addr(), p.from.Port()+1) }},
			"another host":          {change: func(p *packet) { p.from = netip.AddrPortFrom(p.from.Addr().Next(), p.from.Port()) }},
			"another port of ours":  {change: func(p *packet) { p.to = netip.AddrPortFrom(p.to.Addr(), p.to.Port()+1) }},
			"TCP":                   {change: func(p *packet) { p.protocol = protocolTCP }},
			"another source":        {change: func(p *packet) { p.payload[8] = 9 }, fate: "passed source"},
			"a jump":                {change: func(p *packet) { binary.BigEndian.PutUint16(p.payload[2:], 4000) }, fate: "passed source"},
			"far behind":            {change: func(p *packet) { binary.BigEndian.PutUint16(p.payload[2:], 65000) }, fate: "passed source"},
			"version 1":             {change: func(p *packet) { p.payload[0] = 0x40 }, fate: "passed kind"},
			"STUN":                  {change: func(p *packet) { p.payload[0] = 0 }, fate: "passed kind"},
			"DTLS":                  {change: func(p *packet) { p.payload[0] = 22 }, fate: "passed kind"},
			"RTCP":                  {change: func(p *packet) { p.payload[1] = 200 }, fate: "passed kind"},
			"types between":         {change: func(p *packet) { p.payload[1] = 70 }, fate: "passed kind"},
			"too short for RTP":     {change: func(p *packet) { p.payload = p.payload[:11] }, fate: "passed kind"},
			"too short for any":     {change: func(p *packet) { p.payload = p.payload[:3] }, fate: "passed kind"},
			"nothing":               {change: func(p *packet) { p.payload = nil }, fate: "passed kind"},
			"long":                  {change: func(p *packet) { p.payload = append(p.payload, make([]byte, 1300)...) }, fate: "passed long"},
			"longer than it says":   {frame: func(f []byte) []byte { return append(f, 1) }, fate: "passed form"},
			"shorter than it says":  {frame: func(f []byte) []byte { return f[:len(f)-1] }, fate: "passed form"},
			"UDP that says another": {frame: func(f []byte) []byte { f[l4Of(f)+5]++; return f }, fate: "passed form"},
			"UDP that says 7":       {frame: func(f []byte) []byte { f[l4Of(f)+4], f[l4Of(f)+5] = 0, 7; return f }, fate: "passed form"},
			"several at once":       {several: true, fate: "passed form"},
			"for another host":      {frame: func(f []byte) []byte { f[0] ^= 2; return f }},
		} {
			p := spoken(c, 100)
			if tt.change != nil {
				tt.change(&p)
			}
			frame := p.bytes()
			copy(frame, r.clients.Attrs().HardwareAddr)
			if tt.frame != nil {
				frame = tt.frame(frame)
			}
			before := r.fate(tt.fate, c.Client)
			r.passesAs(name, frame, tt.several)
			if got := r.fate(tt.fate, c.Client) - before; tt.fate != "" && got != 1 {
				t.Errorf("%s: %d packets have %s", name, got, tt.fate)
			}
		}
		if c.Client == ip.V4 {
			r.passes4(c)
		} else {
			r.passes6(c)
		}
		got, _ := r.Take(l.LaneKey)
		if got != l.Tally {
			t.Errorf("counted %+v, want %+v", got, l.Tally)
		}
	})
}

func l4Of(frame []byte) int { return 14 + map[byte]int{4: 20, 6: 40}[frame[14]>>4] }

// passes has a frame come in, which must pass unchanged.
func (r *streamRig) passes(what string, frame []byte) {
	r.t.Helper()
	r.passesAs(what, frame, false)
}

// passesAs is passes, for a super-packet or for one.
func (r *streamRig) passesAs(what string, frame []byte, several bool) {
	r.t.Helper()
	s := skb{Index: uint32(r.clients.Attrs().Index)}
	if several {
		s.GSO, s.Segs = 60, 3
	}
	o := ebpf.RunOptions{Data: frame, DataOut: make([]byte, 4096), Context: s}
	verdict, err := r.Streams.objects.Streams.Run(&o)
	r.must(err)
	if verdict != actUnspec || string(o.DataOut[14:]) != string(frame[14:]) {
		r.t.Errorf("%s: verdict %d, want pass unchanged", what, int32(verdict))
	}
}

// passes4 is for what only IPv4 has.
func (r *streamRig) passes4(c ip.Crossing) {
	frame := func(change func([]byte)) []byte {
		f := spoken(c, 100).bytes()
		copy(f, r.clients.Attrs().HardwareAddr)
		change(f[14:])
		return f
	}
	sum := func(h []byte) {
		h[10], h[11] = 0, 0
		binary.BigEndian.PutUint16(h[10:], checksum(h[:20], 0))
	}
	r.passes("the first fragment", frame(func(h []byte) { h[6] = 0x20; sum(h) }))
	r.passes("a later fragment", frame(func(h []byte) { h[7] = 1; sum(h) }))
	r.passes("a header with a wrong checksum", frame(func(h []byte) { h[10]++ }))
	r.passes("a header of 24 bytes", frame(func(h []byte) { h[0] = 0x46; sum(h) }))
	p := spoken(c, 100)
	p.noSum = true
	f := p.bytes()
	copy(f, r.clients.Attrs().HardwareAddr)
	if c.Backend == ip.V6 { // RFC 8200 §8.1
		r.passes("no checksum, to IPv6", f)
	}
}

// passes6 is for what only IPv6 has.
func (r *streamRig) passes6(c ip.Crossing) {
	frame := func(change func([]byte) []byte) []byte {
		f := spoken(c, 100).bytes()
		copy(f, r.clients.Attrs().HardwareAddr)
		return append(f[:14:14], change(f[14:])...)
	}
	r.passes("version 3", frame(func(h []byte) []byte { h[0] = 0x30; return h }))
	r.passes("no checksum", frame(func(h []byte) []byte { h[46], h[47] = 0, 0; return h }))
	for name, next := range map[string]byte{"a fragment": 44, "options": 60} {
		r.passes(name, frame(func(h []byte) []byte {
			all := append(h[:40:40], protocolUDP, 0, 0, 0, 0, 0, 0, 0)
			all[6] = next
			binary.BigEndian.PutUint16(all[4:], binary.BigEndian.Uint16(all[4:])+8)
			return append(all, h[40:]...)
		}))
	}
}

// TestStreamsForms: what a lane takes besides plain RTP.
func TestStreamsForms(t *testing.T) {
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		r := newStreamRig(t, StreamsOptions{Lanes: 10})
		goes := func(what string, l *stream.Lane, p packet, want packet) {
			t.Helper()
			verdict, got := r.come(p.bytes())
			if verdict != actRedirect {
				t.Errorf("%s: verdict %d", what, int32(verdict))
				return
			}
			expect(t, what, got, want)
		}
		report := spoken(c, 100)
		report.payload = []byte{0x80, 200, 0, 1, 1, 2, 3, 4}
		among := laneFor(c)
		among.ReportFrom, among.ReportTo = 20007, 8081
		r.must(r.Put(among))
		goes("RTP", among, spoken(c, 100), left(among, spoken(c, 100)))
		want := left(among, report)
		want.from, want.to = netip.AddrPortFrom(want.from.Addr(), 20007), netip.AddrPortFrom(want.to.Addr(), 8081)
		goes("RTCP among RTP", among, report, want)
		if got, _ := r.Take(among.LaneKey); got.Packets != 11 || got.Reports != 1 {
			t.Errorf("counted %+v", got)
		}
		apart := laneFor(c)
		apart.At = stream.RTCP
		r.must(r.Put(apart))
		goes("RTCP", apart, report, left(apart, report))
		frame := spoken(c, 101).bytes()
		copy(frame, r.clients.Attrs().HardwareAddr)
		r.passes("RTP at the port of RTCP", frame)
		if got, _ := r.Take(apart.LaneKey); got.Packets != 10 || got.Reports != 1 || got.Heard == apart.Heard {
			t.Errorf("counted %+v", got)
		}
		fax := laneFor(c)
		fax.Opaque = true
		r.must(r.Put(fax))
		for _, payload := range [][]byte{{}, {1}, {0, 1, 2}, rtp(9), report.payload} {
			p := spoken(c, 0)
			p.payload = payload
			goes(fmt.Sprintf("fax of %d bytes", len(payload)), fax, p, left(fax, p))
		}
		if got, _ := r.Take(fax.LaneKey); got.Packets != 15 || got.Bytes != 1720+1+3+172+8 || got.Received != 10 {
			t.Errorf("counted %+v", got)
		}
		if c == (ip.Crossing{Client: ip.V4, Backend: ip.V4}) {
			r.must(r.Put(fax))
			p := spoken(c, 0)
			p.noSum = true
			goes("no checksum, within IPv4", fax, p, left(fax, p))
		}
	})
}

// TestStreamsSummed: what the card has summed up for the stack is still the sum of the packet that leaves. The kernel itself compares.
func TestStreamsSummed(t *testing.T) {
	if !knowsComplete(t) {
		t.Skip("this kernel does not sum packets of tests: it needs Linux 6.17")
	}
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		r := newStreamRig(t, StreamsOptions{Lanes: 10})
		r.must(r.Put(laneFor(c)))
		frame := spoken(c, 100).bytes()
		const complete = 1 << 2 // BPF_F_TEST_SKB_CHECKSUM_COMPLETE
		verdict, _ := r.comeAs(frame, skb{Index: uint32(r.clients.Attrs().Index)}, complete)
		if verdict != actRedirect {
			t.Errorf("verdict %d", int32(verdict))
		}
	})
}

// TestStreamsCount: a lane counts as package stream does, whatever the order in which packets come. Packets that the lane leaves to
// the process are counted there, and the lane goes on from that.
func TestStreamsCount(t *testing.T) {
	r := newStreamRig(t, StreamsOptions{Lanes: 10})
	c := ip.Crossings()[0]
	l := laneFor(c)
	var alone, both stream.Quality
	const clock = 8000
	feed := func(q *stream.Quality, p []byte) { q.Count(p, monotonic(), clock) }
	for number := range uint16(3) {
		feed(&alone, rtp(number))
		feed(&both, rtp(number))
	}
	number, passed := uint16(3), 0
	random := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		switch random.IntN(20) {
		case 0:
			number += uint16(random.IntN(50)) // some are lost
		case 1:
			number -= uint16(random.IntN(120)) // some are late, or again
		case 2:
			number += uint16(random.IntN(65536)) // a jump
		default:
			number++
		}
		p := rtp(number)
		if random.IntN(100) == 0 {
			p[11] = byte(random.IntN(3)) // another source
		}
		feed(&alone, p)
		l.Tally = tallyOf(&both)
		r.must(r.Put(l))
		came := spoken(c, 0)
		came.payload = p
		verdict, _ := r.come(came.bytes())
		t1, _ := r.Take(l.LaneKey)
		resume(&both, &t1)
		if verdict == actUnspec {
			passed++
			feed(&both, p)
		}
		a, b := tallyOf(&alone), tallyOf(&both)
		a.Arrival, a.Jitter, a.Heard, b.Arrival, b.Jitter, b.Heard = 0, 0, 0, 0, 0, 0
		if a != b || alone.Lost() != both.Lost() {
			t.Fatalf("number %d: %+v, with the lane %+v", number, a, b)
		}
	}
	if passed < 50 || passed > 500 {
		t.Errorf("%d packets were left to the process", passed)
	}
}

// tallyOf and resume do for a Quality what a stream does.
func tallyOf(q *stream.Quality) stream.Tally {
	s := streamWith(q)
	l, _, _, ok := s.Lane(0, stream.RTP)
	if !ok {
		panic("there is no lane")
	}
	return l.Tally
}

func resume(q *stream.Quality, t *stream.Tally) {
	s := streamWith(q)
	s.Resume(0, stream.RTP, t)
	*q = s.Ends[0].Quality
}

// streamWith is a stream of which both sides were heard.
func streamWith(q *stream.Quality) *stream.Stream {
	s := new(stream.Stream)
	for side := range s.Ends {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(side)}), 4000)
		s.Set(&control.Remote{Side: control.Side(side), RTP: at}, 1)
		s.Pass(new(stream.Counts), control.Side(side), stream.RTP, at, rtp(1), 2)
	}
	s.Ends[0].Quality = *q
	return s
}

// TestStreamsJitter: it is what package stream makes of the same times.
func TestStreamsJitter(t *testing.T) {
	r := newStreamRig(t, StreamsOptions{Lanes: 10})
	c := ip.Crossings()[3]
	l := laneFor(c)
	r.must(r.Put(l))
	was := l.Tally
	for number := uint16(100); number < 200; number++ {
		r.come(spoken(c, number).bytes())
		now, _ := r.Look(l.LaneKey)
		moved := now.Arrival - was.Arrival - 20_000_000 // 160 of 8,000 a second
		if moved < 0 {
			moved = -moved
		}
		if want := was.Jitter + moved - was.Jitter>>4; now.Jitter != want {
			t.Fatalf("packet %d: jitter %d, want %d", number, now.Jitter, want)
		}
		was = now
	}
	back := spoken(c, 200)
	binary.BigEndian.PutUint32(back.payload[4:], 100*160) // as video is, whose pictures are not sent in the order in which they are shown
	r.come(back.bytes())
	now, _ := r.Look(l.LaneKey)
	if want := was.Jitter + (now.Arrival - was.Arrival + 99*20_000_000) - was.Jitter>>4; now.Jitter != want {
		t.Errorf("a timestamp that goes back: jitter %d, want %d", now.Jitter, want)
	}
	far := spoken(c, 201)
	binary.BigEndian.PutUint32(far.payload[4:], 1<<30)
	r.come(far.bytes())
	if after, _ := r.Look(l.LaneKey); after.Jitter != now.Jitter || after.Timestamp != 1<<30 {
		t.Errorf("a timestamp far ahead: %+v", after)
	}
}

// TestStreamsBounds: there are no more lanes than there may be, and what has no way has none.
func TestStreamsBounds(t *testing.T) {
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		r := newStreamRig(t, StreamsOptions{Lanes: 2})
		for i := range 3 {
			l := laneFor(c)
			l.Local, l.Clock = relayPort(l.Local, i), []uint32{90000, 44100, 8000}[i]
			err := r.Put(l)
			if i < 2 && err != nil || i == 2 && !errors.Is(err, ErrLanes) {
				t.Errorf("lane %d: %v", i, err)
			}
		}
		l := laneFor(c)
		l.To = netip.AddrPortFrom(address(c.Backend, "192.0.2.1", "2001:db8:ffff::1"), 4000)
		if err := r.Put(l); !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("to nowhere: %v", err)
		}
		lo, err := netlink.LinkByName("lo")
		r.must(err)
		r.must(netlink.LinkSetUp(lo))
		l.To = netip.AddrPortFrom(address(c.Backend, "127.0.0.1", "::1"), 4000)
		if err := r.Put(l); !errors.Is(err, errOwn) {
			t.Errorf("to itself: %v", err)
		}
		n := 0
		r.must(r.All(func(got *stream.Lane) {
			want := laneFor(c)
			want.Local, want.Clock = got.Local, map[netip.AddrPort]uint32{relayPort(want.Local, 0): 90000, relayPort(want.Local, 1): 44100}[got.Local]
			if !got.SamePath(want) {
				t.Errorf("lane %+v, want %+v", got, want)
			}
			n++
		}))
		r.must(r.Astray(func(l *stream.Lane) { t.Errorf("astray: %+v", l) }))
		if n != 2 {
			t.Errorf("%d lanes, want 2", n)
		}
		r.must(netlink.LinkSetDown(r.servers))
		n = 0
		r.must(r.Astray(func(*stream.Lane) { n++ }))
		if n != 2 {
			t.Errorf("%d lanes are astray, want 2", n)
		}
	})
}

// TestStreamsStrict: where an interface takes only what comes by the way back to its source, so do lanes of IPv4.
func TestStreamsStrict(t *testing.T) {
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		r := newStreamRig(t, StreamsOptions{Lanes: 10})
		files, err := filepath.Glob("/proc/sys/net/ipv4/conf/*/rp_filter")
		r.must(err)
		for _, f := range files { // as the machine has it, so has a new namespace
			r.must(os.WriteFile(f, []byte("0"), 0))
		}
		r.lookStrict()
		l := laneFor(c)
		from := func(in netlink.Link) uint32 {
			r.must(r.Put(l))
			frame := spoken(c, 100).bytes()
			copy(frame, in.Attrs().HardwareAddr)
			verdict, err := r.Streams.objects.Streams.Run(&ebpf.RunOptions{Data: frame, DataOut: make([]byte, 4096), Context: skb{Index: uint32(in.Attrs().Index)}})
			r.must(err)
			return verdict
		}
		if from(r.clients) != actRedirect || from(r.servers) != actRedirect {
			t.Error("a packet does not go by its lane, wherever it comes in")
		}
		r.must(os.WriteFile("/proc/sys/net/ipv4/conf/servers/rp_filter", []byte("1"), 0))
		r.must(r.Put(l))
		astray := 0
		r.must(r.Astray(func(*stream.Lane) { astray++ }))
		if want := map[ip.Family]int{ip.V4: 1, ip.V6: 0}[c.Client]; astray != want {
			t.Errorf("%d lanes are astray, want %d", astray, want)
		}
		if got := from(r.servers); from(r.clients) != actRedirect || (got == actRedirect) != (c.Client == ip.V6) {
			t.Errorf("from where no way leads back: verdict %d", int32(got))
		}
	})
}

// TestStreamsMTU: what is longer than the way takes is the process's, whose sockets cut it: the route's MTU, or the interface's.
func TestStreamsMTU(t *testing.T) {
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		if c.Backend == ip.V6 {
			return // IPv6 has 1,280 everywhere. RFC 8200 §5
		}
		r := newStreamRig(t, StreamsOptions{Lanes: 10})
		l := laneFor(c)
		r.must(r.Put(l))
		const room = 200 // as much as the packet that leaves has
		r.must(netlink.LinkSetMTU(r.servers, room))
		astray := 0
		r.must(r.Astray(func(*stream.Lane) { astray++ }))
		r.must(r.Put(l))
		if verdict, _ := r.come(spoken(c, 100).bytes()); verdict != actRedirect || astray != 1 {
			t.Errorf("%d lanes are astray; of %d bytes: verdict %d", astray, room, int32(verdict))
		}
		long := spoken(c, 101)
		long.payload = append(long.payload, 0)
		if verdict, _ := r.come(long.bytes()); verdict != actUnspec || r.fate("passed long", c.Client) != 1 {
			t.Errorf("of a byte more: verdict %d", int32(verdict))
		}
	})
}

// TestStreamsOther: lanes of another layout end, and the folder stays.
func TestStreamsOther(t *testing.T) {
	pin := filepath.Join(bpffs(t), "media")
	r := newStreamRig(t, StreamsOptions{Lanes: 10, Pin: pin})
	r.must(r.Attach("clients"))
	r.must(r.Put(laneFor(ip.Crossings()[0])))
	before, err := os.Stat(pin)
	r.must(err)
	other := spoken(ip.Crossings()[0], 100)
	other.payload[8] = 9
	if verdict, _ := r.come(other.bytes()); verdict != actUnspec || r.fate("passed source", ip.V4) != 1 {
		t.Errorf("another source: verdict %d, %d have passed", int32(verdict), r.fate("passed source", ip.V4))
	}
	for _, tt := range []struct{ lanes, want int }{{10, 1}, {20, 0}} {
		s, err := OpenStreams(StreamsOptions{Lanes: tt.lanes, Pin: pin})
		r.must(err)
		n := 0
		r.must(s.All(func(*stream.Lane) { n++ }))
		if n != tt.want {
			t.Errorf("with room for %d there are %d, want %d", tt.lanes, n, tt.want)
		}
		r.must(s.Fates(func(why control.Fate, came ip.Family, packets uint64) {
			if packets != 0 {
				t.Errorf("%d packets have passed before it was there: %v, %v", packets, why, came)
			}
		}))
		r.must(s.Close())
	}
	if after, err := os.Stat(pin); err != nil || !os.SameFile(before, after) {
		t.Errorf("the folder is another: %v", err)
	}
	r.must(DetachStreams(pin))
	if _, err := os.Stat(pin); !os.IsNotExist(err) {
		t.Errorf("the folder is left: %v", err)
	}
}

// FuzzStreams: whatever a frame holds, it leaves with right checksums or not at all, and only if it came from who has the lane.
func FuzzStreams(f *testing.F) {
	for i, c := range ip.Crossings() {
		report := spoken(c, 100)
		report.payload = []byte{0x80, 200, 0, 1, 1, 2, 3, 4}
		for _, p := range []packet{spoken(c, 100), report, spoken(c, 9000)} {
			f.Add(byte(i), p.bytes())
		}
	}
	rig := newStreamRig(f, StreamsOptions{Lanes: 16})
	f.Fuzz(func(t *testing.T, i byte, frame []byte) {
		if len(frame) < 15 || len(frame) > 3000 {
			return
		}
		runtime.LockOSThread()
		space := *rig.rig
		r := streamRig{rig: &space, Streams: rig.Streams}
		if r.t = t; netns.Set(r.space) != nil {
			t.Fatal("enter namespace")
		}
		l := laneFor(ip.Crossings()[i&3])
		l.ReportFrom, l.ReportTo = l.From.Port(), l.To.Port()
		r.must(r.Put(l))
		defer r.Take(l.LaneKey)
		copy(frame, r.clients.Attrs().HardwareAddr)
		o := ebpf.RunOptions{Data: frame, DataOut: make([]byte, 4096), Context: skb{Index: uint32(r.clients.Attrs().Index)}}
		verdict, err := r.Streams.objects.Streams.Run(&o)
		if err != nil || verdict != actRedirect { // this kernel tests no packet without a base header
			return
		}
		if err := leaves(l, frame, o.DataOut); err != nil {
			t.Errorf("%v: %x becomes %x", err, frame, o.DataOut)
		}
	})
}

// leaves returns what is wrong with a packet that leaves by a lane.
func leaves(l *stream.Lane, came, got []byte) error {
	from, to, datagram := ends(came)
	if from != l.Remote || to != l.Local {
		return fmt.Errorf("it came from %v to %v", from, to)
	}
	right := sums(came)
	from, to, out := ends(got)
	switch {
	case from != l.From || to != l.To:
		return fmt.Errorf("it goes from %v to %v", from, to)
	case string(out[8:]) != string(datagram[8:]):
		return errors.New("its payload is another")
	case right != sums(got):
		return fmt.Errorf("its checksum is right: %v, and was: %v", !right, right)
	case l.To.Addr().Is6() && binary.BigEndian.Uint16(out[6:]) == 0:
		return errors.New("it has no checksum")
	}
	return nil
}

// ends returns where a frame with UDP comes from and goes to, and its datagram.
func ends(f []byte) (from, to netip.AddrPort, datagram []byte) {
	l4 := l4Of(f)
	var size int
	if f[14]>>4 == 4 {
		size = int(binary.BigEndian.Uint16(f[16:])) - 20
	} else {
		size = int(binary.BigEndian.Uint16(f[18:]))
	}
	n := map[int]int{34: 4, 54: 16}[l4]
	a, _ := netip.AddrFromSlice(f[l4-2*n : l4-n])
	b, _ := netip.AddrFromSlice(f[l4-n : l4])
	datagram = f[l4 : l4+size]
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(datagram)), netip.AddrPortFrom(b, binary.BigEndian.Uint16(datagram[2:])), datagram
}

// sums says whether the checksums of a frame with UDP are right. None is, in IPv4.
func sums(f []byte) bool {
	from, to, datagram := ends(f)
	if f[14]>>4 == 4 && checksum(f[14:34], 0) != 0 {
		return false
	}
	if binary.BigEndian.Uint16(datagram[6:]) == 0 {
		return f[14]>>4 == 4
	}
	return checksum(datagram, pseudo(from.Addr(), to.Addr(), protocolUDP, len(datagram))) == 0
}
