// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"bytes"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/protocol/mail/smtp"
)

// acquaintance is what is known of a backend: the extensions that it has offered last. A client is answered by it, since
// there may be no connection to a backend yet.
type acquaintance struct {
	keywords atomic.Pointer[smtp.Keywords] // immutable; nil before the first time
}

// acquaintances outlive the generations.
type acquaintances struct {
	mu  sync.Mutex
	all map[known]*acquaintance
}

// known is what must be the same for an acquaintance to be one.
type known struct {
	service, pool string
	addr          netip.AddrPort
	handover      backend.Handover
	carry         backend.Carry
	source        backend.Source
}

func knownAs(b *backend.Backend) known {
	spec := &b.Pool().Spec
	return known{b.Pool().Service(), spec.Name, b.Addr, spec.Handover, spec.Carry, spec.Source}
}

// of returns the acquaintance of a backend.
func (a *acquaintances) of(b *backend.Backend) *acquaintance {
	a.mu.Lock()
	defer a.mu.Unlock()
	k := knownAs(b)
	if a.all == nil {
		a.all = make(map[known]*acquaintance)
	}
	if a.all[k] == nil {
		a.all[k] = new(acquaintance)
	}
	return a.all[k]
}

// offered is an acquaintance as a table has it.
type offered struct {
	*acquaintance
	kept *way // nil if its messages are not kept
}

// offers returns what clients can be offered of it; nil before the first time.
func (o offered) offers() *smtp.Keywords {
	k := o.keywords.Load()
	if k == nil || o.kept == nil {
		return k
	}
	ours := o.kept.offers(*k)
	return &ours
}

// note keeps what a backend has offered, if it is new.
func (a *acquaintance) note(k *smtp.Keywords) {
	if now := a.keywords.Load(); now != nil && now.Same(k) {
		return
	}
	own := *k
	own.Auth, own.Xclient = bytes.Clone(k.Auth), bytes.Clone(k.Xclient)
	a.keywords.Store(&own)
}

// common returns what all backends of t that are known offer; ok is false if none is.
func (t *table) common() (k smtp.Keywords, ok bool) {
	for _, a := range t.backends {
		one := a.offers()
		switch {
		case one == nil:
		case !ok:
			k, ok = *one, true
		default:
			k = k.And(one)
		}
	}
	return k, ok
}
