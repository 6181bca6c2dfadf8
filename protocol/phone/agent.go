// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/kyozon/kyozon/protocol/phone/digest"
	"github.com/kyozon/kyozon/protocol/phone/location"
	"github.com/kyozon/kyozon/protocol/phone/sdp"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/dialog"
	"github.com/kyozon/kyozon/protocol/phone/sip/transaction"
	"github.com/kyozon/kyozon/protocol/phone/sip/transport"
	"github.com/kyozon/kyozon/protocol/phone/stun"
	"github.com/kyozon/kyozon/relay"
)

// agent has the transactions of one loop. Its methods are called on it.
type agent struct {
	core    *core
	loop    *relay.Loop
	table   transaction.Table[user]
	alarm   relay.Timer // when the table has something to do
	opened  bool
	mark    string      // that tokens begin with
	message sip.Message // the one that is looked at
	claimed uint64      // if it begins a call that nobody holds yet: see owners
	legs    map[legKey]*leg
	calls   map[*call]bool    // that nobody has answered
	flows   map[sip.Way]*flow // that we have opened, by the way that requests name

	// Scratch: what is read beside message, what is written, and credentials.
	other, third, own sip.Message
	out, rendered     []byte
	editor            sip.Editor
	copies            [2]dialog.Session
	vias, contacts    []byte
	froms, tags, hop  []byte
	fields            digest.Fields
	update            location.Update

	described, counterpart sdp.Session // what is said of media, and what the other end has said

	busy func() bool // so that others should have new calls
	turn uint32      // who got the last one for that

	opening, afterwards time.Duration // connectTime and afterwards, but for tests
}

// limits bound a message: one that comes over a connection must fit into what relay keeps of it.
func limits() sip.Limits { return sip.Limits{Head: 16 << 10, Body: relay.BufferSize - 16<<10} }

// user is whom a transaction is for; all are nil if nobody waits for how it ends.
type user struct {
	call    *call   // whose INVITE it is
	branch  *branch // which the INVITE of ours is for
	asked   *asked  // what goes on from leg to leg: it came by the one transaction and went by the other
	ping    *ping
	refresh *leg   // whose end is asked whether it is there
	bye     *leg   // whose end is told that it is over
	echo    *echo  // of the INVITE, which was answered
	proofs  int32  // how often the request was proved
	large   bool   // it goes over TCP for its size alone
	mark    uint64 // by which owners has it, or 0
}

func newAgent(c *core, l *relay.Loop) *agent {
	a := &agent{core: c, loop: l, mark: markOf(l.ID()), busy: l.Busy, opening: connectTime, afterwards: afterwards,
		legs: make(map[legKey]*leg), calls: make(map[*call]bool), flows: make(map[sip.Way]*flow)}
	a.table.Send = func(w sip.Way, b []byte) { c.send(a, w, b) }
	a.table.Told, a.table.Ended, a.table.Mark = a.told, a.ended, a.mark
	a.table.Trusted = func(from netip.Addr) bool { return c.settings.Load().trusted(from) }
	a.table.Urgent = func(m *sip.Message) bool { return c.settings.Load().emergency(m) }
	a.alarm.Func = a.tick
	return a
}

// open is called before anything else, on the loop.
func (a *agent) open() {
	if !a.opened {
		a.opened = true
		a.table.Open(a.loop.Now())
	}
}

// told is called when a transaction has ended in silence. RFC 3261 §8.1.3.1. One of a caller whom we have not answered
// has been answered by then.
func (a *agent) told(x *transaction.Transaction[user]) {
	switch u := x.User; {
	case u.branch != nil:
		u.branch.silent()
	case u.asked != nil && x == u.asked.onward:
		u.asked.silent()
	case u.refresh != nil && u.refresh.own == x && !u.refresh.gone: // RFC 4028 §10
		u.refresh.silent()
	}
}

// ended is called when a request that came is forgotten.
func (a *agent) ended(x *transaction.Transaction[user]) {
	if mark := x.User.mark; mark != 0 {
		a.core.owners.release(mark)
	}
}

// response looks at a response to a request of ours.
func (a *agent) response() {
	x, pass := a.table.Response(&a.message, a.loop.Now())
	if !pass {
		return
	}
	switch u := x.User; {
	case u.branch != nil && u.branch.x == x:
		u.branch.response(x, &a.message)
	case u.asked != nil:
		u.asked.response(x, &a.message)
	case u.refresh != nil:
		u.refresh.refreshed(x, &a.message)
	case u.echo != nil:
		u.echo.heard(x, &a.message)
	case u.bye != nil && a.message.Status() >= 200:
		u.bye.prove(x, &a.message)
		x.User.bye = nil // what has ended is kept for nobody
	case u.ping != nil:
		u.ping.answered(&a.message)
	}
}

// tick does what is due.
func (a *agent) tick() {
	a.table.Advance(a.loop.Now())
	a.wind()
}

