// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/media/stream"
)

// TestLaneSlots: as many lanes as there may be find room, and each is found by its packets and its key; those that have ended are not,
// and their room is used again. The process after this one has the same.
func TestLaneSlots(t *testing.T) {
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		const most = 800
		pin := filepath.Join(bpffs(t), "media")
		r := newStreamRig(t, StreamsOptions{Lanes: most, Pin: pin})
		nth := func(i int) *stream.Lane {
			l := laneFor(c)
			l.Local, l.Base = relayPort(l.Local, i), uint32(i)
			return l
		}
		there := make(map[int]bool)
		random := rand.New(rand.NewPCG(1, 2))
		for len(there) < most {
			i := random.IntN(2 * most)
			if there[i] && random.IntN(3) == 0 {
				if got, ok := r.Take(nth(i).LaneKey); !ok || got.Base != uint32(i) {
					t.Fatalf("lane %d has %+v", i, got)
				}
				delete(there, i)
				continue
			}
			r.must(r.Put(nth(i)))
			there[i] = true
		}
		for i := range 2 * most {
			if err := r.Put(nth(i)); !there[i] && !errors.Is(err, ErrLanes) {
				t.Fatalf("one lane too many: %v", err)
			}
		}
		check := func(s *Streams) {
			t.Helper()
			for i := range 2 * most {
				if got, ok := s.Look(nth(i).LaneKey); ok != there[i] || ok && got.Base != uint32(i) {
					t.Fatalf("lane %d is there: %v, want %v; it has %+v", i, ok, there[i], got)
				}
			}
			n := 0
			r.must(s.All(func(l *stream.Lane) {
				if n++; !there[int(l.Base)] || !l.SamePath(nth(int(l.Base))) {
					t.Errorf("there is %+v", l)
				}
			}))
			if n != len(there) {
				t.Errorf("there are %d, want %d", n, len(there))
			}
		}
		check(r.Streams)
		for i := range 2 * most {
			p := spoken(c, 100)
			p.to = nth(i).Local
			if verdict, _ := r.come(p.bytes()); (verdict == actRedirect) != there[i] {
				t.Fatalf("lane %d: verdict %d", i, int32(verdict))
			}
		}
		next, err := OpenStreams(StreamsOptions{Lanes: most, Pin: pin})
		r.must(err)
		check(next)
		r.must(next.Close())
		r.must(DetachStreams(pin))
	})
}

// TestLaneSlotsRest: a slot whose lane has ended is not the next one's, unless there are no others; a moment later it is.
func TestLaneSlotsRest(t *testing.T) {
	t.Parallel()
	s := &slots{taken: make([]uint64, 1)}
	for i := uint32(3); i < 64; i++ {
		s.setTaken(i, true)
	}
	now := time.Now()
	for i, want := range []uint32{0, 1} {
		if got, ok := s.freeLocked(now); !ok || got != want {
			t.Fatalf("the %dth is %d", i, got)
		}
	}
	s.resting = []rest{{0, now}, {1, now.Add(restFor)}}
	for _, tt := range []struct {
		after time.Duration
		want  uint32
		ok    bool
	}{{restFor, 2, true}, {restFor + 1, 0, true}, {restFor + 1, 1, true}, {time.Hour, 0, false}} {
		if got, ok := s.freeLocked(now.Add(tt.after)); got != tt.want || ok != tt.ok {
			t.Errorf("after %v it is %d, %v, want %d, %v", tt.after, got, ok, tt.want, tt.ok)
		}
	}
}

// TestLaneSlotsTwins: a port whose mark another has has no lane, and the other keeps its own.
func TestLaneSlotsTwins(t *testing.T) {
	r := newStreamRig(t, StreamsOptions{Lanes: 10})
	l := laneFor(ip.Crossings()[0])
	r.must(r.Put(l))
	other := *l
	other.Local = relayPort(l.Local, 7)
	was, is := r.slots.place(l.Local), r.slots.place(other.Local)
	at, slot, _ := r.slots.namedLocked(was)
	r.must(r.slots.writeLocked(at, 0))
	r.must(r.slots.writeLocked(entry{is.buckets[0], 0}, uint64(is.mark)<<32|uint64(slot+1)))
	if err := r.Put(&other); !errors.Is(err, errTwins) {
		t.Errorf("put: %v", err)
	}
	if _, ok := r.Take(other.LaneKey); ok {
		t.Error("the other's lane is taken")
	}
	p := spoken(ip.Crossings()[0], 100)
	p.to = other.Local
	if verdict, _ := r.come(p.bytes()); verdict != actUnspec {
		t.Errorf("a packet goes by the other's lane: verdict %d", int32(verdict))
	}
}

// TestLaneSlotsKilled: whatever a process has got done when it is killed, the next one finds whole lanes, and has room for as many as
// there may be.
func TestLaneSlotsKilled(t *testing.T) {
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		const most = 4
		pin := filepath.Join(bpffs(t), "media")
		r := newStreamRig(t, StreamsOptions{Lanes: most, Pin: pin})
		nth := func(i int) *stream.Lane {
			l := laneFor(c)
			l.Local = relayPort(l.Local, i)
			return l
		}
		entryOf := func(s *Streams, i int) (entry, uint32) {
			at, slot, ok := s.slots.namedLocked(s.slots.place(nth(i).Local))
			if !ok {
				t.Fatalf("lane %d has no entry", i)
			}
			return at, slot
		}
		for _, step := range []struct {
			name string
			done func(*Streams)
			want int
		}{
			{"when there was none", func(*Streams) {}, 0},
			{"before an entry was written", func(s *Streams) {
				at, _ := entryOf(s, 0)
				r.must(s.slots.writeLocked(at, 0))
			}, most - 1},
			{"when a slot has another's lane", func(s *Streams) {
				value, err := s.value(nth(9))
				r.must(err)
				_, slot := entryOf(s, 1)
				r.must(s.slots.lanes.Put(slot, value))
			}, most - 1},
			{"when the lanes were removed", func(*Streams) { r.must(os.Remove(filepath.Join(pin, "lanes"))) }, 0},
			{"when all was well", func(*Streams) {}, most},
		} {
			step.done(r.Streams)
			next, err := OpenStreams(StreamsOptions{Lanes: most, Pin: pin})
			r.must(err)
			r.must(r.Streams.Close())
			r.Streams = next
			n := 0
			r.must(next.All(func(*stream.Lane) { n++ }))
			if n != step.want {
				t.Errorf("killed %s: %d lanes, want %d", step.name, n, step.want)
			}
			for i := range most {
				r.must(next.Put(nth(i)))
			}
			for i := range most {
				if _, ok := next.Look(nth(i).LaneKey); !ok {
					t.Errorf("killed %s: lane %d is not there", step.name, i)
				}
			}
		}
		r.must(DetachStreams(pin))
	})
}
