// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"bytes"
	"crypto/tls"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/probe"
	"github.com/kyozon/kyozon/protocol/mail/login"
	"github.com/kyozon/kyozon/relay"
)

// What clients say is passed through to a server that has the certificate. If the server takes the connection for one of a
// proxy that it trusts, it believes what the client says of itself, as often as it is said: Dovecot at POP3 and submission,
// and Exim, never take that trust back (Postfix does, by asking again who the client is). So a server is looked at, in the
// name of a client that there is not, before clients are passed through to it.

// unverified is how TLS is spoken to a server that is only looked at: nothing is told to it, and the certificate is for the
// clients to verify.
func unverified() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: true}
}

// encrypt speaks TLS to a server that is only looked at, and calls done with a connection that has no handler, or why there is
// none.
func encrypt(c *relay.Conn, done func(error)) {
	c.SetTimeout(askTime)
	c.StartClientTLS(unverified(), func(_ tls.ConnectionState, err error) { done(probe.Explain(err)) })
}

// glance reads how a server of POP3 greets. It is the handler of its connection.
type glance struct {
	secure bool // TLS comes first
	done   func(answer)
	flow   *backend.Flow
}

// dialled is called when the backend has been reached, or cannot be.
func (g *glance) dialled(f *backend.Flow, err error) {
	if err != nil {
		g.done(answer{err: err})
		return
	}
	g.flow = f
	f.Cut = func(metrics.Reason) { g.end(answer{err: errMute}) }
	if !g.secure {
		g.wait()
		return
	}
	encrypt(f.Conn, func(err error) {
		switch {
		case g.done == nil: // it was cut
			f.Conn.Close()
		case err != nil:
			g.end(answer{err: err})
		default:
			g.wait()
		}
	})
}

func (g *glance) wait() {
	g.flow.Conn.SetHandler(g)
	g.flow.Conn.SetTimeout(askTime)
}

// Data implements relay.Handler. Dovecot says in its greeting whether it would believe XCLIENT.
func (g *glance) Data(_ *relay.Conn, p []byte) int {
	line, n, refusal := login.NextLine(p, new(login.Limits).MaxResponse())
	switch {
	case refusal != 0:
		g.end(answer{err: refusal})
	case n == 0:
		return 0
	case !bytes.HasPrefix(line, []byte("+OK")):
		g.end(answer{refuses: "it does not greet"})
	case bytes.Contains(line, []byte("[XCLIENT]")):
		g.end(answer{believes: seenBy(g.flow), banner: string(likeness(line))})
	default:
		g.end(answer{banner: string(likeness(line))})
	}
	return len(p)
}

// Event implements relay.Handler.
func (g *glance) Event(_ *relay.Conn, e relay.Event) {
	if e != relay.Drained {
		g.end(answer{refuses: "it does not greet"})
	}
}

// Closed implements relay.Handler.
func (g *glance) Closed(*relay.Conn, error) { g.end(answer{refuses: "it does not greet"}) }

// end leaves, and tells.
func (g *glance) end(a answer) {
	done := g.done
	if done == nil {
		return
	}
	g.done = nil
	g.flow.Conn.Close()
	g.flow.End(metrics.Counts{}, metrics.Fine)
	done(a)
}
