// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"crypto/tls"
	"errors"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/certs"
	"github.com/kyozon/kyozon/certs/acme"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/relay"
)

// accept begins to serve a client.
func (f *front) accept(c *relay.Conn) {
	t := f.current.Load()
	if t.tls == nil {
		f.serve(c, nil)
		return
	}
	c.SetHandler(&hello{front: f, table: t})
	c.SetTimeout(t.timeouts.Request)
}

// hello waits for a client's ClientHello, which says whether TLS is ended here or passed through.
type hello struct {
	front *front
	table *table
}

// Data implements relay.Handler.
func (h *hello) Data(c *relay.Conn, p []byte) int {
	hello, n, err := certs.ParseHello(p)
	switch {
	case errors.Is(err, certs.ErrName): // often an address, which RFC 6066 §3 does not allow: taken for no name
		hello.ServerName = ""
	case err != nil:
		c.Abort() // not TLS, or not as the RFC has it
		return len(p)
	case n == 0:
		return 0
	}
	s := h.table.site([]byte(hello.ServerName))
	if s != nil && s.passThrough {
		s.pass(c)
		return 0
	}
	c.SetHandler(handshaking{})
	c.StartServerTLS(h.table.tls, func(s tls.ConnectionState) {
		if s.NegotiatedProtocol == acme.ALPN { // all has been said. RFC 8737 §3
			c.Close()
			return
		}
		h.front.serve(c, &secured{tls: s.Version})
	})
	return 0
}

// Event implements relay.Handler.
func (h *hello) Event(c *relay.Conn, _ relay.Event) { c.Abort() }

// Closed implements relay.Handler.
func (h *hello) Closed(*relay.Conn, error) {}

// secured is what the TLS handshake of a client's connection has settled. Nil stands for a connection in clear.
type secured struct {
	tls uint16 // version
}

// version returns that of TLS; 0 means none.
func (s *secured) version() uint16 {
	if s == nil {
		return 0
	}
	return s.tls
}

// handshaking handles a client during the TLS handshake.
type handshaking struct{}

func (handshaking) Data(_ *relay.Conn, p []byte) int   { return 0 }
func (handshaking) Event(c *relay.Conn, _ relay.Event) { c.Abort() }
func (handshaking) Closed(*relay.Conn, error)          {}

// pass hands a client, whose ClientHello is still unread, to a backend as it is.
func (s *site) pass(c *relay.Conn) {
	c.SetHandler(handshaking{})
	c.SetTimeout(0)
	c.Pause()
	s.route.Dial(c.Loop(), client(c), false, func(f *backend.Flow, err error) {
		switch {
		case err != nil:
			s.route.Refused(c.Loop(), client(c), err)
			c.Abort()
		case c.IsClosed():
			f.Conn.Abort()
			f.End(metrics.Counts{}, metrics.ClientReset)
		default:
			p := relay.Splice(c, f.Conn, s.idle, f.End)
			f.Counts, f.Cut = p.Counts, p.Cut
		}
	})
}
