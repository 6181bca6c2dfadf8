// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// How long a secret makes new tickets, and how long it reads those that it has made: as long as RFC 8446 §4.6.1 lets a
// ticket be good.
const (
	secretMakes = 24 * time.Hour
	secretReads = 7 * 24 * time.Hour
	maxSecrets  = 1 + int((secretMakes+secretReads)/secretMakes)
)

var errSecrets = errors.New("certs: not the secrets of session tickets")

// Tickets has the secrets that the keys of session tickets come from. It outlives the configurations that use it, so
// that clients resume their sessions also after a reload. It is safe for use by many goroutines.
//
//	secret of today ──┐
//	secret before ────┼─ HMAC of a name ─▶ the keys of that name
//	…7 days           ┘
//
// A ticket made for one name is none for another: a session must not lead to where its client, or its server, was not
// verified for.
type Tickets struct {
	mu  sync.Mutex // for renewing
	now atomic.Pointer[secrets]
}

// secret is what keys come from.
type secret struct {
	Made time.Time
	Key  [sha256.Size]byte
}

// secrets are immutable, the newest first.
type secrets []secret

// NewTickets returns Tickets with a first secret.
func NewTickets() *Tickets {
	t := new(Tickets)
	t.now.Store(new(secrets{newSecret(time.Now())}))
	return t
}

// OpenTickets returns Tickets with the secrets of another, as Legacy has them.
func OpenTickets(legacy []byte) (*Tickets, error) {
	var all secrets
	if err := json.Unmarshal(legacy, &all); err != nil {
		return nil, fmt.Errorf("read secrets of session tickets: %w", err)
	}
	newest := func(a, b secret) int { return b.Made.Compare(a.Made) }
	if len(all) == 0 || len(all) > maxSecrets || !slices.IsSortedFunc(all, newest) || all[0].Made.After(time.Now()) {
		return nil, errSecrets
	}
	t := new(Tickets)
	t.now.Store(&all)
	return t, nil
}

// Legacy returns the secrets, for the process that takes this one's place.
func (t *Tickets) Legacy() []byte {
	text, err := json.Marshal(t.secrets())
	if err != nil {
		return nil // never of numbers and times; there is then no legacy
	}
	return text
}

func newSecret(now time.Time) (s secret) {
	s.Made = now
	rand.Read(s.Key[:]) // never fails, says its documentation
	return s
}

// secrets returns those of now: the same value as long as there is no newer one.
func (t *Tickets) secrets() *secrets {
	s := t.now.Load()
	if time.Since((*s)[0].Made) < secretMakes {
		return s
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s = t.now.Load()
	now := time.Now()
	if now.Sub((*s)[0].Made) < secretMakes {
		return s
	}
	next := secrets{newSecret(now)}
	for _, old := range *s {
		if now.Sub(old.Made) < secretMakes+secretReads {
			next = append(next, old)
		}
	}
	t.now.Store(&next)
	return &next
}

// keys returns the keys of a name, the one that makes tickets first.
func (s secrets) keys(name string) (keys [][32]byte) {
	for _, one := range s {
		mac := hmac.New(sha256.New, one.Key[:])
		mac.Write([]byte(name))
		keys = append(keys, [32]byte(mac.Sum(nil)))
	}
	return keys
}
