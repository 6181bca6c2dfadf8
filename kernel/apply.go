// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"

	"github.com/kyozon/kyozon/ip"
)

// ErrFull means that the plane has no number left for another service, front or backend.
var ErrFull = errors.New("kernel: full")

// applied is what the maps hold of the last Apply, of this process or of the one before.
type applied struct {
	names    map[string]uint32               // of services, to their numbers from 1; kept, since flows count by them
	fronts   map[forwardFront]forwardService // as in the map services
	backends map[backendKey]uint32           // numbers from 1
	sources  map[uint32][]netip.Addr         // of backends by number
	rings    map[uint32]string               // ring by number, to what fills it; "" is unknown
	access   map[forwardAccessKey]uint32     // as in the map access
	idle     map[uint32]time.Duration        // of services by number; those that say so
}

// backendKey is what makes a backend another one. Its sources and whether it is up may change.
type backendKey struct {
	addr   netip.AddrPort
	source Source
	prefix netip.Addr
}

func (k backendKey) id() uint64 {
	a := k.addr.Addr().As16()
	return ip.Mix(ip.Mix(binary.BigEndian.Uint64(a[:8])^ip.Mix(binary.BigEndian.Uint64(a[8:])^uint64(k.addr.Port()))) ^ uint64(k.source))
}

// Apply makes the plane carry these services and no others: the list is complete. What is new is put in before what is
// gone is taken out, so that no packet falls between. Flows go on, also those of what is gone: see Cut. An error in
// the list changes nothing; an error on the way leaves a mixture, which the next Apply clears up.
func (p *Plane) Apply(services []Service) error {
	if err := check(services); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	next := wanted{fronts: map[forwardFront]forwardService{}, access: map[forwardAccessKey]uint32{}, up: map[uint32]bool{}}
	for i := range services {
		if err := p.add(&next, &services[i]); err != nil {
			return fmt.Errorf("carry %s: %w", services[i].Name, err)
		}
	}
	return p.remove(&next)
}

// wanted is what the maps shall hold.
type wanted struct {
	fronts map[forwardFront]forwardService
	access map[forwardAccessKey]uint32
	up     map[uint32]bool // backends by number
}

// add puts in what a service needs.
func (p *Plane) add(next *wanted, s *Service) error {
	id, err := p.name(s.Name)
	if err != nil {
		return err
	}
	delete(p.applied.idle, id)
	if s.Idle > 0 {
		p.applied.idle[id] = s.Idle
	}
	for key, value := range accessList(id, s.Allow, s.Deny) {
		if was, ok := p.applied.access[key]; !ok || was != value {
			if err := p.objects.Access.Put(key, value); err != nil {
				return fmt.Errorf("set access: %w", err)
			}
		}
		next.access[key] = value
		p.applied.access[key] = value
	}
	for _, f := range s.Fronts {
		key := forwardFront{Address: f.AddrPort.Addr().As16(), Port: port(f.AddrPort.Port()), Protocol: protocolOf(f.Transport)}
		value := forwardService{Id: id, Flags: flags(s, &f)}
		if value.Ring, err = p.ring(key, &f, next.up); err != nil {
			return err
		}
		next.fronts[key] = value
		if p.applied.fronts[key] == value {
			continue
		}
		if err := p.objects.Services.Put(key, value); err != nil {
			return fmt.Errorf("set front %s: %w", f.Addr, err)
		}
		p.applied.fronts[key] = value
	}
	return nil
}

func flags(s *Service, front *Front) (f forwardServiceFlags) {
	for flag, set := range map[forwardServiceFlags]bool{
		forwardServiceFlagsSTICKY: front.Sticky, forwardServiceFlagsALLOW_LISTED: len(s.Allow) > 0,
		forwardServiceFlagsSPREAD: s.Spread, forwardServiceFlagsCLEAR_CLASS: s.ClearClass,
	} {
		if set {
			f |= flag
		}
	}
	return f
}

