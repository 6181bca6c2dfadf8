// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"net/netip"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
)

// model is what the limits should do, written down plainly: buckets that are filled as time passes, in a map that
// forgets nothing.
type model struct {
	rules   Rules
	buckets map[bucketKey]*bucket
	open    map[netip.Prefix]int
}

type bucketKey struct {
	prefix netip.Prefix
	kind   Kind
}

// bucket holds what its prefix has saved, in nanoseconds of its rate.
type bucket struct{ saved, at int64 }

// prefixes returns the prefixes of a client and how many budgets each has.
func (m *model) prefixes(c netip.Addr) map[netip.Prefix]int {
	wider := m.rules.Wider6
	if c.Is4() {
		wider = m.rules.Wider4
	}
	all := map[netip.Prefix]int{ip.ClientPrefix(c): 1}
	for _, w := range wider {
		p, _ := c.Prefix(w.Bits)
		all[p] = w.Times
	}
	return all
}

func (m *model) allow(k Kind, c netip.Addr, now int64) bool {
	r := m.rules.Rates[k%Open]
	for p, times := range m.prefixes(c) {
		if k == Open {
			if m.open[p] >= m.rules.Open*times {
				return false
			}
			continue
		}
		each := int64(r.Per) / int64(r.Count*times)
		full := each * int64(r.Burst*times)
		b := m.buckets[bucketKey{p, k}]
		if b == nil {
			b = &bucket{full, now}
			m.buckets[bucketKey{p, k}] = b
		}
		b.saved, b.at = min(b.saved+now-b.at, full), now
		if b.saved < each {
			return false
		}
	}
	for p, times := range m.prefixes(c) {
		if k == Open {
			m.open[p]++
			continue
		}
		m.buckets[bucketKey{p, k}].saved -= int64(r.Per) / int64(r.Count*times)
	}
	return true
}

func (m *model) release(c netip.Addr) {
	for p := range m.prefixes(c) {
		m.open[p]--
	}
}

func (m *model) giveBack(k Kind, c netip.Addr) {
	r := m.rules.Rates[k]
	for p, times := range m.prefixes(c) {
		m.buckets[bucketKey{p, k}].saved += int64(r.Per) / int64(r.Count*times)
	}
}

// FuzzAllow: whoever asks for whatever and whenever gets the answer of the model, as long as the table forgets nothing.
// Each four bytes are a question: who, from which prefix, for what, and how long after the one before.
func FuzzAllow(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x07\x00"))
	f.Add([]byte("lots of questions, some of which are the same, and the same, and the same, and the same, and the same"))
	f.Fuzz(func(t *testing.T, script []byte) {
		r := usual()
		r.Rates[Requests] = Rate{5, time.Second, 8}
		r.Wider4, r.Wider6 = []Wider{{24, 2}}, []Wider{{56, 2}, {48, 3}}
		l := NewTable(1 << 13).Limits(r)
		m := &model{r, make(map[bucketKey]*bucket), make(map[netip.Prefix]int)}
		held, tried := make(map[netip.Addr]int), make(map[netip.Addr]int)
		now := int64(0)
		for ; len(script) >= 4; script = script[4:] {
			who, where, what, later := script[0], script[1], script[2], script[3]
			c := netip.AddrFrom16([16]byte{0x20, 1, 5: where & 1, 6: where >> 1 & 1, 7: who & 3, 15: who})
			if where&4 != 0 {
				c = netip.AddrFrom4([4]byte{192, 0, where & 1, who & 3})
			}
			now += int64(later) * int64(later) * 100_000
			k := Kind(what) % kinds
			if k == Open && what&4 != 0 {
				if held[c] > 0 {
					held[c]--
					l.Release(c)
					m.release(c)
				}
				continue
			}
			if k == FailedLogins && what&64 != 0 {
				if tried[c] > 0 {
					tried[c]--
					l.GiveBack(k, c)
					m.giveBack(k, c)
				}
				continue
			}
			want := m.allow(k, c, now)
			got := l.Allow(k, c, now)
			if l.Table().Forgotten() > 0 {
				return
			}
			if got != want {
				t.Fatalf("%v for %v at %v: %v, want %v", k, c, time.Duration(now), got, want)
			}
			if want && k == Open {
				held[c]++
			}
			if want && k == FailedLogins {
				tried[c]++
			}
		}
	})
}
