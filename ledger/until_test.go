// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kyozon/kyozon/state/statetest"
)

// TestUntil: a stand-in may be used unasked for no longer than Find gives it out, when nothing renews it.
func TestUntil(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := start(t, statetest.NewVolatile(), options())
		client := netip.MustParseAddr("2001:db8::1")
		if _, _, ok := l.Until(client); ok {
			t.Error("a client is known before it came")
		}
		a := l.lease(client.String())
		got, until, ok := l.Until(netip.MustParseAddr("2001:db8::2"))
		if !ok || got != a || time.Until(until) <= time.Hour || time.Until(until) > 3*24*time.Hour {
			t.Fatalf("got %v until %v, %v; want %v", got, until, ok, a)
		}
		if _, _, ok := l.Until(netip.MustParseAddr("192.0.2.1")); ok {
			t.Error("an IPv4 client has a stand-in")
		}
		unproven := netip.MustParseAddr("2001:db8:0:9::1")
		if _, err := l.ask(unproven.String(), l.LeaseUnproven); err != nil {
			t.Fatal(err)
		}
		if _, _, ok := l.Until(unproven); ok {
			t.Error("the stand-in of an unproven client may be used unasked")
		}
		if err := l.Release(); err != nil { // from now on nothing is renewed
			t.Fatal(err)
		}
		time.Sleep(time.Until(until) - time.Second)
		if !l.known(client.String()) {
			t.Error("asked before the end, Find does not give it out")
		}
		time.Sleep(2 * time.Hour)
		if _, _, ok := l.Until(client); ok || l.known(client.String()) {
			t.Error("after the end it is still given out")
		}
		l.end()
	})
}
