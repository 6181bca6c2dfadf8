// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package phone is IP telephony: a registrar for the subscribers of a domain, whose devices come over IPv4 and IPv6, and the
// calls between them.
//
//	UDP socket, connection ─▶ agent of the Call-ID ─▶ transaction.Table ─▶ REGISTER ─▶ location.Table
//	        ▲                 (one for each loop)            │          ├▶ INVITE ─▶ call ─▶ branch ─▶ Table.Ask
//	        │                                                │          └▶ within a dialog ─▶ leg ─▶ leg ─▶ Table.Ask
//	        └────────────── core.send ◀── answers ───────────┘
//	connection of ours ◀── agent.connect, for gateways over TCP
//
// A call is made by a call and its branches, one for each device that rings. Each answer makes two legs, dialogs of their
// own with nothing in common but that what is asked on the one is asked on the other.
//
// Where a call goes, the number plan says: to devices of a subscriber, or to the gateways of a trunk, which are tried as
// the bindings of one device.
//
// A core is one service; it outlives the generations with its transactions and bindings. What the file says is in its
// settings, which a reload replaces. All messages with one Call-ID are one agent's, on one loop, whatever socket they come
// to, so that nothing in an agent has a lock.
//
// Each listen is named for the network that it belongs to: a part of the world with its own reachability.
//
// RFC 3261 (SIP), RFC 3262 (PRACK), RFC 3581 (rport), RFC 3323 and RFC 3325 (who calls), RFC 3327 (Path), RFC 5626
// (connections of clients). The messages, transactions and bindings are in packages of their own, which know no socket; so
// are the number plan and the rules of who is shown.
package phone

import (
	_ "embed"

	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/protocol/phone/plan"
	"github.com/kyozon/kyozon/service"
)

// source is options.go, whose comments describe the keys of the section.
//
//go:embed options.go
var source string

// Protocol is the line of the protocol table.
func Protocol() service.Protocol {
	return service.Protocol{
		Name: "phone", Doc: "IP telephony: SIP over UDP, TCP and TLS, a registrar for a domain, calls between its subscribers",
		Transports: []listen.Transport{listen.UDP, listen.TCP},
		AnyListen:  true,
		Standalone: true,
		Counts:     []limit.Kind{limit.Requests, limit.Connections, limit.Handshakes, limit.Open},
		Options:    func() service.Options { return defaults() },
		Sources:    []string{source, plan.Source()},
		Build:      build,
		Read:       readFiles,
	}
}
