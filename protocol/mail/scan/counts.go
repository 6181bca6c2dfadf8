// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package scan

import (
	"net/netip"
	"sync/atomic"

	"github.com/kyozon/kyozon/ip"
)

// Counts counts messages by what became of them. It outlives reloads, and may be used from anywhere.
type Counts struct {
	judged [2][Reasons]atomic.Int64 // by the client's family
	silent [2]atomic.Int64
	unseen [2]atomic.Int64
}

func (c *Counts) add(client netip.Addr, v *Verdict) {
	if c == nil {
		return
	}
	f := index(ip.FamilyOf(client))
	c.judged[f][v.Reason].Add(1)
	if v.Auth && v.Reason != Auth {
		c.silent[f].Add(1)
	}
	if v.Unasked != nil && v.Reply == "" {
		c.unseen[f].Add(1)
	}
}

// Judged returns how many messages of a family's clients were judged so.
func (c *Counts) Judged(f ip.Family, r Reason) int64 { return c.judged[index(f)][r].Load() }

// Silent returns how many were not refused although neither SPF nor DKIM speaks for them.
func (c *Counts) Silent(f ip.Family) int64 { return c.silent[index(f)].Load() }

// Unseen returns how many passed without an engine that should have seen them.
func (c *Counts) Unseen(f ip.Family) int64 { return c.unseen[index(f)].Load() }

func index(f ip.Family) int { return int(f-ip.V4) / 2 }
