// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package web carries HTTP/1.1 and HTTP/2, with TLS ended here or passed through by name.
//
//	client ─▶ front (an address) ─┬─ plain, by its first bytes ──▶ client1, client2
//	                              └─ ClientHello ─┬─ TLS ended, by ALPN ─▶ client1, client2
//	                                              └─ passed through by SNI ─▶ relay.Splice
//	client1: a request at a time ─┐ asker                                answerer
//	client2: a stream each       ─┴─▶ exchange ─▶ host, site, route.Dial ─▶ server1 ─▶ backend
//
// Several services may share an address: the host tells them apart. A front outlives the generations; what it serves
// is replaced at a reload, so that a connection which stays open sees the new site with its next request.
//
// The machines that read and write HTTP are in the packages http1 and http2, which know no socket.
//
// RFC 9110 (semantics), RFC 9112 (HTTP/1.1), RFC 9113 (HTTP/2), RFC 6066 §3 (server name), RFC 6455 (WebSocket), RFC 7239 (Forwarded).
package web

import (
	_ "embed"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/service"
)

// source is options.go, whose comments describe the keys of the section.
//
//go:embed options.go
var source string

// Protocol is the line of the protocol table.
func Protocol() service.Protocol {
	return service.Protocol{
		Name: "web", Doc: "HTTP/1.1, HTTP/2 and WebSocket, with TLS ended here or passed through by name", Transports: []listen.Transport{listen.TCP},
		Share: share, Kernel: unread,
		Handovers: []backend.Handover{backend.HandoverHeader, backend.HandoverProxyV1, backend.HandoverProxyV2},
		Counts:    []limit.Kind{limit.Requests, limit.Connections, limit.Handshakes, limit.Open},
		Options:   func() service.Options { return defaults() },
		Sources:   []string{source, service.ACMESource()},
		Build:     build,
		Read:      readFiles,
	}
}
