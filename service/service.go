// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package service is the contract between the edge and the protocols: what a service is, what a protocol makes
// of it, and what the edge lends to it. It does no I/O, but for ACME.Read.
//
//	config ─▶ []*Service ─▶ Protocol.Build(services, env) ─▶ Server{Doors} ─▶ the edge opens the doors
package service

import (
	"context"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kyozon/kyozon/accesslog"
	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/certs"
	"github.com/kyozon/kyozon/certs/acme"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/relay"
)

// Hosting says who owns which layer of a service (mission S18).
type Hosting string

// The kinds of hosting.
const (
	Shared    Hosting = "shared"
	VPS       Hosting = "vps"
	Dedicated Hosting = "dedicated"
	Housing   Hosting = "housing"
)

// Service is one thing clients reach, and the servers behind it. It is immutable.
type Service struct {
	Name     string
	Protocol string
	Hosting  Hosting
	Listen   []Listen
	Allow    ip.Prefixes // who may come in; empty means anyone
	Deny     ip.Prefixes // who may not, even if allowed
	Proxy    ip.Prefixes // networks whose connections begin with a PROXY header
	Limits   limit.Rules // what the clients of one prefix may have
	Pools    map[string]backend.Spec
	Routes   map[Door]backend.RouteSpec
	Health   backend.Health
	Timeouts backend.Timeouts
	Plane    Plane
	Networks []Network // of the whole site
	Options  Options
}

// Network is a part of the world with its own reachability, by the name that listens of telephony bear, and where media
// are relayed from and to it.
type Network struct {
	Name      string
	Media     []netip.Prefix // at most one of each family: an address, or a prefix of which each end of a call has one
	Low, High uint16         // the ports at a single address
	Plane     Plane          // where streams are carried
}

// MediaSocket is the path of the socket at which signalling asks the relay of media, by the directory of the state.
func MediaSocket(state string) string { return filepath.Join(state, "media.sock") }

// MediaName is what the relay of media calls the part of a network that is of one family.
func MediaName(network string, f ip.Family) string { return network + "/" + f.String() }

// MediaNetwork returns the network of a MediaName.
func MediaNetwork(name string) string {
	network, _, _ := strings.Cut(name, "/")
	return network
}

// Listen is one address of a service, named where the service has several kinds ("smtp", "imaps").
type Listen struct {
	Name string
	listen.Addr
}

// Door is what a route belongs to: the name of a listen and the family of the clients that come to it.
type Door struct {
	Listen string
	Family ip.Family
}

// Protocol is one line of the table in cmd/kyozon/protocols.go.
type Protocol struct {
	Name       string
	Doc        string             // one line, for `kyozon protocols`
	Transports []listen.Transport // what each of its listens is; its servers are reached by the first
	Listens    []string           // the names its listens may have; none means that they have no names
	AnyListen  bool               // they have names that the site chooses

	// Standalone says that it has no pools and no routes: who is connected with whom is in its own section.
	Standalone bool
	Handovers  []backend.Handover // those it can do, beside none
	StartTLS   bool               // it can ask servers for TLS: backend.ClientTLS.Asks
	Counts     []limit.Kind       // what it can limit: connections and open at its doors, others with Route.Admit
	Options    func() Options     // new options holding the defaults; the file is decoded over them
	Sources    []string           // the Go sources of the options, whose comments describe their keys to editors; may be empty

	// Build makes the services ready to run. What is wrong with what they name is in *Errors that Of has put together.
	Build func(services []*Service, env Env) (Server, error)

	// Read, if set, reads the files that a service names, as Build does, and says what is wrong with them, each mistake an
	// *Error. It touches nothing else, and writes nothing.
	Read func(s *Service) []error

	// Left, if set, returns what the protocol has left under Env.State and must not be forgotten, although the site has no
	// service of it; nil if that is nothing. It waits for the disk.
	Left func(state string) error

	// Kernel, if set, says of a listen whether the kernel plane can carry what comes there: nil if none of it needs to be
	// read, otherwise what must be; ErrRead if that is no wonder. Without Kernel all must be.
	Kernel func(s *Service, at Listen) error

	// Share, if set, lets several services have the same listen. It says what is wrong with two that have, each mistake
	// an *Error at a place of the second.
	Share func(first, second *Service, at Listen) []error
}

// Over says whether a transport is one of p's.
func (p *Protocol) Over(t listen.Transport) bool { return slices.Contains(p.Transports, t) }

// Options is a protocol's section of a service.
type Options interface {
	// Check says what is wrong with s, each mistake an *Error if it knows the place. It touches nothing outside s.
	Check(s *Service) []error
}

// Sender is implemented by options that name pools to which no client is sent, but things later.
type Sender interface {
	SendsTo() []string
}

