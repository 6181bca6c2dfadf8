// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/kyozon/kyozon/media/control"
)

// StreamsOptions say how large a Streams is. The zero value works.
type StreamsOptions struct {
	Pin   string // folder on a BPF file system; "" means that all ends with the process
	Lanes int    // at most; 0 means 131,072. Memory is taken at once, 208 bytes for each

	filters bool // attach as on a kernel that has no TCX, for tests
}

const lanesDefault = 131_072

// Streams is the program that relays media of calls (kernel/bpf/streams.c), and its lanes. It forwards what user space has decided:
//
//	packet ─▶ TC ingress ─▶ lane of its two ends ─▶ count ─▶ rewrite ─▶ the next hop
//	              │                                                        ▲
//	              └─▶ media: who may be heard? ─▶ Put ─────────────────────┘
//
// A lane goes on without the process if it is pinned. Its methods may be called from any goroutine.
type Streams struct {
	options StreamsOptions
	objects streamsObjects
	slots   *slots
	hooks   hooks
	before  control.Passed // what was counted before it was opened
	routes  *netlink.Handle
	strict  atomic.Bool // see lookStrict
	links   sync.Map    // see leaves
}

// OpenStreams loads the program, and takes over the lanes of the process before if they are pinned and have the same layout and
// number; those of another layout are removed: calls go on in the process. It attaches nothing: see Attach.
//
// It needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and Linux 5.15.
func OpenStreams(o StreamsOptions) (*Streams, error) {
	if o.Lanes == 0 {
		o.Lanes = lanesDefault
	}
	s := &Streams{options: o}
	err := s.load()
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		if err = empty(o.Pin, streamsPriority); err == nil { // the folder stays: it is locked
			err = s.load()
		}
	}
	if err != nil {
		return nil, err
	}
	s.hooks = hooks{pin: o.Pin, filters: o.filters, priority: streamsPriority, program: s.objects.Streams, attached: map[string]attachment{}}
	if err = s.lookBefore(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if s.slots, err = openSlots(s.objects.Ports, s.objects.Lanes); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if s.routes, err = netlink.NewHandle(); err != nil {
		return nil, errors.Join(fmt.Errorf("open netlink: %w", err), s.Close())
	}
	s.lookStrict()
	return s, nil
}

func (s *Streams) load() error {
	spec, err := loadStreams()
	if err != nil {
		return fmt.Errorf("read program: %w", err)
	}
	buckets := bucketsFor(s.options.Lanes)
	spec.Maps["lanes"].MaxEntries, spec.Maps["ports"].MaxEntries = uint32(s.options.Lanes), buckets
	if err := spec.Variables["last"].Set(buckets - 1); err != nil {
		return fmt.Errorf("set number of buckets: %w", err)
	}
	maps := ebpf.MapOptions{}
	if maps.PinPath = s.options.Pin; maps.PinPath != "" {
		if err := os.MkdirAll(maps.PinPath, 0o700); err != nil {
			return fmt.Errorf("make folder of pins: %w", err)
		}
		for name, m := range spec.Maps {
			if name != ".rodata" {
				m.Pinning = ebpf.PinByName
			}
		}
	}
	if err := spec.LoadAndAssign(&s.objects, &ebpf.CollectionOptions{Maps: maps}); err != nil {
		return fmt.Errorf("load program: %w", err)
	}
	return nil
}

// Attach puts the program onto an Ethernet interface by which packets of streams come in, in place of that of the process
// before.
func (s *Streams) Attach(iface string) error {
	if err := ethernet(iface); err != nil {
		return err
	}
	return s.hooks.attach(iface)
}

// Leave lets go of an interface that is no more.
func (s *Streams) Leave(iface string) error { return s.hooks.leave(iface) }

// Close gives back the process's hold. What is pinned goes on forwarding; what is not ends.
func (s *Streams) Close() error {
	if s.routes != nil {
		s.routes.Close()
	}
	return errors.Join(s.hooks.close(), s.objects.Close())
}

// DetachStreams removes what OpenStreams and Attach have pinned in a folder: all packets go to the host's stack.
func DetachStreams(pin string) error { return detach(pin, streamsPriority) }
