// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package web carries HTTP/1.1, with TLS ended here or passed through by name.
//
//	client ─▶ front (an address) ─┬─ plain ──────────────────────▶ conn
//	                              └─ ClientHello ─┬─ TLS ended ──▶ conn
//	                                              └─ passed through by SNI ─▶ relay.Splice
//	conn: request head ─▶ host ─▶ site ─▶ route.Dial ─▶ head rewritten, body streamed ─▶ backend
//	                ◀── response head rewritten, body streamed ◀── exchange ◀──────────────┘
//
// Several services may share an address: the host tells them apart. A front outlives the generations; what it serves
// is replaced at a reload, so that a connection which stays open sees the new site with its next request.
//
// The machine that reads and writes HTTP is in package http1, which knows no socket.
//
// RFC 9110 (semantics), RFC 9112 (HTTP/1.1), RFC 6066 §3 (server name), RFC 6455 (WebSocket), RFC 7239 (Forwarded).
package web

import (
	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/service"
)

// Protocol is the line of the protocol table.
func Protocol() service.Protocol {
	return service.Protocol{
		Name: "web", Doc: "HTTP/1.1 and WebSocket, with TLS ended here or passed through by name", Transport: listen.TCP,
		Share:     true,
		Handovers: []backend.Handover{backend.HandoverHeader, backend.HandoverProxyV1, backend.HandoverProxyV2},
		Counts:    []limit.Kind{limit.Connections, limit.Open}, // what it does not ask Route.Admit for, a site must not rely on
		Options:   func() service.Options { return defaults() },
		Build:     build,
	}
}
