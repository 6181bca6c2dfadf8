// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package target

import (
	"cmp"
	"slices"
	"time"

	"github.com/kyozon/kyozon/ip"
)

const (
	// deadFor is how long one that did not answer is tried last. A dead family would cost every call 64 times T1.
	deadFor = int64(30 * time.Second)

	// defaultMemory bounds how many are remembered: what strangers register must not grow it.
	defaultMemory = 4096
)

// family is one family of one name: if an address of it is silent, so are often the others.
type family struct {
	host string
	ip.Family
}

// Memory is which targets did not answer. Times are nanoseconds of its owner's clock. The zero value is ready; it is not
// safe for use by two at once.
type Memory struct {
	Most int // how many are remembered; default 4096

	dead    map[Target]int64 // until when
	suspect map[family]int64
}

// Failed is called when a target did not answer, could not be reached or said 503, in which case after is what
// Retry-After says, or 0. RFC 3263 §4.3.
func (m *Memory) Failed(t Target, now int64, after time.Duration) {
	if m.dead == nil {
		m.dead, m.suspect = make(map[Target]int64), make(map[family]int64)
	}
	m.forget(now)
	until := now + deadFor
	if after > 0 { // it is there, and says when to come again
		until = now + int64(min(after, 10*time.Minute))
	}
	m.dead[t] = until
	if t.Host != "" && after == 0 {
		m.suspect[family{t.Host, ip.FamilyOf(t.Addr.Addr())}] = until
	}
}

// forget makes room: first of what is over, then of anything.
func (m *Memory) forget(now int64) {
	most := m.Most
	if most == 0 {
		most = defaultMemory
	}
	room(m.dead, most, now)
	room(m.suspect, most, now)
}

func room[K comparable](until map[K]int64, most int, now int64) {
	if len(until) < most {
		return
	}
	for k, t := range until {
		if t <= now {
			delete(until, k)
		}
	}
	for k := range until {
		if len(until) < most {
			return
		}
		delete(until, k)
	}
}

// Answered is called when a target answered, whatever it said.
func (m *Memory) Answered(t Target) {
	delete(m.dead, t)
	delete(m.suspect, family{t.Host, ip.FamilyOf(t.Addr.Addr())})
}

// Order puts those that did not answer last, and before them those whose family of the same name did not; all others keep
// their places. Nothing is left out: if all are dead, the first is tried.
func (m *Memory) Order(all []Target, now int64) {
	slices.SortStableFunc(all, func(a, b Target) int { return cmp.Compare(m.rank(&a, now), m.rank(&b, now)) })
}

func (m *Memory) rank(t *Target, now int64) int {
	switch {
	case m.dead[*t] > now:
		return 2
	case m.suspect[family{t.Host, ip.FamilyOf(t.Addr.Addr())}] > now:
		return 1
	}
	return 0
}
