// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package dialog

import (
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/transaction"
)

// Session is a dialog that an INVITE began, with all that is under way in it. It is plain data too.
type Session struct {
	Dialog
	Ended bool

	Ours    Invite // the last INVITE of ours
	Theirs  Invite
	Updates Pending // UPDATE that came and has no answer
	Offer   Offer
	Prov    Provisional // reliable ones of ours
	Acks    uint32      // the RSeq of the last reliable one of theirs; 0 before the first
	AcksOf  uint32      // and the CSeq of its INVITE
	Final   Repeat      // our 2xx, until its ACK
	Timer   Timer
	RetryAt int64 // when an INVITE or UPDATE that met one of theirs may be tried again; 0 if there is none

	Intervals transaction.Timers // of this leg
}

// Invite is an INVITE and how far it is.
type Invite struct {
	Seq       uint32
	Pending   bool   // no final answer yet
	Offerless bool   // it had no body: the offer is the answer's. RFC 3261 §13.2.1
	Expires   uint32 // its Session-Expires
	Waits     bool   // theirs: for ACK
}

// Pending is a request that came and has no answer.
type Pending struct {
	Seq uint32
	On  bool
}

// Verdict is what comes of a message that was received.
type Verdict struct {
	Err    *sip.Error // a request is answered with its status, a response dropped; nil: it is the user's
	Again  bool       // a 500 that needs Retry-After of 0 to 10 s. RFC 3261 §14.2
	Copy   bool       // it came before and was answered: nobody needs to hear of it
	Ack    bool       // a 2xx to INVITE: send ACK with its CSeq, each time. RFC 3261 §13.2.2.4
	Prack  bool       // a reliable provisional: send PRACK. RFC 3262 §4
	Answer bool       // the body is the answer to an offer of ours
	Offer  bool       // the body is an offer
}

// Serve begins the session of an INVITE that came, outside any dialog; its answers have the given tag. The verdict says
// whether it is refused at once.
func Serve(m *sip.Message, tag string, t transaction.Timers) (*Session, Verdict) {
	d, err := Accepted(m, tag)
	if err != nil {
		return nil, Verdict{Err: err}
	}
	s := &Session{Dialog: d, Intervals: t}
	return s, s.invited(m, d.RemoteSeq, hasSDP(m))
}

// Dial begins the session that the first response with a tag of its own makes of an INVITE that we sent, and takes that
// response. An INVITE that was forked has several.
func Dial(invite, m *sip.Message, t transaction.Timers, now int64) (*Session, Verdict) {
	d, err := Begun(m)
	if err != nil && (m.Status() >= 200 || d.CallID == "") {
		return nil, Verdict{Err: err}
	}
	if d.Target == "" { // some ring without a Contact
		d.Target = string(invite.Target())
	}
	s := &Session{Dialog: d, Intervals: t}
	s.sentInvite(invite, d.LocalSeq)
	return s, s.response(m, now)
}

// Received shows a message of the dialog that came and has been checked; a request is not a copy of one that the
// transaction layer knows.
func (s *Session) Received(m *sip.Message, now int64) Verdict {
	if m.Request() {
		return s.request(m)
	}
	return s.response(m, now)
}

func (s *Session) request(m *sip.Message) Verdict {
	seq, err := m.Sequence()
	if err != nil {
		return Verdict{Err: err}
	}
	if m.Is("ACK") {
		return s.ack(m, seq.Number)
	}
	if s.Ended || !s.Has(m) {
		return Verdict{Err: ErrNone}
	}
	if seq.Number < s.RemoteSeq {
		return Verdict{Err: ErrOrder}
	}
	s.RemoteSeq = seq.Number
	body := hasSDP(m)
	switch {
	case m.Is("BYE"):
		s.end()
		return Verdict{}
	case m.Is("INVITE"):
		return s.invited(m, seq.Number, body)
	case m.Is("UPDATE"):
		return s.updated(m, seq.Number, body)
	case m.Is("PRACK"):
		if !s.Prov.acknowledge(m.Get(sip.RAck)) {
			return Verdict{Err: ErrRAck}
		}
		return s.inRequest(theirs, "PRACK", seq.Number, body)
	}
	return Verdict{}
}

// invited is a re-INVITE, or the first one. RFC 3261 §14.2.
func (s *Session) invited(m *sip.Message, seq uint32, body bool) Verdict {
	switch {
	case s.Ours.Pending || s.Offer.By == ours:
		return Verdict{Err: ErrPending}
	case s.Theirs.Pending || s.Offer.By == theirs:
		return Verdict{Err: ErrBusy, Again: true}
	}
	if err := s.Timer.asked(m); err != nil {
		return Verdict{Err: err}
	}
	if err := s.refresh(m); err != nil {
		return Verdict{Err: err}
	}
	s.Final = Repeat{} // whoever sends another has the 2xx of the last one
	s.Theirs = Invite{Seq: seq, Pending: true, Offerless: !body, Expires: interval(m)}
	s.Prov = Provisional{}
	return s.inRequest(theirs, "INVITE", seq, body)
}

