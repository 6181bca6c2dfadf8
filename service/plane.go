// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package service

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/kyozon/kyozon/backend"
)

// Plane is where the packets of a service are carried.
type Plane uint8

// The planes.
const (
	PlaneAuto   Plane = iota // in the kernel where that can be, else in the process
	PlaneKernel              // in the kernel; what cannot be is a mistake in the file
	PlaneUser                // in the process
)

// String returns the word of the site file.
func (p Plane) String() string { return [...]string{"auto", "kernel", "user"}[p] }

// The reasons why the kernel plane cannot carry a service of a protocol that it could.
var (
	errProxyFrom = errors.New("PROXY headers are read in the user plane")
	errLimits    = errors.New("limits are kept in the user plane")
	errHandover  = errors.New("a handover is written in the user plane")
	errTLS       = errors.New("TLS is spoken in the user plane")
	errPick      = errors.New("only the user plane knows which server has the fewest flows")
	errMaxFlows  = errors.New("only the user plane counts the flows of a server")
	errWildcard  = errors.New("the kernel plane needs each address written out")
)

// ErrRead is what Protocol.Kernel returns for a listen whose requests the protocol is there to read. Nobody asks why the
// kernel plane does not carry them.
var ErrRead = errors.New("requests are read in the user plane")

// Whole is Protocol.Kernel of a protocol that reads nothing.
func Whole(*Service, Listen) error { return nil }

// Unread returns the listens of s, a service of the protocol, at which nothing needs to be read, so that the kernel plane
// can carry them; and for each of the others why it cannot, an *Error. all are the services of the site: those that share an
// address are told apart by what is read.
func (p *Protocol) Unread(s *Service, all []*Service) (listens []Listen, why []error) {
	for i, l := range s.Listen {
		err := ErrRead
		if p.Kernel != nil {
			err = p.Kernel(s, l)
		}
		for _, other := range all {
			if err == nil && other != s && slices.ContainsFunc(other.Listen, func(o Listen) bool { return o.Addr == l.Addr }) {
				err = fmt.Errorf("the name that a client asks for must be read: %q has this address too", other.Name)
			}
		}
		if err == nil {
			listens = append(listens, l)
			continue
		}
		why = append(why, &Error{Path: []string{"listen", strconv.Itoa(i)}, Err: fmt.Errorf("%v: %w", l.AddrPort, err)})
	}
	return listens, why
}

// NotInKernel returns all that the file says of s and the kernel plane cannot do, each an *Error. What its protocol
// reads is Protocol.Unread's to say.
func (s *Service) NotInKernel() (all []error) {
	add := func(err error, path ...string) { all = append(all, &Error{Path: path, Err: err}) }
	for i, l := range s.Listen {
		if l.AddrPort.Addr().IsUnspecified() {
			add(fmt.Errorf("%w, not %v", errWildcard, l.AddrPort), "listen", strconv.Itoa(i))
		}
	}
	if !s.Proxy.IsZero() {
		add(errProxyFrom, "proxy-from")
	}
	if !s.Limits.IsZero() {
		add(errLimits, "limits")
	}
	for _, name := range slices.Sorted(maps.Keys(s.Pools)) {
		p := s.Pools[name]
		if p.Handover != backend.HandoverNone {
			add(errHandover, "pools", name, "handover")
		}
		if p.TLS != nil {
			add(errTLS, "pools", name, "tls")
		}
		if p.Pick == backend.FewestFlows {
			add(errPick, "pools", name, "pick")
		}
		for i, server := range p.Servers {
			if server.Cap > 0 {
				add(errMaxFlows, "pools", name, "servers", strconv.Itoa(i), "max-flows")
			}
		}
	}
	return all
}
