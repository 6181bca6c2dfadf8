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
