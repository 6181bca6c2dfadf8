// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/protocol/phone/cdr"
	"github.com/kyozon/kyozon/protocol/phone/sdp"
)

// part gives the addresses back of a call that goes on without: its ends have come to reach each other. What was relayed until then,
// and why, is in its record when the relay has told.
func (m *media) part(why sdp.Path) {
	if m.leg == nil || m.leg.record == nil { // nobody has answered the call
		m.leave()
		return
	}
	m.end(m.leg.record, why)
}

// end is part for a call that is over, too.
func (m *media) end(r *cdr.Record, why sdp.Path) {
	if m.id == 0 || m.busy {
		return
	}
	crossing := m.relayedIn()
	m.parts++
	m.close(func(s control.Stats, err error) {
		m.parts--
		if err == nil {
			m.carried(r, crossing, why, &s)
		}
		if m.settled == nil {
			m.leg.save()
		}
		m.settle()
	})
}

// settle does what is to be done when the call is over and all is known of its parts.
func (m *media) settle() {
	if f := m.settled; f != nil && m.parts == 0 {
		m.settled = nil
		f()
	}
}

// carried notes what was relayed in a part of a call, and why.
func (m *media) carried(r *cdr.Record, crossing int, why sdp.Path, s *control.Stats) {
	m.agent.core.quality.add(crossing, s)
	if r.Media == nil {
		r.Media = &cdr.Media{Path: m.path.String()}
	}
	if m.path == sdp.Direct && why != sdp.Direct {
		r.Media.Relayed = why.String()
	}
	for side, to := range [...]*cdr.Flow{control.Caller: &r.Media.ToCalled, control.Callee: &r.Media.ToCaller} {
		var f cdr.Flow
		for i, q := range s.Heard[side] {
			f.Packets += q.Packets
			f.Bytes += q.Bytes
			f.Lost += q.Lost
			f.Strangers += q.Strangers
			if i == 0 {
				f.Jitter, f.MOS = q.Jitter.Seconds()*1000, float64(q.MOS)
			}
		}
		to.Add(&f)
	}
}
