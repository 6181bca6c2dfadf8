// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package media

import (
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/media/stream"
)

// fakeKernel is a kernel plane that holds lanes and forwards nothing: the test says what they have counted.
type fakeKernel struct {
	mu    sync.Mutex
	lanes map[stream.LaneKey]stream.Lane
	full  bool
	stray bool // all lanes are astray
	puts  int
}

var errFull = errors.New("no room")

func (k *fakeKernel) Put(l *stream.Lane) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.full {
		return errFull
	}
	k.puts++
	k.lanes[l.LaneKey] = *l
	return nil
}

func (k *fakeKernel) Take(key stream.LaneKey) (stream.Tally, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l, ok := k.lanes[key]
	delete(k.lanes, key)
	return l.Tally, ok
}

func (k *fakeKernel) Look(key stream.LaneKey) (stream.Tally, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l, ok := k.lanes[key]
	return l.Tally, ok
}

func (k *fakeKernel) All(yield func(*stream.Lane)) error {
	for _, l := range k.all() {
		yield(&l)
	}
	return nil
}

func (k *fakeKernel) Astray(yield func(*stream.Lane)) error {
	k.mu.Lock()
	stray := k.stray
	k.mu.Unlock()
	if stray {
		return k.All(yield)
	}
	return nil
}

func (k *fakeKernel) Fates(yield func(control.Fate, ip.Family, uint64)) error {
	for i, why := range control.Fates() {
		yield(why, ip.V4, uint64(10+i))
		yield(why, ip.V6, uint64(20+i))
	}
	return nil
}

func (k *fakeKernel) all() (all []stream.Lane) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, l := range k.lanes {
		all = append(all, l)
	}
	return all
}

// carry has each lane have carried some packets just now.
func (k *fakeKernel) carry(packets uint32) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for key, l := range k.lanes {
		l.Heard = monotonic()
		if l.At == stream.RTCP {
			l.Reports += packets
		} else {
			l.Packets, l.Received, l.Max, l.Bytes = l.Packets+packets, l.Received+packets, l.Max+packets, l.Bytes+uint64(172*packets)
		}
		k.lanes[key] = l
	}
}

// openLanes is open with a fake kernel plane.
func openLanes(t *testing.T) (*place, *fakeKernel) {
	t.Helper()
	k := &fakeKernel{lanes: make(map[stream.LaneKey]stream.Lane)}
	return open(t, 2, Options{Kernel: k, Log: slog.New(slog.DiscardHandler)}), k
}

// TestLanesPassed: what the kernel plane does not carry is among the figures, by reason and family.
func TestLanesPassed(t *testing.T) {
	p, _ := openLanes(t)
	p.t = t
	passed := p.figures().Passed
	for i, why := range control.Fates() {
		if got4, got6 := *passed.Of(why, ip.V4), *passed.Of(why, ip.V6); got4 != uint64(10+i) || got6 != uint64(20+i) {
			t.Errorf("%v: %d and %d, want %d and %d", why, got4, got6, 10+i, 20+i)
		}
	}
}

// talked opens a call in which both have said five packets.
func (p *place) talked(t *testing.T, x ip.Crossing) (control.Call, [2]*phone) {
	t.Helper()
	p.t = t
	call := p.open([2]string{inFamily(x.Client), inFamily(x.Backend)}, 1)
	phones := [2]*phone{phoneIn(t, x.Client, 1), phoneIn(t, x.Backend, 2)}
	p.tell(call, phones, 0, nil)
	talk(t, call, phones, 0, 1)
	return call, phones
}

// wantLanes says what is wrong with the lanes of RTP of a call: there must be those of both sides, or none.
func (k *fakeKernel) wantLanes(t *testing.T, call control.Call, phones [2]*phone) {
	t.Helper()
	for side, ph := range phones {
		key := stream.LaneKey{Local: call.Local[side][0].RTP, Remote: ph.at}
		k.mu.Lock()
		got, ok := k.lanes[key]
		k.mu.Unlock()
		want := stream.Lane{LaneKey: key, From: call.Local[1-side][0].RTP, To: phones[1-side].at, Call: call.ID, Side: control.Side(side), DSCP: 46, Clock: 8000}
		if !ok || !want.SamePath(&got) {
			t.Errorf("side %d: %v: lane %+v, want %+v", side, ok, got, want)
		}
	}
}

func (k *fakeKernel) wantNone(t *testing.T, when string) {
	t.Helper()
	if all := k.all(); len(all) > 0 {
		t.Errorf("%s: %d lanes, among them %+v", when, len(all), all[0])
	}
}