// updated is RFC 3311 §5.2.
func (s *Session) updated(m *sip.Message, seq uint32, body bool) Verdict {
	switch {
	case s.Updates.On, body && s.Offer.By == theirs:
		return Verdict{Err: ErrBusy, Again: true}
	case body && s.Offer.By == ours:
		return Verdict{Err: ErrPending}
	}
	if err := s.Timer.asked(m); err != nil {
		return Verdict{Err: err}
	}
	if err := s.refresh(m); err != nil {
		return Verdict{Err: err}
	}
	s.Updates = Pending{seq, true}
	return s.inRequest(theirs, "UPDATE", seq, body)
}

// refresh takes the target of a request that may bring another. RFC 3261 §12.2.2.
func (s *Session) refresh(m *sip.Message) *sip.Error {
	target, err := contact(m)
	if err == nil && s.Target != string(target) {
		s.Target = string(target)
	}
	return err
}

// ack is the end of an INVITE of theirs. RFC 3261 §13.3.1.4.
func (s *Session) ack(m *sip.Message, seq uint32) Verdict {
	if seq != s.Theirs.Seq || !s.Theirs.Waits || !s.Has(m) {
		return Verdict{Copy: true}
	}
	s.Theirs.Waits, s.Final = false, Repeat{}
	return s.inRequest(theirs, "ACK", seq, hasSDP(m))
}

func (s *Session) response(m *sip.Message, now int64) Verdict {
	seq, err := m.Sequence()
	if err != nil {
		return Verdict{Err: err}
	}
	method, status := nameOf(seq.Method), m.Status()
	switch {
	case method == "INVITE" && seq.Number == s.Ours.Seq && !s.Ours.Pending && status/100 == 2:
		return Verdict{Ack: true, Copy: true} // RFC 3261 §13.2.2.4
	case method == "INVITE" && (seq.Number != s.Ours.Seq || !s.Ours.Pending):
		return Verdict{Copy: true}
	case status < 200:
		return s.provisional(m, seq.Number)
	}
	if method == "INVITE" {
		s.Ours.Pending = false
	}
	if status >= 300 {
		s.failed(m, method, seq.Number, now)
		return Verdict{}
	}
	v := s.inResponse(theirs, method, seq.Number, hasSDP(m))
	if method == "INVITE" || method == "UPDATE" {
		v.Ack = method == "INVITE"
		s.taken(m, method, now)
	}
	return v
}

// nameOf returns a method, of which the usual ones take no memory.
func nameOf(method []byte) string {
	for _, name := range [...]string{"INVITE", "BYE", "UPDATE", "PRACK", "INFO"} {
		if string(method) == name {
			return name
		}
	}
	return string(method)
}

// taken is a 2xx to an INVITE or UPDATE of ours. Who sends no Contact, or a bad one, is where it was.
func (s *Session) taken(m *sip.Message, method string, now int64) {
	if method == "INVITE" && !s.Confirmed {
		_ = s.answered(m)
		s.Confirmed = true
	} else {
		_ = s.refresh(m)
	}
	s.RetryAt = 0
	s.Timer.agreed(m, true, s.Ours.Expires, now)
}

// failed is a failure of a request of ours. RFC 3261 §12.2.1.2, §14.1, RFC 4028 §7.3.
func (s *Session) failed(m *sip.Message, method string, seq uint32, now int64) {
	s.Offer.fails(method, seq)
	switch status := m.Status(); {
	case status == 481 || status == 408:
		s.end()
	case status == 491 && (method == "INVITE" || method == "UPDATE"):
		s.RetryAt = now + s.backoff(seq)
	case status == 422:
		s.Timer.Least = max(s.Timer.Least, sip.Seconds(m.Get(sip.MinSE), 0))
	}
	if method == "INVITE" && !s.Confirmed {
		s.end()
	}
}

// provisional is a response to INVITE that may be reliable. RFC 3262 §4: they come in order, and each once.
func (s *Session) provisional(m *sip.Message, seq uint32) Verdict {
	if m.Status() == 100 || !m.Lists(sip.Require, "100rel") || !m.Has(sip.RSeq) {
		return Verdict{} // what it says of the session is no answer, and may be another later
	}
	n := sip.Seconds(m.Get(sip.RSeq), 0)
	if s.AcksOf != seq {
		s.AcksOf, s.Acks = seq, 0
	}
	switch {
	case n == 0 || s.Acks > 0 && n > s.Acks+1:
		return Verdict{Err: sip.ErrCSeq}
	case s.Acks > 0 && n <= s.Acks:
		return Verdict{Copy: true, Prack: n == s.Acks}
	}
	s.Acks = n
	v := s.inResponse(theirs, "INVITE", seq, hasSDP(m))
	v.Prack = true
	return v
}

func (s *Session) end() {
	s.Ended, s.RetryAt, s.Offer = true, 0, Offer{}
	s.Final, s.Prov, s.Timer = Repeat{}, Provisional{}, Timer{}
}

// backoff is how long one waits after 491, by dice that are the same for the same request. RFC 3261 §14.1.
func (s *Session) backoff(seq uint32) int64 {
	h := uint64(14695981039346656037) // FNV-1a
	for _, c := range []byte(s.CallID + s.LocalTag) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	h = (h ^ uint64(seq)) * 1099511628211
	const unit = 10e6 // 10 ms
	if s.Caller {
		return (210 + int64(h>>32%191)) * unit // 2.1 to 4 s
	}
	return int64(h>>32%201) * unit // 0 to 2 s
}
