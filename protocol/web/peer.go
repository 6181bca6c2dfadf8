// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

// Hot path: no allocation per packet.

import (
	"net/netip"
	"slices"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/protocol/web/http1"
	"github.com/kyozon/kyozon/relay"
)

// maxHeld is how many connections to backends one client may hold between its requests: as many as it may have requests
// at once.
const maxHeld = 100

// peer is a client's connection, whatever version of HTTP it speaks.
type peer struct {
	front *front
	conn  *relay.Conn
	tls   *secured // nil means in clear

	held  []*backend.Flow // that no exchange uses, and no other client may
	onCut func(metrics.Reason)

	origin  []byte // the forwarding fields, rendered for carried
	carried netip.Addr
}

// client describes who has connected.
func (p *peer) client() backend.Client { return clientOf(p.conn) }

func clientOf(c *relay.Conn) backend.Client {
	return backend.Client{Addr: c.Remote(), Dialled: c.Local()}
}

// local returns what the connections of the peer's loop have in common.
func (p *peer) local() *local { return &p.front.all.locals[p.conn.Loop().ID()] }

// scratch is where what is sent is rendered, and space where pieces of it are gathered before. Both are free again when
// it has been written.
func (p *peer) scratch() []byte { return p.local().out[:0] }
func (p *peer) space() []byte   { return p.local().gathered[:0] }

// dialled is what a client that named no host gets for one: RFC 9112 §3.2 wants one in every request.
func (p *peer) dialled() []byte { return p.conn.Local().AppendTo(nil) }

// forwardingFields renders who the client of f is, once for as long as that is the same.
func (p *peer) forwardingFields(f *backend.Flow) []byte {
	if a := f.Carried().Addr(); a != p.carried {
		p.carried = a
		p.origin = http1.AppendOrigin(p.origin[:0], http1.Origin{Client: a, Port: p.conn.Local().Port(), TLS: p.tls != nil})
	}
	return p.origin
}

// hold keeps the connection of a flow for the client's next request. The flow goes on.
func (p *peer) hold(f *backend.Flow) {
	if len(p.held) == maxHeld {
		release(p.held[0])
		p.held = slices.Delete(p.held, 0, 1)
	}
	if p.onCut == nil {
		p.onCut = func(metrics.Reason) { p.letGo() }
	}
	f.Counts, f.Cut = nil, p.onCut
	f.Conn.SetTimeout(0)
	if u, ok := f.Conn.Handler().(*upstream); ok {
		u.holder = (*holder)(p)
	} else {
		f.Conn.SetHandler((*holder)(p))
	}
	p.held = append(p.held, f)
}

// take returns a flow of a route that was held, or nil.
func (p *peer) take(r *backend.Route) *backend.Flow {
	for i, f := range slices.Backward(p.held) {
		if f.Route() == r {
			p.held = slices.Delete(p.held, i, i+1)
			if u, ok := f.Conn.Handler().(*upstream); ok {
				u.holder = nil
			}
			return f
		}
	}
	return nil
}

// letGo gives up what is held.
func (p *peer) letGo() {
	for i, f := range p.held {
		release(f)
		p.held[i] = nil
	}
	p.held = p.held[:0]
}

// keepTo gives up what is held for routes that t does not have.
func (p *peer) keepTo(t *table) {
	p.held = slices.DeleteFunc(p.held, func(f *backend.Flow) bool {
		if t.has(f.Route()) {
			return false
		}
		release(f)
		return true
	})
}

// release ends a flow that was held.
func release(f *backend.Flow) {
	f.Conn.Close()
	f.End(metrics.Counts{}, metrics.Fine)
}

// holder is a peer as the handler of the connections that it holds: whatever happens on one makes it useless.
type holder peer

// Data implements relay.Handler.
func (h *holder) Data(c *relay.Conn, p []byte) int {
	h.lost(c)
	return len(p)
}

// Event implements relay.Handler.
func (h *holder) Event(c *relay.Conn, _ relay.Event) { h.lost(c) }

// Closed implements relay.Handler.
func (h *holder) Closed(c *relay.Conn, _ error) { h.lost(c) }

func (h *holder) lost(c *relay.Conn) {
	if i := slices.IndexFunc(h.held, func(f *backend.Flow) bool { return f.Conn == c }); i >= 0 {
		f := h.held[i]
		h.held = slices.Delete(h.held, i, i+1)
		release(f)
	}
}