// TestLanes: who was heard has a lane, which counts for him; a word of signalling, and the end, end it. The counts are one.
func TestLanes(t *testing.T) {
	p, k := openLanes(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		call, phones := p.talked(t, x)
		k.wantLanes(t, call, phones)
		k.carry(100)
		for side, h := range p.stats(call.ID).Heard {
			if q := h[0]; q.Packets != 105 || q.Bytes != 105*172 || q.Lost != 0 || q.From != phones[side].at {
				t.Errorf("side %d: %+v", side, q)
			}
		}
		k.wantLanes(t, call, phones)
		p.tell(call, phones, 0, nil)
		k.wantNone(t, "told again")
		talk(t, call, phones, 0, 106)
		k.wantLanes(t, call, phones)
		k.carry(10)
		p.tell(call, phones, 0, func(r *control.Remote) { r.RTP = netip.AddrPortFrom(netip.IPv4Unspecified(), 4000) }) // hold
		phones[0].say(call.Local[0][0].RTP, rtp(121))
		phones[0].say(call.Local[0][0].RTP, rtp(122))
		phones[0].say(call.Local[0][0].RTP, rtp(123))
		p.awaitHeard(call.ID, 0, 5+100+5+10+3)
		k.wantNone(t, "on hold")
		p.tell(call, phones, 0, nil)
		talk(t, call, phones, 0, 124)
		k.wantLanes(t, call, phones)
		if n, refused, _ := p.plane.Lanes(); n != 2 || refused != 0 {
			t.Errorf("%d lanes, %d refused", n, refused)
		}
		k.carry(1000)
		for side, h := range p.close(call.ID).Heard {
			want := uint64(5 + 100 + 5 + 10 + 3*(1-side) + 5 + 1000)
			if q := h[0]; q.Packets != want || q.Bytes != want*172 {
				t.Errorf("side %d: %+v, want %d packets", side, q, want)
			}
		}
		k.wantNone(t, "closed")
	})
	p.nothingLeft(t)
}

// TestBesideLanes: what comes beside a lane goes through, and is counted with it if it belongs there; another source ends the lane, for
// a while that is longer each time. A stranger ends none, and is not heard.
func TestBesideLanes(t *testing.T) {
	p, k := openLanes(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		call, phones := p.talked(t, x)
		k.carry(10)
		talk(t, call, phones, 0, 14) // two late ones, three that the lane has not counted
		k.wantLanes(t, call, phones)
		stranger := phoneIn(t, x.Client, 66)
		for n := range uint16(50) {
			stranger.say(call.Local[0][0].RTP, rtp(n))
		}
		p.strangers(call.ID, 50)
		k.wantLanes(t, call, phones)
		if q := p.stats(call.ID).Heard[0][0]; q.Packets != 20 || q.Bytes != 20*172 || q.Lost != 0 {
			t.Errorf("beside the lane: %+v", q)
		}
		for round := range 3 {
			for n := range againPackets<<round + 1 {
				other := rtp(uint16(1000 + 100*round + n))
				other[11] = byte(20 + round)
				phones[0].say(call.Local[0][0].RTP, other)
				phones[1].hear()
				_, lane := k.Look(stream.LaneKey{Local: call.Local[0][0].RTP, Remote: phones[0].at})
				if lane != (n == againPackets<<round) {
					t.Fatalf("round %d, packet %d of another source: a lane: %v", round, n, lane)
				}
			}
		}
		if q := p.close(call.ID).Heard[0][0]; q.Packets != 20+8+1+16+1+32+1 || q.Lost != 0 {
			t.Errorf("with other sources: %+v", q)
		}
	})
	p.nothingLeft(t)
}

// TestLanesMove: when somebody is heard who fits better, lanes from him and to him follow.
func TestLanesMove(t *testing.T) {
	p, k := openLanes(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		p.t = t
		call := p.open([2]string{inFamily(x.Client), inFamily(x.Backend)}, 1)
		exact, callee := phoneIn(t, x.Client, 1), phoneIn(t, x.Backend, 2)
		near := phoneIn(t, x.Client, 1)
		p.tell(call, [2]*phone{exact, callee}, 0, nil)
		talk(t, call, [2]*phone{near, callee}, 0, 1)
		k.wantLanes(t, call, [2]*phone{near, callee})
		k.carry(7)
		exact.say(call.Local[0][0].RTP, rtp(13))
		callee.hear()
		p.stats(call.ID)
		k.wantNone(t, "moved")
		talk(t, call, [2]*phone{exact, callee}, 0, 14)
		k.wantLanes(t, call, [2]*phone{exact, callee})
		if q := p.close(call.ID).Heard[0][0]; q.Packets != 5+7+1+5 || q.Lost != 0 {
			t.Errorf("counted %+v", q)
		}
	})
}

