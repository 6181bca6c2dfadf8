// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package media

import (
	"net/netip"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/media/stream"
)

// call is a call that is relayed.
type call struct {
	id      control.ID
	shard   *shard
	owner   *control.Session // nil if it is gone
	streams []stream.Stream
	pairs   [2][]*pair  // of each side, by stream
	next    *[2][]*pair // of a side that has been given another network, until it is told who is there; nil: none has
	since   int64       // when it was opened
	lanes   int32       // how many its seats have
	orphan  int64       // when it ends if nobody names it; 0: never
	player  *player     // nil if nothing is played
}

// shape gives a new call its ports. local has those that it had, if any.
func (h *shard) shape(c *call, s control.Spec, local [2][]control.Local) error {
	c.streams = make([]stream.Stream, s.Streams)
	h.count.streams += uint64(s.Streams)
	for side, name := range s.Networks {
		for i := range c.streams {
			var want control.Local
			if i < len(local[side]) {
				want = local[side][i]
			}
			p, err := h.pairIn(name, c, control.Side(side), i, want)
			if err != nil {
				return err
			}
			c.pairs[side] = append(c.pairs[side], p)
		}
	}
	return nil
}

func (h *shard) pairIn(name string, c *call, side control.Side, index int, want control.Local) (*pair, error) {
	n := h.plane.places.Load().current[name]
	if n == nil {
		return nil, control.ErrNetwork
	}
	return h.openPair(n, c, side, index, want)
}

// reshape gives a call other networks, or another number of streams. On error it is as it was.
func (h *shard) reshape(c *call, s control.Spec) error {
	h.stay(c)
	before := len(c.streams)
	err := h.extend(c, s)
	if err == nil {
		err = h.move(c, s)
	}
	if err != nil {
		h.cut(c, before)
		return err
	}
	h.cut(c, s.Streams)
	return nil
}

// extend gives a call more streams, in the networks that it has.
func (h *shard) extend(c *call, s control.Spec) error {
	if more := s.Streams - len(c.streams); more > 0 {
		c.streams = append(c.streams, make([]stream.Stream, more)...)
		h.count.streams += uint64(more)
	}
	for side := range c.pairs {
		for i := len(c.pairs[side]); i < len(c.streams); i++ {
			p, err := h.openPair(c.pairs[side][0].network, c, control.Side(side), i, control.Local{})
			if err != nil {
				return err
			}
			c.pairs[side] = append(c.pairs[side], p)
		}
	}
	return nil
}

// move gives the sides whose network is another the ports that they will have.
func (h *shard) move(c *call, s control.Spec) error {
	for side, name := range s.Networks {
		if c.pairs[side][0].network.Name == name {
			continue
		}
		for i := range c.streams {
			p, err := h.pairIn(name, c, control.Side(side), i, control.Local{})
			if err != nil {
				h.stay(c)
				return err
			}
			if c.next == nil {
				c.next = new([2][]*pair)
			}
			c.next[side] = append(c.next[side], p)
		}
	}
	return nil
}

// stay ends the moves of a call: its sides have the ports that they had.
func (h *shard) stay(c *call) {
	if c.next != nil {
		h.closePairs(c.next[0])
		h.closePairs(c.next[1])
		c.next = nil
	}
}

// cut takes the streams after the nth from a call.
func (h *shard) cut(c *call, n int) {
	for side := range c.pairs {
		if n < len(c.pairs[side]) {
			h.closePairs(c.pairs[side][n:])
			c.pairs[side] = c.pairs[side][:n:n]
		}
		if c.next != nil && n < len(c.next[side]) {
			h.closePairs(c.next[side][n:])
			c.next[side] = c.next[side][:n:n]
		}
	}
	if n < len(c.streams) {
		h.count.streams -= uint64(len(c.streams) - n)
		c.streams = c.streams[:n:n]
	}
}

// settle ends the move of a side: it has been told who is there.
func (h *shard) settle(c *call, side control.Side) {
	if c.next == nil || c.next[side] == nil {
		return
	}
	h.closePairs(c.pairs[side])
	c.pairs[side], c.next[side] = c.next[side], nil
	if c.next[1-side] == nil {
		c.next = nil
	}
}

// set tells a stream of one that is there. An address of another family than the ports' is nobody's, and so is one of the
// relay's own: packets would go round for ever.
func (c *call) set(r *control.Remote, now int64) {
	if int(r.Stream) >= len(c.streams) {
		return
	}
	p := c.pairs[r.Side][r.Stream]
	p.mark(r.DSCP)
	of := p.network.family()
	known := *r
	for _, a := range []*netip.AddrPort{&known.RTP, &known.RTCP} {
		if a.IsValid() && (ip.FamilyOf(a.Addr()) != of || c.shard.plane.places.Load().at(*a) != nil) {
			known.RTP, known.RTCP = netip.AddrPort{}, netip.AddrPort{}
		}
	}
	c.streams[r.Stream].Set(&known, now)
}

// describe returns the call with the addresses that it will have.
func (c *call) describe() control.Call {
	d := control.Call{ID: c.id, Spec: control.Spec{Streams: len(c.streams)}}
	for side, pairs := range c.pairs {
		if c.next != nil && c.next[side] != nil {
			pairs = c.next[side]
		}
		d.Networks[side] = pairs[0].network.Name
		for _, p := range pairs {
			d.Local[side] = append(d.Local[side], p.local())
		}
	}
	return d
}

// heard returns when anything was last heard in the call, or when it was opened, if nothing was.
func (c *call) heard() (last int64, ever bool) {
	last = c.since
	for i := range c.streams {
		for side := range c.streams[i].Ends {
			if at := c.streams[i].Ends[side].Heard; at != 0 {
				last, ever = max(last, at), true
			}
		}
	}
	return last, ever
}

func (c *call) held() bool {
	for i := range c.streams {
		if c.streams[i].Held() {
			return true
		}
	}
	return false
}

// stats returns what has come from each side.
func (c *call) stats() (s control.Stats) {
	for i := range c.streams {
		for side := range s.Heard {
			e := &c.streams[i].Ends[side]
			q := &e.Quality
			s.Heard[side] = append(s.Heard[side], control.Quality{Packets: q.Packets, Bytes: q.Bytes, RTCP: q.RTCP, Lost: q.Lost(),
				Jitter: q.Jitter(), MOS: q.MOS(), Strangers: e.Strangers, From: e.Latches[stream.RTP].From(),
				Kernel: c.pairs[side][i].seats[stream.RTP].lane})
		}
	}
	return s
}
