// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package media

import (
	"bytes"
	"errors"
	"net/netip"
	"runtime"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/relay"
)

// talk has each say packets to the other, from n on, and hear them from where he sends to.
func talk(t *testing.T, call control.Call, phones [2]*phone, stream int, n uint16) {
	t.Helper()
	for i := range uint16(5) {
		for side, p := range phones {
			other := phones[1-side]
			p.say(call.Local[side][stream].RTP, rtp(n+i))
			if got, from := other.hear(); !bytes.Equal(got, rtp(n+i)) || from != call.Local[1-side][stream].RTP {
				t.Fatalf("side %d heard %d bytes from %v, want those of packet %d from %v", 1-side, len(got), from, n+i, call.Local[1-side][stream].RTP)
			}
		}
	}
}

// tell says where the phones are.
func (p *place) tell(call control.Call, phones [2]*phone, stream int, change func(*control.Remote)) {
	for side, ph := range phones {
		r := control.Remote{Side: control.Side(side), Stream: uint8(stream), RTP: ph.at, DSCP: 46}
		if change != nil {
			change(&r)
		}
		p.client.Update(call.ID, r)
	}
	p.stats(call.ID) // it has been told
}

// Media go both ways over every crossing, with addresses of their own and with ports, RTP and RTCP; then the call is
// closed, and nothing is left of it.
func TestCrossings(t *testing.T) {
	p := open(t, 2, Options{})
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		p.t = t
		for range 4 { // on either loop
			call := p.open([2]string{inFamily(x.Client), inFamily(x.Backend)}, 2)
			phones := [2]*phone{phoneIn(t, x.Client, 1), phoneIn(t, x.Backend, 2)}
			p.tell(call, phones, 1, nil)
			talk(t, call, phones, 1, 10)
			stats := p.close(call.ID)
			for side, heard := range stats.Heard {
				q := heard[1]
				if q.Packets != 5 || q.Bytes != 5*172 || q.Lost != 0 || q.Strangers != 0 || q.MOS == 0 || q.From != phones[side].at {
					t.Errorf("side %d: %+v", side, q)
				}
				if heard[0].Packets != 0 {
					t.Errorf("side %d: %+v in the other stream", side, heard[0])
				}
			}
		}
		if n := p.plane.Calls(); n != 0 {
			t.Errorf("%d calls are left", n)
		}
	})
	p.nothingLeft(t)
}

// nothingLeft says what of addresses and ports is still taken.
func (p *place) nothingLeft(t *testing.T) {
	t.Helper()
	p.plane.Calls() // what was asked before has been done
	for name, n := range p.plane.places.Load().current {
		if n.count != 0 || n.used.Load() != 0 {
			t.Errorf("network %s: %d pairs of ports are left, %d in use", name, n.count, n.used.Load())
		}
	}
	p.plane.options.Loops.Do(func(l *relay.Loop) {
		if n := p.plane.shards[l.ID()].count.streams; n != 0 {
			t.Errorf("loop %d: %d streams are left", l.ID(), n)
		}
		if n := p.plane.shards[l.ID()].pairs.count; n != 0 {
			t.Errorf("loop %d: %d addresses are left", l.ID(), n)
		}
	})
}

// RTCP has a port of its own, or not, on either side.
func TestRTCP(t *testing.T) {
	p := open(t, 1, Options{})
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
			for n := range byte(3) {
				for side := range phones {
					speaker, to := reports[side], call.Local[side][0].RTCP
					if mux[side] {
						speaker, to = phones[side], call.Local[side][0].RTP
					}
					listener, from := reports[1-side], call.Local[1-side][0].RTCP
					if mux[1-side] {
						listener, from = phones[1-side], call.Local[1-side][0].RTP
					}
					speaker.say(to, rtcp(n))
					if got, by := listener.hear(); !bytes.Equal(got, rtcp(n)) || by != from {
						t.Fatalf("mux %v, side %d: heard %x from %v, want it from %v", mux, 1-side, got, by, from)
					}
				}
			}
			if s := p.close(call.ID); s.Heard[0][0].RTCP != 3 || s.Heard[1][0].RTCP != 3 || s.Heard[0][0].Packets != 0 {
				t.Errorf("mux %v: %+v", mux, s)
			}
		}
	})
	p.nothingLeft(t)
}

