// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package users

import (
	"context"
	"sync"
	"time"
)

const (
	atOnce  = 16       // questions that a source is asked at the same time
	waiting = 4 << 10  // users that are looked up, or wait for it
	kept    = 64 << 10 // users that are remembered
)

// Source is asked for a user. It returns "" for one that it does not know.
type Source interface {
	Ask(ctx context.Context, user string) (string, error)

	// Close closes what is kept for the next question. Who asks later is answered all the same.
	Close()
}

// Options of a Remote.
type Options struct {
	Keep    time.Duration // how long an answer is remembered, also that a user is not known
	Timeout time.Duration // for each question, the wait for its turn included
}

// Remote is a directory elsewhere. It starts a goroutine for each user that is looked up; Close waits for them.
type Remote struct {
	options Options
	source  Source
	gate    chan struct{}

	mu          sync.Mutex
	landed      sync.Cond // with mu: a flight has ended
	closed      bool
	young, last map[string]memo // last is forgotten when young is full
	flights     map[string][]func(string, error)
}

// memo is what has been said of a user.
type memo struct {
	answer string
	until  time.Time
}

// NewRemote returns a directory. Close it.
func NewRemote(s Source, o Options) *Remote {
	r := &Remote{options: o, source: s, gate: make(chan struct{}, atOnce), young: make(map[string]memo), flights: make(map[string][]func(string, error))}
	r.landed.L = &r.mu
	return r
}

// Known implements Directory.
func (r *Remote) Known(user string) (string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.knownLocked(user)
}

func (r *Remote) knownLocked(user string) (string, bool) {
	m, ok := r.young[user]
	if !ok {
		m, ok = r.last[user]
	}
	if !ok || !time.Now().Before(m.until) {
		return "", false
	}
	return m.answer, true
}

// Find implements Directory. Who asks for the same user at the same time is told the same.
func (r *Remote) Find(user string, done func(string, error)) {
	r.mu.Lock()
	others, flies := r.flights[user]
	busy := !flies && len(r.flights) == waiting
	if !busy {
		r.flights[user] = append(others, done)
	}
	r.mu.Unlock()
	switch {
	case busy:
		done("", ErrBusy)
	case !flies:
		go r.look(user)
	}
}

// look asks for a user, and tells all who want to know.
func (r *Remote) look(user string) {
	ctx, cancel := context.WithTimeout(context.Background(), r.options.Timeout)
	defer cancel()
	answer, err := r.ask(ctx, user)
	r.mu.Lock()
	if err == nil {
		r.keepLocked(user, answer)
	}
	all := r.flights[user]
	delete(r.flights, user)
	last := r.closed && len(r.flights) == 0
	r.landed.Broadcast()
	r.mu.Unlock()
	if last {
		r.source.Close()
	}
	for _, done := range all {
		done(answer, err)
	}
}

func (r *Remote) ask(ctx context.Context, user string) (string, error) {
	select {
	case r.gate <- struct{}{}:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	defer func() { <-r.gate }()
	answer, err := r.source.Ask(ctx, user)
	if err != nil {
		return "", err
	}
	return clean([]byte(answer))
}

// keepLocked remembers an answer. Half of what is kept is forgotten at once: what is wanted often comes back.
func (r *Remote) keepLocked(user, answer string) {
	if len(r.young) >= kept/2 {
		r.last, r.young = r.young, make(map[string]memo)
	}
	r.young[user] = memo{answer, time.Now().Add(r.options.Keep)}
}

// Close waits for those who are looked up, and closes what is kept. Who calls Find later is answered all the same.
func (r *Remote) Close() {
	r.mu.Lock()
	r.closed = true
	for len(r.flights) > 0 {
		r.landed.Wait()
	}
	r.mu.Unlock()
	r.source.Close()
}
