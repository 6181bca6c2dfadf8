// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package web

import (
	"crypto/tls"
	"crypto/x509"
	"errors"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/certs"
	"github.com/kyozon/kyozon/certs/acme"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/protocol/web/http1"
	"github.com/kyozon/kyozon/relay"
)

// accept begins to serve a client.
func (f *front) accept(c *relay.Conn) {
	t := f.current.Load()
	if t.tls == nil {
		f.greet(c)
		return
	}
	if t.whole() {
		t.fallback.pass(c)
		return
	}
	c.SetHandler(&hello{front: f, table: t})
	c.SetTimeout(t.timeouts.Request)
}

// hello waits for a client's ClientHello, which says whether TLS is ended here or passed through.
type hello struct {
	front *front
	table *table
	begun bool // the client has said something
}

// Data implements relay.Handler.
func (h *hello) Data(c *relay.Conn, p []byte) int {
	hello, n, err := certs.ParseHello(p)
	switch {
	case errors.Is(err, certs.ErrName): // often an address, which RFC 6066 §3 does not allow: taken for no name
		hello.ServerName = ""
	case err != nil:
		h.table.first.route.Count(metrics.TLSFault) // not TLS, or not as the RFC has it
		c.Abort()
		return len(p)
	case n == 0:
		h.begun = true
		return 0
	}
	s := h.table.site([]byte(hello.ServerName))
	if s != nil && s.passThrough {
		s.pass(c)
		return 0
	}
	if s == nil {
		s = h.table.first
	} else if !s.route.Admit(limit.Handshakes, c.Remote().Addr(), c.Loop().Now()) {
		c.Abort()
		return len(p)
	}
	c.SetHandler(backend.Handshaking{Route: s.route})
	c.StartServerTLS(h.table.tls, func(s tls.ConnectionState) {
		if s.NegotiatedProtocol == acme.ALPN { // all has been said. RFC 8737 §3
			c.Close()
			return
		}
		if s.NegotiatedProtocol == "h2" {
			h.front.serve2(c, h.table.secured(s))
			return
		}
		c.SetHandler(h.front.serve1(c, h.table.secured(s)))
	})
	return 0
}

// Event implements relay.Handler.
func (h *hello) Event(c *relay.Conn, e relay.Event) {
	if e == relay.Timeout {
		h.count(metrics.TLSTimeout)
	} else {
		h.count(metrics.TLSReset)
	}
	c.Abort()
}

// Closed implements relay.Handler.
func (h *hello) Closed(*relay.Conn, error) { h.count(metrics.TLSReset) }

// count counts a ClientHello that does not come whole. Who comes and goes without a word has begun none.
func (h *hello) count(r metrics.Reason) {
	if h.begun {
		h.table.first.route.Count(r)
	}
}

// secured is what the TLS handshake of a client's connection has settled. Nil stands for a connection in clear.
//
// A handshake is for one name, but requests may name another of the same address. What that one asks of a handshake may
// be more: then the request is told that it has come to the wrong place, and the client begins a connection for it.
type secured struct {
	tls       uint16                // version
	asked     *certs.Admission      // by whom the client was asked for a certificate; nil if it was not
	verified  [][]*x509.Certificate // its chains; none if the client has shown none
	admission *certs.Admission      // by whom the client was let in last
	chain     []*x509.Certificate   // by which it was, from its own certificate to an authority
	fields    []byte                // that tell of it, rendered for the service that let it in
}

// secured returns what a handshake has settled.
func (t *table) secured(s tls.ConnectionState) *secured {
	c := &secured{tls: s.Version}
	if st := t.named(s.ServerName); st != nil && st.clients != nil {
		c.asked, c.verified = st.clients.Admission(), s.VerifiedChains
	}
	return c
}

// fits says whether a service may be asked for on the connection.
func (s *secured) fits(st *site) bool {
	switch {
	case s == nil:
		return st.clients == nil || !st.clients.Admission().Required()
	case s.tls < st.minimum:
		return false
	case st.clients == nil:
		return true
	}
	a := st.clients.Admission()
	return a == s.admission || s.admit(a)
}

// admit lets a client in where a says who may come, if it may. It was verified in the handshake; what must be true
// also of another service, and after each reload, is that its certificate comes from one of the authorities and is not
// revoked.
func (s *secured) admit(a *certs.Admission) bool {
	switch {
	case s.asked == nil:
		return false
	case len(s.verified) == 0:
		if !a.Follows(s.asked) {
			return false
		}
	default:
		chain := a.Chain(s.verified)
		if chain == nil {
			return false
		}
		s.chain, s.fields = chain, nil
	}
	s.admission = a
	return true
}

// fieldsFor returns the lines that tell a backend of a service which certificate the client has shown; none if it has
// shown none, or the service asks for none.
func (s *secured) fieldsFor(st *site) []byte {
	if s == nil || st.clients == nil {
		return nil
	}
	if a := st.clients.Admission(); a != s.admission && !s.admit(a) || len(s.chain) == 0 { // another request may have come between
		return nil
	}
	if s.fields == nil {
		var between [][]byte
		for _, c := range s.chain[1:max(1, len(s.chain)-1)] { // the authority may be left out: RFC 8446 §4.4.2
			if st.chain {
				between = append(between, c.Raw)
			}
		}
		s.fields = http1.AppendCertificates(nil, s.chain[0].Raw, between...)
	}
	return s.fields
}

// version returns that of TLS; 0 means none.
func (s *secured) version() uint16 {
	if s == nil {
		return 0
	}
	return s.tls
}

// passing handles a client until its backend has been reached.
type passing struct{}

func (passing) Data(*relay.Conn, []byte) int       { return 0 }
func (passing) Event(c *relay.Conn, _ relay.Event) { c.Abort() }
func (passing) Closed(*relay.Conn, error)          {}

// pass hands a client, whose ClientHello is still unread, to a backend as it is.
func (s *site) pass(c *relay.Conn) {
	c.SetHandler(passing{})
	c.SetTimeout(0)
	c.Pause()
	s.route.Dial(c.Loop(), clientOf(c), false, func(f *backend.Flow, err error) {
		switch {
		case err != nil:
			s.route.Refused(c.Loop(), clientOf(c), err)
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
