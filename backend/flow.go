// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"net/netip"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/relay"
)

// Client is whose flow it is: his canonical address and the one that he dialled. Both have the same family unless a
// trusted peer has said otherwise.
type Client struct {
	Addr, Dialled netip.AddrPort

	// User, if it is not 0, is what equal users have in common: they get the same backend whatever the pool picks by, and
	// whatever prefix they come from.
	User uint64

	// Pool and Server, if they are set, are where the flow goes and nowhere else: whoever has set them knows better. They
	// belong to the generation of the route.
	Pool   *Pool
	Server *Backend
}

func (c *Client) key() uint64 {
	if c.User != 0 {
		return c.User
	}
	return ip.Key(c.Addr.Addr())
}

// Flow is one client's use of one backend. It belongs to the loop of its connection, on which its methods are called.
type Flow struct {
	Conn    *relay.Conn // the connection to the backend; nil for UDP
	Client  Client
	Source  netip.Addr // whom the backend sees; zero means an address of the edge
	Backend *Backend
	Pool    *Pool
	Reused  bool // the connection has carried another flow before

	// Requests says that each request of the flow is a line of the access log, and the flow itself none.
	Requests bool

	// Counts, if set, returns the bytes carried so far, and Cut ends the flow when the drain deadline has passed.
	Counts func() metrics.Counts
	Cut    func(metrics.Reason)

	use        Use        // the port it has taken at its backend
	known      netip.Addr // whom the backend knows the client as; zero if it need not be found
	route      *Route
	loop       *relay.Loop
	started    int64 // the loop's clock
	wait       int64 // how long it took to get the flow, in nanoseconds
	ended      bool
	asks       bool           // it is no client's: see Reach
	local      netip.AddrPort // of its socket, if it has no Conn and there is another plane
	datagrams  bool           // its client's are kept from the other plane
	next, prev *Flow          // among the flows of the loop
}

// Crossing returns the families of the flow's client and backend.
func (f *Flow) Crossing() ip.Crossing {
	return ip.Crossing{Client: f.route.Family, Backend: f.Backend.Family()}
}

// Age returns how long ago the flow reached its backend.
func (f *Flow) Age() time.Duration { return time.Duration(f.loop.Now() - f.started) }

// Service returns the name of the flow's service.
func (f *Flow) Service() string { return f.route.Service }

// Route returns the route that chose the backend. It tells whose generation the flow is of.
func (f *Flow) Route() *Route { return f.route }

// Metrics returns the counters that the flow counts in.
func (f *Flow) Metrics() *metrics.Flows { return f.route.counters(f.Backend.Family()) }

// begin counts the flow and puts it on the list of its loop.
func (f *Flow) begin() {
	f.started = f.loop.Now()
	f.route.active.Add(1)
	f.Metrics().Begin()
	f.route.Book.running.add(f)
}

// End takes the flow out of all counts, with the bytes it carried. The connection is the caller's to close. Only the
// first call counts.
func (f *Flow) End(c metrics.Counts, r metrics.Reason) {
	if f.ended {
		return
	}
	if f.asks {
		f.cancel()
		f.Backend.Released()
		return
	}
	f.ended = true
	if !f.Requests && f.route.Log.On() {
		f.writeLine(c, r)
	}
	f.route.Book.running.remove(f)
	f.route.active.Add(-1)
	f.Metrics().End(c, r)
	f.Backend.Released()
	f.giveBack()
}

// giveBack gives back what keeps the other plane away from the flow.
func (f *Flow) giveBack() {
	f.route.give(f.use)
	if f.datagrams {
		f.route.Ports.Give(Use{From: f.Client.Addr, To: f.Client.Dialled, Client: true})
	}
}

// cancel takes back begin for a flow that did not come about.
func (f *Flow) cancel() {
	f.ended = true
	f.route.Book.running.remove(f)
	f.route.active.Add(-1)
	f.Metrics().Cancel()
	f.giveBack()
}

// Keep ends the flow like End and keeps its connection for another client's flow. The connection must have nothing
// under way, and the pool must be Shared.
func (f *Flow) Keep(c metrics.Counts) {
	if f.ended {
		return
	}
	f.End(c, metrics.Fine)
	f.Backend.tally.idle.put(f.Conn, f.Backend.secure)
}

// running is the flows under way, a list for each loop that only the loop touches.
type running struct{ lists []runningList }

type runningList struct {
	head *Flow
	_    [56]byte // lists are touched by different cores
}

func (r *running) add(f *Flow) {
	l := &r.lists[f.loop.ID()]
	f.next = l.head
	if l.head != nil {
		l.head.prev = f
	}
	l.head = f
}

func (r *running) remove(f *Flow) {
	if f.prev == nil {
		r.lists[f.loop.ID()].head = f.next
	} else {
		f.prev.next = f.next
	}
	if f.next != nil {
		f.next.prev = f.prev
	}
	f.next, f.prev = nil, nil
}

// Each calls fn for every flow under way on l, on which it must be called. fn may end the flow.
func (b *Book) Each(l *relay.Loop, fn func(*Flow)) {
	for f := b.running.lists[l.ID()].head; f != nil; {
		next := f.next
		fn(f)
		f = next
	}
}
