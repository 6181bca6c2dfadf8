// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"encoding/binary"
	"math"
	"net/netip"
	"testing"
	"time"

	"github.com/kyozon/kyozon/media/control"
)

// rtp returns a packet.
func rtp(number uint16, timestamp, ssrc uint32) []byte {
	p := make([]byte, 172)
	p[0] = 0x80
	binary.BigEndian.PutUint16(p[2:], number)
	binary.BigEndian.PutUint32(p[4:], timestamp)
	binary.BigEndian.PutUint32(p[8:], ssrc)
	return p
}

func rtcp() []byte { return []byte{0x80, 200, 0, 6, 1, 2, 3, 4, 0, 0, 0, 0} }

func TestKindOf(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		p    []byte
		want Kind
	}{
		{"nothing", nil, Other},
		{"RTP", rtp(1, 2, 3), Media},
		{"RTP with a marker and a dynamic type", append([]byte{0x80, 0x80 | 96}, make([]byte, 10)...), Media},
		{"short RTP", rtp(1, 2, 3)[:11], Other},
		{"RTCP", rtcp(), Report},
		{"feedback", append([]byte{0x81, 205}, make([]byte, 10)...), Report},
		{"short RTCP", rtcp()[:7], Other},
		{"a type that would be RTCP", append([]byte{0x80, 72}, make([]byte, 10)...), Other},
		{"version 1", append([]byte{0x40}, make([]byte, 20)...), Other},
		{"version 3", append([]byte{0xc0}, make([]byte, 20)...), Other},
		{"STUN", append([]byte{0, 1}, make([]byte, 18)...), Other},
		{"ZRTP", append([]byte{0x10}, make([]byte, 20)...), Other},
		{"DTLS", []byte{22, 254, 255}, Keys},
		{"TURN channel", append([]byte{0x40, 1}, make([]byte, 18)...), Other},
	} {
		if got := KindOf(tt.p); got != tt.want {
			t.Errorf("%s: %d, want %d", tt.name, got, tt.want)
		}
	}
}

// both returns a stream whose sides are at these addresses.
func both(caller, callee control.Remote) *Stream {
	s := new(Stream)
	caller.Side, callee.Side = control.Caller, control.Callee
	s.Set(&caller, 0)
	s.Set(&callee, 0)
	return s
}

// TestPass: what comes in at each port leaves where the other side wants it, in all combinations of RTCP at a port of its
// own and at that of RTP.
func TestPass(t *testing.T) {
	t.Parallel()
	a, b, bRTCP := at(sdp4), at(sdp6), at("[2001:db8:1::1]:4001")
	plain := both(control.Remote{RTP: a}, control.Remote{RTP: b})
	mux := both(control.Remote{RTP: a, Mux: true}, control.Remote{RTP: b, Mux: true})
	mixed := both(control.Remote{RTP: a, Mux: true}, control.Remote{RTP: b})
	own := both(control.Remote{RTP: a}, control.Remote{RTP: b, RTCP: at("[2001:db8:1::1]:9")})
	fax := both(control.Remote{RTP: a, Opaque: true}, control.Remote{RTP: b, Opaque: true})
	half := both(control.Remote{RTP: a}, control.Remote{})
	var tally Counts
	for _, tt := range []struct {
		name string
		s    *Stream
		side control.Side
		at   Port
		from netip.AddrPort
		p    []byte
		out  Port
		to   netip.AddrPort
	}{
		{"RTP", plain, control.Caller, RTP, a, rtp(1, 1, 1), RTP, b},
		{"RTP back", plain, control.Callee, RTP, b, rtp(1, 1, 1), RTP, a},
		{"RTCP", plain, control.Callee, RTCP, bRTCP, rtcp(), RTCP, at("192.0.2.1:4001")},
		{"RTCP at the port of RTP", plain, control.Caller, RTP, a, rtcp(), 0, netip.AddrPort{}},
		{"RTP at the port of RTCP", plain, control.Callee, RTCP, bRTCP, rtp(1, 1, 1), 0, netip.AddrPort{}},
		{"DTLS", plain, control.Caller, RTP, a, []byte{22}, RTP, b},
		{"DTLS at the port of RTCP", plain, control.Callee, RTCP, bRTCP, []byte{22}, RTCP, at("192.0.2.1:4001")},
		{"STUN", plain, control.Caller, RTP, a, make([]byte, 20), 0, netip.AddrPort{}},
		{"a stranger", plain, control.Caller, RTP, at(evil4), rtp(1, 1, 1), 0, netip.AddrPort{}},
		{"RTCP, mux", mux, control.Caller, RTP, a, rtcp(), RTP, b},
		{"RTCP from mux", mixed, control.Caller, RTP, a, rtcp(), RTCP, bRTCP},
		{"RTCP to mux", mixed, control.Callee, RTCP, bRTCP, rtcp(), RTP, a},
		{"DTLS to mux", mixed, control.Callee, RTCP, bRTCP, []byte{22}, RTP, a},
		{"RTCP at a port of its own", own, control.Callee, RTCP, at("[2001:db8:1::1]:9"), rtcp(), RTCP, at("192.0.2.1:4001")},
		{"RTCP to a port of its own", own, control.Caller, RTCP, at("192.0.2.1:4001"), rtcp(), RTCP, at("[2001:db8:1::1]:9")},
		{"a fax", fax, control.Caller, RTP, a, []byte{0, 1, 2}, RTP, b},
		{"no fax at the port of RTCP", fax, control.Callee, RTCP, bRTCP, []byte{0, 1, 2}, 0, netip.AddrPort{}},
		{"to nobody yet", half, control.Caller, RTP, a, rtp(1, 1, 1), RTP, netip.AddrPort{}},
	} {
		out, to, ok := tt.s.Pass(&tally, tt.side, tt.at, tt.from, tt.p, 1)
		if out != tt.out || to != tt.to || ok != tt.to.IsValid() {
			t.Errorf("%s: leaves from port %d to %v, %v; want %d, %v", tt.name, out, to, ok, tt.out, tt.to)
		}
	}
	if got := plain.Ends[0]; got.Strangers != 3 || got.Quality.Packets != 1 || got.Heard != 1 {
		t.Errorf("of the caller: %d strangers, %d packets, heard at %d", got.Strangers, got.Quality.Packets, got.Heard)
	}
	want := Counts{}
	want.Dropped[control.Stranger], want.Dropped[control.Unknown], want.Dropped[control.Misplaced], want.Dropped[control.Nowhere] = 1, 2, 2, 1
	want.Latched[control.Exactly] = 10
	if tally != want {
		t.Errorf("counted %+v, want %+v", tally, want)
	}
}

