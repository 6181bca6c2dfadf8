// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"context"
	"crypto/tls"
	"os"
	"time"
)

// pair is a pair of files, the certificate last taken from them, and what is known about them.
type pair struct {
	files Pair
	cert  *tls.Certificate
	taken stamp  // of the files when cert was read, or when the fault was reported
	tried *stamp // of the files when they were last found not to fit; nil if they fitted since
	fault string // why the files as they are now are not in use
}

// stamp tells one state of the two files from another without reading them. A file that is missing is nil.
type stamp [2]os.FileInfo

func stampOf(p Pair) (s stamp) {
	// An error is a state too; what it is comes out when the file is read.
	s[0], _ = os.Stat(p.Certificate)
	s[1], _ = os.Stat(p.Key)
	return s
}

// same says whether the files have not changed: each is the same inode with the same time and size. Links are
// followed, so that one set to another file counts as a change.
func (s stamp) same(o stamp) bool {
	for i, a := range s {
		b := o[i]
		if a == nil || b == nil {
			if a != b {
				return false
			}
			continue
		}
		if !os.SameFile(a, b) || !a.ModTime().Equal(b.ModTime()) || a.Size() != b.Size() {
			return false
		}
	}
	return true
}

// Run looks at the files, at each interval, until ctx is done, and takes a pair anew when one of its files has
// changed. Established connections are not touched. A pair that does not fit together is not taken, and the old one
// stays in use: once this has been so in two looks at the same files (a tool that replaces them needs a moment from
// the first to the second), it is reported, once for each state of the files.
//
// report is called from Run with the pair and why it was not taken, or nil if it was. Run is called at most once, and
// returns the cause of ctx.
func (s *Store) Run(ctx context.Context, interval time.Duration, report func(Pair, error)) error {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
			s.look(report)
		}
	}
}

// look looks at each pair once, and publishes what has changed before it reports it.
func (s *Store) look(report func(Pair, error)) {
	type event struct {
		pair Pair
		err  error
	}
	var events []event
	for _, p := range s.pairs {
		if changed, err := p.look(); changed {
			events = append(events, event{p.files, err})
		}
	}
	if len(events) == 0 {
		return
	}
	s.publish()
	for _, e := range events {
		report(e.pair, e.err)
	}
}

// look takes the pair anew if its files have changed. changed says that the certificate is new, or err is.
func (p *pair) look() (changed bool, err error) {
	now := stampOf(p.files)
	if now.same(p.taken) {
		return false, nil
	}
	cert, err := load(p.files)
	switch {
	case err == nil:
		p.cert, p.taken, p.tried, p.fault = cert, now, nil, ""
		return true, nil
	case p.tried != nil && now.same(*p.tried):
		p.taken, p.fault = now, err.Error()
		return true, err
	default:
		p.tried = &now
		return false, nil
	}
}

// info describes the pair now.
func (p *pair) info() Info {
	i := infoOf(p.cert.Leaf)
	i.Source, i.Fault = p.files.Certificate, p.fault
	return i
}