// Server is all services of one protocol, ready to run. Build opens no socket and starts no goroutine.
type Server struct {
	Doors map[listen.Addr]Handler

	// Start, if set, is called when the generation goes into service: what the protocol kept from the one before
	// is now its own. It must not fail.
	Start func()

	// Run, if set, runs on a goroutine while the generation is in service, until ctx is done. The one of the generation
	// before may not have ended yet when it begins.
	Run func(ctx context.Context)

	// Certificates, if set, returns what is to be known about the certificates in use. It may be called from anywhere.
	Certificates func() []certs.Info

	// Orders are the certificates that come by ACME: Env.ACME gets them while the generation is in service.
	Orders []acme.Order

	// Legacy, if set, returns what the process that takes this one's place is to know: Env.Legacy of the same protocol.
	// It is small, and goes from process to process without a file.
	Legacy func() []byte

	// Findings, if set, returns what has been found since the process started. It may be called from anywhere.
	Findings func() []Finding

	// Shut, if set, returns why a service that has not been open must not open yet, or "". It may be called from anywhere.
	Shut func(service string) string

	// Busy, if set, returns how much is under way that is no flow at the moment, and that the edge waits for before it
	// stops. It may be called from anywhere.
	Busy func() int64

	// Refusals, if set, returns what rules of the protocol's own have had against clients, and against what they bring, since
	// the process started. It may be called from anywhere.
	Refusals func() []Refusal

	// Counts, if set, returns what the protocol counts by itself. Each series is there from the beginning, also while it is
	// zero. It may be called from anywhere.
	Counts func() []Count

	// Queue, if set, is what the protocol has answered for and has still to bring to servers.
	Queue *Queue

	// Telephony, if set, is what the protocol knows of calls and subscribers.
	Telephony *Telephony

	// Drain, if set, is called when the generation is replaced, or the edge stops (last): end what waits for
	// nothing. Flows under way end by themselves or are cut when the drain deadline passes.
	Drain func(last bool)
}

// Finding is something that a protocol has come upon in what servers say and that depends on IPv4 addresses
// (mission S9). It changes nothing: it is found on the way.
type Finding struct {
	Service, Pool string
	Place         string     // the name of a field
	Address       netip.Addr // that stands there, written out
	Backend       bool       // it is the address of a server of the pool
	Count         int64      // since the process started
	Example       string     // what stands there, in part
}

// Refusal is how often a rule has refused the clients of a family, or would have.
type Refusal struct {
	Service string
	Family  ip.Family
	Rule    string
	Refused bool // or the rule is only observed
	Count   int64
}

// Handler serves one door. Exactly one field is set.
type Handler struct {
	Conn func(c *relay.Conn)       // a client on its loop; it must not block
	Flow func(f *relay.PacketFlow) // packets of one client, to be connected to a server or refused; on its loop

	// Datagrams is told the socket of a door for packets that form no flows, and returns who receives them, on the socket's
	// loop. It is called when the door opens and at each reload, before Server.Start. The socket may be used until it is
	// closed, and is not used up by a reload.
	Datagrams func(socket *relay.Datagrams) (receive func(relay.Datagram))
}

// Env is what the edge lends to a protocol.
type Env struct {
	Log   *slog.Logger
	Loops *relay.Loops

	// Reopen has the edge ask Server.Shut again. It must not be called on a loop, nor while anything is locked that Shut locks.
	Reopen func()

	// ACME gets certificates for all protocols, as Server.Orders say, and knows the answers to those who want a name proved.
	ACME *acme.Client

	// State is the directory of what must outlive the process. It need not exist, and may be one that cannot be made.
	State string

	// Legacy is what the process whose place this one takes has left to the protocol; nil if there is none.
	Legacy []byte

	// AccessLog is where a protocol whose flows have requests writes a line for each; its flows say so (backend.Flow).
	AccessLog *accesslog.Log

	// Route returns the route of a service's door. It lives as long as the generation. Where the protocol is Standalone
	// it leads nowhere, and says only who may come in.
	Route func(service string, door Door) *backend.Route

	// Direct returns a route for clients of a family that leads to no pool by itself: to servers that the protocol picks.
	// Pools returns those of a service, by name. Both are for Build, and live as long as the generation.
	Direct func(service string, client ip.Family) *backend.Route
	Pools  func(service string) map[string]*backend.Pool

	// Stopped is closed when the edge has drained and everything must end.
	Stopped <-chan struct{}

	kept map[string]any
}

// NewEnv returns an Env whose Keep finds what kept holds. Only the edge and tests make one.
func NewEnv(e Env, kept map[string]any) Env {
	e.kept = kept
	return e
}

// Keep returns the protocol's value named key from before the reload, or a new one. It is how a protocol lets
// something outlive a generation.
func Keep[T any](env Env, key string, fresh func() *T) *T {
	if v, ok := env.kept[key].(*T); ok {
		return v
	}
	v := fresh()
	env.kept[key] = v
	return v
}