// TestReportLanes: RTCP goes with RTP or apart, as each side has it.
func TestReportLanes(t *testing.T) {
	p, k := openLanes(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		p.t = t
		for _, mux := range [][2]bool{{false, false}, {true, false}, {false, true}, {true, true}} {
			call := p.open([2]string{inFamily(x.Client), inFamily(x.Backend)}, 1)
			phones := [2]*phone{phoneIn(t, x.Client, 1), phoneIn(t, x.Backend, 2)}
			reports := [2]*phone{phoneIn(t, x.Client, 1), phoneIn(t, x.Backend, 2)}
			p.tell(call, phones, 0, func(r *control.Remote) {
				if r.RTCP = reports[r.Side].at; mux[r.Side] {
					r.Mux, r.RTCP = true, netip.AddrPort{}
				}
			})
			for n := range byte(5) { // they are heard
				for side := range phones {
					phones[side].say(call.Local[side][0].RTP, rtp(uint16(n)))
					phones[1-side].hear()
					if !mux[side] {
						reports[side].say(call.Local[side][0].RTCP, rtcp(n))
						if mux[1-side] {
							phones[1-side].hear()
						} else {
							reports[1-side].hear()
						}
					}
				}
			}
			for side := range phones {
				to, from := reports[1-side].at, call.Local[1-side][0].RTCP
				if mux[1-side] {
					to, from = phones[1-side].at, call.Local[1-side][0].RTP
				}
				k.mu.Lock()
				among := k.lanes[stream.LaneKey{Local: call.Local[side][0].RTP, Remote: phones[side].at}]
				apart, is := k.lanes[stream.LaneKey{Local: call.Local[side][0].RTCP, Remote: reports[side].at}]
				k.mu.Unlock()
				if mux[side] && (among.ReportFrom != from.Port() || among.ReportTo != to.Port() || is) {
					t.Errorf("mux %v, side %d: RTCP among RTP from port %d to %d, want %v to %v", mux, side, among.ReportFrom, among.ReportTo, from, to)
				}
				if !mux[side] && (among.ReportTo != 0 || !is || apart.From != from || apart.To != to || apart.At != stream.RTCP) {
					t.Errorf("mux %v, side %d: RTCP apart: %v %+v, want from %v to %v", mux, side, is, apart, from, to)
				}
			}
			k.carry(9)
			for side, h := range p.close(call.ID).Heard {
				if want := uint64(14); !mux[side] && h[0].RTCP != want {
					t.Errorf("mux %v, side %d: %d reports, want %d", mux, side, h[0].RTCP, want)
				}
			}
			k.wantNone(t, "closed")
		}
	})
}

// TestNoLanes: where the kernel plane takes no lane, or a network is not for it, media go through the process; that is counted, and
// said.
func TestNoLanes(t *testing.T) {
	p, k := openLanes(t)
	k.full = true
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		_, before, _ := p.plane.Lanes()
		call, phones := p.talked(t, x)
		talk(t, call, phones, 0, 6)
		if n, refused, why := p.plane.Lanes(); n != 0 || refused != before+2 || !strings.Contains(why, errFull.Error()) {
			t.Errorf("%d lanes, %d refused since, because %q", n, refused-before, why)
		}
		p.close(call.ID)
	})
	k.full = false
	p.t = t
	call := p.open([2]string{"other", "six"}, 1)
	phones := [2]*phone{phoneIn(t, ip.V4, 1), phoneIn(t, ip.V6, 2)}
	p.tell(call, phones, 0, nil)
	talk(t, call, phones, 0, 1)
	k.wantNone(t, "in a network that is not for the kernel")
}

// TestLanesAstray: lanes that lead elsewhere than they should are made again.
func TestLanesAstray(t *testing.T) {
	p, k := openLanes(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		call, phones := p.talked(t, x)
		k.carry(10)
		k.stray = true
		p.plane.setRight()
		k.stray = false
		p.stats(call.ID)
		k.wantNone(t, "astray")
		talk(t, call, phones, 0, 16)
		k.wantLanes(t, call, phones)
		if q := p.close(call.ID).Heard[0][0]; q.Packets != 20 || q.Lost != 0 {
			t.Errorf("counted %+v", q)
		}
	})
}

