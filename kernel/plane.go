// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package kernel is the kernel plane: TCP and UDP services balanced and translated between the families by eBPF at TC
// ingress, without a copy into the process. What it does not take goes on to the host's stack, where the user plane
// listens.
//
//	           Apply ─▶ services, rings, backends, access        Lease ─▶ stand-ins
//	                            │                                   │
//	packet ─▶ TC ingress ─▶ [ flows ─ pending ─ services ─▶ path ─▶ rewrite ] ─▶ redirect
//	                            │                    │
//	           Flows, sweep ◀───┘                    └──▶ Counts, by service, crossing and reason
//
// Maps and links are pinned on a BPF file system: packets go on while the process is replaced, and when it was killed.
// Without its heartbeat for 30 seconds the program takes no new flows.
//
// RFC 7915 (translation), RFC 6146 (stateful NAT64), RFC 7690 (ICMP errors behind ECMP); docs/translator-scorecard.md
// says which rule is tested where. The C is in kernel/bpf.
package kernel

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// DefaultPin is where an edge pins its maps and links.
const DefaultPin = "/sys/fs/bpf/kyozon"

// Options say how large a plane is. The zero value works.
type Options struct {
	Pin      string     // folder on a BPF file system; "" means that all ends with the process
	Flows    int        // established flows at most; 0 means 262,144. Each takes 384 bytes
	Pending  int        // flows that only one side has spoken of; 0 means 65,536. The oldest go first
	StandIns int        // prefixes with a stand-in; 0 means 1,048,576. Memory is taken as they come
	Floor    int        // smallest MTU of an IPv6 path, in bytes; 0 means 1280. RFC 7915 §4.1
	Errors4  netip.Addr // source of errors from IPv6 routers, towards IPv4 backends; RFC 6791. Zero means the stand-in
	Timeouts Timeouts

	// Beside says that the process before has not ended: what it has reserved stays so.
	Beside bool

	// Ended, if set, is called for each flow that Run or Cut removes.
	Ended func(Flow)

	filters bool // attach as on a kernel that has no TCX, for tests
}

// Timeouts are how long a flow is kept after its last packet, where its service does not say so. Zero means the default.
type Timeouts struct {
	TCP     time.Duration // established; 2 h 4 min. RFC 5382 §5
	Closing time.Duration // after FIN from both sides, or RST: as long as a backend's TIME_WAIT; 60 s
	UDP     time.Duration // 5 min. RFC 4787 §4.3
}

const (
	flowsDefault    = 262_144
	pendingDefault  = 65_536
	standInsDefault = 1_048_576
	minimumMTU6     = 1280
)

// Plane is the program in the kernel and its maps. Its methods may be called from any goroutine.
type Plane struct {
	options Options
	objects forwardObjects
	hooks   hooks

	mu      sync.Mutex
	locals  ports   // of the host's own sockets
	applied applied // what the maps hold
}

// Open loads the program, and takes over the maps of the process before if they are pinned and have the same layout
// and sizes; if they have not, it says so and changes nothing. It attaches nothing: see Attach.
//
// It needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON, and Linux 5.15.
func Open(o Options) (*Plane, error) {
	setDefaults(&o)
	spec, err := loadForward()
	if err != nil {
		return nil, fmt.Errorf("read program: %w", err)
	}
	spec.Maps["flows"].MaxEntries = uint32(2 * o.Flows)
	spec.Maps["flows"].Flags |= unix.BPF_F_NO_PREALLOC
	spec.Maps["pending"].MaxEntries = uint32(2 * o.Pending)
	spec.Maps["stand_ins"].MaxEntries = uint32(o.StandIns)
	if err := spec.Variables["processors"].Set(uint32(ebpf.MustPossibleCPU())); err != nil {
		return nil, fmt.Errorf("set processors: %w", err)
	}
	p := &Plane{options: o}
	if p.locals, err = localPorts(); err != nil {
		return nil, err
	}
	maps := ebpf.MapOptions{}
	if o.Pin != "" {
		maps.PinPath = o.Pin
		if err := os.MkdirAll(o.Pin, 0o700); err != nil {
			return nil, fmt.Errorf("make folder of pins: %w", err)
		}
		for name, m := range spec.Maps {
			if name != ".rodata" && name != "scratches" {
				m.Pinning = ebpf.PinByName
			}
		}
	}
	err = spec.LoadAndAssign(&p.objects, &ebpf.CollectionOptions{Maps: maps})
	if errors.Is(err, ebpf.ErrMapIncompatible) {
		return nil, fmt.Errorf("take over %s: %w: stop the old process and remove its pins (kyozon stop --detach)", o.Pin, err)
	}
	if err != nil {
		return nil, fmt.Errorf("load program: %w", err)
	}
	p.hooks = hooks{pin: o.Pin, filters: o.filters, priority: forwardPriority, program: p.objects.Forward, attached: map[string]attachment{}}
	if err := p.takeOver(); err != nil {
		return nil, errors.Join(fmt.Errorf("take over %s: %w", o.Pin, err), p.Close())
	}
	return p, nil
}

func setDefaults(o *Options) {
	set := func(to *int, value int) {
		if *to == 0 {
			*to = value
		}
	}
	set(&o.Flows, flowsDefault)
	set(&o.Pending, pendingDefault)
	set(&o.StandIns, standInsDefault)
	set(&o.Floor, minimumMTU6)
	o.Timeouts.setDefaults()
}

// Close gives back the process's hold. What is pinned goes on forwarding; what is not ends.
func (p *Plane) Close() error { return errors.Join(p.hooks.close(), p.objects.Close()) }

// Detach removes what Open and Attach have pinned in a folder, so that the packets of all flows go to the host's stack.
func Detach(pin string) error { return detach(pin, forwardPriority) }

// detach is Detach for the program whose filters have a priority.
func detach(pin string, priority uint16) error {
	err := empty(pin, priority)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Remove(pin)
}

// empty is detach, but for the folder itself.
func empty(pin string, priority uint16) error {
	names, err := os.ReadDir(pin)
	if err != nil {
		return fmt.Errorf("read pins: %w", err)
	}
	for _, n := range names {
		at := filepath.Join(pin, n.Name())
		if iface, ok := interfaceOf(n.Name()); ok {
			err = errors.Join(err, detachFilter(iface, priority))
		}
		if strings.HasPrefix(n.Name(), linkPrefix) {
			err = errors.Join(err, detachLink(at))
		}
		err = errors.Join(err, os.Remove(at))
	}
	if err != nil {
		return fmt.Errorf("remove pins: %w", err)
	}
	return nil
}
