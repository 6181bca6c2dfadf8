// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package media

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/media/stream"
	"github.com/kyozon/kyozon/relay"
)

// shard is the calls of one loop. All but newShard happens on it.
type shard struct {
	plane *Plane
	loop  *relay.Loop
	calls map[control.ID]*call
	known map[*control.Session]bool // clients that have named their calls
	wide  [2]*wide                  // by stream.Port; nil: nobody has needed it yet
	pairs table                     // at prefixes

	play   players
	in     *incoming
	arena  *arena
	own    int                 // packets of sockets of their own, in this round
	end    func()              // endRound
	ending bool                // it will be called
	name   unix.RawSockaddrAny // of one packet
	clock  int64               // what the system's monotonic clock is ahead of the loop's
	count  counters
}

func newShard(p *Plane, l *relay.Loop) *shard {
	h := &shard{plane: p, loop: l, calls: make(map[control.ID]*call), known: make(map[*control.Session]bool), pairs: newTable(), in: newIncoming(), arena: new(arena)}
	h.end = h.endRound
	return h
}

// do does what a client asks for.
func (h *shard) do(s *control.Session, r control.Request) {
	c := h.calls[r.Call.ID]
	switch r.What {
	case control.Open:
		if c != nil {
			r.Done(control.Call{}, control.ErrInvalid)
			return
		}
		h.open(s, r)
	case control.Restore:
		if c == nil {
			h.open(s, r)
			return
		}
		c.owner, c.orphan = s, 0
		h.takeLanes(c)
		for i := range r.Remotes {
			c.set(&r.Remotes[i], h.loop.Now())
		}
		r.Done(c.describe(), nil)
	default:
		h.doWith(c, r)
	}
}

// doWith does what needs a call.
func (h *shard) doWith(c *call, r control.Request) {
	switch {
	case c == nil && r.Done != nil:
		r.Done(control.Call{}, control.ErrGone)
	case c == nil && r.Told != nil:
		r.Told(control.Stats{}, control.ErrGone)
	case c == nil: // it has just been ended
	case r.What == control.Update:
		h.takeLanes(c)
		for i := range r.Remotes {
			h.settle(c, r.Remotes[i].Side)
			c.set(&r.Remotes[i], h.loop.Now())
		}
	case r.What == control.Begin:
		h.begin(c, r.Play)
	case r.What == control.Reshape:
		h.takeLanes(c)
		if err := h.reshape(c, r.Call.Spec); err != nil {
			r.Done(control.Call{}, err)
			return
		}
		r.Done(c.describe(), nil)
	case r.What == control.Close:
		h.takeLanes(c)
		r.Told(c.stats(), nil)
		h.release(c)
	case r.What == control.Ask:
		h.lookLanes(c)
		r.Told(c.stats(), nil)
	}
}

// open makes a call; or makes one again, with the addresses that it had.
func (h *shard) open(s *control.Session, r control.Request) {
	c := &call{id: r.Call.ID, shard: h, owner: s, since: h.loop.Now()}
	h.calls[c.id] = c
	left := h.plane.left.of(c.id)
	if err := h.shape(c, r.Call.Spec, r.Call.Local); err != nil {
		h.release(c)
		h.drop(left)
		r.Done(control.Call{}, err)
		return
	}
	for i := range r.Remotes {
		c.set(&r.Remotes[i], h.loop.Now())
	}
	h.adopt(c, left)
	r.Done(c.describe(), nil)
}

// drop ends lanes that nobody has.
func (h *shard) drop(lanes []*stream.Lane) {
	for _, l := range lanes {
		h.plane.options.Kernel.Take(l.LaneKey)
	}
}

// left: a client is gone. Its calls go on; they may end if another has named its own already.
func (h *shard) left(s *control.Session) {
	delete(h.known, s)
	for _, c := range h.calls {
		if c.owner == s {
			c.owner = nil
		}
	}
	if len(h.known) > 0 {
		h.orphans()
	}
}

// listed: a client has named its calls.
func (h *shard) listed(s *control.Session) {
	h.known[s] = true
	h.orphans()
}

// orphans has the calls that are nobody's end, unless somebody names them within the grace.
func (h *shard) orphans() {
	for _, c := range h.calls {
		if c.owner == nil && c.orphan == 0 {
			c.orphan = h.loop.Now() + int64(h.plane.options.Grace)
		}
	}
}

// sweep ends the calls that nobody uses.
func (h *shard) sweep() {
	o, now := &h.plane.options, h.loop.Now()
	for _, c := range h.calls {
		last, ever := c.heard()
		if c.lanes > 0 && time.Duration(now-last) > o.Idle/2 { // not each time: that costs a call of the system for each
			h.lookLanes(c)
			last, ever = c.heard()
		}
		quiet, limit := time.Duration(now-last), o.Idle
		if !ever {
			limit = o.Unused
		}
		if c.orphan != 0 && now > c.orphan || quiet > limit && !c.held() {
			h.takeLanes(c)
			if c.owner != nil {
				c.owner.Ended(c.id, c.stats())
			}
			h.release(c)
		}
	}
}

// release gives back what a call has.
func (h *shard) release(c *call) {
	delete(h.calls, c.id)
	h.takeLanes(c)
	h.count.streams -= uint64(len(c.streams))
	if c.player != nil {
		c.player.over = true
	}
	h.stay(c)
	for side := range c.pairs {
		h.closePairs(c.pairs[side])
		c.pairs[side] = nil
	}
}

func (h *shard) closePairs(all []*pair) {
	for _, p := range all {
		h.closePair(p)
	}
}
