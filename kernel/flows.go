// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"time"

	"github.com/cilium/ebpf"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/listen"
)

// Flow is one established flow of this plane. Packets and bytes are those of IP, as they came in.
type Flow struct {
	Service   string
	Transport listen.Transport
	Crossing  ip.Crossing
	Client    netip.AddrPort
	Front     netip.AddrPort
	Source    netip.AddrPort // as the backend sees it
	Backend   netip.AddrPort
	Age       time.Duration // since the first packet
	Idle      time.Duration // since the last packet of either side
	Closing   bool          // both sides have ended, or one has reset
	ToServer  Traffic
	ToClient  Traffic
}

// Traffic is what went one way.
type Traffic struct{ Packets, Bytes uint64 }

// Flows calls yield for every established flow, until it returns false. Flows that come and go meanwhile may be missed.
func (p *Plane) Flows(yield func(Flow) bool) error {
	names, stopped, now := p.serviceNames(), false, second()
	err := p.each(func(t *forwardTuple, path *forwardPath) {
		if stopped || path.Kind != forwardKindTO_SERVER {
			return
		}
		var back forwardPath
		if p.objects.Flows.Lookup(turned(path, t.Protocol), &back) != nil {
			return // it has just ended
		}
		stopped = !yield(flow(names[uint32(path.Service)], now, t, path, &back))
	})
	return err
}

// flow describes a flow by its two paths.
func flow(service string, now uint32, t *forwardTuple, path, back *forwardPath) Flow {
	return Flow{
		Service: service, Transport: transportOf(t.Protocol), Crossing: crossingOf(path),
		Client: addrPort(t.Saddr, t.Sport), Front: addrPort(t.Daddr, t.Dport),
		Source: addrPort(path.Saddr, path.Sport), Backend: addrPort(path.Daddr, path.Dport),
		Age: idle(now, path.Began), Idle: idle(now, max(path.Seen, back.Seen)), Closing: closing(path, back),
		ToServer: Traffic{path.Packets, path.Bytes}, ToClient: Traffic{back.Packets, back.Bytes},
	}
}

func (p *Plane) serviceNames() map[uint32]string {
	p.mu.Lock()
	defer p.mu.Unlock()
	names := make(map[uint32]string, len(p.applied.names))
	for name, id := range p.applied.names {
		names[id] = name
	}
	return names
}

func idle(now, seen uint32) time.Duration {
	if seen > now { // another processor is a tick ahead
		return 0
	}
	return time.Duration(now-seen) * time.Second
}

// closing says whether a flow of TCP has ended on both sides.
func closing(path, back *forwardPath) bool {
	const fin, rst = forwardStateFIN, forwardStateRST // UDP has neither
	return (path.State|back.State)&rst != 0 || path.State&back.State&fin != 0
}

// each calls f for every path in flows, in batches. What f is given is good until it returns.
func (p *Plane) each(f func(*forwardTuple, *forwardPath)) error {
	const batch = 4096
	keys, values := make([]forwardTuple, batch), make([]forwardPath, batch)
	var cursor ebpf.MapBatchCursor
	for {
		n, err := p.objects.Flows.BatchLookup(&cursor, keys, values, nil)
		for i := range n {
			f(&keys[i], &values[i])
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read flows: %w", err)
		}
	}
}

const (
	tcpDefault     = 2*time.Hour + 4*time.Minute
	closingDefault = time.Minute
	udpDefault     = 5 * time.Minute

	beatEvery  = 5 * time.Second
	sweepEvery = 10 * time.Second
)

func (t *Timeouts) setDefaults() {
	for to, value := range map[*time.Duration]time.Duration{&t.TCP: tcpDefault, &t.Closing: closingDefault, &t.UDP: udpDefault} {
		if *to == 0 {
			*to = value
		}
	}
}

// Run keeps the plane alive until ctx is done: it beats, and sweeps out flows that have ended.
func (p *Plane) Run(ctx context.Context) error {
	beat, sweep := time.NewTicker(beatEvery), time.NewTicker(sweepEvery)
	defer beat.Stop()
	defer sweep.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case <-beat.C:
			err = p.beat()
		case <-sweep.C:
			_, err = p.Sweep()
		}
		if err != nil {
			return err
		}
	}
}

// Sweep removes the flows that have been idle for longer than the timeouts allow, and returns how many.
func (p *Plane) Sweep() (int, error) {
	return p.end(func(f *Flow, own time.Duration) bool { return f.Idle >= p.timeout(own, f) })
}

// timeout returns how long a flow may be idle, if own is what its service says, or 0.
func (p *Plane) timeout(own time.Duration, f *Flow) time.Duration {
	switch {
	case f.Closing:
		return p.options.Timeouts.Closing
	case own > 0:
		return own
	case f.Transport == listen.UDP:
		return p.options.Timeouts.UDP
	}
	return p.options.Timeouts.TCP
}

// Cut ends the flows that which names: their packets go to the host's stack, which resets TCP. It returns how many.
func (p *Plane) Cut(which func(Flow) bool) (int, error) {
	return p.end(func(f *Flow, _ time.Duration) bool { return which(*f) })
}

// end removes the flows that f chooses, both paths of each. A path whose other half is gone is removed when it is idle. f
// is told after which time the flow's service wants it forgotten, or 0.
func (p *Plane) end(f func(flow *Flow, own time.Duration) bool) (int, error) {
	var gone []forwardTuple
	var ended []Flow
	names, now := p.serviceNames(), second()
	p.mu.Lock()
	own := maps.Clone(p.applied.idle)
	p.mu.Unlock()
	err := p.each(func(t *forwardTuple, path *forwardPath) {
		if path.Kind == forwardKindUSER {
			return
		}
		var back forwardPath
		other := turned(path, t.Protocol)
		if p.objects.Flows.Lookup(other, &back) != nil {
			if idle(now, path.Seen) >= p.options.Timeouts.Closing {
				gone = append(gone, *t)
			}
			return
		}
		if path.Kind != forwardKindTO_SERVER {
			return
		}
		if one := flow(names[uint32(path.Service)], now, t, path, &back); f(&one, own[uint32(path.Service)]) {
			gone = append(gone, *t, other)
			ended = append(ended, one)
		}
	})
	if err != nil {
		return 0, err
	}
	for _, t := range gone {
		if err := p.objects.Flows.Delete(t); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return 0, fmt.Errorf("end flow: %w", err)
		}
	}
	if p.options.Ended != nil {
		for _, one := range ended {
			p.options.Ended(one)
		}
	}
	return len(ended), nil
}
