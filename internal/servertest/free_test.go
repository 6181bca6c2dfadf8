// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package servertest

import (
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// TestFreeAddr: no two get the same port, and who has one can listen there.
func TestFreeAddr(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		got := map[uint16]bool{}
		for range 100 {
			at, err := FreeAddr(f)
			if err != nil {
				t.Fatal(err)
			}
			if got[at.Port()] || ip.FamilyOf(at.Addr()) != f || !vacant(at) {
				t.Errorf("got %v", at)
			}
			got[at.Port()] = true
			if reserve(at) {
				t.Errorf("%v is given twice", at)
			}
		}
	})
}
