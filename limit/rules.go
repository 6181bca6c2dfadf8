// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"cmp"
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kyozon/kyozon/ip"
)

// MaxWider is how many lengths of wider prefixes may have budgets, for each family.
const MaxWider = 3

const maxTiers = MaxWider + 1

// The bounds of what rules may say, so that no product of them overflows.
const (
	MaxCount = 1_000_000 // of events in the unit of a rate, of a burst, of open connections
	MaxTimes = 100_000
)

// ErrRate means that a text is not a rate.
var ErrRate = errors.New("limit: not a rate; write, for example, 100/s, 30/m or 500/h")

// Rules say how much the clients of one prefix may have of each kind. The zero value limits nothing.
type Rules struct {
	Rates  [Open]Rate // of Requests, Connections, Handshakes and FailedLogins
	Open   int        // connections at once; 0 means no limit
	Wider4 []Wider    // beside the /32 of an IPv4 client
	Wider6 []Wider    // beside the /64 of an IPv6 client

	Observe bool // who wants more is counted, and gets it
}

// Rate is so many events in a time, and so many at once. The zero value is no limit.
type Rate struct {
	Count int           // 1 to MaxCount
	Per   time.Duration // a second, a minute or an hour
	Burst int           // 1 to MaxCount
}

// Wider is how many times the budget of a client the prefixes of a shorter length have.
type Wider struct{ Bits, Times int }

// DefaultWider returns the wider prefixes of a family where the site file names none.
//
// A /56 is what a home gets, with a few networks in use at once: 4 times. A /48 is a company's site, or, where an
// access network gives out /56s, 256 homes that are never all busy at once: 16 times. A /24 is 256 IPv4 addresses,
// likewise.
func DefaultWider(f ip.Family) []Wider {
	if f == ip.V4 {
		return []Wider{{24, 16}}
	}
	return []Wider{{56, 4}, {48, 16}}
}

// IsZero says whether the rules limit nothing.
func (r Rules) IsZero() bool { return r.Rates == [Open]Rate{} && r.Open == 0 }

// Limits says whether the rules limit a kind.
func (r Rules) Limits(k Kind) bool {
	if k == Open {
		return r.Open > 0
	}
	return r.Rates[k].Count > 0
}

// UnmarshalText reads "100/s", "30/m" or "500/h". As many may come at once as the number says. Returns ErrRate.
func (r *Rate) UnmarshalText(text []byte) error {
	number, unit, _ := strings.Cut(string(text), "/")
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil || n < 1 || n > MaxCount {
		return ErrRate
	}
	per := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}[unit]
	if per == 0 {
		return ErrRate
	}
	*r = Rate{Count: int(n), Per: per, Burst: int(n)}
	return nil
}

// String returns the rate as UnmarshalText reads it, and the burst if it is another.
func (r Rate) String() string {
	if r.Count == 0 {
		return "none"
	}
	unit := map[time.Duration]string{time.Second: "s", time.Minute: "m", time.Hour: "h"}[r.Per]
	s := strconv.Itoa(r.Count) + "/" + unit
	if r.Burst != r.Count {
		s += ", " + strconv.Itoa(r.Burst) + " at once"
	}
	return s
}

// Limits returns the limits that the rules put upon those who are counted in t.
func (t *Table) Limits(r Rules) *Limits {
	l := &Limits{table: t, observe: r.Observe, own4: tiers(r, ip.V4, 32, r.Wider4), own6: tiers(r, ip.V6, ip.ClientBits, r.Wider6)}
	for _, k := range Kinds() {
		l.limited[k] = r.Limits(k)
	}
	own := l.own6[len(l.own6)-1]
	for k, depth := range own.depth {
		if depth > 0 {
			l.fraction[k] = 1 / float64(depth)
		}
	}
	l.fraction[Open] = 1 / float64(max(own.open, 1))
	return l
}

// Observes says whether nobody is refused.
func (l *Limits) Observes() bool { return l.observe }

// Table returns the table that the limits count in, for those of the next generation.
func (l *Limits) Table() *Table { return l.table }

// tiers returns the budgets of a family, the widest prefix first.
func tiers(r Rules, f ip.Family, own int, wider []Wider) []tier {
	var all []tier
	for _, w := range append(slices.Clone(wider), Wider{own, 1}) {
		t := tier{bits: w.Bits, mask: ^uint64(0) << (64 - w.Bits), tag: uint64(w.Bits)<<8 | uint64(f),
			open: int32(min(r.Open*w.Times, math.MaxInt32)), times: int32(w.Times)}
		for k, rate := range r.Rates {
			if rate.Count == 0 {
				continue
			}
			t.every[k] = max(int64(rate.Per)/(int64(rate.Count)*int64(w.Times)), 1)
			t.depth[k] = t.every[k] * int64(rate.Burst) * int64(w.Times)
		}
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b tier) int { return cmp.Compare(a.bits, b.bits) })
	return all
}
