// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/listen"
)

// Service is what the plane carries for one service. All addresses are canonical.
type Service struct {
	Name   string // at most 64 bytes
	Fronts []Front
	Allow  []netip.Prefix // who may come in; empty means anyone
	Deny   []netip.Prefix // who may not, even if allowed
	Idle   time.Duration  // after which a flow is forgotten; 0 means as Timeouts say
	Spread bool           // other edges answer at these addresses too: carry ICMP errors about their flows. RFC 7690

	// ClearClass says that the traffic class does not cross the families. RFC 7915 §4.1, §5.1
	ClearClass bool
}

// Front is one address of a service, with the backends for its clients, who are of its family.
type Front struct {
	listen.Addr
	Backends []Backend
	Sticky   bool // all flows of a client prefix go to one backend

	// Slots says for each of the RingSize slots of the front's table which of Backends has it; a number less than 0 means
	// that clients of that slot go to the user plane. Without Slots the backends have slots by their weight, by Maglev.
	Slots []int32
}

// Backend is one server as the clients of a front see it. Shares between pools are part of the weight.
type Backend struct {
	Addr   netip.AddrPort
	Weight int // 0 means that it takes no new flows: it is down, or drains

	// Source decides which address it sees. If it is SourceClient: the client's own if the families are the same, the
	// stand-in for 6→4, the client embedded in Prefix for 4→6. If it is SourceEdge: one of Sources.
	Source  Source
	Prefix  netip.Prefix // a /96, not 64:ff9b::/96. RFC 6052 §2.2, RFC 8215
	Sources []netip.Addr // 1 to 16, of the backend's family, routed to this machine
}

// Source is which address a backend sees.
type Source uint8

// The sources.
const (
	SourceEdge   Source = Source(forwardSourceSOURCE_EDGE)
	SourceClient Source = Source(forwardSourceSOURCE_CLIENT)
)

const (
	maxSources = 16
	maxName    = 64
)

// check says what is wrong with a list of services.
func check(services []Service) error {
	var wrong []error
	fronts := map[listen.Addr]string{}
	for _, s := range services {
		if s.Name == "" || len(s.Name) > maxName {
			wrong = append(wrong, fmt.Errorf("name service %q: want 1 to %d bytes", s.Name, maxName))
		}
		for _, f := range s.Fronts {
			if other, ok := fronts[f.Addr]; ok {
				wrong = append(wrong, fmt.Errorf("carry %s for %s: it is %s's already", f.Addr, s.Name, other))
			}
			fronts[f.Addr] = s.Name
			if err := f.checkSlots(); err != nil {
				wrong = append(wrong, fmt.Errorf("carry %s for %s: %w", f.Addr, s.Name, err))
			}
			for _, b := range f.Backends {
				if err := b.check(f.Family()); err != nil {
					wrong = append(wrong, fmt.Errorf("carry %s for %s: backend %s: %w", f.Addr, s.Name, b.Addr, err))
				}
			}
		}
	}
	return errors.Join(wrong...)
}

func (f Front) checkSlots() error {
	if f.Slots != nil && len(f.Slots) != RingSize {
		return fmt.Errorf("has %d slots, want %d", len(f.Slots), RingSize)
	}
	for _, b := range f.Slots {
		if int(b) >= len(f.Backends) {
			return fmt.Errorf("has a slot of backend %d, of %d", b, len(f.Backends))
		}
	}
	return nil
}

func (b Backend) check(client ip.Family) error {
	family := ip.FamilyOf(b.Addr.Addr())
	switch {
	case b.Weight < 0:
		return fmt.Errorf("weight %d is negative", b.Weight)
	case b.Source == SourceEdge && (len(b.Sources) == 0 || len(b.Sources) > maxSources):
		return fmt.Errorf("has %d sources, want 1 to %d", len(b.Sources), maxSources)
	case b.Source == SourceClient && client == ip.V4 && family == ip.V6:
		if b.Prefix.Bits() != 96 || b.Prefix.Addr().Is4() {
			return fmt.Errorf("prefix %s is no IPv6 /96", b.Prefix)
		}
		if b.Prefix == netip.MustParsePrefix("64:ff9b::/96") { // RFC 6052 §3.1: not for private IPv4, as clients may have
			return fmt.Errorf("prefix %s is for global IPv4 only: take one of your own, or of 64:ff9b:1::/48", b.Prefix)
		}
	}
	for _, s := range b.Sources {
		if ip.FamilyOf(s) != family {
			return fmt.Errorf("source %s is of the other family", s)
		}
	}
	return nil
}
