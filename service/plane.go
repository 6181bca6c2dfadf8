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

// NotInKernel returns all that the file says of s and the kernel plane cannot do, each an *Error. Whether the protocol
// is one that it carries at all is the caller's to know.
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
