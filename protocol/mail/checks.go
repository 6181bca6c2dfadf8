// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"maps"
	"slices"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/service"
)

// checkPools says which pools cannot serve the listens whose clients they get.
func checkPools(s *service.Service, at func(err error, warning bool, path ...string)) {
	serves := make(map[string][]string) // by pool: the names of listens
	for door, spec := range s.Routes {
		names := slices.Clone(spec.Fallback)
		for _, share := range spec.Shares {
			names = append(names, share.Pool)
		}
		for _, name := range names {
			serves[name] = append(serves[name], door.Listen)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(serves)) {
		p := s.Pools[name]
		for _, listen := range slices.Compact(slices.Sorted(slices.Values(serves[name]))) {
			d := dialects[listen]
			if err := d.takes(p.Handover); err != nil {
				at(err, false, "pools", name, "handover")
			}
			if d.mailbox && p.Pick == backend.FewestFlows {
				at(errFewest, false, "pools", name, "pick")
			}
		}
	}
}

// takes says what is wrong with a handover for the servers of a dialect.
func (d *dialect) takes(h backend.Handover) error {
	switch {
	case h == backend.HandoverID && !d.id:
		return errXclient
	case h == backend.HandoverXclient && d.id:
		return errID
	}
	return nil
}
