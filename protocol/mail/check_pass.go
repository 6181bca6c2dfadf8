// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"errors"
	"maps"
	"slices"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/probe"
	"github.com/kyozon/kyozon/service"
)

// The mistakes of services that pass all through.
var (
	errPassCert  = errors.New("pass-through: the servers have the certificates; leave certificate, key, also, acme and names out")
	errPassTold  = errors.New("a server that takes this would take it from clients too, whose words are passed through; write proxy-v2 or proxy-v1, or leave handover out with source: client")
	errPassTLS   = errors.New("tls of a pool cannot be with pass-through: it would be TLS in TLS; the servers end the client's own")
	errPassRead  = errors.New("pass-through: the edge does not see what clients say; remove this")
	errPassGreet = errors.New("pass-through: where TLS comes first the servers greet in TLS, which health checks do not speak here; remove greeting")
)

// passes says whether all is passed through.
func (o *Options) passes() bool { return o.TLS != nil && o.TLS.PassThrough }

// unread is service.Protocol.Kernel.
func unread(s *service.Service, _ service.Listen) error {
	if !s.Options.(*Options).passes() { // made by our own Protocol
		return service.ErrRead
	}
	return nil
}

// checkPassed says what cannot be where all is passed through.
func (o *Options) checkPassed(s *service.Service, at func(err error, warning bool, path ...string)) {
	if t := o.TLS; t.Certificate != "" || t.Key != "" || len(t.Also) > 0 || t.ACME != nil || len(t.Names) > 0 {
		at(errPassCert, false, "mail", "tls", "pass-through")
	}
	for _, read := range []struct {
		key     string
		written bool
	}{{"policy", o.Policy != nil}, {"scan", o.Scan != nil}, {"users", o.Users != nil}, {"auth-in-clear", o.AuthInClear}, {"line-ends", o.LineEnds == LineEndsRepair},
		{"queue", o.Queue != nil}} {
		if read.written {
			at(errPassRead, false, "mail", read.key)
		}
	}
	for _, k := range []limit.Kind{limit.Requests, limit.Handshakes, limit.FailedLogins} {
		if s.Limits.Limits(k) {
			at(errPassRead, false, "limits", k.String())
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.Pools)) {
		p := s.Pools[name]
		switch p.Handover {
		case backend.HandoverXclient, backend.HandoverID, backend.HandoverAuto:
			at(errPassTold, false, "pools", name, "handover")
		}
		if p.TLS != nil {
			at(errPassTLS, false, "pools", name, "tls")
		}
	}
	first := slices.ContainsFunc(s.Listen, func(l service.Listen) bool { return dialects[l.Name].secure })
	if first && s.Health.Greeting != probe.NoGreeting {
		at(errPassGreet, false, "health", "greeting")
	}
}

// name is that of the edge.
func (t *table) name() string {
	if t.options.Name == "" {
		return "kyozon.invalid" // in inquiries only: RFC 2606 §2
	}
	return t.options.Name
}
