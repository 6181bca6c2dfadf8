// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net/netip"
	"sync"
	"time"

	"github.com/cilium/ebpf"

	"github.com/kyozon/kyozon/media/stream"
)

// errTwins means that two ports cannot be told apart by their hashes. It does not happen to those of one network.
var errTwins = errors.New("kernel: another lane has the same mark")

// slots are the places that lanes have in their array, and the table by which the program finds them:
//
//	port ─▶ hash ─▶ bucket, or the other one ─▶ entry with the hash's mark ─▶ slot ─▶ is it of this port, and who was heard?
//
// A lane is written before the entry that leads to it, and is there no more when that is gone. So one that is half written is
// found by no packet, nor by the process after one that was killed.
type slots struct {
	ports, lanes *ebpf.Map

	mu      sync.Mutex
	buckets []streamsBucket // as in ports
	taken   []uint64        // a bit for each slot: it is named, or rests
	lowest  int             // no word of taken before it has a slot that is free
	resting []rest          // the first has done so for longest
}

// rest is a slot whose lane has ended: for a moment a packet may still be on its way by it. It is not used until then, if there are
// others.
type rest struct {
	slot  uint32
	since time.Time
}

const restFor = time.Second

// entries is how many a bucket has.
const entries = uint32(len(streamsBucket{}.Entries))

// bucketsFor returns how many buckets so many lanes need, a power of two: half of the entries are free, so that one of the two
// buckets has room.
func bucketsFor(lanes int) uint32 {
	return max(2, uint32(1)<<bits.Len32((uint32(2*lanes)-1)/entries))
}

// openSlots reads what there is in the maps.
func openSlots(ports, lanes *ebpf.Map) (*slots, error) {
	s := &slots{ports: ports, lanes: lanes, buckets: make([]streamsBucket, ports.MaxEntries()), taken: make([]uint64, (lanes.MaxEntries()+63)/64)}
	for i := lanes.MaxEntries(); i%64 != 0; i++ {
		s.setTaken(i, true) // there are no such
	}
	var cursor ebpf.MapBatchCursor
	const bundle = 512
	keys := make([]uint32, bundle)
	for n := 0; n < len(s.buckets); {
		now := s.buckets[n:min(n+bundle, len(s.buckets))]
		got, err := ports.BatchLookup(&cursor, keys[:len(now)], now, nil)
		if n += got; err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) || got == 0 {
			return nil, fmt.Errorf("read ports of lanes: %w", err)
		}
	}
	return s, s.check()
}

// check notes which slots are taken, and removes the entries that lead to no lane of theirs: the lanes of a process that was killed when
// it removed its pins are not those of its table.
func (s *slots) check() error {
	var v streamsLane
	for bucket := range s.buckets {
		for i, e := range s.buckets[bucket].Entries {
			slot, ok := slotOf(e)
			if !ok {
				continue
			}
			at := entry{uint32(bucket), uint32(i)}
			if s.lanes.Lookup(slot, &v) == nil && s.place(v.key().Local).has(at, e) {
				s.setTaken(slot, true)
			} else if err := s.writeLocked(at, 0); err != nil {
				return err
			}
		}
	}
	return nil
}

// slotOf returns the slot that an entry names. False: none.
func slotOf(entry uint64) (uint32, bool) { return uint32(entry) - 1, uint32(entry) != 0 }

func (s *slots) setTaken(slot uint32, taken bool) {
	word := int(slot / 64)
	if s.taken[word] |= 1 << (slot % 64); !taken {
		s.taken[word] &^= 1 << (slot % 64)
		s.lowest = min(s.lowest, word)
	}
}

// place is where a port's entry may be. It is find in streams.c.
type place struct {
	buckets [2]uint32
	first   uint32
	mark    uint32
}

func (s *slots) place(local netip.AddrPort) place {
	a := local.Addr().As16()
	high, low := binary.NativeEndian.Uint64(a[:]), binary.NativeEndian.Uint64(a[8:])
	hash := (high*0x9e3779b97f4a7c15 + uint64(port(local.Port()))*0xbf58476d1ce4e5b9 ^ low) * 0x94d049bb133111eb
	last := uint32(len(s.buckets) - 1)
	p := place{first: uint32(hash >> 32), mark: uint32(hash ^ hash>>32)}
	p.buckets[0] = uint32(hash>>40) & last
	p.buckets[1] = p.buckets[0] ^ (p.mark|1)&last
	return p
}

// entry is one of a bucket's.
type entry struct{ bucket, number uint32 }

// namedLocked returns the entry of a place that has its mark, and the slot that it names.
func (s *slots) namedLocked(p place) (at entry, slot uint32, ok bool) {
	for _, bucket := range p.buckets {
		for i, e := range s.buckets[bucket].Entries {
			if slot, ok := slotOf(e); ok && uint32(e>>32) == p.mark {
				return entry{bucket, uint32(i)}, slot, true
			}
		}
	}
	return entry{}, 0, false
}

// fewFree is how many free entries a port's first bucket has at most when its second one is thought of: so hardly any port is there,
// and both are never full.
const fewFree = 2

