// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package media relays the media of calls between networks, and so between the address families. It is the process
// `kyozon media`, which signalling tells what to relay (package control); who is heard is decided in package stream.
//
//	 caller                                                     callee
//	   │ [2001:db8:100:50:8a2:…]:5004                    10.0.5.2:20006 │
//	   ▼                                                                ▼
//	shared socket ─recvmmsg─▶ seat by address ─▶ Stream.Pass ─▶ seat ─sendto─▶ socket of the port
//	  (each loop)  ◀─sendmmsg── seats of a round ◀── Stream.Pass ◀── seat ◀─recvfrom─┘
//
// A network with a single address gives each stream a pair of ports, with sockets of their own. One with an IPv6 /64 gives
// each side of a call an address of its own in it, at the same port: two sockets for each loop receive for all calls, and
// read and write in batches. The last byte of such an address says which loop's it is, and the kernel is told so. Who
// scans for ports finds nothing among 2⁶⁴ addresses.
//
// A call lives on one loop, which the last byte of its ID says. No packet takes a lock or memory.
//
// With a kernel plane (Kernel) a seat whose sender was heard has a lane: his packets go on in the kernel, and come to no socket. What
// the lane does not take comes here as before. Each word of signalling ends a call's lanes, and so does whoever is heard in
// another's place; the next packets make them again. What lanes have counted is added when they are looked at, and when they end.
package media

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/media/stream"
	"github.com/kyozon/kyozon/relay"
)

// Network is where media of one network come in.
type Network struct {
	Name  string
	Media netip.Prefix // a single address; or an IPv6 prefix, /64 or shorter, of which each side of a call has an address

	Low, High uint16 // the ports at a single address, the first even and the last odd

	Kernel bool // the kernel plane may carry what comes and goes here
}

// Options are what a Plane needs.
type Options struct {
	Networks []Network
	Loops    *relay.Loops
	Kernel   Kernel       // carries streams once they have been heard; nil: they go through the process
	Log      *slog.Logger // needed with Kernel

	Idle   time.Duration // a call in which nothing is heard for as long is ended, unless it is held; 0 means DefaultIdle
	Unused time.Duration // the same, if nothing was ever heard; 0 means DefaultUnused
	Grace  time.Duration // a call that no client has named is ended after it; 0 means DefaultGrace

	// Renew, if set, reads again which networks there are. It is called by Run when signalling has read its file. What it
	// returns as an error it has told who must know.
	Renew func() ([]Network, error)
}

// What applies where Options say nothing.
const (
	DefaultIdle   = 2 * time.Minute
	DefaultUnused = 10 * time.Minute
	DefaultGrace  = 30 * time.Second
)

// PrefixPort is the port for RTP at a prefix; the next is that for RTCP. RFC 3551 §8.
const PrefixPort = 5004

// Plane relays. It is a control.Plane.
type Plane struct {
	options Options
	places  atomic.Pointer[places]
	shards  []*shard // by loop
	wide    []*wide  // for all calls
	opened  [2]bool  // whether there are these, by stream.Port; of who renews

	wake  chan struct{} // of size 1: somebody has asked
	mu    sync.Mutex
	asked []func(control.Call, error) // who wants the networks renewed

	left    left
	refused refused
	clips   clips
}

// Open makes a plane and opens the shared sockets. The loops must run; Close it when they have ended.
func Open(o Options) (*Plane, error) {
	set := func(d *time.Duration, byDefault time.Duration) {
		if *d == 0 {
			*d = byDefault
		}
	}
	set(&o.Idle, DefaultIdle)
	set(&o.Unused, DefaultUnused)
	set(&o.Grace, DefaultGrace)
	p := &Plane{options: o, refused: refused{log: o.Log}, wake: make(chan struct{}, 1)}
	p.places.Store(new(places))
	for i := range o.Loops.Len() {
		p.shards = append(p.shards, newShard(p, o.Loops.At(i)))
	}
	if err := p.Renew(o.Networks); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	if err := p.lookBack(); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

// lookBack finds what the kernel plane carries already.
func (p *Plane) lookBack() error {
	if p.options.Kernel == nil {
		return nil
	}
	p.options.Loops.Do(func(l *relay.Loop) { p.shards[l.ID()].clock = monotonic() - l.Now() })
	return p.options.Kernel.All(p.left.add)
}

// Run looks after calls until ctx is done: what nobody uses is ended. It renews the networks when it is asked to. The loops
// must run.
func (p *Plane) Run(ctx context.Context) {
	every := min(p.options.Idle, p.options.Unused, p.options.Grace) / 8
	t := time.NewTicker(max(every, time.Millisecond))
	defer t.Stop()
	if p.options.Kernel != nil {
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() { p.watch(ctx) })
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.wake:
			p.renew()
		case <-t.C:
			p.forget()
			for _, h := range p.shards {
				h.loop.Post(h.sweep)
			}
			for _, l := range p.left.over(time.Now()) {
				p.options.Kernel.Take(l.LaneKey)
			}
		}
	}
}

// wayEvery is how often it is looked whether lanes still lead to where they should.
const wayEvery = 5 * time.Second

// watch looks after the lanes.
func (p *Plane) watch(ctx context.Context) {
	t := time.NewTicker(wayEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			p.setRight()
		}
	}
}

// setRight has lanes made again that lead elsewhere than they should.
func (p *Plane) setRight() {
	p.refused.note(p.options.Kernel.Astray(func(l *stream.Lane) {
		h := p.shard(l.Call)
		h.loop.Post(func() { h.astray(l.Call) })
	}))
}

func (p *Plane) shard(id control.ID) *shard { return p.shards[p.loopOf(uint64(id))] }

// Close closes all sockets. The loops must have ended, and not been closed.
func (p *Plane) Close() error {
	for _, h := range p.shards {
		for _, c := range h.calls {
			h.release(c)
		}
	}
	for _, w := range p.wide {
		w.close()
	}
	all := p.places.Load()
	for _, n := range all.current {
		n.remove()
	}
	for _, n := range all.old {
		n.remove()
	}
	return nil
}

// Do implements control.Plane.
func (p *Plane) Do(s *control.Session, r control.Request) {
	switch r.What {
	case control.Left:
		for _, h := range p.shards {
			h.loop.Post(func() { h.left(s) })
		}
	case control.Listed:
		p.left.listed(p.options.Grace)
		for _, h := range p.shards {
			h.loop.Post(func() { h.listed(s) })
		}
	case control.Survey:
		p.survey(r.Figured)
	case control.Renew:
		p.ask(r.Done)
	case control.Keep:
		p.clips.keep(r.Clip, r.Samples)
	default:
		h := p.shard(r.Call.ID)
		h.loop.Post(func() { h.do(s, r) })
	}
}

// Calls returns how many calls there are. It must not be called on a loop.
func (p *Plane) Calls() (n int) {
	counts := make([]int, len(p.shards))
	p.options.Loops.Do(func(l *relay.Loop) { counts[l.ID()] = len(p.shards[l.ID()].calls) })
	for _, count := range counts {
		n += count
	}
	return n
}

// Lanes returns how many lanes the kernel plane has of these calls, how often it has refused one, and why the last time. It must
// not be called on a loop.
func (p *Plane) Lanes() (n int, refused uint64, why string) {
	counts := make([]int, len(p.shards))
	p.options.Loops.Do(func(l *relay.Loop) { counts[l.ID()] = int(p.shards[l.ID()].count.lanes) })
	for _, count := range counts {
		n += count
	}
	refused, why = p.refused.figures()
	return n, refused, why
}
