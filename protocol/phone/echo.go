// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/dialog"
	"github.com/kyozon/kyozon/protocol/phone/sip/transaction"
)

// echo is what is left of an INVITE of ours that has been answered, until its transaction ends: the ACK, for copies of the 2xx.
// It has nothing of the call, which may have ended long before. RFC 3261 §13.2.2.4.
type echo struct {
	agent  *agent
	tag    string  // of who has answered
	ack    []byte  // nil until there is one
	to     course  // where it went
	proofs *proofs // that the INVITE was proved by
	late   []*leg  // others who have answered the same INVITE
}

// mostLate bounds them: each needs a tag of its own, and a sane proxy lets one answer through.
const mostLate = 16

// heard takes a response.
func (o *echo) heard(x *transaction.Transaction[user], m *sip.Message) {
	to, _, err := m.Address(sip.To)
	switch {
	case err != nil || m.Status()/100 != 2:
		return
	case string(to.Tag()) != o.tag:
		o.another(x, m, string(to.Tag()))
	case o.ack != nil:
		o.agent.carry(o.to, o.ack)
	}
}

// another tells who has answered too that it is over.
func (o *echo) another(x *transaction.Transaction[user], m *sip.Message, tag string) {
	a, sent := o.agent, &o.agent.other
	for _, l := range o.late {
		if l.session.RemoteTag == tag {
			l.again()
			return
		}
	}
	if len(o.late) == mostLate || sent.Parse(x.Request(), nil) != nil {
		return
	}
	s, v := dialog.Dial(sent, m, a.table.Timers, a.loop.Now())
	switch {
	case s == nil:
		a.turnAway(x, o.proofs, m)
	case v.Err == nil:
		l := &leg{agent: a, session: s, way: x.Way, proofs: o.proofs, credentials: credentials(sent)}
		l.aim()
		o.late = append(o.late, l)
		l.acknowledge(nil)
		l.hangUp()
	}
}

// turnAway ends what a 2xx to an INVITE of ours has begun if the response does not say where its sender is: no request can
// reach him but at the address that the INVITE went to. It says whether that is so. RFC 3261 §12.1.2.
func (a *agent) turnAway(x *transaction.Transaction[user], p *proofs, m *sip.Message) bool {
	sent := &a.other
	d, err := dialog.Begun(m)
	if err == nil || d.CallID == "" || sent.Parse(x.Request(), nil) != nil {
		return false
	}
	d.Target = string(sent.Target())
	a.core.send(a, x.Way, d.Append(nil, &dialog.Request{Method: "ACK", Via: a.via(x.Way), Seq: d.LocalSeq, Lines: credentials(sent)}))
	(&leg{agent: a, session: &dialog.Session{Dialog: d}, way: x.Way, proofs: p}).hangUp()
	return true
}
