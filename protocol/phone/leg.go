// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"time"

	"github.com/kyozon/kyozon/protocol/phone/cdr"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/dialog"
	"github.com/kyozon/kyozon/protocol/phone/sip/transaction"
	"github.com/kyozon/kyozon/relay"
)

// leg is one end of a call, with a dialog of its own. What an end asks within it, the other is asked, under the same
// number, so that what refers to a number means the same to both. RFC 3262 §7.2: RAck does.
//
//	request ─▶ session.Received ─▶ peer.ask ─▶ response ─▶ peer.session.Received ─▶ pass
type leg struct {
	agent   *agent
	session *dialog.Session
	way     sip.Way
	peer    *leg
	alarm   relay.Timer

	x      *transaction.Transaction[user] // the INVITE that came and was answered with a 2xx
	final  []byte                         // that 2xx
	ack    []byte                         // the ACK of the 2xx that came
	near   bool                           // it is the caller's
	record *cdr.Record                    // of the call, from its answer on
	chosen bool                           // it is the one that has answered
	gone   bool
}

// asked is a request that came on one leg and went on to the other.
type asked struct {
	from    *leg
	request []byte // as it came
	x       *transaction.Transaction[user]
	onward  *transaction.Transaction[user]
}

// legKey is what a request within a dialog says of itself. RFC 3261 §12.2.2.
func legKey(callID, tag string) string { return callID + " " + tag }

// pair makes the two legs of a response to a branch of a call, and returns that of the branch.
func (a *agent) pair(c *call, b *branch, m *sip.Message) (*leg, dialog.Verdict) {
	sent, came := &a.other, &a.third
	if sent.Parse(b.invite, nil) != nil || came.Parse(c.invite, nil) != nil {
		return nil, dialog.Verdict{}
	}
	callee, v := dialog.Dial(sent, m, a.table.Timers, a.loop.Now())
	caller, bad := dialog.Serve(came, a.token(), a.table.Timers)
	if callee == nil || v.Err != nil || bad.Err != nil {
		return nil, v
	}
	near := &leg{near: true, agent: a, session: caller, way: c.x.Way}
	far := &leg{agent: a, session: callee, way: b.way, peer: near}
	near.peer = far
	near.remember()
	far.remember()
	far.wind()
	return far, v
}

func (l *leg) remember() {
	l.agent.legs[legKey(l.session.CallID, l.session.LocalTag)] = l
	l.alarm.Func = l.tick
}

// forget lets the dialog be. Copies of what was said in it are answered by their transactions.
func (l *leg) forget() {
	delete(l.agent.legs, legKey(l.session.CallID, l.session.LocalTag))
	l.agent.loop.StopTimer(&l.alarm)
}

// wind sets the alarm for what the session has to do next.
func (l *leg) wind() {
	if at := l.session.Next(); at > 0 && !l.gone {
		l.agent.loop.SetTimer(&l.alarm, time.Duration(at-l.agent.loop.Now()))
	}
}

// tick does what is due.
func (l *leg) tick() {
	due := l.session.Time(l.agent.loop.Now())
	if due&dialog.AgainFinal > 0 && l.x != nil {
		l.agent.table.Answer(l.x, l.final, 200, l.agent.loop.Now())
	}
	if due&(dialog.NoACK|dialog.Expired) > 0 { // RFC 3261 §13.3.1.4, RFC 4028 §10
		l.ended(byEdge, nil)
		l.hangUp()
		l.peer.hangUp()
		return
	}
	l.wind()
	l.agent.wind()
}

// received shows the session a message.
func (l *leg) received(m *sip.Message) dialog.Verdict {
	v := l.session.Received(m, l.agent.loop.Now())
	l.wind()
	return v
}

// sent shows the session what was sent.
func (l *leg) sent(text []byte) {
	if m := &l.agent.own; m.Parse(text, nil) == nil {
		l.session.Sent(m, l.agent.loop.Now())
		l.wind()
	}
}

