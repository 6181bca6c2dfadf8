// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"crypto/rand"

	"github.com/kyozon/kyozon/protocol/phone/digest"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/transaction"
)

// mostProofs is how often a request is proved: once more than once, since its nonce may have become old meanwhile, or a proxy
// on the way and the end may both ask.
const mostProofs = 2

// proofs is who we are to an end that has asked, and to a proxy before it. RFC 3261 §22.3.
type proofs [2]digest.Client

// proofFields are the fields of challenges, and of answers to them, by the place in proofs.
var proofFields = [2]struct{ challenge, answer sip.Kind }{
	{sip.WWWAuthenticate, sip.Authorization}, {sip.ProxyAuthenticate, sip.ProxyAuthorization},
}

// take reads the challenges of a response, of which the first counts that can be answered (RFC 8760 §2.4), and says whether
// there is one.
func (p *proofs) take(m *sip.Message, login *digest.Client) bool {
	at := map[int]int{401: 0, 407: 1}
	i, ok := at[m.Status()]
	if !ok || login == nil {
		return false
	}
	fresh := *login // others have their own counts
	for value, next := m.Field(proofFields[i].challenge, 0); value != nil && !fresh.Ready(); value, next = m.Field(proofFields[i].challenge, next) {
		_ = fresh.Take(value)
	}
	if fresh.Ready() {
		p[i] = fresh
	}
	return fresh.Ready()
}

// put writes into a request what proves it.
func (p *proofs) put(e *sip.Editor, m *sip.Message) {
	for i := range p {
		if p[i].Ready() {
			var nonce [8]byte
			rand.Read(nonce[:])
			e.Replace(proofFields[i].answer, p[i].Append(nil, string(m.Method()), string(m.Target()), nonce))
		}
	}
}

// credentials are the fields that prove a request, which the ACK of its 2xx has too. RFC 3261 §13.2.2.4.
func credentials(m *sip.Message) (lines []byte) {
	for _, f := range proofFields {
		if m.Has(f.answer) {
			lines = sip.AppendField(lines, f.answer, m.Get(f.answer))
		}
	}
	return lines
}

// repeat writes a request of ours once more, with a number above its own and the last of its dialog, and what proves it.
// RFC 3261 §22.2, §8.1.3.5.
func (p *proofs) repeat(a *agent, x *transaction.Transaction[user], last uint32) (text []byte, ok bool) {
	var m sip.Message
	if m.Parse(x.Request(), nil) != nil {
		return nil, false
	}
	seq, _ := m.Sequence() // ours
	var e sip.Editor
	e.Edit(&m)
	e.Replace(sip.Via, a.via(x.Way))
	e.Replace(sip.CSeq, []byte(index(int(max(seq.Number, last))+1)+" "+string(seq.Method)))
	p.put(&e, &m)
	return e.Append(nil)
}

// challenges says whether a response asks who we are.
func challenges(m *sip.Message) bool { return m.Status() == 401 || m.Status() == 407 }

// prove sends the INVITE of a branch once more, with the answer to the challenge of a gateway.
func (b *branch) prove(x *transaction.Transaction[user], m *sip.Message) bool {
	t := b.call.trunk
	if t == nil || !challenges(m) || b.cancel || b.proved == mostProofs {
		return false
	}
	if b.proofs == nil {
		b.proofs = new(proofs)
	}
	if !b.proofs.take(m, t.login) {
		return false
	}
	text, ok := b.proofs.repeat(b.call.agent, x, 0)
	if !ok {
		return false
	}
	b.proved++
	var err error
	b.invite, b.heard = text, false
	b.x, err = b.call.agent.ask(text, course{Way: x.Way}, user{branch: b})
	return err == nil
}

// request sends a request of ours to the end of a leg, with what proves it if the end has asked for that before.
func (l *leg) request(text []byte, u user) (*transaction.Transaction[user], error) {
	if l.proofs != nil {
		var m sip.Message
		var e sip.Editor
		if err := m.Parse(text, nil); err != nil {
			return nil, err
		}
		e.Edit(&m)
		l.proofs.put(&e, &m)
		if proved, ok := e.Append(nil); ok {
			text = proved
		}
		l.proves(text)
	}
	return l.agent.ask(text, l.course(), u)
}

// proves notes what proves an INVITE, for its ACK.
func (l *leg) proves(text []byte) {
	var m sip.Message
	if m.Parse(text, nil) == nil && m.Is("INVITE") {
		l.credentials = credentials(&m)
	}
}

// prove sends a request once more, with the answer to the challenge of the end, a gateway. It returns nil if there is none, or
// none that we can give.
func (l *leg) prove(x *transaction.Transaction[user], m *sip.Message) *transaction.Transaction[user] {
	a := l.agent
	if !challenges(m) {
		return nil
	}
	g := a.core.settings.Load().gatewayOf(l.home())
	if g == nil || x.User.proofs == mostProofs {
		return nil
	}
	p := l.proofs
	if p == nil {
		p = new(proofs)
	}
	if !p.take(m, g.trunk.login) {
		return nil
	}
	l.proofs = p
	text, ok := p.repeat(a, x, l.session.LocalSeq)
	if !ok {
		return nil
	}
	u := x.User
	u.proofs++
	again, err := a.ask(text, course{x.Way, l.course().turned}, u)
	if err != nil {
		return nil
	}
	l.ahead++
	l.proves(text)
	l.sent(text)
	return again
}
