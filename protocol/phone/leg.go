// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bytes"
	"strconv"
	"time"

	"github.com/kyozon/kyozon/journal"
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
	scheme  sip.Scheme // of the request that has begun it
	peer    *leg
	alarm   relay.Timer

	x      *transaction.Transaction[user] // the INVITE that came and was answered with a 2xx
	ack    []byte                         // the ACK of the 2xx that came last
	echo   *echo                          // of the INVITE that has begun it, on the leg of who is called
	near   bool                           // it is the caller's
	record *cdr.Record                    // of the call, from its answer on
	kept   journal.ID                     // what the call is saved as, on the caller's leg
	chosen bool                           // it is the one that has answered
	gone   bool
	media  *media // of both legs; nil if nobody looks at them

	call   *call                          // of the caller's leg, as long as it is not answered
	early  early                          // what its end has to acknowledge with PRACK
	ahead  uint32                         // requests of our own that the end was asked: the numbers of others are higher by that
	update bool                           // the end knows UPDATE
	said   description                    // that we gave the end and that holds
	saying description                    // that the end has not answered
	own    *transaction.Transaction[user] // of a request by which we keep the session, if it is not answered with a 2xx

	begun sip.Way // that its gateway is known on, if way may be another
	aimed string  // the next hop that way leads to

	proofs      *proofs // who we are to the end, if it has asked
	credentials []byte  // of the last INVITE
}

// early is a reliable provisional response that was passed on.
type early struct {
	x      *transaction.Transaction[user]
	status int
	text   []byte
}

// legKey is what a request within a dialog says of itself. RFC 3261 §12.2.2.
type legKey struct{ callID, tag string }

// pair makes the two legs of a response to a branch of a call, and returns that of the branch.
func (a *agent) pair(c *call, b *branch, m *sip.Message) (*leg, dialog.Verdict) {
	sent := &a.other
	if sent.Parse(b.invite, nil) != nil {
		return nil, dialog.Verdict{}
	}
	callee, v := dialog.Dial(sent, m, a.table.Timers, a.loop.Now())
	if callee == nil || v.Err != nil {
		return nil, v
	}
	caller := *c.opened
	caller.LocalTag = a.token()
	near := &leg{near: true, agent: a, session: &caller, way: a.home(c.x.Way), scheme: c.scheme, call: c, update: c.update}
	far := &leg{agent: a, session: callee, way: b.way, scheme: schemeOf(sent.Target()), peer: near, update: m.Lists(sip.Allow, "update")}
	near.peer = far
	dialled, _ := sent.Sequence() // ours, and checked
	far.ahead, far.proofs, far.credentials = dialled.Number-caller.RemoteSeq, b.proofs, credentials(sent)
	near.media, far.media = b.media, b.media
	b.media.hold()
	b.media.hold()
	far.says(sent)
	far.heard(m)
	near.remember()
	far.remember()
	near.aim()
	far.aim()
	far.wind()
	return far, v
}

func (l *leg) remember() {
	l.agent.legs[legKey{l.session.CallID, l.session.LocalTag}] = l
	l.alarm.Func = l.tick
}

// forget lets the dialog be. Copies of what was said in it are answered by their transactions.
func (l *leg) forget() {
	delete(l.agent.legs, legKey{l.session.CallID, l.session.LocalTag})
	l.agent.core.strays.drop(l.session.CallID)
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
	a := l.agent
	if a.core.away.Load() != here {
		a.loop.SetTimer(&l.alarm, deferred)
		return
	}
	due := l.session.Time(a.loop.Now())
	if due&dialog.AgainFinal > 0 && l.x != nil {
		a.table.Repeat(l.x)
	}
	if due&dialog.AgainProvisional > 0 && l.early.x != nil {
		a.table.Answer(l.early.x, l.early.text, l.early.status, a.loop.Now())
	}
	switch {
	case due&(dialog.NoACK|dialog.Expired) > 0: // RFC 3261 §13.3.1.4, RFC 4028 §10
		l.silent()
		return
	case due&dialog.NoPRACK > 0 && l.early.x != nil:
		l.unheard()
	case due&dialog.Refresh > 0, due&dialog.Retry > 0 && l.own != nil:
		l.refresh()
	}
	l.wind()
	a.wind()
}

// silent ends a call of which an end says nothing any more.
func (l *leg) silent() {
	l.ended(byEdge, nil)
	l.hangUp()
	l.peer.hangUp()
	l.agent.wind()
}