// TestLatched: it is counted how somebody was found; who is found better is found once more.
func TestLatched(t *testing.T) {
	t.Parallel()
	signal := at("192.0.2.9:1")
	s := both(control.Remote{RTP: at(sdp4), Signal: signal.Addr()}, control.Remote{RTP: at(sdp6)})
	var got Counts
	for _, from := range []netip.AddrPort{signal, signal, at(port4), at(evil4), at(sdp4), at(port4)} {
		s.Pass(&got, control.Caller, RTP, from, rtp(1, 1, 1), 1)
	}
	want := Counts{}
	want.Latched[control.Signalled], want.Latched[control.Near], want.Latched[control.Exactly] = 1, 1, 1
	want.Dropped[control.Stranger] = 2
	if got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

// TestReports: who shares the address of somebody that was heard cannot speak for him at the port for RTCP.
func TestReports(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, rtp, rtcp string
		ok              bool
	}{
		{"as described", sdp4, "192.0.2.1:4001", true},
		{"another port, of who was heard as described", sdp4, "192.0.2.1:9", false},
		{"another port, of who was heard from another port", port4, "192.0.2.1:9", true},
		{"another port, before anybody was heard", "", "192.0.2.1:9", true},
		{"as described, of who was heard from another port", port4, "192.0.2.1:4001", true},
		{"a stranger", sdp4, evil4, false},
	} {
		s := both(control.Remote{RTP: at(sdp4)}, control.Remote{RTP: at(sdp6)})
		if tt.rtp != "" {
			s.Pass(new(Counts), control.Caller, RTP, at(tt.rtp), rtp(1, 1, 1), 1)
		}
		if _, _, ok := s.Pass(new(Counts), control.Caller, RTCP, at(tt.rtcp), rtcp(), 2); ok != tt.ok {
			t.Errorf("%s: heard: %v", tt.name, ok)
		}
	}
}

