// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"time"

	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/transport"
	"github.com/kyozon/kyozon/relay"
)

// silence is how long a connection may say nothing. Who registers over one sends a ping every two minutes: RFC 5626 §4.4.1.
const silence = 5 * time.Minute

// flow is a connection over which messages come, and the handler of it.
type flow struct {
	agent  *agent // of its loop
	conn   *relay.Conn
	way    sip.Way
	stream sip.Stream
}

// accept begins with a connection that somebody has opened.
func (c *core) accept(conn *relay.Conn) {
	n := c.settings.Load().networks[conn.Local()]
	if n == nil || !n.routeOf(conn.Remote().Addr()).Allows(conn.Remote().Addr()) {
		conn.Abort()
		return
	}
	f := &flow{agent: c.agents[conn.Loop().ID()], conn: conn}
	f.way = sip.Way{Transport: sip.TCP, Local: conn.Local(), Remote: conn.Remote(), Flow: c.lastFlow.Add(1)}
	c.flows.Store(f.way.Flow, f)
	conn.SetHandler(f)
	conn.SetTimeout(silence)
}

// Data implements relay.Handler.
func (f *flow) Data(c *relay.Conn, p []byte) (used int) {
	c.SetTimeout(silence)
	m := &f.agent.message
	for used < len(p) && !c.IsClosed() {
		n, what, err := f.stream.Next(p[used:], m, &f.agent.core.limits)
		switch {
		case err != nil: // nothing that follows can be understood. RFC 3261 §18.3
			if m.Answerable() {
				f.agent.handle(err, f.way)
			}
			c.Close()
			f.over()
			return len(p)
		case what == sip.Part:
			return used
		case what == sip.Ping:
			c.Write([]byte(transport.KeptAlive))
		case what == sip.Whole:
			f.agent.take(p[used:used+n], f.way)
		}
		used += n
	}
	return used
}

// Event implements relay.Handler.
func (f *flow) Event(c *relay.Conn, e relay.Event) {
	if e == relay.Drained {
		return
	}
	c.Close()
	f.over()
}

// Closed implements relay.Handler.
func (f *flow) Closed(*relay.Conn, error) { f.over() }

// over forgets the connection. Who is bound by it is not reached any more, and finds that out when it connects again.
func (f *flow) over() { f.agent.core.flows.Delete(f.way.Flow) }