// TestLanesIdle: a call whose lanes carry something is not idle; one whose lanes do not is ended, with what they have counted.
func TestLanesIdle(t *testing.T) {
	p, k := openLanes(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		call, _ := p.talked(t, x)
		p.age(DefaultIdle * 3 / 4)
		k.carry(10)
		p.age(DefaultIdle / 2)
		p.stats(call.ID)
		k.mu.Lock()
		for key, l := range k.lanes {
			l.Heard -= int64(2 * DefaultIdle)
			k.lanes[key] = l
		}
		k.mu.Unlock()
		p.age(2 * DefaultIdle)
		if s := <-p.ended; s.Heard[0][0].Packets != 15 {
			t.Errorf("ended: %+v", s)
		}
		k.wantNone(t, "ended")
	})
	p.nothingLeft(t)
}

// TestLanesLeft: a relay that comes after one that was killed goes on with the lanes of the calls that it is told of, where they are as
// they should be, and ends the others: in time if nobody names their call, at once if they contradict.
func TestLanesLeft(t *testing.T) {
	p, k := openLanes(t)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		call, phones := p.talked(t, x)
		k.carry(10)
		left := k.all()
		elsewhere, nobody := left[0], left[1]
		elsewhere.Remote, elsewhere.Call = phoneIn(t, x.Client, 99).at, call.ID
		nobody.Remote, nobody.Call = phoneIn(t, x.Client, 98).at, call.ID+1
		nobody.Local = netip.AddrPortFrom(nobody.Local.Addr(), 9)
		p.kill(k)
		for _, l := range append(left, elsewhere, nobody) {
			if err := k.Put(&l); err != nil {
				t.Fatal(err)
			}
		}
		puts := k.puts
		p.start(2, Options{Kernel: k, Log: slog.New(slog.DiscardHandler)})
		p.awaitCalls(1)
		for side, h := range p.stats(call.ID).Heard {
			if q := h[0]; q.Packets != 13 || q.Lost != 0 || q.From != phones[side].at { // two came beside the lane, which has died
				t.Errorf("side %d: %+v", side, q)
			}
		}
		k.wantLanes(t, call, phones)
		if n := len(k.all()); n != 3 || k.puts != puts {
			t.Errorf("%d lanes, want those of the call, untouched, and one that may still be claimed", n)
		}
		for _, l := range p.plane.left.over(time.Now().Add(DefaultGrace * 2)) {
			k.Take(l.LaneKey)
		}
		if n := len(k.all()); n != 2 {
			t.Errorf("%d lanes when nobody has claimed one", n)
		}
		p.close(call.ID)
		k.wantNone(t, "closed")
	})
	p.nothingLeft(t)
}

// TestLanesTaken: a call that has a port which a lane is left of ends that.
func TestLanesTaken(t *testing.T) {
	p, k := openLanes(t)
	p.t = t
	at := netip.MustParseAddrPort("127.0.0.2:20002")
	p.kill(k)
	for i := range uint16(4) {
		l := stream.Lane{LaneKey: stream.LaneKey{Local: netip.AddrPortFrom(at.Addr(), 20000+2*i), Remote: at}, From: at, To: at, Call: control.ID(i)}
		if err := k.Put(&l); err != nil {
			t.Fatal(err)
		}
	}
	p.start(2, Options{Kernel: k, Log: slog.New(slog.DiscardHandler)})
	p.awaitLink()
	call := p.open([2]string{"other", "six"}, 1)
	if _, ok := k.Look(stream.LaneKey{Local: call.Local[0][0].RTP, Remote: at}); ok || len(k.all()) != 3 {
		t.Errorf("%d lanes are left, among them one at %v: %v", len(k.all()), call.Local[0][0].RTP, ok)
	}
}

// kill ends the plane as if it were killed: its lanes stay.
func (p *place) kill(k *fakeKernel) {
	p.t.Helper()
	stays := k.all()
	p.stop()
	for _, l := range stays {
		if err := k.Put(&l); err != nil {
			p.t.Fatal(err)
		}
	}
}

// awaitLink waits until the client has connected again.
func (p *place) awaitLink() {
	p.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		r := p.try([2]string{"four", "four"}, 1)
		if r.err == nil {
			p.close(r.call.ID)
			return
		}
		if !errors.Is(r.err, control.ErrDown) || time.Now().After(deadline) {
			p.t.Fatal(r.err)
		}
	}
}
