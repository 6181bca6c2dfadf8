// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package media

import (
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/media/stream"
)

// left is the lanes that a process before has left, until the calls that they are of are named.
type left struct {
	mu    sync.Mutex
	lanes map[control.ID][]*stream.Lane
	calls map[netip.AddrPort]control.ID // by the port of the relay
	until time.Time                     // then those that are left end; zero: no client has named its calls
}

func (f *left) add(l *stream.Lane) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.lanes == nil {
		f.lanes, f.calls = make(map[control.ID][]*stream.Lane), make(map[netip.AddrPort]control.ID)
	}
	f.lanes[l.Call] = append(f.lanes[l.Call], l)
	f.calls[l.Local] = l.Call
}

// of returns the lanes of a call, and forgets them.
func (f *left) of(id control.ID) []*stream.Lane {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ofLocked(id)
}

// at returns the lanes of the call that had a port of the relay, which another is to have, and forgets them.
func (f *left) at(local netip.AddrPort) []*stream.Lane {
	f.mu.Lock()
	defer f.mu.Unlock()
	id, ok := f.calls[local]
	if !ok {
		return nil
	}
	return f.ofLocked(id)
}

func (f *left) ofLocked(id control.ID) []*stream.Lane {
	all := f.lanes[id]
	delete(f.lanes, id)
	for _, l := range all {
		delete(f.calls, l.Local)
	}
	return all
}

// listed says that a client has named its calls: others will be named within the grace, or are no more.
func (f *left) listed(grace time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.until.IsZero() {
		f.until = time.Now().Add(grace)
	}
}

// over returns the lanes that nobody has named in time, and forgets them.
func (f *left) over(now time.Time) (all []*stream.Lane) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.until.IsZero() || now.Before(f.until) {
		return nil
	}
	for _, lanes := range f.lanes {
		all = append(all, lanes...)
	}
	clear(f.lanes)
	clear(f.calls)
	return all
}

// refused counts how often the kernel plane has taken no lane, and says why, if it is not for the same reason as before, and at most
// once a minute.
type refused struct {
	log *slog.Logger

	mu    sync.Mutex
	count uint64
	why   string
	said  time.Time
}

func (r *refused) note(err error) {
	if err == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	if now := time.Now(); r.why != err.Error() && now.Sub(r.said) > time.Minute {
		r.why, r.said = err.Error(), now
		r.log.Warn("the kernel plane does not take a stream; it goes through the process", "err", err)
	}
}

func (r *refused) figures() (count uint64, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count, r.why
}
