// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/journal"
	"github.com/kyozon/kyozon/protocol/phone/cause"
	"github.com/kyozon/kyozon/protocol/phone/cdr"
	"github.com/kyozon/kyozon/protocol/phone/plan"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// Who can have ended a call.
const (
	byCaller = "caller"
	byCalled = "called"
	byEdge   = "edge"
)

// begin begins the record of a call.
func (e *exchange) begin(who *caller) {
	w := e.transaction.Way
	e.record = &cdr.Record{ID: e.agent.token(), Start: time.Now(), From: who.Who(), Caller: legOf(e.network, w.Remote)}
	e.record.Caller.CallID, e.record.Caller.Peer = string(e.message.Get(sip.CallID)), who.Who()
	if who.trunk != nil {
		e.record.Caller.Peer = who.trunk.name
	}
	e.agent.core.tally.begin(e.record)
}

// routed notes what was dialled and what the number plan has said of it.
func (e *exchange) routed(dialled string, who *caller, d *plan.Decision) {
	r := e.record
	r.Dialled, r.To, r.Class, r.Emergency = dialled, d.Number.String(), d.Class, d.Emergency
	r.Withheld = who.Withheld()
	if d.Route >= 0 {
		r.Route = "routes[" + index(d.Route) + "]"
	}
}

func legOf(n *network, at netip.AddrPort) cdr.Leg {
	return cdr.Leg{Network: n.name, Family: ip.FamilyOf(at.Addr()).String(), Address: at}
}

// turnAway answers a call that goes nowhere, and records that.
func (e *exchange) turnAway(a *sip.Answer) {
	e.record.Status, e.record.Cause = a.Status, int(cause.OfStatus(a.Status))
	e.record.Reason = a.Phrase
	e.agent.core.close(e.record, byEdge, 0)
	e.answer(a)
}

// tries notes that a branch is under way.
func (b *branch) tries(callID string) {
	l := legOf(b.network, b.way.Remote)
	l.Peer, l.CallID, l.Tried = b.call.peer, callID, b.tried
	b.leg = &l
	b.call.record.Called = b.leg
	b.tried++
}

// answered notes that somebody has, and gives the record to the legs.
func (c *call) answered(b *branch, l *leg) {
	at := time.Now()
	c.record.Answer, c.record.Called = &at, b.leg
	c.agent.core.tally.answered(c.record)
	b.media.leg, b.media.live = l, true
	b.media.carry()
	l.record, l.peer.record = c.record, c.record
}

// rings notes the first 180.
func (c *call) rings(m *sip.Message) {
	if m.Status() == 180 && c.record.Ring == nil {
		at := time.Now()
		c.record.Ring = &at
	}
}

// unanswered closes the record of a call that nobody has answered.
func (c *call) unanswered(status int, by string) {
	c.record.Status, c.record.Cause = status, int(cause.OfStatus(status))
	c.agent.core.close(c.record, by, 0)
}

// ended closes the record of a call that was answered, if it is not closed yet. The BYE says why, if there is one.
func (l *leg) ended(by string, m *sip.Message) {
	if m == nil {
		l.closed(by, cause.OnTimerExpiry, "an end is silent")
		return
	}
	var why cause.Reason
	for value, i := m.Field(sip.Reason, 0); value != nil; value, i = m.Field(sip.Reason, i) {
		why.Add(value)
	}
	l.closed(by, cause.Of(200, why), "")
}

// closed closes the record of a call that was answered, if it is not closed yet.
func (l *leg) closed(by string, why cause.Cause, reason string) {
	r := l.record
	if r == nil {
		return
	}
	l.record, l.peer.record = nil, nil
	r.Cause, r.Reason = int(why), cmp.Or(r.Reason, reason)
	r.End = time.Now()
	saved, c := l.kept+l.peer.kept, l.agent.core // one of them has it
	c.over(r, by)
	if l.media == nil {
		c.file(r, saved)
		return
	}
	m := l.media
	m.over(r)
	if m.id != 0 || m.parts > 0 { // the relay may answer late, or die, and so may we: the call is over now
		saved = c.jot(r, saved)
	}
	m.settled = func() { c.file(r, saved) }
	m.end(r, m.path)
	m.settle()
}

// unheardOf ends a call of which the relay hears nothing any more.
func (l *leg) unheardOf() {
	if r := l.record; r != nil {
		r.Reason = "no media were heard"
	}
	l.silent()
}

// who returns which end of the call a leg is.
func (l *leg) who() string {
	if l.near {
		return byCaller
	}
	return byCalled
}

// close ends a record and has it written. saved is what the call was saved as, which is no longer needed.
func (c *core) close(r *cdr.Record, by string, saved journal.ID) {
	c.over(r, by)
	c.file(r, saved)
}

// over ends a record: the call has nothing any more.
func (c *core) over(r *cdr.Record, by string) {
	c.seats.free(r.ID)
	if r.EndedBy = by; r.End.IsZero() {
		r.End = time.Now()
	}
	c.tally.end(r)
}

// jot has a record that is not whole yet outlive the process, in place of the call that was saved. It returns as what.
func (c *core) jot(r *cdr.Record, saved journal.ID) journal.ID {
	line := c.line(r)
	if line == nil {
		c.calls.settle(saved)
		return 0
	}
	return c.calls.put(ended, line, saved)
}

// file has a record written in place of what was saved.
func (c *core) file(r *cdr.Record, saved journal.ID) {
	line := c.line(r)
	if line == nil {
		c.calls.settle(saved)
		return
	}
	c.records.add(record{line: line, id: c.calls.put(ended, line, saved)})
}

// lineSize is what the line of most calls has room in.
const lineSize = 768

// line returns a record as it is written; nil if nobody wants any, or its times cannot be written.
func (c *core) line(r *cdr.Record) []byte {
	if o := c.settings.Load().options; o.CDR == "" && o.CDRDatabase == nil {
		return nil
	}
	line, err := r.Append(make([]byte, 0, lineSize))
	if err != nil {
		c.log.Error("a record of a call is lost", "err", err)
		return nil
	}
	return line
}
