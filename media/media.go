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
package media

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
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
	options  Options
	networks map[string]*network
	shards   []*shard // by loop
	wide     []*wide  // for all calls; see Open
	routes   []func() // remove what was added
	left     left
	refused  refused
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
	p := &Plane{options: o, networks: make(map[string]*network), refused: refused{log: o.Log}}
	for i := range o.Loops.Len() {
		p.shards = append(p.shards, newShard(p, o.Loops.At(i)))
	}
	for _, n := range o.Networks {
		if err := p.add(n); err != nil {
			return nil, errors.Join(fmt.Errorf("network %s: %w", n.Name, err), p.Close())
		}
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

func (p *Plane) add(n Network) error {
	p.networks[n.Name] = newNetwork(n)
	if n.Media.IsSingleIP() {
		return nil
	}
	remove, err := addRoute(n.Media)
	if err != nil {
		return err
	}
	p.routes = append(p.routes, remove)
	for _, at := range []uint16{PrefixPort, PrefixPort + 1} {
		if err := p.openWide(at); err != nil {
			return err
		}
	}
	return nil
}

// Run looks after calls until ctx is done: what nobody uses is ended. The loops must run.
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
		case <-t.C:
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
			p.refused.note(p.options.Kernel.Astray(func(l *stream.Lane) {
				h := p.shard(l.Call)
				h.loop.Post(func() { h.astray(l.Call) })
			}))
		}
	}
}

func (p *Plane) shard(id control.ID) *shard { return p.shards[uint64(id)%uint64(len(p.shards))] }

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
	for _, remove := range p.routes {
		remove()
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
	default:
		h := p.shards[p.loopOf(uint64(r.Call.ID))]
		h.loop.Post(func() { h.do(s, r) })
	}
}

// own says whether a call may have this address.
func (p *Plane) own(a netip.AddrPort) bool {
	for _, n := range p.networks {
		low, high := n.Low, n.High
		if !n.single {
			low, high = PrefixPort, PrefixPort+1
		}
		if n.Media.Contains(a.Addr()) && a.Port() >= low && a.Port() <= high {
			return true
		}
	}
	return false
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
	p.options.Loops.Do(func(l *relay.Loop) {
		for _, c := range p.shards[l.ID()].calls {
			counts[l.ID()] += int(c.lanes)
		}
	})
	for _, count := range counts {
		n += count
	}
	refused, why = p.refused.figures()
	return n, refused, why
}