// TestQuality: loss and jitter of what a source sends, packet by packet.
func TestQuality(t *testing.T) {
	t.Parallel()
	type packet struct {
		number    uint16
		late      time.Duration
		ssrc      uint32
		timestamp uint32 // 0: 160 for each number
	}
	flow := func(from, n int, skip func(i int) bool) (all []packet) {
		for i := range n {
			if skip == nil || !skip(i) {
				all = append(all, packet{number: uint16(from + i), ssrc: 7, timestamp: uint32((i + 1) * 160)})
			}
		}
		return all
	}
	for _, tt := range []struct {
		name    string
		packets []packet
		lost    uint64
		jitter  time.Duration
	}{
		{"nothing", nil, 0, 0},
		{"all", flow(65500, 100, nil), 0, 0},
		{"one in ten", flow(0, 100, func(i int) bool { return i%10 == 5 }), 10, 0},
		{"over the end of the numbers", flow(65500, 100, func(i int) bool { return i == 36 }), 1, 0},
		{"out of order", []packet{{1, 0, 7, 160}, {3, 0, 7, 480}, {2, 0, 7, 320}, {4, 0, 7, 640}}, 0, 0},
		{"twice", []packet{{1, 0, 7, 160}, {2, 0, 7, 320}, {2, 0, 7, 320}, {3, 0, 7, 480}}, 0, 0},
		{"another source", append(flow(0, 10, func(i int) bool { return i == 4 }), packet{30000, 0, 8, 1760}, packet{30002, 0, 8, 2080}), 2, 0},
		{"began anew", append(flow(0, 10, nil), packet{30000, 0, 7, 1760}, packet{30001, 0, 7, 1920}, packet{30002, 0, 7, 2080}), 0, 0},
		{"a digit", []packet{{1, 0, 7, 160}, {2, 0, 7, 160}, {3, 0, 7, 160}, {4, 0, 7, 640}}, 0, 0},
		{"one packet late", []packet{{1, 0, 7, 160}, {2, 16 * time.Millisecond, 7, 320}}, 0, time.Millisecond},
		{"absurd timestamps", []packet{{1, 0, 7, 160}, {2, 0, 7, 1 << 31}, {3, 0, 7, 480}}, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var q Quality
			for _, p := range tt.packets {
				sent := time.Hour + time.Duration(p.timestamp)*time.Second/8000
				q.Count(rtp(p.number, p.timestamp, p.ssrc), int64(sent+p.late), 8000)
			}
			if q.Packets != uint64(len(tt.packets)) || q.Bytes != 172*q.Packets || q.Lost() != tt.lost || q.Jitter() != tt.jitter {
				t.Errorf("%d packets, %d lost, jitter %v; want %d, %d, %v", q.Packets, q.Lost(), q.Jitter(), len(tt.packets), tt.lost, tt.jitter)
			}
		})
	}
}

// TestMOS: the figures of the E-model, for some loss.
func TestMOS(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		packets, lost uint64
		jitter        time.Duration
		want          float64
	}{
		{0, 0, 0, 0},
		{1000, 0, 0, 4.40},
		{990, 10, 0, 4.32},
		{950, 50, 0, 3.90},
		{800, 200, 0, 2.61},
		{1000, 0, 50 * time.Millisecond, 4.36},
		{1000, 0, 300 * time.Millisecond, 1.58},
		{1, 100_000, 0, 1.16},
	} {
		q := Quality{Packets: tt.packets, lost: tt.lost, jitter: int64(tt.jitter) << 4}
		if got := q.MOS(); math.Abs(float64(got)-tt.want) > 0.02 {
			t.Errorf("%d packets, %d lost, jitter %v: %.2f, want %.2f", tt.packets, tt.lost, tt.jitter, got, tt.want)
		}
	}
}

// TestAllocations: a packet that passes costs no memory, nor does one that is dropped.
func TestAllocations(t *testing.T) {
	s := both(control.Remote{RTP: at(sdp4)}, control.Remote{RTP: at(sdp6)})
	p, from, evil, tally := rtp(1, 160, 7), at(sdp4), at(evil4), new(Counts)
	if n := testing.AllocsPerRun(100, func() {
		s.Pass(tally, control.Caller, RTP, from, p, 1)
		s.Pass(tally, control.Caller, RTP, evil, p, 1)
	}); n > 0 {
		t.Errorf("%v allocations a packet", n)
	}
}

func BenchmarkPass(b *testing.B) {
	s := both(control.Remote{RTP: at(sdp4)}, control.Remote{RTP: at(sdp6)})
	p, from := rtp(1, 160, 7), at(sdp4)
	for i := 0; b.Loop(); i++ {
		binary.BigEndian.PutUint16(p[2:], uint16(i))
		binary.BigEndian.PutUint32(p[4:], uint32(i)*160)
		s.Pass(new(Counts), control.Caller, RTP, from, p, int64(i)*int64(20*time.Millisecond))
	}
}

// FuzzPass: whatever comes, a stranger passes nothing, and the figures remain figures.
func FuzzPass(f *testing.F) {
	f.Add(rtp(1, 2, 3), rtp(2, 162, 3), int64(1), false)
	f.Add(rtcp(), []byte{22, 254}, int64(2), true)
	f.Fuzz(func(t *testing.T, first, second []byte, step int64, mux bool) {
		s := both(control.Remote{RTP: at(sdp4), Mux: mux}, control.Remote{RTP: at(sdp6), Mux: mux})
		for i, p := range [][]byte{first, second, first} {
			now := max(step, 0) / 4 * int64(i)
			for _, port := range []Port{RTP, RTCP} {
				if _, _, ok := s.Pass(new(Counts), control.Caller, port, at(evil4), p, now); ok {
					t.Error("a stranger was heard")
				}
				s.Pass(new(Counts), control.Caller, port, at(sdp4), p, now)
			}
		}
		q := &s.Ends[0].Quality
		if m := q.MOS(); m != 0 && (m < 1 || m > 4.5) || q.Jitter() < 0 || q.Lost() > 1<<33 {
			t.Errorf("MOS %v, jitter %v, %d lost", q.MOS(), q.Jitter(), q.Lost())
		}
	})
}
