// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"crypto/tls"
	"errors"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/certs"
	"github.com/kyozon/kyozon/certs/acme"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/relay"
)

// unshaken waits for a client's ClientHello. A handshake holds a goroutine, and the edge has only so many: who says nothing,
// or something else, takes none.
type unshaken struct {
	table *table
	ready func()
	begun bool // some of it has come
}

// Data implements relay.Handler.
func (h *unshaken) Data(c *relay.Conn, p []byte) int {
	_, n, err := certs.ParseHello(p)
	route := h.table.route
	switch {
	case err != nil && !errors.Is(err, certs.ErrName): // a name that is none is taken for no name
		route.Count(metrics.TLSFault)
		c.Abort()
		return len(p)
	case err == nil && n == 0:
		h.begun = true
		return 0
	case !route.Admit(limit.Handshakes, c.Remote().Addr(), c.Loop().Now()):
		c.Abort()
		return len(p)
	}
	c.SetHandler(backend.Handshaking{Route: route})
	c.StartServerTLS(h.table.terms.Config(), func(s tls.ConnectionState) {
		if s.NegotiatedProtocol == acme.ALPN { // all has been said. RFC 8737 §3
			c.Close()
			return
		}
		h.ready()
	})
	return 0
}

// Event implements relay.Handler.
func (h *unshaken) Event(c *relay.Conn, e relay.Event) {
	if e == relay.Timeout {
		h.count(metrics.TLSTimeout)
	} else {
		h.count(metrics.TLSReset)
	}
	c.Abort()
}

// Closed implements relay.Handler.
func (h *unshaken) Closed(*relay.Conn, error) { h.count(metrics.TLSReset) }

// count counts a ClientHello that does not come whole. Who comes and goes without a word has begun none.
func (h *unshaken) count(r metrics.Reason) {
	if h.begun {
		h.table.route.Count(r)
	}
}
