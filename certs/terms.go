// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/tls"
	"sync/atomic"
)

// Terms are on what a server shakes hands with clients, where that changes while it serves: the keys of session tickets
// change daily, who may come with a certificate of its own whenever the files do. They are safe for use by many
// goroutines.
type Terms struct {
	Base    *tls.Config // what does not change
	Name    string      // of whom the client wants to reach: its sessions can be resumed there only
	Clients *Clients
	Tickets *Tickets

	now atomic.Pointer[agreed]
}

// agreed are the terms of one time. It is immutable.
type agreed struct {
	config    *tls.Config
	admission *Admission
	secrets   *secrets
}

// Config returns the configuration for a handshake that begins now. The caller must not change it.
func (t *Terms) Config() *tls.Config {
	a, s := t.Clients.Admission(), t.Tickets.secrets()
	if now := t.now.Load(); now != nil && now.admission == a && now.secrets == s {
		return now.config
	}
	config := t.Base.Clone()
	name := t.Name
	if a != nil {
		a.configure(config)
		name += " " + string(a.id[:]) // a session does not show whom its client was verified by
	}
	config.SetSessionTicketKeys(s.keys(name))
	t.now.Store(&agreed{config, a, s})
	return config
}
