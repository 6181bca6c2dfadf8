// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"bytes"
	"fmt"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/probe"
	"github.com/kyozon/kyozon/protocol/mail/smtp"
)

// The first words with a backend: who we are, who the client is, what it can do.

// welcome greets back.
func (l *link) welcome(r smtp.Reply) {
	if r.Code != 220 { // RFC 5321 §3.1: no service here now
		l.lost(metrics.ServerFault)
		return
	}
	l.session.front.all.proofs.greets(l.flow.Backend, r.Raw)
	l.greet(l.verb())
}

// verb is how the backend is greeted. RFC 2033 §4.1.
func (l *link) verb() string {
	if l.kept != nil && !l.kept.smtp {
		return "LHLO "
	}
	return "EHLO "
}

// greet gives the client's name, as he would himself. RFC 5321 §4.1.1.1.
func (l *link) greet(verb string) {
	l.out.Sent(smtp.Ehlo)
	l.send(append(append(append(l.session.scratch(), verb...), l.session.helo...), "\r\n"...))
	l.become(hello, replyTime)
}

// met learns what the backend can do.
func (l *link) met(r smtp.Reply) {
	if r.Code/100 == 5 && !l.helo && l.verb() == "EHLO " { // it does not know EHLO: RFC 5321 §3.2
		l.helo = true
		l.greet("HELO ")
		return
	}
	if r.Code != 250 {
		l.lost(metrics.ServerFault)
		return
	}
	l.has = smtp.Keywords{}
	if !l.helo {
		l.words = bytes.Clone(r.Raw)
		l.has = smtp.ParseKeywords(smtp.Reply{Code: r.Code, Raw: l.words})
	}
	if l.flow.Pool.Spec.TLS.Asks() && l.flow.Conn.TLS() == nil && l.upgrade() {
		return
	}
	l.introduce()
}

// upgrade asks for TLS. It returns false if the backend does not offer it and need not.
func (l *link) upgrade() bool {
	switch {
	case l.has.StartTLS:
		l.write(smtp.StartTLS, "STARTTLS\r\n")
		l.become(upgrading, replyTime)
	case l.flow.Pool.Spec.TLS.Start == probe.Required:
		l.unsafe("it does not offer STARTTLS")
	default:
		return false
	}
	return true
}

// agreed goes on in TLS. What the backend has said in clear is forgotten. RFC 3207 §4.2.
func (l *link) agreed(r smtp.Reply) {
	if r.Code != 220 {
		if l.flow.Pool.Spec.TLS.Start == probe.Required {
			l.unsafe(fmt.Sprintf("it answers %q to STARTTLS", bytes.TrimSpace(r.Raw)))
			return
		}
		l.introduce()
		return
	}
	l.flow.StartTLS(replyTime, func(err error) {
		if err != nil {
			l.unused(err.Error())
			l.lost(metrics.ConnectFailed)
			return
		}
		l.flow.Conn.SetHandler(l)
		l.helo = false
		l.greet(l.verb())
	})
}

// unsafe leaves a backend with which TLS must be spoken, and is not.
func (l *link) unsafe(reason string) {
	l.unused(reason)
	l.lost(metrics.ServerFault)
}

func (l *link) unused(reason string) {
	s := l.session
	s.front.all.log.Error("server not used", "service", s.table.service, "backend", l.flow.Backend.Addr.String(), "err", reason)
}

// introduce says who the client is, if that is to be, and is ready.
func (l *link) introduce() {
	if l.flow.Backend.Told().Handover == backend.HandoverXclient && !l.told {
		l.tell()
		return
	}
	l.session.front.all.known.of(l.flow.Backend).note(&l.has)
	if l.kept != nil {
		l.has = l.kept.offers(l.has)
	}
	l.idle()
}

// tell says who the client is, in the attributes that the backend takes.
func (l *link) tell() {
	if len(l.has.Xclient) == 0 {
		l.untold("it does not offer XCLIENT to this machine")
		return
	}
	l.out.Sent(smtp.Xclient)
	l.send(smtp.AppendXclient(l.session.scratch(), l.has.Xclient, smtp.Identity{Client: l.flow.Carried(), Dialled: l.flow.Dialled(),
		Name: l.session.name(), Helo: l.session.helo}))
	l.become(telling, replyTime)
}

// accepted begins anew as the client.
func (l *link) accepted(r smtp.Reply) {
	if r.Code != 220 {
		l.untold(fmt.Sprintf("it answers %q to XCLIENT", bytes.TrimSpace(r.Raw)))
		return
	}
	l.told = true
	l.greet(l.verb())
}

// untold gives the client up for now: a backend that is not told who he is would take him for the edge, which it may
// well trust.
func (l *link) untold(reason string) {
	s := l.session
	s.front.all.log.Error("handover refused", "service", s.table.service, "backend", l.flow.Backend.Addr.String(), "err", reason)
	l.drop(metrics.ServerFault)
	s.refused(untold)
	s.giveUp("451 4.3.0 The server cannot be told who you are\r\n")
}
