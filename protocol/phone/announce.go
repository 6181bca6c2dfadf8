// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"maps"
	"slices"
	"time"

	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/protocol/phone/cause"
	"github.com/kyozon/kyozon/protocol/phone/clip"
	"github.com/kyozon/kyozon/protocol/phone/sdp"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/relay"
)

const (
	// mostAnnounced bounds the callers who hear announcements at once; others are refused without.
	mostAnnounced = 1000

	// longestAnnounced bounds how long one hears one: nobody has answered, and proxies give up after three minutes.
	// RFC 3261 §16.6, step 11.
	longestAnnounced = 2 * time.Minute

	// afterwards is how much later than its last packet an announcement is over.
	afterwards = 200 * time.Millisecond
)

// announcement is what callers hear who are then refused.
type announcement struct {
	name  string
	clip  *clip.Clip
	times int
	cause cause.Cause
}

// clips are the announcements as the relay has them.
func (s *settings) clips() (all [][]byte) {
	for _, name := range slices.Sorted(maps.Keys(s.announcements)) {
		a := s.announcements[name]
		all = append(all, a.clip.PCMU, a.clip.PCMA)
	}
	return all
}

// announcing is an announcement that a caller hears before he is refused: as early media, from the relay, which sends it under
// the rules of a call that is relayed.
//
//	INVITE ─▶ addresses of the relay ─▶ 183 with a description, control.Play ─▶ its time is over ─▶ failure, with a Reason
//
// Who cannot hear it is refused at once. RFC 3960 §3.
type announcing struct {
	call  *call
	what  *announcement
	media *media
	alarm relay.Timer
	done  bool
}

// announce begins it.
func (e *exchange) announce(c *call, what *announcement) {
	at := end{network: e.network, signal: e.transaction.Way.Remote.Addr()}
	p := &announcing{call: c, what: what, media: e.agent.newMedia(at, at)}
	c.announcing = p
	p.alarm.Func = p.over
	p.media.ended = p.over
	e.record.Reason = "announcement " + what.name
	if e.agent.core.announced.Add(1) > mostAnnounced {
		p.over()
		return
	}
	p.begin()
}

// begin looks at the INVITE, again when there are addresses. A caller who wants provisional answers acknowledged is refused at
// once: there is no dialog for that. RFC 3262 §3.
func (p *announcing) begin() {
	c, a := p.call, p.call.agent
	m, s := &a.third, &a.described
	if p.done || m.Parse(c.invite, nil) != nil {
		return
	}
	if !describes(m) || m.Lists(sip.Require, "100rel") || s.Parse(descriptionOf(m), &sdp.Limits{}) != nil {
		p.over()
		return
	}
	speech, ok := s.Speech()
	status := unrelayed
	if ok {
		status = p.media.alone(s)
	}
	switch {
	case status == patient:
		p.media.later(p.begin)
		return
	case status != passed || speech.Line >= p.media.call.Streams || !p.media.hears(s, speech.Line):
		p.over()
		return
	}
	local := p.media.call.Local[control.Caller][speech.Line].RTP
	text := s.AppendSpeech(nil, speech, local, p.media.ends[control.Caller].id)
	c.reply(&sip.Answer{Status: 183, Dialog: true, Type: typeSDP, Body: text,
		Lines: sip.AppendField(nil, sip.Contact, a.contact(c.x.Way, schemeOf(m.Target())))})
	samples := p.what.clip.PCMU
	if speech.Type == sdp.PCMA {
		samples = p.what.clip.PCMA
	}
	a.core.relays.client.Load().Play(p.media.id, control.Play{Side: control.Caller, Stream: uint8(speech.Line), Type: speech.Type,
		Clip: control.ClipOf(samples), Times: uint8(p.what.times)})
	a.loop.SetTimer(&p.alarm, time.Duration(p.what.times)*p.what.clip.Length()+a.afterwards)
	a.wind()
}

// alone has the relay give addresses for an end whom nobody but the edge says anything to.
func (m *media) alone(s *sdp.Session) int {
	here := &m.ends[control.Caller]
	leg := sdp.Leg{Network: here.network.name, Source: here.signal, Media: s}
	if m.agent.core.settings.Load().policy.Decide(leg, leg) == sdp.Loop {
		return unrelayed
	}
	return m.reserve(control.Caller, s)
}

// hears tells the relay where an end is, and says whether it may be sent anything there.
func (m *media) hears(s *sdp.Session, stream int) bool {
	remotes := m.remotes(control.Caller, s, nil)
	m.update(remotes)
	return stream < len(remotes) && remotes[stream].RTP.IsValid()
}

// over refuses the caller.
func (p *announcing) over() {
	c := p.call
	if c.over {
		return
	}
	status := p.what.cause.Status(false)
	c.record.Status, c.record.Cause = status, int(p.what.cause)
	c.agent.core.close(c.record, byEdge, 0)
	why := cause.Reason{Q850: p.what.cause}
	c.refused = append(why.Append([]byte("Reason: ")), "\r\n"...)
	c.refuse(status)
	c.agent.wind()
}

// stop ends it, however the call has ended.
func (p *announcing) stop() {
	if p.done {
		return
	}
	p.done = true
	p.call.agent.core.announced.Add(-1)
	p.call.agent.loop.StopTimer(&p.alarm)
	p.media.drop()
}
