// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package l4 carries TCP and UDP as they are.
//
//	TCP: client ─▶ route.Dial ─▶ relay.Splice, half by half, until both have ended
//	UDP: first packet ─▶ route.OpenPackets; the relay carries the flow until it is idle
package l4

import (
	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/service"
)

// TCP is the line of the protocol table for streams.
func TCP() service.Protocol {
	return service.Protocol{
		Name: "tcp", Doc: "any service on TCP, carried as it is", Transports: []listen.Transport{listen.TCP}, Kernel: service.Whole,
		Handovers: []backend.Handover{backend.HandoverProxyV1, backend.HandoverProxyV2},
		Counts:    []limit.Kind{limit.Connections, limit.Open},
		Options:   func() service.Options { return new(Options) },
		Build:     buildTCP,
	}
}

// UDP is the line of the protocol table for packets.
func UDP() service.Protocol {
	return service.Protocol{
		Name: "udp", Doc: "any service on UDP, carried as it is", Transports: []listen.Transport{listen.UDP}, Kernel: service.Whole,
		Options: func() service.Options { return new(Options) },
		Build:   buildUDP,
	}
}
