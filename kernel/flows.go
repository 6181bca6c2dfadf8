// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"fmt"
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
		stopped = !yield(Flow{
			Service: names[path.Service], Transport: transportOf(t.Protocol), Crossing: crossingOf(path),
			Client: addrPort(t.Saddr, t.Sport), Front: addrPort(t.Daddr, t.Dport),
			Source: addrPort(path.Saddr, path.Sport), Backend: addrPort(path.Daddr, path.Dport),
			Idle: idle(now, max(path.Seen, back.Seen)), Closing: closing(path, &back),
			ToServer: Traffic{path.Packets, path.Bytes}, ToClient: Traffic{back.Packets, back.Bytes},
		})
	})
	return err
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
	const fin, rst = forwardStateFIN, forwardStateRST
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
	now := second()
	return p.end(func(t *forwardTuple, path, back *forwardPath) bool {
		return idle(now, max(path.Seen, back.Seen)) >= p.timeout(t, path, back)
	})
}

func (p *Plane) timeout(t *forwardTuple, path, back *forwardPath) time.Duration {
	switch {
	case t.Protocol == protocolUDP:
		return p.options.Timeouts.UDP
	case closing(path, back):
		return p.options.Timeouts.Closing
	}
	return p.options.Timeouts.TCP
}

// Cut ends the flows to a backend: their packets go to the host's stack, which resets TCP. It returns how many.
func (p *Plane) Cut(backend netip.AddrPort) (int, error) {
	return p.end(func(_ *forwardTuple, path, _ *forwardPath) bool { return addrPort(path.Daddr, path.Dport) == backend })
}

// end removes the flows that f chooses, both paths of each. A path whose other half is gone is removed when it is idle.
func (p *Plane) end(f func(t *forwardTuple, path, back *forwardPath) bool) (int, error) {
	var gone []forwardTuple
	n := 0
	err := p.each(func(t *forwardTuple, path *forwardPath) {
		if path.Kind == forwardKindUSER {
			return
		}
		var back forwardPath
		other := turned(path, t.Protocol)
		half := p.objects.Flows.Lookup(other, &back) != nil
		switch {
		case half && idle(second(), path.Seen) >= p.options.Timeouts.Closing:
			gone = append(gone, *t)
		case !half && path.Kind == forwardKindTO_SERVER && f(t, path, &back):
			gone = append(gone, *t, other)
			n++
		}
	})
	if err != nil {
		return 0, err
	}
	for _, t := range gone {
		if err := p.objects.Flows.Delete(t); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return n, fmt.Errorf("end flow: %w", err)
		}
	}
	return n, nil
}
