// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package plane

import (
	"net/netip"
	"sync"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/kernel"
	"github.com/kyozon/kyozon/metrics"
)

// scanPart is the part of the time that looking at all flows may take.
const scanPart = 50

// key is what flows are counted by.
type key struct {
	service  string
	crossing ip.Crossing
}

// sum is what flows have carried.
type sum struct {
	active, opened     int64
	toServer, toClient uint64
}

func (s *sum) add(f *kernel.Flow) {
	s.opened++
	s.toServer += f.ToServer.Bytes
	s.toClient += f.ToClient.Bytes
}

// sums counts the flows of the kernel plane: those that have ended, and those that were there when it last looked.
type sums struct {
	next time.Time // when to look again; only Run's

	mu    sync.Mutex
	ended map[key]sum
	live  map[key]sum
}

func (s *sums) init() { s.ended, s.live = make(map[key]sum), make(map[key]sum) }

// now returns the sums of the last look.
func (s *sums) now() map[key]sum {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live
}

// ended counts a flow that has ended, for good.
func (p *Plane) ended(f kernel.Flow) {
	k := key{f.Service, f.Crossing}
	p.sums.mu.Lock()
	e := p.sums.ended[k]
	e.add(&f)
	p.sums.ended[k] = e
	p.sums.mu.Unlock()
	if p.options.Ended != nil {
		p.options.Ended(f)
	}
}

// scan looks at all flows, if it is time to, and tells the counters of the services. Stand-ins that are in use stay so.
func (p *Plane) scan(now time.Time) {
	k := p.open.Load()
	if k == nil || now.Before(p.sums.next) {
		return
	}
	live := make(map[key]sum)
	ledger := p.stand.ledger.Load()
	if err := k.Flows(func(f kernel.Flow) bool {
		s := live[key{f.Service, f.Crossing}]
		s.add(&f)
		if !f.Closing {
			s.active++
		}
		live[key{f.Service, f.Crossing}] = s
		if ledger != nil && f.Crossing == (ip.Crossing{Client: ip.V6, Backend: ip.V4}) && ledger.Prefix().Contains(f.Source.Addr()) {
			ledger.Find(f.Client.Addr())
		}
		return true
	}); err != nil {
		p.options.Log.Error("look at the flows of the kernel plane", "err", err)
		return
	}
	p.sums.next = now.Add(time.Since(now) * scanPart)
	p.tell(live)
}

// tell sets the counters of the services.
func (p *Plane) tell(live map[key]sum) {
	p.sums.mu.Lock()
	defer p.sums.mu.Unlock()
	was := p.sums.live
	p.sums.live = live
	for k := range was {
		if _, ok := live[k]; !ok {
			p.setLocked(k)
		}
	}
	for k := range live {
		p.setLocked(k)
	}
}

func (p *Plane) setLocked(k key) {
	live, ended := p.sums.live[k], p.sums.ended[k]
	if k.service == "" {
		return
	}
	p.options.Registry.Flows(k.service, k.crossing).SetKernel(live.active, live.opened+ended.opened,
		metrics.Counts{ToServer: live.toServer + ended.toServer, ToClient: live.toClient + ended.toClient})
}

// Flows calls yield for each flow of the kernel plane, until it returns false.
func (p *Plane) Flows(yield func(kernel.Flow) bool) {
	k := p.open.Load()
	if k == nil {
		return
	}
	if err := k.Flows(yield); err != nil {
		p.options.Log.Error("list the flows of the kernel plane", "err", err)
	}
}

// Counts calls yield for each counter of packets that is not 0.
func (p *Plane) Counts(yield func(service string, c ip.Crossing, r kernel.Reason, t kernel.Traffic)) {
	k := p.open.Load()
	if k == nil {
		return
	}
	if err := k.Counts(yield); err != nil {
		p.options.Log.Error("read the counters of the kernel plane", "err", err)
	}
}

// Cut ends the flows to backends that keep does not name.
func (p *Plane) Cut(keep func(service string, backend netip.AddrPort) bool) {
	k := p.open.Load()
	if k == nil {
		return
	}
	n, err := k.Cut(func(f kernel.Flow) bool { return !keep(f.Service, f.Backend) })
	switch {
	case err != nil:
		p.options.Log.Error("end flows of the kernel plane", "err", err)
	case n > 0:
		p.options.Log.Info("flows of the kernel plane were cut", "flows", n)
	}
}
