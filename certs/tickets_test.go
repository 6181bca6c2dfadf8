// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/tls"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
)

// TestTickets has a new key each day, and reads tickets for a week.
func TestTickets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tickets := NewTickets()
		first := tickets.secrets()
		key := first.keys("shop")[0]
		time.Sleep(24*time.Hour - 1)
		if tickets.secrets() != first {
			t.Error("a new secret on the first day")
		}
		for day := 1; day <= 9; day++ {
			time.Sleep(24 * time.Hour)
			keys := tickets.secrets().keys("shop")
			if want := min(day+1, 8); len(keys) != want {
				t.Errorf("day %d: %d keys, want %d", day, len(keys), want)
			}
			if keys[0] == key {
				t.Errorf("day %d: the first key still makes tickets", day)
			}
			if slices.Contains(keys, key) != (day < 8) {
				t.Errorf("day %d: the first key reads tickets: %v", day, day >= 8)
			}
			if other := tickets.secrets().keys("desk"); slices.ContainsFunc(keys, func(k [32]byte) bool { return slices.Contains(other, k) }) {
				t.Errorf("day %d: two names have a key in common", day)
			}
		}
	})
}

// TestTerms makes a configuration anew when, and only when, a key or an authority has changed; and those of one name
// have the same keys, whichever addresses they are for.
func TestTerms(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one := servertest.NewAuthority(t, "one")
		clients, err := OpenClients(files(t, one.PEM(), nil))
		if err != nil {
			t.Fatal(err)
		}
		terms := &Terms{Base: new(tls.Config), Name: "shop", Clients: clients, Tickets: NewTickets()}
		first := terms.Config()
		if terms.Config() != first {
			t.Error("made anew for nothing")
		}
		time.Sleep(25 * time.Hour)
		second := terms.Config()
		if second == first {
			t.Error("not made anew with a new key")
		}
		clients.now.Store(&Admission{})
		if terms.Config() == second {
			t.Error("not made anew with another authority")
		}
	})
}

// TestLegacy: who has the secrets of another reads his tickets, and makes tickets that he reads.
func TestLegacy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one := NewTickets()
		for range 10 { // the most that there may be
			time.Sleep(24 * time.Hour)
			one.secrets()
		}
		two, err := OpenTickets(one.Legacy())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(one.secrets().keys("shop"), two.secrets().keys("shop")) {
			t.Error("the keys differ")
		}
		time.Sleep(24 * time.Hour)
		if one, two := one.secrets().keys("shop"), two.secrets().keys("shop"); one[0] == two[0] || one[1] != two[1] {
			t.Error("a day later they have no secret of their own, or lack the common one")
		}
		late := one.Legacy()
		for _, bad := range []string{"", "{}", "[]", "[{}, {}", string(late[:len(late)/2]), `[{"Made": "2200-01-01T00:00:00Z"}]`,
			`[{"Made": "1999-01-01T00:00:00Z"}, {"Made": "1999-01-02T00:00:00Z"}]`} {
			if _, err := OpenTickets([]byte(bad)); err == nil {
				t.Errorf("took %.40q", bad)
			}
		}
	})
}

// FuzzOpenTickets takes what it can use, or nothing.
func FuzzOpenTickets(f *testing.F) {
	f.Add(NewTickets().Legacy())
	f.Add([]byte(`[{"Made": "1999-01-02T00:00:00Z", "Key": [1, 2]}, {"Made": "1999-01-01T00:00:00Z"}]`))
	f.Add([]byte("null"))
	f.Fuzz(func(t *testing.T, legacy []byte) {
		tickets, err := OpenTickets(legacy)
		if err != nil {
			return
		}
		if n := len(tickets.secrets().keys("shop")); n == 0 || n > maxSecrets+1 {
			t.Errorf("%d keys", n)
		}
	})
}
