// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/transaction"
)

// asked is a request that came on one leg and went on to the other.
type asked struct {
	from    *leg
	request []byte // as it came
	x       *transaction.Transaction[user]
	onward  *transaction.Transaction[user]
	stopped bool // by CANCEL
}

// carry asks the other end.
func (q *asked) carry(m *sip.Message) {
	to := q.from.peer
	if to.gone {
		q.answer(481)
		return
	}
	text, status := to.described(m, m.Is("PRACK") && to.media != nil && to.media.offers(to.side()))
	switch {
	case status == patient:
		to.wait(m, q.carry)
	case status != passed:
		q.answer(status)
	case !to.ask(m, text, q):
		q.answer(500)
	}
}

// response takes the response to a request that was passed on, which came on the leg l.
func (q *asked) response(x *transaction.Transaction[user], m *sip.Message) {
	l := q.from.peer
	v := l.received(m)
	asks := challenges(m)
	if asks && !q.stopped && !l.gone {
		if again := l.prove(x, m); again != nil {
			q.onward = again
			return
		}
	}
	switch {
	case asks && q.stopped: // RFC 3261 §9.2
		q.answer(487)
	case v.Copy && v.Ack:
		l.again()
	case m.Status() == 100 || v.Copy:
	default:
		q.from.pass(m, q.x, q.request)
		if seq, _ := m.Sequence(); m.Status()/100 == 2 && (string(seq.Method) == "INVITE" || string(seq.Method) == "UPDATE") {
			l.save() // where an end is, what was said, the timer: one of them may be another
			if string(seq.Method) == "UPDATE" {
				l.reoffer()
			}
		}
	}
}

// silent is called when nobody has answered a request that was passed on.
func (q *asked) silent() { q.answer(408) }

// answer answers a request that was passed on, with a failure of our own.
func (q *asked) answer(status int) {
	a := q.from.agent
	m := &a.other
	if m.Parse(q.request, nil) != nil {
		return
	}
	if q.from.media != nil && describes(m) && status != 491 {
		q.from.media.refused()
		q.from.save() // why
	}
	answer := &sip.Answer{Status: status, Tag: []byte(q.from.session.LocalTag)}
	if status == 415 {
		answer.Lines = []byte(accepts)
	}
	a.rendered = answer.Append(a.rendered[:0], m, q.x.Way.Remote)
	q.from.sent(a.rendered)
	a.table.Answer(q.x, a.rendered, status, a.loop.Now())
	q.x.User.asked = nil // a copy is answered by the transaction
}

// stop passes the CANCEL of a re-INVITE on. RFC 3261 §14.1.
func (q *asked) stop() {
	q.stopped = true
	if a := q.from.agent; q.onward != nil {
		a.table.Cancel(q.onward, a.loop.Now())
	}
}
