// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package target finds the servers that a URI means, in both families, and remembers those that do not answer. It asks
// nobody: it says what must be asked of the DNS, and is called again with the answers.
//
//	URI ─▶ Locate ─▶ questions ─▶ (the DNS, elsewhere) ─▶ Answers ─▶ Locate ─▶ … ─▶ targets in order ─▶ Memory.Order ─▶ try
//	                                                                                                  ◀─ Memory.Failed ◀─┘
//
// The same answers and the same dice give the same order, so that a choice can be explained afterwards.
//
// RFC 3263 (locating servers), RFC 7984 (in two families), RFC 2782 (SRV).
package target

import (
	"cmp"
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// ErrNone means that a URI leads nowhere that we can reach.
var ErrNone = errors.New("target: no address of a family and a transport that we have")

// ErrTransport means that a URI asks for a transport that we do not have.
var ErrTransport = errors.New("target: transport that we do not have")

// Target is one place to send a request to.
type Target struct {
	Host      string // the name whose address it is; empty if the URI had an address
	Transport sip.Transport
	Addr      netip.AddrPort
}

// Type is what is asked of the DNS.
type Type uint8

// The types. Address is A or AAAA, by the family.
const (
	NAPTR Type = iota
	SRV
	Address
)

// Question is one thing to ask. Names are in lower case, without a dot at the end.
type Question struct {
	Type   Type
	Name   string
	Family ip.Family // of an Address
}

// Naptr is one NAPTR record, of those whose flag is "s". RFC 3263 §4.1.
type Naptr struct {
	Order, Preference uint16
	Service           string // SIP+D2U, SIP+D2T, SIPS+D2T
	Replacement       string
}

// Srv is one SRV record. RFC 2782.
type Srv struct {
	Priority, Weight, Port uint16
	Name                   string
}

// Answers is what is known so far. What is there, be it empty, is not asked again: an error is an empty answer.
type Answers struct {
	Naptr map[string][]Naptr
	Srv   map[string][]Srv
	Addr  map[Question][]netip.Addr
}

// Reach is what we can reach from where we send.
type Reach struct {
	Families   []ip.Family // the first is tried first. RFC 7984 §4: as RFC 6724 orders them
	Transports []sip.Transport
	Roll       func(n int) int // dice, from 0 to n-1; nil always rolls 0
}

// locator is one run of Locate.
type locator struct {
	Reach
	answers *Answers
	missing []Question
	targets []Target
}

// maxTargets bounds what a stranger's DNS makes us try.
const maxTargets = 32

// Locate returns the targets of a URI in the order in which they are to be tried, or what must be asked first. It
// returns ErrNone or ErrTransport if there are none.
func Locate(u *sip.URI, r Reach, a *Answers) (targets []Target, missing []Question, err error) {
	l := &locator{Reach: r, answers: a}
	host := u.Host
	if maddr, ok := u.Param("maddr"); ok { // RFC 3263 §4: TARGET
		m, bad := sip.ParseHost(maddr)
		if bad != nil || m.Port > 0 {
			return nil, nil, ErrNone
		}
		host.Name, host.Addr = m.Name, m.Addr
	}
	fixed, transports, err := l.transports(u, &host)
	if err != nil {
		return nil, nil, err
	}
	name := strings.ToLower(strings.TrimSuffix(string(host.Name), "."))
	switch {
	case host.Addr.IsValid():
		l.add(Target{"", transports[0], netip.AddrPortFrom(host.Addr, port(host.Port, transports[0]))})
	case host.Port > 0: // RFC 3263 §4.2
		l.addresses(name, host.Port, transports[0])
	case fixed:
		l.records(name, transports, u.Scheme)
	default:
		l.service(name, transports, u.Scheme)
	}
	if len(l.missing) > 0 {
		return nil, l.missing, nil
	}
	if len(l.targets) == 0 {
		return nil, nil, ErrNone
	}
	return l.targets, nil, nil
}

// transports returns those that the URI allows, the one to take first in front, and whether the DNS has no say.
// RFC 3263 §4.1.
func (l *locator) transports(u *sip.URI, host *sip.Host) (fixed bool, all []sip.Transport, err error) {
	secure := u.Scheme == sip.SIPS
	switch t, asked := u.Param("transport"); {
	case asked:
		want := sip.UDP
		switch strings.ToLower(string(t)) {
		case "udp":
		case "tcp":
			want = sip.TCP
		case "tls": // RFC 3261 §26.2.2 deprecates it, and some write it
			want = sip.TLS
		default:
			return false, nil, ErrTransport
		}
		if secure && want == sip.TCP {
			want = sip.TLS
		}
		fixed, all = true, []sip.Transport{want}
	case secure:
		all = []sip.Transport{sip.TLS}
	case host.Addr.IsValid() || host.Port > 0:
		all = []sip.Transport{sip.UDP}
	default:
		all = []sip.Transport{sip.UDP, sip.TCP, sip.TLS}
	}
	if secure && all[0] == sip.UDP {
		return false, nil, ErrTransport
	}
	all = slices.DeleteFunc(all, func(t sip.Transport) bool { return !slices.Contains(l.Transports, t) })
	if len(all) == 0 {
		return false, nil, ErrTransport
	}
	return fixed, all, nil
}

// service takes what NAPTR records say, or tries the SRV names of our transports. RFC 3263 §4.1.
func (l *locator) service(name string, transports []sip.Transport, s sip.Scheme) {
	found, ok := l.answers.Naptr[name]
	if !ok {
		l.missing = append(l.missing, Question{Type: NAPTR, Name: name})
		return
	}
	found = slices.Clone(found)
	slices.SortStableFunc(found, func(a, b Naptr) int {
		return cmp.Or(cmp.Compare(a.Order, b.Order), cmp.Compare(a.Preference, b.Preference))
	})
	taken := false
	for _, n := range found {
		t, ok := transportOf(n.Service)
		if !ok || !slices.Contains(transports, t) {
			continue
		}
		taken = true
		l.srv(strings.ToLower(strings.TrimSuffix(n.Replacement, ".")), t)
	}
	if !taken {
		l.records(name, transports, s)
	}
}

func transportOf(service string) (sip.Transport, bool) {
	switch strings.ToUpper(service) {
	case "SIP+D2U":
		return sip.UDP, true
	case "SIP+D2T":
		return sip.TCP, true
	case "SIPS+D2T":
		return sip.TLS, true
	}
	return 0, false
}

// records tries the SRV names of transports; if none has a record, the addresses of the name, with the first of them.
// RFC 3263 §4.1, §4.2.
func (l *locator) records(name string, transports []sip.Transport, s sip.Scheme) {
	found := false
	for _, t := range transports {
		prefix := [...]string{sip.UDP: "_sip._udp.", sip.TCP: "_sip._tcp.", sip.TLS: "_sips._tcp."}[t]
		found = l.srv(prefix+name, t) || found
	}
	if !found && len(l.missing) == 0 {
		t := transports[0]
		if s == sip.SIPS {
			t = sip.TLS
		}
		l.addresses(name, t.Port(), t)
	}
}

// srv adds the targets of one SRV name. It says whether there are records.
func (l *locator) srv(name string, t sip.Transport) bool {
	found, ok := l.answers.Srv[name]
	if !ok {
		if q := (Question{Type: SRV, Name: name}); !slices.Contains(l.missing, q) {
			l.missing = append(l.missing, q)
		}
		return false
	}
	for _, s := range order(slices.Clone(found), l.Roll) {
		if s.Name != "" && s.Name != "." { // RFC 2782: the service is not there
			l.addresses(strings.ToLower(strings.TrimSuffix(s.Name, ".")), s.Port, t)
		}
	}
	return len(found) > 0
}

// addresses adds those of one name, of all families that we have. RFC 7984 §3.1, §4.
func (l *locator) addresses(name string, port uint16, t sip.Transport) {
	for _, f := range l.Families {
		q := Question{Type: Address, Name: name, Family: f}
		found, ok := l.answers.Addr[q]
		if !ok && !slices.Contains(l.missing, q) {
			l.missing = append(l.missing, q)
		}
		for _, a := range found {
			if ip.FamilyOf(a) == f {
				l.add(Target{name, t, netip.AddrPortFrom(a, port)})
			}
		}
	}
}

// add keeps a target of a family that we have, once.
func (l *locator) add(t Target) {
	if slices.Contains(l.Families, ip.FamilyOf(t.Addr.Addr())) && len(l.targets) < maxTargets && !slices.Contains(l.targets, t) {
		l.targets = append(l.targets, t)
	}
}

func port(p uint16, t sip.Transport) uint16 {
	if p == 0 {
		return t.Port()
	}
	return p
}

// order sorts records by priority, and those of one priority by dice that their weight has loaded. RFC 2782, Usage
// rules.
func order(all []Srv, roll func(int) int) []Srv {
	slices.SortStableFunc(all, func(a, b Srv) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(min(a.Weight, 1), min(b.Weight, 1))) // weight 0 first
	})
	for rest := all; len(rest) > 1; rest = rest[1:] {
		same, sum := 0, 0
		for same < len(rest) && rest[same].Priority == rest[0].Priority {
			sum += int(rest[same].Weight)
			same++
		}
		n := 0
		if roll != nil {
			n = roll(sum + 1)
		}
		for i := range same {
			if n -= int(rest[i].Weight); n <= 0 {
				chosen := rest[i]
				copy(rest[1:i+1], rest[:i])
				rest[0] = chosen
				break
			}
		}
	}
	return all
}
