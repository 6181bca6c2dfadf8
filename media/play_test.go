// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package media

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/relay"
)

// announcement is so many frames, each of which says which it is, for a client that has been given it.
func (p *place) announcement(frames int) []byte {
	var clip []byte
	for i := range frames {
		clip = append(clip, bytes.Repeat([]byte{byte(i + 1)}, control.ClipFrame)...)
	}
	p.client.Keep([][]byte{clip})
	return clip
}

// hears wants an announcement, from its beginning to its end so many times, at a payload type.
func (p *phone) hears(clip []byte, kind byte, times int, at netip.AddrPort) {
	p.t.Helper()
	var number uint16
	var stamp uint32
	for i := range times * len(clip) / control.ClipFrame {
		packet, from := p.hear()
		if len(packet) != 172 || packet[0] != 0x80 || packet[1]&0x7f != kind || packet[1]>>7 != byte(1-min(i, 1)) || from != at {
			p.t.Fatalf("packet %d is %x from %v, want %v", i, packet, from, at)
		}
		n, s := binary.BigEndian.Uint16(packet[2:]), binary.BigEndian.Uint32(packet[4:])
		if i > 0 && (n != number+1 || s != stamp+control.ClipFrame) {
			p.t.Errorf("packet %d has number %d and time %d, after %d and %d", i, n, s, number, stamp)
		}
		number, stamp = n, s
		place := i * control.ClipFrame % len(clip)
		if !bytes.Equal(packet[12:], clip[place:place+control.ClipFrame]) {
			p.t.Fatalf("packet %d has frame %d", i, packet[12])
		}
	}
}

// An announcement is heard from its beginning, as often as it is to be played, from where media come, and by who is described
// alone; and until then it waits.
func TestPlay(t *testing.T) {
	p := open(t, 2, Options{})
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		p.t = t
		clip := p.announcement(20) // longer than a message
		call := p.open([2]string{inFamily(x.Client), inFamily(x.Backend)}, 2)
		phones := [2]*phone{phoneIn(t, x.Client, 1), phoneIn(t, x.Backend, 2)}
		for side, ph := range phones {
			p.client.Play(call.ID, control.Play{Side: control.Side(side), Stream: 1, Clip: control.ClipOf(clip), Type: 8, Times: uint8(1 + side)})
			p.stats(call.ID)
			p.client.Update(call.ID, control.Remote{Side: control.Side(side), Stream: 1, RTP: ph.at, DSCP: 46})
			ph.hears(clip, 8, 1+side, call.Local[side][1].RTP)
		}
		p.client.Play(call.ID, control.Play{Clip: 77, Times: 1}) // nobody has said what it is
		p.client.Play(call.ID, control.Play{Stream: 7, Clip: control.ClipOf(clip), Times: 1})
		p.stats(call.ID)
		for side, ph := range phones {
			if !ph.silent() {
				t.Errorf("side %d hears more", side)
			}
		}
		p.close(call.ID)
	})
	p.nothingLeft(t)
}

// players waits until so many play.
func (p *place) players(want int) {
	p.t.Helper()
	for got := -1; got != want; {
		p.loops.Do(func(l *relay.Loop) { got = len(p.plane.shards[l.ID()].play.all) })
	}
}

// What is played ends when something else is, when it is told to, and with its call.
func TestPlayStops(t *testing.T) {
	p := open(t, 1, Options{})
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		p.t = t
		clip := p.announcement(3)
		call := p.open([2]string{inFamily(f), inFamily(f)}, 1)
		ph := phoneIn(t, f, 1)
		p.client.Update(call.ID, control.Remote{RTP: ph.at})
		play := control.Play{Clip: control.ClipOf(clip), Times: 255}
		p.client.Play(call.ID, play)
		ph.hear()
		p.client.Play(call.ID, control.Play{})
		p.players(0)
		p.client.Play(call.ID, play)
		p.client.Play(call.ID, play)
		p.players(1)
		p.close(call.ID)
		p.players(0)
	})
	p.nothingLeft(t)
}
