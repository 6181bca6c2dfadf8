// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// takeOver reads what the process before has left in the maps, and forgets its user plane's flows, which ended with it.
func (p *Plane) takeOver() error {
	p.applied = applied{
		names: map[string]uint32{}, fronts: map[forwardFront]forwardService{}, backends: map[backendKey]uint32{},
		sources: map[uint32][]netip.Addr{}, rings: map[uint32]string{}, access: map[forwardAccessKey]uint32{},
		idle: map[uint32]time.Duration{},
	}
	var name forwardName
	for id := uint32(1); id < p.objects.Names.MaxEntries(); id++ {
		if err := p.objects.Names.Lookup(id, &name); err != nil {
			return fmt.Errorf("read names: %w", err)
		}
		if s := string(bytes.TrimRight(name.Bytes[:], "\x00")); s != "" {
			p.applied.names[s] = id
		}
	}
	var front forwardFront
	var service forwardService
	fronts := p.objects.Services.Iterate()
	for fronts.Next(&front, &service) {
		p.applied.fronts[front] = service
		p.applied.rings[service.Ring] = ""
	}
	if err := fronts.Err(); err != nil {
		return fmt.Errorf("read fronts: %w", err)
	}
	var access forwardAccessKey
	var verdict uint32
	list := p.objects.Access.Iterate()
	for list.Next(&access, &verdict) {
		p.applied.access[access] = verdict
	}
	if err := list.Err(); err != nil {
		return fmt.Errorf("read access: %w", err)
	}
	if err := p.takeOverBackends(); err != nil {
		return err
	}
	if !p.options.Beside {
		if err := p.forgetReserved(); err != nil {
			return err
		}
	}
	return p.beat()
}

func (p *Plane) takeOverBackends() error {
	for number := uint32(1); number < p.objects.Backends.MaxEntries(); number++ {
		var b forwardBackend
		if err := p.objects.Backends.Lookup(number, &b); err != nil {
			return fmt.Errorf("read backends: %w", err)
		}
		if b.Family == 0 {
			continue
		}
		key := backendKey{addr: addrPort(b.Address, b.Port), source: Source(b.Source)}
		if b.Prefix != [16]uint8{} {
			key.prefix = netip.AddrFrom16(b.Prefix)
		}
		p.applied.backends[key] = number
	}
	return nil
}

// beat tells the program that the process lives, and what it must know of the options.
func (p *Plane) beat() error {
	c := forwardControl{Heartbeat: second(), Floor: uint32(p.options.Floor), Local: p.locals.first, Locals: p.locals.count}
	if p.options.Errors4.Is4() {
		c.Errors4 = p.options.Errors4.As4()
	}
	if err := p.objects.Control.Put(uint32(0), c); err != nil {
		return fmt.Errorf("beat: %w", err)
	}
	return nil
}

// second is the clock of the program, the coarse one: a finer one is up to a tick ahead of it, and a beat of the future
// would be none.
func second() uint32 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC_COARSE, &t); err != nil {
		return 0 // cannot fail: the clock is there and the pointer is good
	}
	return uint32(t.Sec)
}
