// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package iptest helps tests to try every crossing.
package iptest

import (
	"net/netip"
	"testing"

	"github.com/kyozon/kyozon/ip"
)

// Loopback returns the loopback address of family f.
func Loopback(f ip.Family) netip.Addr {
	if f == ip.V4 {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// EachFamily runs the test once for each family.
func EachFamily(t *testing.T, test func(t *testing.T, f ip.Family)) {
	t.Helper()
	for _, f := range []ip.Family{ip.V4, ip.V6} {
		t.Run(f.String(), func(t *testing.T) { test(t, f) })
	}
}

// EachCrossing runs the test once for each crossing.
func EachCrossing(t *testing.T, test func(t *testing.T, c ip.Crossing)) {
	t.Helper()
	for _, c := range ip.Crossings() {
		t.Run(c.String(), func(t *testing.T) { test(t, c) })
	}
}
