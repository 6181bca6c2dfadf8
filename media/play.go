// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package media

// Hot path: no allocation per packet.

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/media/stream"
	"github.com/kyozon/kyozon/relay"
)

const (
	// beat is how far packets of an announcement are apart. RFC 3551 §4.2.
	beat = 20 * time.Millisecond

	// mostLate is how many packets are made up for when the loop was late. What is later is said later.
	mostLate = 5

	headerSize = 12 // RFC 3550 §5.1
)

// clips are the announcements that signalling has given us. The oldest makes room.
type clips struct {
	mu    sync.Mutex
	all   map[control.Clip][]byte
	order []control.Clip
}

func (c *clips) keep(name control.Clip, samples []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = make(map[control.Clip][]byte)
	}
	if c.all[name] != nil {
		c.order = slices.DeleteFunc(c.order, func(one control.Clip) bool { return one == name })
	} else if len(c.order) == control.MaxClips {
		delete(c.all, c.order[0])
		c.order = slices.Delete(c.order, 0, 1)
	}
	c.all[name] = samples
	c.order = append(c.order, name)
}

func (c *clips) get(name control.Clip) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.all[name]
}

// player plays an announcement to one side of a call.
type player struct {
	call    *call
	what    control.Play
	samples []byte // in whole frames
	at      int    // of samples
	left    uint8  // how often it is still to be played
	over    bool

	began  bool
	number uint16
	stamp  uint32
	source uint32
}

// players are those of one loop: all are due at once, and what they say leaves in batches.
type players struct {
	all   []*player
	clock relay.Timer
	due   int64
}

// begin plays an announcement in a call, in the place of the one before.
func (h *shard) begin(c *call, p control.Play) {
	if c.player != nil {
		c.player.over = true
		c.player = nil
	}
	samples := h.plane.clips.get(p.Clip)
	n := len(samples) / control.ClipFrame * control.ClipFrame
	if n == 0 || p.Times == 0 || int(p.Stream) >= len(c.streams) {
		return
	}
	c.player = &player{call: c, what: p, samples: samples[:n], left: p.Times, number: uint16(rand.Uint32()), stamp: rand.Uint32(), source: rand.Uint32()}
	h.play.all = append(h.play.all, c.player)
	if len(h.play.all) == 1 {
		h.play.clock.Func = h.beat
		h.play.due = h.loop.Now()
		h.beat()
	}
}

// beat sends what is due.
func (h *shard) beat() {
	now := h.loop.Now()
	if late := now - h.play.due; late > mostLate*int64(beat) {
		h.play.due = now
	}
	for ; h.play.due <= now; h.play.due += int64(beat) {
		for _, p := range h.play.all {
			h.frame(p)
		}
	}
	h.play.all = slices.DeleteFunc(h.play.all, func(p *player) bool { return p.over })
	if len(h.play.all) > 0 {
		h.loop.SetTimer(&h.play.clock, time.Duration(h.play.due-now))
	}
}

// frame sends one packet of an announcement. It goes where what the other side says would, under the same rules, and waits
// as long as that is nowhere.
func (h *shard) frame(p *player) {
	if p.over {
		return
	}
	c, side := p.call, p.what.Side
	to := c.streams[p.what.Stream].Ends[side].To(stream.RTP)
	if !to.IsValid() {
		return
	}
	packet := &h.room(1)[0]
	packet[0], packet[1] = 2<<6, p.what.Type
	if !p.began {
		packet[1] |= 1 << 7 // RFC 3551 §4.1: after silence
	}
	binary.BigEndian.PutUint16(packet[2:], p.number)
	binary.BigEndian.PutUint32(packet[4:], p.stamp)
	binary.BigEndian.PutUint32(packet[8:], p.source)
	n := headerSize + copy(packet[headerSize:], p.samples[p.at:p.at+control.ClipFrame])
	h.say(&c.pairs[side][p.what.Stream].seats[stream.RTP], to, packet[:n])
	p.began = true
	p.number++
	p.stamp += control.ClipFrame
	if p.at += control.ClipFrame; p.at == len(p.samples) {
		p.at = 0
		if p.left--; p.left == 0 {
			p.over, c.player = true, nil
		}
	}
}

// say sends a packet that is in the arena from a seat.
func (h *shard) say(s *seat, to netip.AddrPort, packet []byte) {
	if s.wide {
		h.wide[s.at].add(s, to, packet)
		h.arena.used++
		return
	}
	h.sendOwn(s, to, packet)
}