// wind sets the alarm for what is due next.
func (a *agent) wind() {
	if at, ok := a.table.Next(); ok {
		a.loop.SetTimer(&a.alarm, time.Duration(at-a.loop.Now()))
	}
}

// take takes what came in a datagram or what a stream found to be a message, on the loop of its socket, and gives it to the
// agent that it belongs to.
func (a *agent) take(data []byte, w sip.Way) {
	switch sip.Demux(data) {
	case sip.Ping:
		a.core.send(a, w, []byte(transport.KeptAlive))
		return
	case sip.STUN: // RFC 5626 §4.4.2: it keeps the way through a firewall open
		if out, ok := stun.Append(a.rendered[:0], data, w.Remote); ok {
			a.rendered = out
			a.core.send(a, w, out)
		}
		return
	case sip.Pong, sip.Part:
		return
	}
	err := a.message.Parse(data, &a.core.limits)
	to, claimed := a.owner(&a.message)
	if to != a { // who has it judges it
		data = bytes.Clone(data)
		to.loop.Post(func() { to.judge(to.message.Parse(data, &to.core.limits), w, claimed) })
		return
	}
	a.judge(err, w, claimed)
}

// judge handles the message that has been read if it can be answered, whatever is wrong with it.
func (a *agent) judge(err *sip.Error, w sip.Way, claimed uint64) {
	a.claimed = claimed
	if verdict, err := transport.Judge(&a.message, err); verdict == transport.Take || verdict == transport.Answer {
		a.handle(err, w)
	}
	if a.claimed != 0 { // it was refused, or is a copy
		a.core.owners.settle(a.claimed)
	}
}

// handle looks at the message that has been read, a request if something is wrong with it.
func (a *agent) handle(err *sip.Error, w sip.Way) {
	a.open()
	if a.core.away.Load() != here && (w.Transport != sip.UDP || !a.core.back()) {
		return // who is connected finds the other process when he connects again
	}
	if a.message.Request() {
		a.request(err, w)
	} else {
		a.response()
	}
	a.wind()
}

// request answers a request, or lets it be if the client may not come in.
func (a *agent) request(err *sip.Error, w sip.Way) {
	s := a.core.settings.Load()
	n, from := s.networks[w.Local], w.Remote.Addr()
	if n == nil || !n.routeOf(from).Allows(from) {
		return
	}
	m, back := &a.message, w
	if h, bad := m.Top(); bad == nil {
		back = transport.AnswerWay(&h, w)
	}
	to, _, _ := m.Address(sip.To) // checked, or err is set
	if err == nil {
		if err = a.core.able.Check(m); err == sip.ErrType && to.Tag() != nil {
			err = nil // the other end knows what it reads
		}
	}
	if err != nil {
		a.refuse(back, err)
		return
	}
	e := exchange{agent: a, settings: s, network: n, message: m, back: back}
	if to.Tag() == nil && alone(m) {
		e.alone()
		return
	}
	x, verdict := a.table.Request(m, back, a.loop.Now())
	switch {
	case verdict == transaction.Acked:
		a.acked(m)
	case verdict == transaction.Stop && x.User.call != nil:
		x.User.call.stop()
	case verdict == transaction.Stop && x.User.asked != nil:
		x.User.asked.stop()
	}
	if verdict != transaction.Fresh {
		return
	}
	if a.claimed != 0 {
		a.core.owners.hold(a.claimed, uint32(a.loop.ID()))
		x.User.mark, a.claimed = a.claimed, 0
	}
	e.transaction = x
	switch {
	case to.Tag() != nil:
		e.within()
	case !e.unbounded() && !e.admitted():
		e.tooMany()
	default: // an INVITE
		e.call()
	}
}

// refuse answers what broke a rule, and keeps nothing.
func (a *agent) refuse(back sip.Way, err *sip.Error) {
	answer := &sip.Answer{Status: err.Status}
	switch err.Status {
	case 420:
		a.out = a.core.able.AppendUnsupported(a.out[:0], &a.message, sip.Require)
		answer.Lines = a.out
	case 405, 501:
		answer.Lines = []byte(allow)
	case 415:
		answer.Lines = []byte(accepts)
	}
	a.table.Reply(&a.message, back, answer)
}

// via returns the value of our Via for a request that goes out on w, with a branch of its own. It is good until the next.
func (a *agent) via(w sip.Way) []byte {
	a.vias = a.appendToken(transport.Known{}.AppendVia(a.vias[:0], w, []byte(cookie)))
	return a.vias
}

// contact returns the value of our Contact for a peer on w, in a dialog whose requests have the scheme. It is good until the
// next.
func (a *agent) contact(w sip.Way, s sip.Scheme) []byte {
	a.contacts = transport.Known{}.AppendContact(a.contacts[:0], w, s, nil)
	return a.contacts
}