// pass gives the end of l a response that came on the other leg, to its request.
func (l *leg) pass(m *sip.Message, x *transaction.Transaction[user], request []byte) {
	a := l.agent
	came := &a.other
	if came.Parse(request, nil) != nil {
		return
	}
	lines := appendCarried(a.out[:0], m)
	if m.Has(sip.Contact) && m.Status() < 300 {
		lines = sip.AppendField(lines, sip.Contact, a.contact(l.way, ""))
	}
	a.out = lines
	answer := &sip.Answer{Status: m.Status(), Phrase: string(m.Phrase()), Tag: []byte(l.session.LocalTag), Dialog: true,
		Lines: lines, Type: string(m.Get(sip.ContentType)), Body: body(m)}
	if answer.Status >= 300 && answer.Status < 400 || answer.Status == 401 || answer.Status == 407 {
		*answer = sip.Answer{Status: 480, Tag: answer.Tag}
	}
	a.rendered = answer.Append(a.rendered[:0], came, x.Way.Remote)
	l.sent(a.rendered)
	if came.Is("INVITE") && answer.Status/100 == 2 {
		l.x, l.final = x, append(l.final[:0], a.rendered...)
	}
	a.table.Answer(x, a.rendered, answer.Status, a.loop.Now())
}

// within answers a request within a dialog, or has the other end answer it. RFC 3261 §12.2.2.
func (e *exchange) within() {
	m := e.message
	l := e.agent.find(m)
	if l == nil {
		e.answer(&sip.Answer{Status: 481})
		return
	}
	v := l.received(m)
	switch {
	case v.Err != nil && v.Again:
		e.answer(&sip.Answer{Status: v.Err.Status, Lines: []byte("Retry-After: 5\r\n")})
	case v.Err != nil:
		e.answer(&sip.Answer{Status: v.Err.Status})
	case m.Is("BYE"):
		l.ended(l.who(), m)
		e.answer(&sip.Answer{Status: 200})
		l.over()
		l.peer.bye(m)
	default:
		q := &asked{from: l, x: e.transaction, request: append(append([]byte(nil), m.Head()...), body(m)...)}
		e.transaction.User.asked = q
		if !l.peer.ask(m, q) {
			e.answer(&sip.Answer{Status: 500})
		}
	}
}

// find returns the leg that a request names.
func (a *agent) find(m *sip.Message) *leg {
	to, _, err := sip.ParseAddress(m.Get(sip.To))
	if err != nil {
		return nil
	}
	return a.legs[legKey(string(m.Get(sip.CallID)), string(to.Tag()))]
}

// ask asks the end of l what the other has asked.
func (l *leg) ask(m *sip.Message, q *asked) bool {
	a := l.agent
	x, err := a.table.Ask(l.write(m), l.way, user{asked: q}, a.loop.Now())
	if err != nil {
		return false
	}
	l.sent(a.rendered)
	q.onward = x
	return true
}

// write writes a request of the other leg for this one.
func (l *leg) write(m *sip.Message) []byte {
	a := l.agent
	seq, _ := m.Sequence() // checked
	lines := appendCarried(a.out[:0], m)
	if m.Has(sip.Contact) {
		lines = sip.AppendField(lines, sip.Contact, a.contact(l.way, ""))
	}
	a.out = lines
	a.rendered = l.session.Append(a.rendered[:0], &dialog.Request{Method: string(seq.Method), Via: a.via(l.way), Seq: seq.Number,
		Lines: lines, Type: string(m.Get(sip.ContentType)), Body: body(m)})
	return a.rendered
}

// response takes the response to a request that was passed on, which came on the leg l.
func (q *asked) response(m *sip.Message) {
	l := q.from.peer
	v := l.received(m)
	switch {
	case v.Copy && v.Ack:
		l.again()
	case m.Status() == 100 || v.Copy:
	default:
		q.from.pass(m, q.x, q.request)
	}
}

