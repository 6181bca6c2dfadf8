// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bytes"

	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/protocol/phone/sdp"
)

// turns has the relay take media after all, where an answer shows that its end is not reached directly. That end has been told
// where the other is, and must be offered the relay. Where there is none, media go as they can.
func (m *media) turns(from control.Side, s *sdp.Session) int {
	switch path := m.decide(from, s); path {
	case sdp.NoAddress, sdp.Translated, sdp.BehindNAT:
		status := m.reserve(from, s)
		if status == passed {
			m.asked, m.owed = path, &m.ends[from]
		}
		return status
	}
	return passed
}

// offer returns what an end is to be offered by us, or nil.
func (m *media) offer(to control.Side) []byte {
	if m == nil || m.owed != &m.ends[to] || m.open {
		return nil
	}
	s := &m.agent.described
	if s.Parse(m.ends[1-to].text, &sdp.Limits{}) == nil {
		if text, status := m.rewrite(1-to, s); status == passed {
			return text
		}
	}
	m.owed = nil
	return nil
}

// taken takes the answer of an end to what it was offered by us. The other end need not know.
func (m *media) taken(from control.Side, text []byte) {
	s, other := &m.agent.described, &m.agent.counterpart
	m.owed = nil
	if s.Parse(text, &sdp.Limits{}) != nil || other.Parse(m.ends[1-from].text, &sdp.Limits{}) != nil {
		return
	}
	m.ends[from].text = bytes.Clone(text)
	m.update(m.remotes(from, s, other))
}

// reoffer offers the end the addresses of the relay, if it has answered an offer that had none and is not reached without.
func (l *leg) reoffer() {
	if l.media.offer(l.side()) != nil {
		l.refresh()
	}
}
