// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package resolve asks the DNS for those who must not wait: it takes a question and calls back.
//
//	Ask ─▶ known? ─ yes ────────────────────────────────────────────▶ done(Answer)
//	        │ no                                                        ▲
//	        ├─▶ asked already? ─ yes ─▶ wait together ──────────────────┤
//	        │ no                                                        │
//	        └─▶ goroutine: server by server, UDP, TCP if truncated ─▶ remember
//
// It is a stub resolver: the servers that it asks, of either family, look things up for it. There is one question for
// each name and type at a time, a bounded number of them in all, and a deadline for each. What has been found out, that
// there is nothing included, is remembered as long as its owner allows (RFC 1035 §3.2.1, RFC 2308 §5).
//
// A caller can tell three cases that are not an answer: the name does not exist, it has nothing of this type, and
// nobody could say. The last one is never evidence of anything.
package resolve

import (
	"errors"
	"net/netip"

	"github.com/miekg/dns"
)

// The outcomes that are no answer.
var (
	ErrNoName = errors.New("resolve: no such name")
	ErrNoData = errors.New("resolve: no data of this type")
	ErrFailed = errors.New("resolve: no answer")
)

// Type is the type of a record.
type Type uint16

// The types that can be asked for.
const (
	A     = Type(dns.TypeA)
	AAAA  = Type(dns.TypeAAAA)
	PTR   = Type(dns.TypePTR)
	TXT   = Type(dns.TypeTXT)
	MX    = Type(dns.TypeMX)
	SRV   = Type(dns.TypeSRV)
	NAPTR = Type(dns.TypeNAPTR)
)

// String returns, for example, "AAAA".
func (t Type) String() string { return dns.Type(t).String() }

// Question is what is asked: a complete name, with or without the dot at its end, and a type.
type Question struct {
	Name string
	Type Type

	// As, if not empty, is the name under which the answer is remembered, for questions whose answers are taken for the
	// same: those of all addresses of one /64.
	As string
}

// Answer is what is known of a question. It is shared: do not change it. Err is nil, ErrNoName, ErrNoData, or an error
// that wraps ErrFailed. Names in it have no dot at the end, and are host names or left out.
type Answer struct {
	Addrs    []netip.Addr // A, AAAA
	Names    []string     // PTR
	Texts    []string     // TXT: the strings of each record together, with what cannot be printed escaped
	Mail     []Mail       // MX
	Services []Service    // SRV
	Pointers []Pointer    // NAPTR
	Err      error
}

// Mail is an MX record.
type Mail struct {
	Preference uint16
	Host       string // "" means that the name takes no mail: RFC 7505 §3
}

// Service is an SRV record. RFC 2782.
type Service struct {
	Priority, Weight, Port uint16
	Host                   string // "" means that there is no such service
}

// Pointer is a NAPTR record. RFC 3403 §4.1.
type Pointer struct {
	Order, Preference       uint16
	Flags, Service, Pattern string
	Replacement             string
}
