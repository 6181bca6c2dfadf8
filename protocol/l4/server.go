// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package l4

import (
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/listen"
	"github.com/kyozon/kyozon/relay"
	"github.com/kyozon/kyozon/service"
)

// door is what one listen of one service needs.
type door struct {
	route *backend.Route
	idle  time.Duration
}

func buildTCP(services []*service.Service, env service.Env) (service.Server, error) {
	return build(services, env, func(d *door) service.Handler { return service.Handler{Conn: d.accept} }), nil
}

func buildUDP(services []*service.Service, env service.Env) (service.Server, error) {
	return build(services, env, func(d *door) service.Handler { return service.Handler{Flow: d.open} }), nil
}

func build(services []*service.Service, env service.Env, handler func(*door) service.Handler) service.Server {
	doors := make(map[listen.Addr]service.Handler)
	for _, s := range services {
		for _, l := range s.Listen {
			route := env.Route(s.Name, service.Door{Listen: l.Name, Family: l.Family()})
			doors[l.Addr] = handler(&door{route: route, idle: s.Timeouts.Idle})
		}
	}
	return service.Server{Doors: doors}
}

func (d *door) open(f *relay.PacketFlow) { d.route.OpenPackets(f, d.idle) }
