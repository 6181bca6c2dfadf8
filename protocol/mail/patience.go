// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import "github.com/kyozon/kyozon/metrics"

// promise has a message that is whole answered while its client still waits: 10 minutes, whatever engines, servers that are
// tried in turn, and the envelope said again to them take together. RFC 5321 §4.5.3.2.6.
func (s *session) promise() {
	if s.patience.Func == nil {
		s.patience.Func = s.overdue
	}
	s.conn.Loop().SetTimer(&s.patience, s.front.all.final)
}

// overdue answers in the place of servers that have not.
func (s *session) overdue() {
	if s.over || s.want != delivery {
		return
	}
	l := s.link
	switch {
	case l == nil:
	case l.flow == nil:
		l.quit(metrics.ServerTimeout)
	case l.authed, l.phase == sending, l.phase == ending: // who has logged in has no other server
		l.lost(metrics.ServerTimeout)
		return
	case l.phase == ready:
		l.quit(metrics.ServerTimeout)
	default:
		l.drop(metrics.ServerTimeout)
	}
	s.refused(late)
	s.giveUp("451 4.4.2 No server has taken the message in time\r\n")
}
