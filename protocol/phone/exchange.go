// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/protocol/phone/cdr"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/transaction"
)

// abilities is what is understood here.
func abilities() sip.Abilities {
	return sip.Abilities{
		Methods: []string{"REGISTER", "OPTIONS", "INVITE", "ACK", "CANCEL", "BYE", "UPDATE", "PRACK", "INFO", "REFER",
			"NOTIFY", "MESSAGE"},
		Extensions: []string{"path", "outbound", "100rel", "timer"},
		Types:      []string{"application/sdp", "multipart/mixed", "multipart/related", "multipart/alternative"},
	}
}

// allow is what abilities say of methods, as a field. RFC 3261 §20.5.
const allow = "Allow: REGISTER, OPTIONS, INVITE, ACK, CANCEL, BYE, UPDATE, PRACK, INFO, REFER, NOTIFY, MESSAGE\r\n"

// exchange is a request that has come and not been answered.
type exchange struct {
	agent       *agent
	settings    *settings
	network     *network
	message     *sip.Message
	back        sip.Way                        // of the answer
	transaction *transaction.Transaction[user] // nil while there is none
	record      *cdr.Record                    // of the call that it begins
}

// answer answers it.
func (e *exchange) answer(a *sip.Answer) {
	t := e.agent
	if e.transaction == nil {
		t.table.Reply(e.message, e.back, a)
		return
	}
	if a.Tag == nil && a.Status > 100 {
		a.Tag = t.table.Tag(e.message)
	}
	t.rendered = a.Append(t.rendered[:0], e.message, e.back.Remote)
	t.table.Answer(e.transaction, t.rendered, a.Status, t.loop.Now())
}

// alone says whether a request outside a dialog begins nothing. It has no transaction: if it comes again it is answered
// again, in the same words, so that what strangers send fills no table. RFC 3261 §8.2.7.
func alone(m *sip.Message) bool { return !m.Is("INVITE") && !m.Is("ACK") && !m.Is("CANCEL") }

// alone answers such a request.
func (e *exchange) alone() {
	m := e.message
	switch {
	case m.Is("REGISTER"):
		e.register()
	case !e.admitted():
		e.tooMany()
	case m.Is("OPTIONS"):
		e.options()
	case m.Is("BYE"), m.Is("UPDATE"), m.Is("PRACK"), m.Is("INFO"):
		e.answer(&sip.Answer{Status: 481}) // RFC 3261 §12.2.2
	default:
		e.answer(&sip.Answer{Status: 405, Lines: []byte(allow)})
	}
}

// keep makes a transaction of a request that would not be answered in the same words if it came again. It says false if
// there is no room for one, which has been said to whoever asks.
func (e *exchange) keep() bool {
	x, verdict := e.agent.table.Request(e.message, e.back, e.agent.loop.Now())
	e.transaction = x
	return verdict == transaction.Fresh
}

// admitted says whether whoever asks may ask so often.
func (e *exchange) admitted() bool {
	from := e.back.Remote.Addr()
	return e.network.routeOf(from).Admit(limit.Requests, from, e.agent.loop.Now())
}

// tooMany tells him that he may not. RFC 3261 §21.5.4.
func (e *exchange) tooMany() {
	e.answer(&sip.Answer{Status: 503, Lines: []byte("Retry-After: 10\r\n")})
}

// options says what we can do. RFC 3261 §11.2.
func (e *exchange) options() {
	e.answer(&sip.Answer{Status: 200, Lines: []byte(allow + "" + accepts + "Supported: path, outbound, 100rel, timer\r\n")})
}
