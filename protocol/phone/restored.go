// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/protocol/phone/saved"
	"github.com/kyozon/kyozon/protocol/phone/sdp"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// saved is what is saved of media: nil if the relay has let them go. What the route says of them is saved of a call too in which
// nothing was said of any: its ends may offer some later.
func (m *media) saved() *saved.Media {
	if m == nil || m.path != sdp.Direct && m.id == 0 {
		return nil
	}
	t := &m.terms
	s := &saved.Media{Path: uint32(m.path), Terms: saved.Terms{Family: uint32(t.family), Apart: t.apart, Phones: t.phones, Out: t.out, Why: uint32(t.why)}}
	for i := range m.ends {
		e := &m.ends[i]
		s.Ends[i] = saved.End{Text: e.text, Origin: e.origin, ID: e.id, Version: e.version, Behind: e.behind}
	}
	for _, d := range m.made {
		s.Offers = append(s.Offers, saved.Offer{At: d.at, From: uint32(d.from), Path: uint32(d.path), Refused: uint32(d.refused)})
	}
	if m.path == sdp.Direct {
		return s
	}
	s.ID = uint64(m.id)
	for i := range s.Ends {
		s.Ends[i].Network = m.call.Networks[i]
		for _, l := range m.call.Local[i] {
			s.Ends[i].Local = append(s.Ends[i].Local, l.RTP, l.RTCP)
		}
	}
	return s
}

// takeUpMedia makes the media of a call of a process that is gone. If they are relayed, the relay has not let them go yet; it is
// told before it is asked for anything.
func (a *agent) takeUpMedia(call *saved.Call) *media {
	s, c := call.Media, a.core.relays.client.Load()
	if s == nil || s.ID != 0 && c == nil || s.Path > uint32(sdp.Loop) {
		return nil
	}
	m := a.newMedia(endOf(call.Caller.Way), endOf(call.Called.Way))
	m.users, m.path, m.id = 2, sdp.Path(s.Path), control.ID(s.ID)
	m.call.ID = m.id
	m.terms, m.made = termsSaved(&s.Terms), decisionsSaved(s.Offers)
	for i := range m.ends {
		m.ends[i].takeUp(&s.Ends[i])
		e := &s.Ends[i]
		m.call.Networks[i], m.call.Streams = e.Network, len(e.Local)/2
		for at := 0; at+1 < len(e.Local); at += 2 {
			m.call.Local[i] = append(m.call.Local[i], control.Local{RTP: e.Local[at], RTCP: e.Local[at+1]})
		}
	}
	if m.path == sdp.Direct {
		for i := range m.ends {
			if m.ends[i].origin == nil { // he was shown what the other has said
				m.ends[i].shown = m.ends[1-i].text
			}
		}
	}
	var said [2]sdp.Session
	for i := range m.ends {
		if said[i].Parse(m.ends[i].text, &sdp.Limits{}) == nil {
			m.ends[i].family = familyOf(&said[i])
		} else if m.path != sdp.Direct {
			return nil
		}
	}
	if m.path != sdp.Direct {
		m.held = m.call.Spec
		near, far := &said[control.Caller], &said[control.Callee]
		remotes := append(m.remotes(control.Caller, near, far), m.remotes(control.Callee, far, near)...)
		c.Restore(m.call, remotes, a.loop.Post, m.gone)
	}
	return m
}

func endOf(w sip.Way) end { return end{local: w.Local, signal: w.Remote.Addr()} }

func (e *end) takeUp(s *saved.End) {
	e.text, e.origin, e.id, e.version, e.behind, e.shown = s.Text, s.Origin, s.ID, s.Version, s.Behind, []byte{}
}

// termsSaved reads terms that were saved, perhaps by a version which knew more.
func termsSaved(s *saved.Terms) terms {
	t := terms{apart: s.Apart, phones: s.Phones, out: s.Out}
	if f := ip.Family(s.Family); uint32(f) == s.Family && (f == ip.V4 || f == ip.V6) {
		t.family = f
	}
	if s.Why <= uint32(sdp.Loop) {
		t.why = sdp.Path(s.Why)
	}
	return t
}

// decisionsSaved is the same for what was decided of offers.
func decisionsSaved(all []saved.Offer) (made []decision) {
	for _, o := range all[max(0, len(all)-maxDecisions):] {
		if o.From <= uint32(control.Callee) && o.Path <= uint32(sdp.Loop) && o.Refused <= uint32(byRule) {
			made = append(made, decision{o.At, control.Side(o.From), sdp.Path(o.Path), refusedBy(o.Refused)})
		}
	}
	return made
}
