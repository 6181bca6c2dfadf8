// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"maps"
	"slices"
	"strconv"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/protocol/mail/policy"
	"github.com/kyozon/kyozon/service"
)

// checkPools says which pools cannot serve the listens whose clients they get, and returns the names of those by pool.
func checkPools(s *service.Service, at func(err error, warning bool, path ...string)) (serves map[string][]string) {
	serves = make(map[string][]string)
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
	return serves
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

// checkDoor says what is wrong with who may come in, and with who looks at what they bring.
func (o *Options) checkDoor(s *service.Service, at func(err error, warning bool, path ...string)) {
	smtp := slices.ContainsFunc(s.Listen, func(l service.Listen) bool { return l.Name == "smtp" })
	if p := o.Policy; p != nil {
		if !smtp {
			at(errNoSMTP, false, "mail", "policy")
		}
		if p.DNSBL != policy.Off && len(p.Zones) == 0 {
			at(errNoZones, false, "mail", "policy", "dnsbl")
		}
		if p.DNSBL == policy.Off && len(p.Zones) > 0 {
			at(errNoDNSBL, false, "mail", "policy", "dnsbl-zones")
		}
		for i, z := range p.Zones {
			if !isHostName(z) {
				at(errZone, false, "mail", "policy", "dnsbl-zones", strconv.Itoa(i))
			}
		}
		if p.Early == policy.Off && p.Delay != 0 {
			at(errNoDelay, false, "mail", "policy", "greeting-delay")
		}
	}
	if mailboxes(s) && s.Limits.Limits(limit.Requests) {
		at(errNoMail, false, "limits", limit.Requests.String())
	}
	if e := o.Scan; e != nil {
		if !smtp {
			at(errNoSMTP, false, "mail", "scan")
		}
		if len(e.Clamd)+len(e.Rspamd) == 0 {
			at(errNoEngine, false, "mail", "scan")
		} else if e.Authentication != policy.Off && len(e.Rspamd) == 0 {
			at(errNoAuth, false, "mail", "scan", "authentication")
		}
	}
}

// mailboxes says whether no listen is for messages.
func mailboxes(s *service.Service) bool {
	return !slices.ContainsFunc(s.Listen, func(l service.Listen) bool { return !dialects[l.Name].mailbox })
}
