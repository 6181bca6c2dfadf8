// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package controltest has a media relay in memory: it gives addresses and remembers what it was told, and carries nothing.
package controltest

import (
	"context"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/media/control"
)

// Relay is a relay in memory. Clients find it at Path.
type Relay struct {
	Path string

	t        testing.TB
	networks map[string]netip.Addr
	stop     func()

	mu      sync.Mutex
	changed sync.Cond
	port    uint16
	calls   map[control.ID]*call
	closed  []control.ID
	clients int
	renewed int
}

type call struct {
	control.Call
	owner   *control.Session
	remotes []control.Remote
}

// Open makes a relay with one address in each network, and serves it until the test has ended.
func Open(t testing.TB, networks map[string]netip.Addr) *Relay {
	t.Helper()
	r := &Relay{Path: filepath.Join(t.TempDir(), "media.sock"), t: t, networks: networks, port: 20000, stop: func() {}}
	r.changed.L = &r.mu
	r.Start()
	t.Cleanup(func() { r.stop() })
	return r
}

// Start serves, with no call.
func (r *Relay) Start() {
	r.t.Helper()
	l, err := control.Listen(r.Path)
	if err != nil {
		r.t.Fatal(err)
	}
	r.mu.Lock()
	r.calls, r.closed = make(map[control.ID]*call), nil
	r.mu.Unlock()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := control.Serve(ctx, l, r); err != nil {
			r.t.Error(err)
		}
	})
	r.stop = func() {
		cancel()
		wg.Wait()
	}
}

// Stop ends the relay, as kill does.
func (r *Relay) Stop() {
	r.stop()
	r.stop = func() {}
}

// Pause has it answer nothing until resume is called.
func (r *Relay) Pause() (resume func()) {
	r.mu.Lock()
	return r.mu.Unlock
}

// Do implements control.Plane.
func (r *Relay) Do(s *control.Session, q control.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer r.changed.Broadcast()
	c := r.calls[q.Call.ID]
	switch q.What {
	case control.Open:
		c = &call{Call: q.Call, owner: s}
		r.shapeLocked(c, q)
	case control.Restore:
		if c == nil {
			c = &call{Call: q.Call}
			r.calls[c.ID] = c
		}
		c.owner, c.remotes = s, append(c.remotes, q.Remotes...)
		q.Done(c.Call, nil)
	case control.Survey:
		q.Figured(r.figuresLocked())
	case control.Renew:
		r.renewed++
		q.Done(control.Call{}, nil)
	case control.Listed:
		r.clients++
	case control.Left:
		for _, c := range r.calls {
			if c.owner == s {
				c.owner = nil
			}
		}
	default:
		r.doLocked(c, q)
	}
}

// doLocked does what needs a call.
func (r *Relay) doLocked(c *call, q control.Request) {
	switch {
	case c == nil && q.Done != nil:
		q.Done(control.Call{}, control.ErrGone)
	case c == nil && q.Told != nil:
		q.Told(control.Stats{}, control.ErrGone)
	case c == nil:
	case q.What == control.Reshape:
		r.shapeLocked(c, q)
	case q.What == control.Update:
		c.remotes = append(c.remotes, q.Remotes...)
	case q.What == control.Close:
		delete(r.calls, c.ID)
		r.closed = append(r.closed, c.ID)
		q.Told(stats(c), nil)
	default:
		q.Told(stats(c), nil)
	}
}

// shapeLocked gives a call the addresses that it has not yet.
func (r *Relay) shapeLocked(c *call, q control.Request) {
	for side, network := range q.Call.Networks {
		a, ok := r.networks[network]
		if !ok {
			q.Done(control.Call{}, control.ErrNetwork)
			return
		}
		if network != c.Networks[side] {
			c.Local[side] = nil
		}
		for len(c.Local[side]) < q.Call.Streams {
			c.Local[side] = append(slices.Clone(c.Local[side]),
				control.Local{RTP: netip.AddrPortFrom(a, r.port), RTCP: netip.AddrPortFrom(a, r.port+1)})
			r.port += 2
		}
		c.Local[side] = c.Local[side][:q.Call.Streams]
	}
	c.Spec = q.Call.Spec
	r.calls[c.ID] = c
	q.Done(c.Call, nil)
}

// stats says that each side has sent a hundred packets, of which one was lost, and strangers two.
func stats(c *call) (s control.Stats) {
	for side := range s.Heard {
		for range c.Streams {
			s.Heard[side] = append(s.Heard[side], control.Quality{Packets: 99, Bytes: 17028, Lost: 1, Jitter: 3 * time.Millisecond, MOS: 4.4, Strangers: 2})
		}
	}
	return s
}

// Await waits until ok says yes of the calls there are, the remotes that each was told in order, and the calls that were
// closed.
func (r *Relay) Await(ok func(calls map[control.ID][]control.Remote, closed []control.ID) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		calls := make(map[control.ID][]control.Remote)
		for id, c := range r.calls {
			calls[id] = slices.Clone(c.remotes)
		}
		if ok(calls, r.closed) {
			return
		}
		r.changed.Wait()
	}
}

// figuresLocked says that each call has carried 99 packets each way.
func (r *Relay) figuresLocked() *control.Figures {
	f := &control.Figures{Calls: uint64(len(r.calls))}
	used := make(map[string]uint64)
	for _, c := range r.calls {
		f.Streams += uint64(c.Streams)
		x := ip.Crossing{Client: ip.FamilyOf(c.Local[0][0].RTP.Addr()), Backend: ip.FamilyOf(c.Local[1][0].RTP.Addr())}
		for _, x := range []ip.Crossing{x, {Client: x.Backend, Backend: x.Client}} {
			f.Carried[control.User][x.Index()].Packets += 99
			*f.Passed.Of(control.Source, x.Client) += 3
			f.Carried[control.User][x.Index()].Bytes += 17028
		}
		for side, n := range c.Networks {
			used[n] += uint64(len(c.Local[side]))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(r.networks)) {
		a := r.networks[name]
		f.Networks = append(f.Networks, control.Occupancy{Name: name, Media: netip.PrefixFrom(a, a.BitLen()), Used: used[name], Size: 20000})
	}
	return f
}

// Renewed returns how often a client has asked to look at the networks again.
func (r *Relay) Renewed() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.renewed
}

// AwaitClients waits until n clients have connected, of whom some may be gone again.
func (r *Relay) AwaitClients(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.clients < n {
		r.changed.Wait()
	}
}

// End ends a call as the relay does when nobody has sent anything for long.
func (r *Relay) End(id control.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.calls[id]; c != nil && c.owner != nil {
		delete(r.calls, id)
		c.owner.Ended(id, stats(c))
	}
}
