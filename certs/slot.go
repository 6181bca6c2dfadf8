// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/tls"
	"sync/atomic"
)

// Slot is the place of a certificate that does not come from a file, and may not be there yet. Whoever gets the
// certificate fills it, while stores use it; a slot outlives them. A nil Slot has no certificate.
type Slot struct {
	Name   string // of the host, in lower case; a wildcard as "*.example.jp"
	Source string // for Info

	// Asked, if set, is called when a client had to be refused because there is no certificate yet: for the first
	// client only. fault is why there is none, if that is known.
	Asked func(name, fault string)

	asked atomic.Bool
	now   atomic.Pointer[filling]
}

// filling is what is in a slot. It is immutable.
type filling struct {
	cert  *tls.Certificate
	fault string
}

// Certificate returns what is in the slot, or nil.
func (s *Slot) Certificate() *tls.Certificate {
	if s == nil {
		return nil
	}
	if f := s.now.Load(); f != nil {
		return f.cert
	}
	return nil
}

// Fill puts a certificate into the slot, in place of the one before. Its Leaf must be set.
func (s *Slot) Fill(c *tls.Certificate) { s.now.Store(&filling{cert: c}) }

// Fail says why there is no newer certificate. The one in the slot, if there is one, stays in use. Fill and Fail must
// not be called at the same time.
func (s *Slot) Fail(why error) { s.now.Store(&filling{cert: s.Certificate(), fault: why.Error()}) }

// Info describes the slot now.
func (s *Slot) Info() (i Info) {
	f := s.now.Load()
	if f != nil && f.cert != nil {
		i = infoOf(f.cert.Leaf)
	}
	if f != nil {
		i.Fault = f.fault
	}
	i.Source, i.Names = s.Source, []string{s.Name}
	return i
}

// ask returns the certificate for a client and, if there is none, says so once.
func (s *Slot) ask() *tls.Certificate {
	c := s.Certificate()
	if c == nil && s.Asked != nil && !s.asked.Swap(true) {
		s.Asked(s.Name, s.Info().Fault)
	}
	return c
}