// A stranger who sends to every port, before anybody was heard and after, speaks to nobody and hears nothing; nor does one
// who sends from another port of the phone's own address, once it was heard.
func TestStranger(t *testing.T) {
	p := open(t, 2, Options{})
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		p.t = t
		call := p.open([2]string{inFamily(x.Client), inFamily(x.Backend)}, 1)
		phones := [2]*phone{phoneIn(t, x.Client, 1), phoneIn(t, x.Backend, 2)}
		strangers := [2]*phone{phoneIn(t, x.Client, 66), phoneIn(t, x.Backend, 66)}
		neighbours := [2]*phone{phoneIn(t, x.Client, 1), phoneIn(t, x.Backend, 2)}
		early, dropped := p.figures().Dropped[control.Nowhere], uint64(0)
		spray := func(who [2]*phone, known bool) {
			for side := range who {
				for range 20 {
					who[side].say(call.Local[side][0].RTP, rtp(666))
					who[side].say(call.Local[side][0].RTCP, rtcp(66))
				}
			}
			if known {
				dropped += 80
			} else { // it may be one of the telephones, which sends before its answer has come
				early += 80
				for p.figures().Dropped[control.Nowhere] < early {
					runtime.Gosched()
				}
			}
			p.strangers(call.ID, dropped)
		}
		spray(strangers, false)
		spray(neighbours, false)
		p.tell(call, phones, 0, nil)
		spray(strangers, true) // nobody was heard
		talk(t, call, phones, 0, 1)
		spray(strangers, true)
		spray(neighbours, true)
		talk(t, call, phones, 0, 6)
		for side := range phones {
			if !strangers[side].silent() || !neighbours[side].silent() || !phones[side].silent() {
				t.Errorf("side %d: somebody heard what is not for him", side)
			}
		}
		if s := p.close(call.ID); s.Heard[0][0].Packets != 10 || s.Heard[1][0].Packets != 10 || s.Heard[0][0].Strangers == 0 {
			t.Errorf("%+v", s)
		}
	})
}

// A phone behind a NAT has another port than it says, or another address, that of its signalling.
func TestNAT(t *testing.T) {
	p := open(t, 2, Options{})
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		p.t = t
		for _, signalled := range []bool{false, true} {
			call := p.open([2]string{inFamily(x.Client), inFamily(x.Backend)}, 1)
			phones := [2]*phone{phoneIn(t, x.Client, 1), phoneIn(t, x.Backend, 2)}
			p.tell(call, phones, 0, func(r *control.Remote) {
				if r.Side == control.Callee {
					return
				}
				r.RTP = netip.AddrPortFrom(r.RTP.Addr(), 9)
				if signalled {
					r.Signal = r.RTP.Addr()
					r.RTP = netip.AddrPortFrom(phoneIn(t, x.Client, 77).at.Addr(), 9)
				}
			})
			phones[0].say(call.Local[0][0].RTP, rtp(1)) // opens the way
			phones[1].hear()
			talk(t, call, phones, 0, 2)
			p.close(call.ID)
		}
	})
}

// A re-INVITE takes a side to another family. The old address serves until the new one is known; if it comes to nothing,
// all is as it was.
func TestMove(t *testing.T) {
	p := open(t, 2, Options{})
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		p.t = t
		before := [2]string{inFamily(x.Client), inFamily(x.Backend)}
		call := p.open(before, 1)
		phones := [2]*phone{phoneIn(t, x.Client, 1), phoneIn(t, x.Backend, 2)}
		p.tell(call, phones, 0, nil)
		talk(t, call, phones, 0, 1)

		another := map[ip.Family]ip.Family{ip.V4: ip.V6, ip.V6: ip.V4}[x.Client]
		after := [2]string{inFamily(another), before[1]}
		r := p.reshape(call.ID, after, 2)
		if r.err != nil || ip.FamilyOf(r.call.Local[0][1].RTP.Addr()) != another || r.call.Local[1][0] != call.Local[1][0] || len(r.call.Local[1]) != 2 {
			t.Fatalf("%+v", r)
		}
		talk(t, call, phones, 0, 6)
		if r := p.reshape(call.ID, before, 1); r.err != nil || r.call.Local[0][0] != call.Local[0][0] || len(r.call.Local[0]) != 1 {
			t.Fatalf("undone: %+v", r)
		}
		talk(t, call, phones, 0, 11)
		if r := p.reshape(call.ID, [2]string{"nowhere", before[1]}, 3); !errors.Is(r.err, control.ErrNetwork) {
			t.Errorf("%+v, want %v", r, control.ErrNetwork)
		}
		if r = p.reshape(call.ID, after, 1); r.err != nil {
			t.Fatal(r.err)
		}
		talk(t, call, phones, 0, 16)
		phones[0] = phoneIn(t, another, 3)
		p.tell(r.call, phones, 0, nil)
		talk(t, r.call, phones, 0, 21)
		if p.close(call.ID); p.plane.Calls() != 0 {
			t.Error("the call is left")
		}
		p.nothingLeft(t)
	})
}

