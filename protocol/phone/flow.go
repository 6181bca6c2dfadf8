// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bytes"
	"time"

	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/transport"
	"github.com/kyozon/kyozon/relay"
)

const (
	// silence is how long a connection may say nothing. Who registers over one sends a ping every two minutes: RFC 5626 §4.4.1.
	silence = 5 * time.Minute

	// mostUnread bounds what waits for a peer that does not read: part of a message cannot be left out.
	mostUnread = 1 << 20
)

// flow is a connection over which messages come, and the handler of it. Somebody has opened it, or we have.
type flow struct {
	agent  *agent // of its loop
	conn   *relay.Conn
	way    sip.Way
	stream sip.Stream

	// Of one that we have opened: the way that requests name, whose Flow is 0; what waits until it is open; and whether it
	// stands in for one that has broken.
	to      sip.Way
	waiting [][]byte
	again   bool
	gone    bool
}

// accept begins with a connection that somebody has opened.
func (c *core) accept(conn *relay.Conn) {
	c.back()
	s := c.settings.Load()
	n := s.networks[conn.Local()]
	if n == nil || !n.routeOf(conn.Remote().Addr()).Allows(conn.Remote().Addr()) {
		conn.Abort()
		return
	}
	f := &flow{agent: c.agents[conn.Loop().ID()]}
	f.way = sip.Way{Transport: sip.TCP, Local: conn.Local(), Remote: conn.Remote(), Flow: c.lastFlow.Add(1)}
	if s.options.isSecure(f.way.Local) {
		f.way.Transport = sip.TLS
		conn.SetHandler(&unshaken{flow: f, terms: s.terms, route: n.routeOf(conn.Remote().Addr())})
		conn.SetTimeout(shakeTime)
		return
	}
	f.begin(conn)
}

// begin begins to read.
func (f *flow) begin(conn *relay.Conn) {
	f.conn = conn
	f.agent.core.flows.Store(f.way.Flow, f)
	conn.SetHandler(f)
	conn.SetTimeout(silence)
	if f.agent.core.parted.Load() {
		f.part()
	}
}

// part ends all connections, when nobody here answers any more: who has one connects again, to the process that has taken this
// one's place, while other flows may keep this one for long.
func (c *core) part() {
	c.parted.Store(true)
	c.flows.Range(func(_, v any) bool {
		f := v.(*flow) // nothing else is in the map
		f.agent.loop.Post(f.part)
		return true
	})
}

func (f *flow) part() {
	if !f.gone {
		f.gone = true
		f.agent.core.flows.Delete(f.way.Flow)
		f.conn.Close()
	}
}

// write sends a message, or keeps a copy until the connection is open.
func (f *flow) write(b []byte) {
	if f.conn == nil {
		if len(f.waiting) < mostWaiting {
			f.waiting = append(f.waiting, bytes.Clone(b))
		}
		return
	}
	if f.conn.Buffered() > mostUnread {
		f.conn.Abort()
		f.agent.loop.Post(func() { f.over(errUnread) }) // who sends is not told before it has sent
		return
	}
	f.conn.SetTimeout(silence)
	f.conn.Write(b)
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
			f.over(err)
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
	f.over(errEnded)
}

// Closed implements relay.Handler.
func (f *flow) Closed(_ *relay.Conn, err error) { f.over(err) }

// over forgets the connection. Who is bound by it is not reached any more, and finds that out when it connects again.
func (f *flow) over(err error) {
	if f.gone {
		return
	}
	f.gone = true
	f.agent.core.flows.Delete(f.way.Flow)
	if f.to.Remote.IsValid() {
		f.agent.broke(f, err)
	}
}
