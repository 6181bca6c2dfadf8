// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

import "github.com/kyozon/kyozon/relay"

// Told is how a backend is told who the client is.
type Told struct {
	Handover Handover
	Carry    Carry
}

// Told returns how b is told: as its pool says, or, where that is left to be found out, as Pin has said.
func (b *Backend) Told() Told {
	if t := b.told.Load(); t != nil {
		return *t
	}
	return Told{b.pool.Spec.Handover, b.pool.Spec.Carry}
}

// Pin says what has been found out about a backend whose pool has HandoverAuto. It may be called from anywhere.
func (b *Backend) Pin(t Told) { b.told.Store(&t) }

// Reach connects to b as Dial does for a client, whether or not b may get flows, so as to ask it something in the name
// of a client that there is not. It is no flow in any count. done is called on the loop.
func (r *Route) Reach(l *relay.Loop, b *Backend, client Client, done func(*Flow, error)) {
	b.tally.flows.Add(1)
	a := &attempt{route: r, loop: l, client: client, began: l.Now(), pool: b.pool, backend: b, only: true, asks: true, done: done}
	a.begin()
}