// Two ends that describe each other's place at the relay as their own get nothing: a packet would go round for ever.
func TestLoop(t *testing.T) {
	p := open(t, 2, Options{})
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		p.t = t
		call := p.open([2]string{inFamily(x.Client), inFamily(x.Client)}, 1)
		phones := [2]*phone{phoneIn(t, x.Client, 1), phoneIn(t, x.Client, 2)}
		p.tell(call, phones, 0, nil)
		talk(t, call, phones, 0, 1)
		p.tell(call, phones, 0, func(r *control.Remote) {
			r.RTP = call.Local[1-r.Side][0].RTP
			if r.Side == control.Caller {
				r.Signal = phones[0].at.Addr() // so that he can put a packet into the circle
			}
		})
		for side, ph := range phones {
			ph.say(call.Local[side][0].RTP, rtp(6))
		}
		for s := p.stats(call.ID); s.Heard[0][0].Packets+s.Heard[0][0].Strangers < 6 || s.Heard[1][0].Packets+s.Heard[1][0].Strangers < 6; {
			s = p.stats(call.ID)
		}
		p.tell(call, phones, 0, nil)
		talk(t, call, phones, 0, 7)
		if s := p.close(call.ID); s.Heard[0][0].Packets > 11 || s.Heard[0][0].Strangers > 1 {
			t.Errorf("%+v", s.Heard[0][0])
		}
	})
}

// A network has so many ports and no more; who asks for more is told, and what is given back is had again.
func TestFull(t *testing.T) {
	p := open(t, 2, Options{})
	var calls []control.Call
	for range 4 {
		calls = append(calls, p.open([2]string{"six", "other"}, 1))
	}
	if r := p.try([2]string{"six", "other"}, 1); !errors.Is(r.err, control.ErrFull) {
		t.Errorf("%+v, want %v", r, control.ErrFull)
	}
	if r := p.reshape(calls[0].ID, [2]string{"six", "other"}, 2); !errors.Is(r.err, control.ErrFull) {
		t.Errorf("%+v, want %v", r, control.ErrFull)
	}
	p.close(calls[1].ID)
	calls[1] = p.open([2]string{"other", "ports"}, 1)
	for _, c := range calls {
		p.close(c.ID)
	}
	p.nothingLeft(t)
}

// What waits in the socket that all calls share is read as fast as what waits in sockets of their own, however many these are.
func TestEven(t *testing.T) {
	p := open(t, 1, Options{})
	phones := [2]*phone{phoneIn(t, ip.V6, 1), phoneIn(t, ip.V4, 2)}
	const own, shared = 100, 250
	var calls []control.Call
	for range own {
		call := p.open([2]string{"six", "four"}, 1)
		p.tell(call, phones, 0, nil)
		calls = append(calls, call)
	}
	var got [3][2]uint64 // of the rounds after: from its own sockets, and from the shared one
	h, asleep, awake, done := p.plane.shards[0], make(chan struct{}), make(chan struct{}), make(chan struct{})
	var look func(round int)
	look = func(round int) {
		carried := &h.count.carried[control.User]
		got[round] = [2]uint64{carried[ip.Crossing{Client: ip.V4, Backend: ip.V6}.Index()].Packets, carried[ip.Crossing{Client: ip.V6, Backend: ip.V4}.Index()].Packets}
		if round++; round == len(got) {
			close(done)
			return
		}
		h.loop.Post(func() { look(round) })
	}
	h.loop.Post(func() {
		close(asleep)
		<-awake
	})
	<-asleep
	h.loop.Post(func() { look(0) })
	for i := range shared {
		phones[0].say(calls[0].Local[0][0].RTP, rtp(uint16(i)))
	}
	for _, call := range calls {
		phones[1].say(call.Local[1][0].RTP, rtp(1))
	}
	close(awake)
	<-done
	if first := got[0]; first[0] != own || first[1] != bundle {
		t.Fatalf("the first round has read %d packets of its own sockets and %d of the shared one, want %d and %d", first[0], first[1], own, bundle)
	}
	if n := got[1][1]; n < own+bundle {
		t.Errorf("by the second round %d packets of the shared socket were read, want %d", n, own+bundle)
	}
}
