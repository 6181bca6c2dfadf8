// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package limit

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/ip"
)

func TestRateText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Rate{
		"1/s": {1, time.Second, 1}, "30/m": {30, time.Minute, 30}, "1000000/h": {1000000, time.Hour, 1000000},
	} {
		var got Rate
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "1", "/", "1/", "/s", "0/s", "-1/s", "+1/s", "1.5/s", "1/S", "1/ s", "1 /s", "1/s/s",
		"1/d", "1000001/s", "99999999999999999999/s"} {
		if err := new(Rate).UnmarshalText([]byte(text)); !errors.Is(err, ErrRate) {
			t.Errorf("%q: %v", text, err)
		}
	}
	if got := (Rate{5, time.Minute, 50}).String(); got != "5/m, 50 at once" {
		t.Errorf("got %q", got)
	}
}

// FuzzRate: what is read is within the bounds, and written it is the same.
func FuzzRate(f *testing.F) {
	for _, s := range []string{"100/s", "30/m", "0/h", "1000000/s", "x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var r, again Rate
		if r.UnmarshalText([]byte(text)) != nil {
			return
		}
		if r.Count < 1 || r.Count > MaxCount || r.Burst != r.Count || r.Per == 0 {
			t.Errorf("%q is %+v", text, r)
		}
		if err := again.UnmarshalText([]byte(r.String())); err != nil || again != r {
			t.Errorf("%q is %+v, and then %+v: %v", text, r, again, err)
		}
	})
}

// TestBounds: the largest and the smallest that may be written do what they say.
func TestBounds(t *testing.T) {
	t.Parallel()
	const late = int64(1) << 61 // 73 years
	for _, rate := range []Rate{{1, time.Hour, 1}, {1, time.Hour, MaxCount}, {MaxCount, time.Second, 1}, {MaxCount, time.Second, MaxCount}} {
		r := Rules{Rates: [Open]Rate{Requests: rate}, Wider6: []Wider{{16, MaxTimes}}}
		for _, now := range []int64{0, late} {
			l, c := NewTable(0).Limits(r), client(ip.V6, 1)
			if got := allowed(l, Requests, c, now, rate.Burst+10); got != rate.Burst {
				t.Errorf("%v at %d: %d passed", rate, now, got)
			}
		}
	}
}

// TestCounts: each length counts what it has refused, and the prefixes that refuse most are named, once.
func TestCounts(t *testing.T) {
	t.Parallel()
	r := usual()
	l := NewTable(0).Limits(r)
	for i, c := range flood(1000) {
		l.Allow(Requests, c, int64(i))
	}
	allowed(l, Open, client(ip.V6, 1<<16), 0, 10)
	allowed(l, Open, client(ip.V4, 1), 0, 10)
	want := []Refused{
		{netip.MustParsePrefix("2001:db8:666::/48"), Requests, 840},
		{netip.MustParsePrefix("192.0.2.1/32"), Open, 7},
	}
	if diff := cmp.Diff(want, l.Table().Heaviest(2), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if again := l.Table().Heaviest(2); len(again) != 0 {
		t.Errorf("named again: %v", again)
	}
	for f, want := range map[ip.Family][]Count{
		ip.V6: {{ip.V6, Requests, 48, 840}, {ip.V6, Open, 64, 7}},
		ip.V4: {{ip.V4, Open, 32, 7}},
	} {
		all := l.Counts(f)
		if len(all) != int(kinds)*len(l.family(f)) {
			t.Errorf("%v: %d counters", f, len(all))
		}
		got := slices.DeleteFunc(all, func(c Count) bool { return c.Refused == 0 })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%v: %s", f, diff)
		}
	}
}