// unheard fails an INVITE that was answered with a reliable provisional response for which no PRACK has come. RFC 3262 §3.
func (l *leg) unheard() {
	x := l.early.x
	l.early = early{}
	switch q := x.User.asked; {
	case l.call != nil:
		l.call.end(504, byEdge)
	case q != nil:
		q.stop()
		q.answer(504)
	}
}

// received shows the session a message.
func (l *leg) received(m *sip.Message) dialog.Verdict {
	v := l.session.Received(m, l.agent.loop.Now())
	l.aim()
	if !m.Request() {
		l.heard(m)
	}
	l.wind()
	return v
}

// sent shows the session what was sent.
func (l *leg) sent(text []byte) {
	if m := &l.agent.own; m.Parse(text, nil) == nil {
		l.session.Sent(m, l.agent.loop.Now())
		l.says(m)
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
	text, status := l.described(m, describes(came))
	switch {
	case status == patient:
		l.wait(m, func(m *sip.Message) {
			if !l.gone {
				l.pass(m, x, request)
			}
		})
		return
	case status != passed:
		l.unrelayed(m, came, x, status)
		return
	case m.Status() >= 300 && describes(came) && l.media != nil:
		l.media.refused()
	}
	lines := appendCarried(a.out[:0], m)
	if m.Has(sip.Contact) && m.Status() < 300 {
		lines = sip.AppendField(lines, sip.Contact, a.contact(l.way, l.scheme))
	}
	lines = l.appendTimer(lines, came, m)
	a.out = lines
	a.tags = append(a.tags[:0], l.session.LocalTag...)
	answer := &sip.Answer{Status: m.Status(), Tag: a.tags, Dialog: true, Lines: lines, Type: l.kind(m), Body: text}
	if string(m.Phrase()) != sip.Phrase(answer.Status) {
		answer.Phrase = string(m.Phrase())
	}
	if answer.Status >= 300 && answer.Status < 400 || answer.Status == 401 || answer.Status == 407 {
		*answer = sip.Answer{Status: 480, Tag: answer.Tag}
	}
	a.rendered = answer.Append(a.rendered[:0], came, x.Way.Remote)
	if answer.Status >= 200 || len(text) > 0 || m.Has(sip.RSeq) { // else it changes nothing
		l.sent(a.rendered)
	}
	switch {
	case !came.Is("INVITE"):
	case answer.Status/100 == 2:
		l.x, l.early = x, early{}
	case answer.Status < 200 && l.session.Prov.Waits():
		l.early = early{x, answer.Status, append(l.early.text[:0], a.rendered...)}
	}
	a.table.Answer(x, a.rendered, answer.Status, a.loop.Now())
	if answer.Status >= 200 { // a copy is answered by the transaction, which outlives the call
		x.User.call, x.User.asked = nil, nil
	}
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
	if v.Err == nil {
		l.moved(e.transaction.Way)
	}
	switch {
	case v.Err != nil:
		e.answer(refusal(v))
	case hops(m) == 0 && !m.Is("BYE"):
		e.answer(&sip.Answer{Status: 483})
	case m.Is("BYE"):
		l.ended(l.who(), m)
		e.answer(&sip.Answer{Status: 200})
		l.over()
		l.peer.bye(m)
	default:
		q := &asked{from: l, x: e.transaction, request: bytes.Clone(m.Text())}
		e.transaction.User.asked = q
		switch {
		case l.peer.own != nil && (m.Is("INVITE") || m.Is("UPDATE")): // RFC 3261 §14.1: one at a time
			q.answer(491)
		default:
			q.carry(m)
		}
	}
}

// hops returns how often a request may still be carried on; one that does not say so was refused before.
func hops(m *sip.Message) int {
	n, _ := m.Hops()
	return n
}

// refusal is the answer to a request that breaks a rule of its dialog.
func refusal(v dialog.Verdict) *sip.Answer {
	a := &sip.Answer{Status: v.Err.Status}
	switch {
	case v.Again: // RFC 3261 §14.2
		a.Lines = []byte("Retry-After: 5\r\n")
	case v.Err == dialog.ErrBrief: // RFC 4028 §6
		a.Lines = []byte("Min-SE: 90\r\n")
	}
	return a
}

// find returns the leg that a request names.
func (a *agent) find(m *sip.Message) *leg {
	to, _, err := m.Address(sip.To)
	if err != nil {
		return nil
	}
	return a.legs[legKey{string(m.Get(sip.CallID)), string(to.Tag())}]
}

// ask asks the end of l what the other has asked, with its description of media as this end is to have it.
func (l *leg) ask(m *sip.Message, text []byte, q *asked) bool {
	a := l.agent
	x, err := l.request(l.write(m, text), user{asked: q})
	if err != nil {
		return false
	}
	l.sent(a.rendered)
	q.onward = x
	return true
}

// write writes a request of the other leg for this one.
func (l *leg) write(m *sip.Message, text []byte) []byte {
	l.aim() // of a call that was taken up
	a := l.agent
	seq, _ := m.Sequence() // checked
	lines := appendCarried(a.out[:0], m)
	if m.Has(sip.Contact) {
		lines = sip.AppendField(lines, sip.Contact, a.contact(l.way, l.scheme))
	}
	switch {
	case m.Is("PRACK"): // RFC 3262 §7.2: it names an INVITE of this leg
		lines = l.appendRAck(lines, m)
	case m.Is("INVITE"), m.Is("UPDATE"):
		lines = l.appendAsking(lines, m)
	}
	a.out = lines
	a.rendered = l.session.Append(a.rendered[:0], &dialog.Request{Method: string(seq.Method), Via: a.via(l.way), Seq: seq.Number + l.ahead,
		Hops: hops(m), Lines: lines, Type: l.kind(m), Body: text})
	return a.rendered
}

// appendRAck writes which provisional response of this leg a PRACK of the other is for.
func (l *leg) appendRAck(dst []byte, m *sip.Message) []byte {
	words := bytes.Fields(m.Get(sip.RAck))
	if len(words) != 3 {
		return dst // its session has refused it
	}
	dst = append(append(dst, "RAck: "...), words[0]...)
	dst = strconv.AppendUint(append(dst, ' '), uint64(l.session.Ours.Seq), 10)
	return append(append(append(dst, ' '), words[2]...), "\r\n"...)
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
	l.x = nil
	l.peer.acknowledge(m)
	l.peer.reoffer()
}

// acknowledge sends the ACK of a 2xx that came on l: that of the other end, or one without a body.
func (l *leg) acknowledge(m *sip.Message) {
	a := l.agent
	r := &dialog.Request{Method: "ACK", Via: a.via(l.way), Seq: l.session.Ours.Seq, Lines: l.credentials}
	if m != nil {
		text, status := l.described(m, true)
		r.Type, r.Body = l.kind(m), text
		r.Lines = append(appendCarried(nil, m), l.credentials...)
		if status != passed {
			r.Type, r.Body = "", nil
			defer l.silent()
		}
	}
	a.rendered = l.session.Append(a.rendered[:0], r)
	l.ack = bytes.Clone(a.rendered)
	if l.echo != nil && l.echo.ack == nil {
		l.echo.ack, l.echo.to = l.ack, l.course()
	}
	if len(r.Body) > 0 { // else the session has nothing of it
		l.sent(l.ack)
	}
	a.carry(l.course(), l.ack)
}

// again sends the ACK of a 2xx that came once more, if there was one.
func (l *leg) again() {
	if l.ack != nil {
		l.agent.carry(l.course(), l.ack)
	}
}

// bye tells the end of l that the other has hung up.
func (l *leg) bye(m *sip.Message) {
	if l.gone {
		return
	}
	if !l.session.Ended {
		_, text := l.given(m)
		_, _ = l.request(l.write(m, text), user{bye: l}) // full: he finds out by himself
	}
	l.over()
}

// hangUp sends a BYE of our own.
func (l *leg) hangUp() {
	if l.gone {
		return
	}
	a := l.agent
	a.rendered = l.session.Append(a.rendered[:0], &dialog.Request{Method: "BYE", Via: a.via(l.way)})
	_, _ = l.request(a.rendered, user{bye: l}) // full: he finds out by himself
	l.over()
	a.wind()
}

func (l *leg) over() {
	if !l.gone && l.media != nil {
		l.media.drop()
	}
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
			sip.ProxyAuthenticate, sip.ProxyRequire, sip.Path, sip.PAssertedIdentity, sip.PPreferredIdentity, sip.RAck:
			continue
		case sip.SessionExpires:
			if !m.Request() { // each leg has a timer of its own
				continue
			}
		case sip.Require:
			if !m.Request() && bytes.EqualFold(value, []byte("timer")) {
				continue
			}
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
