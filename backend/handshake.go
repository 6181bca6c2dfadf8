// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package backend

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"

	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/relay"
)

// Handshaking handles a client of Route from relay.Conn.StartServerTLS on until it is ready, and counts a handshake that
// comes to nothing.
type Handshaking struct{ Route *Route }

// Data implements relay.Handler.
func (h Handshaking) Data(*relay.Conn, []byte) int { return 0 }

// Event implements relay.Handler.
func (h Handshaking) Event(c *relay.Conn, e relay.Event) {
	if e == relay.Timeout {
		h.Route.Count(metrics.TLSTimeout)
	}
	c.Abort()
}

// Closed implements relay.Handler.
func (h Handshaking) Closed(_ *relay.Conn, err error) { h.Route.Count(handshakeReason(err)) }

// handshakeReason returns the reason by which a handshake that ended with err is counted.
func handshakeReason(err error) metrics.Reason {
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Op == "remote error" { // how crypto/tls shows an alert
		return metrics.TLSRejected
	}
	if _, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return metrics.TLSFault
	}
	_, broken := errors.AsType[*os.SyscallError](err)
	switch {
	case errors.Is(err, relay.ErrBusy):
		return metrics.TLSBusy
	case broken, errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return metrics.TLSReset
	}
	return metrics.TLSRefused
}
