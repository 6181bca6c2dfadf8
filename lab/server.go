// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// Server is a program that runs on a host. Exactly one field is set.
type Server struct {
	Postgres *Postgres `yaml:"postgres"`
	App      *App      `yaml:"app"`
	UDP      *UDP      `yaml:"udp"`
	Nginx    *Nginx    `yaml:"nginx"`
	Dovecot  *Dovecot  `yaml:"dovecot"`
	Postfix  *Postfix  `yaml:"postfix"`
	HAProxy  *HAProxy  `yaml:"haproxy"`
	Kyozon   *Kyozon   `yaml:"kyozon"`
	Baresip  *Baresip  `yaml:"baresip"`
}

// kind is the one of the server's fields that is set.
type kind interface {
	name() string
	check(h HostSpec) []problem
	daemon(ctx context.Context, h *Host) (Daemon, error) // writes what the program needs to the host
}

// all returns the fields in the order in which servers depend on one another; those not set are nil.
func (s Server) all() []kind {
	all := make([]kind, 9)
	set(&all[0], s.Postgres)
	set(&all[1], s.App)
	set(&all[2], s.UDP)
	set(&all[3], s.Nginx)
	set(&all[4], s.Dovecot)
	set(&all[5], s.Postfix)
	set(&all[6], s.HAProxy)
	set(&all[7], s.Kyozon)
	set(&all[8], s.Baresip) // registers with it
	return all
}

// set keeps a nil pointer from becoming an interface that is not nil.
func set[T any, P interface {
	*T
	kind
}](to *kind, from P) {
	if from != nil {
		*to = from
	}
}

// kinds returns the fields that are set.
func (s Server) kinds() []kind {
	return slices.DeleteFunc(s.all(), func(k kind) bool { return k == nil })
}

// rank returns when the server starts: after those of a lower rank.
func (s Server) rank() int {
	return slices.IndexFunc(s.all(), func(k kind) bool { return k != nil })
}

// Serve starts a server on the host and returns when it answers. Returns ErrMissing, ErrEnded.
func (h *Host) Serve(ctx context.Context, s Server) (*Process, error) {
	kinds := s.kinds()
	if len(kinds) != 1 {
		return nil, errors.New("lab: a server is exactly one of its kinds")
	}
	began := time.Now()
	d, err := kinds[0].daemon(ctx, h)
	if err != nil {
		return nil, fmt.Errorf("prepare %s on %s: %w", kinds[0].name(), h.name, err)
	}
	p, err := h.Start(ctx, d)
	if err != nil {
		return nil, err
	}
	if s.Postgres != nil {
		if err := s.Postgres.fill(ctx, h); err != nil {
			return nil, fmt.Errorf("fill %s: %w", p, err)
		}
	}
	h.lab.say("up  %-28s %4d ms", p, time.Since(began).Milliseconds())
	return p, nil
}