// vacantLocked returns a free entry of a place: where the program looks first, if it can be.
func (s *slots) vacantLocked(p place) (entry, bool) {
	bucket := p.buckets[0]
	if n := s.vacancies(bucket); n <= fewFree && s.vacancies(p.buckets[1]) > n {
		bucket = p.buckets[1]
	}
	for i := range entries {
		at := entry{bucket, (p.first + i) % entries}
		if _, named := slotOf(s.buckets[bucket].Entries[at.number]); !named {
			return at, true
		}
	}
	return entry{}, false
}

func (s *slots) vacancies(bucket uint32) (n int) {
	for _, e := range s.buckets[bucket].Entries {
		if _, named := slotOf(e); !named {
			n++
		}
	}
	return n
}

// has says whether an entry of a value is one of a place.
func (p place) has(at entry, value uint64) bool {
	return uint32(value>>32) == p.mark && (at.bucket == p.buckets[0] || at.bucket == p.buckets[1])
}

// writeLocked changes an entry.
func (s *slots) writeLocked(at entry, value uint64) error {
	b := s.buckets[at.bucket]
	b.Entries[at.number] = value
	if err := s.ports.Put(at.bucket, &b); err != nil {
		return fmt.Errorf("write port of a lane: %w", err)
	}
	s.buckets[at.bucket] = b
	return nil
}

// put puts a lane at a port, in place of the one there was.
func (s *slots) put(local netip.AddrPort, v *streamsLane) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.place(local)
	at, was, replaces := s.namedLocked(p)
	if replaces {
		var old streamsLane
		if err := s.lanes.Lookup(was, &old); err != nil || old.key().Local != local {
			return errors.Join(errTwins, err)
		}
	}
	ok := replaces
	if !ok {
		at, ok = s.vacantLocked(p)
	}
	var slot uint32
	if ok {
		slot, ok = s.freeLocked(time.Now())
	}
	switch {
	case !ok && replaces: // for a moment it has none
		if err := s.writeLocked(at, 0); err != nil {
			return err
		}
		slot, replaces = was, false
	case !ok:
		return ErrLanes
	}
	err := s.lanes.Put(slot, v)
	if err == nil {
		err = s.writeLocked(at, uint64(p.mark)<<32|uint64(slot+1))
	}
	switch {
	case err != nil:
		s.setTaken(slot, false)
		return fmt.Errorf("put lane: %w", err)
	case replaces:
		s.restLocked(was)
	}
	return nil
}

// take removes the lane of a key.
func (s *slots) take(k stream.LaneKey) (v streamsLane, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, slot, ok := s.lookLocked(k, &v)
	if !ok || s.writeLocked(at, 0) != nil {
		return streamsLane{}, false
	}
	s.restLocked(slot)
	return v, s.lanes.Lookup(slot, &v) == nil // it has counted meanwhile
}

// look returns the lane of a key.
func (s *slots) look(k stream.LaneKey) (v streamsLane, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, _, ok = s.lookLocked(k, &v)
	return v, ok
}

func (s *slots) lookLocked(k stream.LaneKey, v *streamsLane) (at entry, slot uint32, ok bool) {
	if at, slot, ok = s.namedLocked(s.place(k.Local)); !ok {
		return at, slot, false
	}
	return at, slot, s.lanes.Lookup(slot, v) == nil && v.key() == k
}

// freeLocked takes the first slot that is free and does not rest; if all rest, that which has done so for longest.
func (s *slots) freeLocked(now time.Time) (uint32, bool) {
	for len(s.resting) > 0 && now.Sub(s.resting[0].since) > restFor {
		s.setTaken(s.resting[0].slot, false)
		s.resting = s.resting[1:]
	}
	for ; s.lowest < len(s.taken); s.lowest++ {
		if free := ^s.taken[s.lowest]; free != 0 {
			slot := uint32(s.lowest*64 + bits.TrailingZeros64(free))
			s.setTaken(slot, true)
			return slot, true
		}
	}
	if len(s.resting) == 0 {
		return 0, false
	}
	slot := s.resting[0].slot
	s.resting = s.resting[1:]
	return slot, true
}

func (s *slots) restLocked(slot uint32) { s.resting = append(s.resting, rest{slot, time.Now()}) }

// each yields all lanes.
func (s *slots) each(yield func(*streamsLane)) error {
	named := s.named()
	const bundle = 256
	var cursor ebpf.MapBatchCursor
	keys, values := make([]uint32, bundle), make([]streamsLane, bundle)
	for len(named) > 0 {
		n, err := s.lanes.BatchLookup(&cursor, keys, values, nil)
		for i := range min(n, len(named)*64) {
			if named[i/64]>>(i%64)&1 != 0 {
				yield(&values[i])
			}
		}
		if errors.Is(err, ebpf.ErrKeyNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("list lanes: %w", err)
		}
		named = named[min(bundle/64, len(named)):]
	}
	return nil
}

// named returns a bit for each slot that has a lane, as far as there are some.
func (s *slots) named() []uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	named := make([]uint64, len(s.taken))
	end := 0
	for i := range s.buckets {
		for _, e := range s.buckets[i].Entries {
			if slot, ok := slotOf(e); ok {
				named[slot/64] |= 1 << (slot % 64)
				end = max(end, int(slot/64)+1)
			}
		}
	}
	return named[:end]
}
