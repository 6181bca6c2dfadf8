// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"time"
)

// ClientFiles says which clients may come with a certificate of their own.
type ClientFiles struct {
	CA      string // PEM, those who sign the certificates of clients
	CRL     string // PEM, what they have revoked; "" if there is no list
	Require bool   // nobody may come without one
}

// Clients follows ClientFiles. It is safe for use by many goroutines. Nil asks no client for a certificate.
type Clients struct {
	files ClientFiles
	taken stamp  // of the files when they were last read, or when their fault was reported
	tried *stamp // as in pair
	late  bool   // it was reported that a list is
	now   atomic.Pointer[Admission]
}

// OpenClients reads the files.
func OpenClients(f ClientFiles) (*Clients, error) {
	c := &Clients{files: f, taken: f.stamp()}
	a, err := readAdmission(f)
	if err != nil {
		return nil, err
	}
	c.now.Store(a)
	return c, nil
}

func (f ClientFiles) stamp() (s stamp) {
	s[0], _ = os.Stat(f.CA)
	if f.CRL != "" {
		s[1], _ = os.Stat(f.CRL)
	}
	return s
}

// Admission returns who may come now: the same value as long as nothing changes. It is nil for nil Clients.
func (c *Clients) Admission() *Admission {
	if c == nil {
		return nil
	}
	return c.now.Load()
}

// Run looks at the files as Store.Run does. report is called from Run with the files and what is wrong: why they were not
// taken, or, once, that a newer revocation list is due; nil if they were taken.
func (c *Clients) Run(ctx context.Context, interval time.Duration, report func(ClientFiles, error)) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			if changed, err := c.look(); changed {
				report(c.files, err)
			}
		}
	}
}

// look reads the files anew if they have changed. changed says that who may come is new, or err is.
func (c *Clients) look() (changed bool, err error) {
	now := c.files.stamp()
	if now.same(c.taken) {
		return c.lookAtTime(time.Now())
	}
	a, err := readAdmission(c.files)
	switch {
	case err == nil:
		c.taken, c.tried, c.late = now, nil, false
		c.now.Store(a)
		return true, nil
	case c.tried != nil && now.same(*c.tried):
		c.taken = now
		return true, err
	default:
		c.tried = &now
		return false, nil
	}
}

// lookAtTime says once if a list is late.
func (c *Clients) lookAtTime(now time.Time) (changed bool, err error) {
	text := c.now.Load().Warning(now)
	if text == "" || c.late {
		return false, nil
	}
	c.late = true
	return true, errors.New(text)
}
