// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"time"

	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/protocol/mail/outcome"
	"github.com/kyozon/kyozon/relay"
)

// A client that leaves is looked at so often, in so long.
const (
	partLooks = 20
	partEvery = lingerTime / partLooks
)

// parting is the connection of a client to which all has been said, while it is not known whether it has come.
type parting struct {
	all      *fronts
	delivery outcome.Delivery
	looks    int
}

// look ends the connection if it is known that all has come, or has not for long.
func (p *parting) look(c *relay.Conn) {
	switch p.looks--; {
	case c.Unsent() == 0:
		p.delivery.Seen()
		p.end(c)
	case p.looks <= 0:
		p.delivery.Unseen()
		p.end(c)
	default:
		c.SetTimeout(partEvery)
	}
}

func (p *parting) end(c *relay.Conn) {
	p.all.busy.Add(-1)
	c.Linger(lingerTime)
}

// Data implements relay.Handler.
func (p *parting) Data(_ *relay.Conn, b []byte) int { return len(b) }

// Event implements relay.Handler.
func (p *parting) Event(c *relay.Conn, _ relay.Event) { p.look(c) }

// Closed implements relay.Handler.
func (p *parting) Closed(*relay.Conn, error) {
	p.all.busy.Add(-1)
	p.delivery.Unseen()
}

// orphan is a connection to a backend that has a message whose client has gone: what becomes of it is for when the client
// comes again.
type orphan struct {
	link     *link
	tally    *tally
	delivery outcome.Delivery
}

// bereave leaves a backend to answer, if it has the whole message and the client would want to know.
func (l *link) bereave() bool {
	s := l.session
	if l.phase != ending || !s.delivery.Open() {
		return false
	}
	o := &orphan{link: l, tally: s.tally(), delivery: s.delivery}
	s.delivery = outcome.Delivery{}
	s.link, l.session = nil, nil
	l.flow.Cut = func(why metrics.Reason) { o.end(why) }
	l.flow.Conn.SetHandler(o)
	return true
}

// Data implements relay.Handler.
func (o *orphan) Data(_ *relay.Conn, p []byte) int {
	r, _, n, refusal := o.link.out.Next(p)
	o.link.counts.ToClient += uint64(n)
	switch {
	case refusal != 0 || n > 0 && (r.Code == 421 || r.Code/100 == 3):
		o.end(metrics.ServerFault)
	case n == 0:
	case r.Code/100 == 2:
		o.link.flow.Metrics().Request()
		o.came(taken)
		o.delivery.Taken(r.Raw, time.Now())
		o.delivery.Unseen()
		o.end(metrics.ClientReset)
	default:
		o.came(endOf(r.Code))
		o.delivery.Refused()
		o.end(metrics.ClientReset)
	}
	return n
}

// Event implements relay.Handler.
func (o *orphan) Event(_ *relay.Conn, e relay.Event) {
	switch e {
	case relay.Drained:
	case relay.Timeout:
		o.end(metrics.ServerTimeout)
	default:
		o.end(metrics.ServerReset)
	}
}

// Closed implements relay.Handler.
func (o *orphan) Closed(*relay.Conn, error) { o.end(metrics.ServerReset) }

// end gives the backend up. If it has not answered, nobody knows.
func (o *orphan) end(why metrics.Reason) {
	if o.delivery.Open() {
		o.came(unknown)
	}
	o.delivery.Lost()
	o.link.flow.Conn.Abort()
	o.link.flow.End(o.link.counts, why)
}

// came counts what has become of the message.
func (o *orphan) came(e end) { o.tally.messages[o.link.flow.Crossing().Index()][e].Add(1) }
