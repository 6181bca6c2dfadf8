// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package dialog

import (
	"errors"

	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/transaction"
)

// Entry is one thing that happened to a session: a message, or, without one, a call of Time.
type Entry struct {
	At   int64
	Sent bool   // by us
	Text []byte // of the message
}

// Outcome is what an entry came to.
type Outcome struct {
	Verdict Verdict // of a message that was received
	Due     Due     // of the time
}

// ErrLog means that a log does not begin with an INVITE and a response to it with a tag.
var ErrLog = errors.New("dialog: log does not begin a session")

// Replay plays a log from its INVITE on: the session that it returns and all outcomes are those that were, since nothing
// else goes into them. What comes before the session has begun has no outcome.
func Replay(log []Entry, t transaction.Timers) (*Session, []Outcome, error) {
	var s *Session
	var invite, m sip.Message
	var out []Outcome
	for i := range log {
		e := &log[i]
		if s != nil && e.Text == nil {
			out = append(out, Outcome{Due: s.Time(e.At)})
			continue
		}
		if e.Text == nil {
			continue
		}
		if err := m.Parse(e.Text, nil); err != nil {
			return nil, nil, err
		}
		switch {
		case s != nil && e.Sent:
			s.Sent(&m, e.At)
		case s != nil:
			out = append(out, Outcome{Verdict: s.Received(&m, e.At)})
		case m.Is("INVITE"):
			_ = invite.Parse(e.Text, nil)
		default:
			var o Outcome
			if s, o = begin(&invite, &m, e, t); s != nil {
				out = append(out, o)
			}
		}
	}
	if s == nil {
		return nil, nil, ErrLog
	}
	return s, out, nil
}

// begin makes the session of an INVITE and a response that has a tag.
func begin(invite, m *sip.Message, e *Entry, t transaction.Timers) (*Session, Outcome) {
	_, tag, err := appendAddress(nil, m, sip.To)
	if m.Request() || err != nil || tag == nil || !invite.Is("INVITE") {
		return nil, Outcome{}
	}
	if !e.Sent {
		s, v := Dial(invite, m, t, e.At)
		return s, Outcome{Verdict: v}
	}
	s, v := Serve(invite, string(tag), t)
	if s != nil {
		s.Sent(m, e.At)
	}
	return s, Outcome{Verdict: v}
}
