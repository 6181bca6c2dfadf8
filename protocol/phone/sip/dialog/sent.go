// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package dialog

import "github.com/kyozon/kyozon/protocol/phone/sip"

// Sent shows a message of the dialog that we sent, for the first time.
func (s *Session) Sent(m *sip.Message, now int64) {
	seq, err := m.Sequence()
	if err != nil || s.Ended {
		return
	}
	if !m.Request() {
		s.sentResponse(m, nameOf(seq.Method), seq.Number, now)
		return
	}
	body := hasSDP(m)
	switch {
	case m.Is("ACK"):
		s.inRequest(ours, "ACK", seq.Number, body)
		return
	case m.Is("CANCEL"):
		return
	case m.Is("BYE"):
		s.end()
	case m.Is("INVITE"):
		s.sentInvite(m, seq.Number)
	default:
		if m.Is("UPDATE") {
			s.Ours.Expires, s.RetryAt = interval(m), 0
		}
		s.inRequest(ours, nameOf(m.Method()), seq.Number, body)
	}
	s.LocalSeq = max(s.LocalSeq, seq.Number)
}

func (s *Session) sentInvite(m *sip.Message, seq uint32) {
	body := hasSDP(m)
	s.Ours = Invite{Seq: seq, Pending: true, Offerless: !body, Expires: interval(m)}
	s.RetryAt = 0
	s.inRequest(ours, "INVITE", seq, body)
}

func (s *Session) sentResponse(m *sip.Message, method string, seq uint32, now int64) {
	status := m.Status()
	switch {
	case method == "INVITE":
		s.answeredInvite(m, seq, now)
		return
	case status < 200:
		return
	case method == "UPDATE" && seq == s.Updates.Seq:
		s.Updates.On = false
	}
	if status >= 300 {
		s.Offer.fails(method, seq)
		return
	}
	s.inResponse(ours, method, seq, hasSDP(m))
	if method == "UPDATE" {
		s.Timer.agreed(m, false, 0, now)
	}
}

// answeredInvite is our response to an INVITE of theirs: a 2xx is sent until ACK comes, a reliable provisional until
// PRACK. RFC 3261 §13.3.1.4, RFC 3262 §3.
func (s *Session) answeredInvite(m *sip.Message, seq uint32, now int64) {
	status := m.Status()
	switch {
	case seq != s.Theirs.Seq || !s.Theirs.Pending:
		return
	case status < 200:
		if m.Lists(sip.Require, "100rel") && m.Has(sip.RSeq) {
			s.Prov.send(sip.Seconds(m.Get(sip.RSeq), 0), seq, now, &s.Intervals)
			s.inResponse(ours, "INVITE", seq, hasSDP(m))
		}
		return
	}
	s.Theirs.Pending, s.Prov = false, Provisional{}
	if status >= 300 {
		s.Offer.fails("INVITE", seq)
		if !s.Confirmed {
			s.end()
		}
		return
	}
	s.Confirmed, s.Theirs.Waits = true, true
	s.Final.start(now, &s.Intervals)
	s.inResponse(ours, "INVITE", seq, hasSDP(m))
	s.Timer.agreed(m, false, 0, now)
}