// silent is called when nobody has answered a request that was passed on.
func (q *asked) silent() {
	a := q.from.agent
	m := &a.other
	if m.Parse(q.request, nil) != nil {
		return
	}
	answer := &sip.Answer{Status: 408, Tag: []byte(q.from.session.LocalTag)}
	a.rendered = answer.Append(a.rendered[:0], m, q.x.Way.Remote)
	q.from.sent(a.rendered)
	a.table.Answer(q.x, a.rendered, 408, a.loop.Now())
}

// stop passes the CANCEL of a re-INVITE on. RFC 3261 §14.1.
func (q *asked) stop() {
	a := q.from.agent
	if q.onward == nil || q.onward.State() != transaction.Proceeding {
		return
	}
	if m := &a.other; m.Parse(q.onward.Request(), nil) == nil {
		a.rendered = appendCancel(a.rendered[:0], m)
		if _, err := a.table.Ask(a.rendered, q.onward.Way, user{}, a.loop.Now()); err == nil {
			a.table.Cancelled(q.onward, a.loop.Now())
		}
	}
}

// acked passes the ACK of a 2xx on. RFC 3261 §13.2.2.4.
func (a *agent) acked(m *sip.Message) {
	l := a.find(m)
	if l == nil {
		return
	}
	if l.received(m).Copy {
		return
	}
	l.x, l.final = nil, nil
	l.peer.acknowledge(m)
}

// acknowledge sends the ACK of a 2xx that came on l: that of the other end, or one without a body.
func (l *leg) acknowledge(m *sip.Message) {
	a := l.agent
	r := &dialog.Request{Method: "ACK", Via: a.via(l.way), Seq: l.session.Ours.Seq}
	if m != nil {
		r.Type, r.Body = string(m.Get(sip.ContentType)), body(m)
		r.Lines = appendCarried(nil, m)
	}
	l.ack = l.session.Append(l.ack[:0], r)
	l.sent(l.ack)
	a.core.send(a, l.way, l.ack)
}

// again sends the ACK of a 2xx that came once more, if there was one.
func (l *leg) again() {
	if l.ack != nil {
		l.agent.core.send(l.agent, l.way, l.ack)
	}
}

// bye tells the end of l that the other has hung up.
func (l *leg) bye(m *sip.Message) {
	if l.gone || l.session.Ended {
		return
	}
	a := l.agent
	_, _ = a.table.Ask(l.write(m), l.way, user{}, a.loop.Now()) // full: he finds out by himself
	l.over()
}

// hangUp sends a BYE of our own.
func (l *leg) hangUp() {
	if l.gone || l.session.Ended {
		return
	}
	a := l.agent
	a.rendered = l.session.Append(a.rendered[:0], &dialog.Request{Method: "BYE", Via: a.via(l.way)})
	_, _ = a.table.Ask(a.rendered, l.way, user{}, a.loop.Now()) // full: he finds out by himself
	l.over()
	a.wind()
}

func (l *leg) over() {
	l.gone = true
	l.forget()
}

// appendCarried writes the fields that go from leg to leg as they are: those that are neither of the leg nor for us.
func appendCarried(dst []byte, m *sip.Message) []byte {
	for i := range m.Fields() {
		k, name, value := m.At(i)
		switch k {
		case sip.Via, sip.From, sip.To, sip.CallID, sip.CSeq, sip.MaxForwards, sip.Contact, sip.Route, sip.RecordRoute,
			sip.ContentLength, sip.ContentType, sip.Authorization, sip.ProxyAuthorization, sip.WWWAuthenticate,
			sip.ProxyAuthenticate, sip.ProxyRequire, sip.Path, sip.PAssertedIdentity, sip.PPreferredIdentity:
			continue
		}
		dst = append(append(append(append(dst, name...), ": "...), value...), "\r\n"...)
	}
	return dst
}

// body returns the body of a message; one that is too short was refused before.
func body(m *sip.Message) []byte {
	b, _ := m.Body()
	return b
}
