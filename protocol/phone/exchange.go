// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
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
		Types:      []string{"application/sdp"},
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
	transaction *transaction.Transaction[user]
	record      *cdr.Record // of the call that it begins
}

// answer answers it.
func (e *exchange) answer(a *sip.Answer) {
	t := e.agent
	if a.Tag == nil && a.Status > 100 {
		a.Tag = t.table.Tag(e.message)
	}
	t.rendered = a.Append(t.rendered[:0], e.message, e.transaction.Way.Remote)
	t.table.Answer(e.transaction, t.rendered, a.Status, t.loop.Now())
}

// options says what we can do. RFC 3261 §11.2.
func (e *exchange) options() {
	e.answer(&sip.Answer{Status: 200, Lines: []byte(allow + "Accept: application/sdp\r\nSupported: path, outbound, 100rel, timer\r\n")})
}
