// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package backend decides which server gets a flow, and reaches it: pools, pickers, routes by client family,
// health, and dialling with the source that the pool asks for.
//
//	Route.Dial ─▶ pool by share, then fallbacks ─▶ Picker ─▶ source (edge, stand-in, client's own) ─▶ connect ─▶ Flow
//	                                                  ▲
//	                          Health (kept over reloads, per backend and check)
package backend

import (
	"net/netip"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/probe"
)

// Source is the address a backend sees as its peer.
type Source uint8

// The sources.
const (
	SourceEdge   Source = iota // an address of the edge
	SourceClient               // the client's own address, its stand-in or its embedding, by crossing
)

// String returns the word of the site file.
func (s Source) String() string { return [...]string{"edge", "client"}[s] }

// Handover is how a backend is told in the protocol who the client is.
type Handover uint8

// The handovers. A protocol says which of them it can do.
const (
	HandoverNone Handover = iota
	HandoverHeader
	HandoverProxyV1
	HandoverProxyV2
	HandoverXclient
	HandoverID
	HandoverAuto
)

// String returns the word of the site file.
func (h Handover) String() string {
	return [...]string{"none", "header", "proxy-v1", "proxy-v2", "xclient", "id", "auto"}[h]
}

// Carry is which address a handover carries.
type Carry uint8

// What a handover carries.
const (
	CarryClient  Carry = iota // the client's address
	CarryStandIn              // the stand-in of an IPv6 client, for a server that refuses IPv6
)

// Pick is how a pool chooses among its backends.
type Pick uint8

// The ways to pick.
const (
	RoundRobin Pick = iota
	FewestFlows
	Hash
)

// Server is one backend as written in the file.
type Server struct {
	Addr   netip.AddrPort
	Weight int  // 1 to 256
	Cap    int  // flows at once; 0 means no limit
	Drain  bool // takes no new flows
}

// Family returns the family of the server's address.
func (s Server) Family() ip.Family { return ip.FamilyOf(s.Addr.Addr()) }

// Spec is a pool as written in the file.
type Spec struct {
	Name     string
	Servers  []Server
	Source   Source
	Handover Handover
	Carry    Carry
	Pick     Pick
	TLS      *ClientTLS // nil means that the servers are spoken to in clear
}

// ClientTLS is how servers are spoken to in TLS 1.2 or later.
type ClientTLS struct {
	Start       probe.Start // when it begins; but for AtOnce that is for the protocol to bring about
	Verify      bool        // a server must show a certificate for Name, signed by whom CA names
	Name        string      // whom a server is asked for, and must be; "" means its address
	CA          string      // PEM file of those who may sign; "" means those whom the system trusts
	Certificate string      // PEM file of the chain that we show; "" means none
	Key         string      // PEM file of its key
}

// Asks says whether the protocol asks for TLS, on a connection that begins in clear: Flow.StartTLS.
func (t *ClientTLS) Asks() bool { return t.start() != probe.AtOnce }

func (t *ClientTLS) start() probe.Start {
	if t == nil {
		return probe.AtOnce
	}
	return t.Start
}

// Health is how backends are asked whether they are well, and how a recovered one is taken back.
type Health struct {
	Every     time.Duration // between two questions; 0 means never ask
	Timeout   time.Duration
	Rise      int            // good answers in a row until a backend is up again
	Fall      int            // bad ones until it is down
	HTTP      string         // path to ask for; "" means that a connection is enough
	Host      string         // Host header of the question
	Status    [2]int         // lowest and highest status that is well
	SIP       probe.Asking   // how a server of SIP is asked by OPTIONS
	Greeting  probe.Greeting // that a server must say; none means that a connection is enough
	Eject     int            // failed connects in a row after which a backend is passed over without being asked; 0 means never
	EjectFor  time.Duration
	SlowStart time.Duration // a recovered backend's share grows over this time
}

// Timeouts are the deadlines of one flow.
type Timeouts struct {
	Connect time.Duration
	Idle    time.Duration // neither side sends
}

// RouteSpec is where the clients of one listen and family go: pools by share, then fallbacks in order.
type RouteSpec struct {
	Shares   []Share // they add up to 100 %
	Fallback []string
}

// Share is a part of the clients.
type Share struct {
	Pool    string
	Percent float64
}
