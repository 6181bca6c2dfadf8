// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"sync"
	"time"

	"github.com/kyozon/kyozon/ip"
)

const (
	knownFor  = 24 * time.Hour
	mostKnown = 1 << 14
)

// Known remembers for a day which clients have waited for the greeting: they need not wait again. An IPv6 client is its
// /64. It outlives reloads, and may be used from anywhere.
type Known struct {
	mu    sync.Mutex
	until map[netip.Prefix]time.Time
}

// Has says whether a client has waited.
func (k *Known) Has(client netip.Addr) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return time.Now().Before(k.until[ip.ClientPrefix(client)])
}

// Add notes that a client has waited. Where there are too many, one that a map begins with is forgotten: it waits again.
func (k *Known) Add(client netip.Addr) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.until == nil {
		k.until = make(map[netip.Prefix]time.Time)
	}
	if len(k.until) >= mostKnown {
		for one := range k.until {
			delete(k.until, one)
			break
		}
	}
	k.until[ip.ClientPrefix(client)] = time.Now().Add(knownFor)
}