// remove takes out what is not wanted any more.
func (p *Plane) remove(next *wanted) error {
	for key := range p.applied.fronts {
		if _, ok := next.fronts[key]; !ok {
			if err := p.objects.Services.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return fmt.Errorf("remove front: %w", err)
			}
			delete(p.applied.rings, p.applied.fronts[key].Ring)
			delete(p.applied.fronts, key)
		}
	}
	for key := range p.applied.access {
		if _, ok := next.access[key]; !ok {
			if err := p.objects.Access.Delete(key); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				return fmt.Errorf("remove access: %w", err)
			}
			delete(p.applied.access, key)
		}
	}
	for key, number := range p.applied.backends {
		if next.up[number] {
			continue
		}
		if err := p.objects.Backends.Put(number, key.value(0, 0)); err != nil {
			return fmt.Errorf("shut backend %s: %w", key.addr, err)
		}
	}
	return nil
}

// name returns the number of a service. A name that is gone keeps its number, as long as there are others.
func (p *Plane) name(s string) (uint32, error) {
	if id, ok := p.applied.names[s]; ok {
		return id, nil
	}
	id, ok := free(slices.Collect(maps.Values(p.applied.names)), p.objects.Names.MaxEntries())
	if !ok {
		return 0, fmt.Errorf("%w: %d services", ErrFull, id)
	}
	var value forwardName
	copy(value.Bytes[:], s)
	if err := p.objects.Names.Put(id, value); err != nil {
		return 0, fmt.Errorf("set name: %w", err)
	}
	p.applied.names[s] = id
	return id, nil
}

// free returns the lowest number from 1 that is not taken.
func free(taken []uint32, limit uint32) (uint32, bool) {
	slices.Sort(taken)
	n := uint32(1)
	for _, t := range taken {
		if t == n {
			n++
		}
	}
	return n, n < limit
}

// ring puts in the backends of a front and fills its ring, and returns the ring's number.
func (p *Plane) ring(key forwardFront, front *Front, up map[uint32]bool) (uint32, error) {
	number := p.applied.fronts[key].Ring
	if number == 0 {
		n, ok := free(slices.Collect(maps.Keys(p.applied.rings)), p.objects.Rings.MaxEntries())
		if !ok {
			return 0, fmt.Errorf("%w: %d fronts", ErrFull, n)
		}
		number = n
		p.applied.rings[number] = ""
	}
	var seats []seat
	numbers := make([]uint32, len(front.Backends))
	for i, b := range front.Backends {
		n, err := p.backend(b)
		if err != nil {
			return 0, err
		}
		numbers[i] = n
		if b.Weight > 0 {
			up[n] = true
			seats = append(seats, seat{number: n, key: b.key().id(), weight: b.Weight})
		}
	}
	if front.Slots != nil {
		return number, p.fillSlots(number, front.Slots, numbers)
	}
	return number, p.fillSeats(number, seats)
}

// fillSeats fills a ring by the weights of backends.
func (p *Plane) fillSeats(number uint32, seats []seat) error {
	var text strings.Builder
	text.WriteByte('.') // even an empty ring is known
	for _, s := range slices.SortedFunc(slices.Values(seats), func(a, b seat) int { return cmp.Compare(a.number, b.number) }) {
		fmt.Fprintf(&text, "%d*%d ", s.number, s.weight)
	}
	return p.fill(number, text.String(), func(slots []uint32) { maglev(seats, slots) })
}

// fillSlots fills a ring as it is given.
func (p *Plane) fillSlots(number uint32, chosen []int32, numbers []uint32) error {
	slots := make([]uint32, RingSize)
	sum := sha256.New()
	for i, b := range chosen {
		if b >= 0 {
			slots[i] = numbers[b]
		}
		var word [4]byte
		binary.LittleEndian.PutUint32(word[:], slots[i])
		sum.Write(word[:])
	}
	return p.fill(number, string(sum.Sum(nil)), func(to []uint32) { copy(to, slots) })
}

