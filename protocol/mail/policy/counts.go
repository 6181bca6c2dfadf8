// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"sync/atomic"

	"github.com/kyozon/kyozon/ip"
)

// Counts counts clients by what was found. It outlives reloads, and may be used from anywhere.
type Counts struct {
	found  [2][Rules][len(modes)]atomic.Int64
	failed [2]atomic.Int64
}

// Add counts a client's findings, and whether something could not be found out.
func (c *Counts) Add(client netip.Addr, all []Finding, failed bool) {
	for _, f := range all {
		c.found[index(ip.FamilyOf(client))][f.Rule][f.Mode].Add(1)
	}
	if failed {
		c.failed[index(ip.FamilyOf(client))].Add(1)
	}
}

// Found returns how many clients of a family a rule had something against, in a mode.
func (c *Counts) Found(f ip.Family, r Rule, m Mode) int64 { return c.found[index(f)][r][m].Load() }

// Failed returns of how many clients of a family something could not be found out.
func (c *Counts) Failed(f ip.Family) int64 { return c.failed[index(f)].Load() }

func index(f ip.Family) int { return int(f-ip.V4) / 2 }