// fill puts a new table in place of a ring, unless what describes it is the same.
func (p *Plane) fill(number uint32, text string, write func([]uint32)) error {
	if p.applied.rings[number] == text {
		return nil
	}
	table, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: RingSize})
	if err != nil {
		return fmt.Errorf("make ring: %w", err)
	}
	defer table.Close()
	keys, slots := make([]uint32, RingSize), make([]uint32, RingSize)
	for i := range keys {
		keys[i] = uint32(i)
	}
	write(slots)
	if _, err := table.BatchUpdate(keys, slots, nil); err != nil {
		return fmt.Errorf("fill ring: %w", err)
	}
	if err := p.objects.Rings.Put(number, table); err != nil {
		return fmt.Errorf("set ring: %w", err)
	}
	p.applied.rings[number] = text
	return nil
}

func (b Backend) key() backendKey {
	k := backendKey{addr: b.Addr, source: b.Source}
	if b.Prefix.IsValid() {
		k.prefix = b.Prefix.Masked().Addr()
	}
	return k
}

func (k backendKey) value(sources int, flags forwardBackendFlags) forwardBackend {
	v := forwardBackend{
		Address: k.addr.Addr().As16(), Port: port(k.addr.Port()), Family: uint8(ip.FamilyOf(k.addr.Addr())),
		Source: forwardSource(k.source), Count: uint32(sources), Flags: flags,
	}
	if k.prefix.IsValid() {
		v.Prefix = k.prefix.As16()
	}
	return v
}

// backend puts in a backend and returns its number.
func (p *Plane) backend(b Backend) (uint32, error) {
	key := b.key()
	number, ok := p.applied.backends[key]
	if !ok {
		if number, ok = free(slices.Collect(maps.Values(p.applied.backends)), p.objects.Backends.MaxEntries()); !ok {
			if number, ok = p.evict(); !ok {
				return 0, fmt.Errorf("%w: %d backends", ErrFull, len(p.applied.backends))
			}
		}
	}
	if !slices.Equal(p.applied.sources[number], b.Sources) {
		for i, s := range b.Sources {
			if err := p.objects.Sources.Put(number*maxSources+uint32(i), forwardAddress{Bytes: s.As16()}); err != nil {
				return 0, fmt.Errorf("set source: %w", err)
			}
		}
		p.applied.sources[number] = slices.Clone(b.Sources)
	}
	if b.Weight == 0 && ok {
		return number, nil // another front may have it up; if none has, remove shuts it
	}
	var state forwardBackendFlags
	if b.Weight > 0 {
		state = forwardBackendFlagsUP
	}
	if err := p.objects.Backends.Put(number, key.value(len(b.Sources), state)); err != nil {
		return 0, fmt.Errorf("set backend: %w", err)
	}
	p.applied.backends[key] = number
	return number, nil
}

// evict takes the number of a backend that is not up from it. Its flows go on: their paths know all they need.
func (p *Plane) evict() (uint32, bool) {
	for key, number := range p.applied.backends {
		var v forwardBackend
		if err := p.objects.Backends.Lookup(number, &v); err == nil && v.Flags&forwardBackendFlagsUP == 0 {
			delete(p.applied.backends, key)
			return number, true
		}
	}
	return 0, false
}

// accessList makes one list of two, in which the most precise prefix decides: a prefix that lies in a denied one is
// denied, whatever allows it.
func accessList(service uint32, allow, deny []netip.Prefix) map[forwardAccessKey]uint32 {
	list := map[forwardAccessKey]uint32{}
	denied := ip.NewPrefixes(deny...)
	for _, a := range allow {
		inside := slices.ContainsFunc(deny, func(d netip.Prefix) bool { return d.Bits() <= a.Bits() && d.Overlaps(a) })
		list[accessKey(service, a)] = 1
		if inside && denied.Contains(a.Addr()) {
			list[accessKey(service, a)] = 0
		}
	}
	for _, d := range deny {
		list[accessKey(service, d)] = 0
	}
	return list
}

func accessKey(service uint32, p netip.Prefix) forwardAccessKey {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	return forwardAccessKey{Length: uint32(32 + bits), Service: service, Address: p.Masked().Addr().As16()}
}
