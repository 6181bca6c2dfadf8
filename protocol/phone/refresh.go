// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bytes"
	"strconv"
	"time"

	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/dialog"
	"github.com/kyozon/kyozon/protocol/phone/sip/transaction"
)

// sessionInterval is how many seconds a session goes on without a sign of its end, where neither end asks for a timer: an
// end that has died without BYE is found out. RFC 4028 §4.
const sessionInterval = 1800

// deferred is when what cannot be sent now is tried again.
const deferred = 5 * time.Second

// description is what a message says of media.
type description struct {
	kind string
	text []byte
}

// says notes what we describe to the end in a message of ours. Only an end without UPDATE needs to be told it again.
func (l *leg) says(m *sip.Message) {
	text := body(m)
	if len(text) == 0 || l.update && l.session.Confirmed {
		return
	}
	d := description{bodyType(m), bytes.Clone(text)}
	if m.Is("INVITE") || m.Is("UPDATE") {
		l.saying = d
	} else {
		l.said = d
	}
}

// heard notes what a response says: what the end knows, and whether it takes what we described. RFC 6141 §3: what was
// before holds if it does not.
func (l *leg) heard(m *sip.Message) {
	seq, err := m.Sequence()
	if err != nil || string(seq.Method) != "INVITE" && string(seq.Method) != "UPDATE" || m.Status() < 200 {
		return
	}
	if m.Has(sip.Allow) {
		l.update = m.Lists(sip.Allow, "update")
	}
	if m.Status() < 300 && l.saying.text != nil {
		l.said = l.saying
	}
	l.saying = description{}
	if l.update {
		l.said = description{}
	}
}

// askTimer asks a device for a session timer if the caller does not. The timers of the two legs have nothing to do with each
// other, but that an end which refreshes its own refreshes the other with it.
func (b *branch) askTimer(e *sip.Editor, m *sip.Message) {
	switch {
	case b.least > 0:
		n := strconv.AppendUint(nil, uint64(b.least), 10)
		e.Replace(sip.SessionExpires, n)
		e.Replace(sip.MinSE, n)
	case !m.Has(sip.SessionExpires):
		e.Add(sip.SessionExpires, []byte(index(sessionInterval)))
	}
	if !m.Lists(sip.Supported, "timer") {
		e.Add(sip.Supported, []byte("timer"))
	}
}

// longer tries a device again for which a session was too short, once. RFC 4028 §7.3.
func (b *branch) longer(m *sip.Message) bool {
	n := sip.Seconds(m.Get(sip.MinSE), 0)
	if b.cancel || b.least > 0 || n == 0 {
		return false
	}
	b.least = n
	return b.send(&b.at) == passed
}

// appendTimer writes the session timer of the leg into a 2xx that goes to its end, in answer to a request that came; m is
// what the other end has answered. RFC 4028 §9.
func (l *leg) appendTimer(dst []byte, came, m *sip.Message) []byte {
	if m.Status()/100 != 2 || !came.Is("INVITE") && !came.Is("UPDATE") {
		return dst
	}
	want := dialog.Agreed(m)
	if want.Interval == 0 {
		want.Interval = sessionInterval
	}
	return l.session.Timer.AppendAnswer(dst, came, want)
}

// appendAsking keeps the session timer of the leg in a request of the other end that says nothing of one, and would end it
// so. RFC 4028 §7.4.
func (l *leg) appendAsking(dst []byte, m *sip.Message) []byte {
	if m.Has(sip.SessionExpires) || l.session.Timer.Interval == 0 {
		return dst
	}
	who := "uas"
	if l.session.Timer.Mine {
		who = "uac"
	}
	dst = l.appendInterval(dst, who)
	if !m.Lists(sip.Supported, "timer") {
		dst = append(dst, "Supported: timer\r\n"...)
	}
	return dst
}

func (l *leg) appendInterval(dst []byte, refresher string) []byte {
	t := &l.session.Timer
	dst = strconv.AppendUint(append(dst, "Session-Expires: "...), uint64(max(t.Interval, t.Least)), 10)
	return append(append(append(dst, ";refresher="...), refresher...), "\r\n"...)
}

// refresh asks the end whether it is there, unless the other end does that. RFC 4028 §10. What it is to be offered, it is
// offered with it.
func (l *leg) refresh() {
	a, s, other := l.agent, l.session, &l.peer.session.Timer
	l.own = nil
	offer := l.media.offer(l.side())
	switch {
	case l.gone || s.Ended:
		return
	case offer == nil && other.Interval > 0 && !other.Mine && other.Interval <= s.Timer.Interval:
		return // if it does not come, that leg expires
	case s.Ours.Pending || s.Theirs.Pending || s.Updates.On || s.Offer != dialog.Offer{}: // RFC 3261 §14.1
		s.Timer.Refresh = a.loop.Now() + int64(deferred)
		return
	}
	lines := sip.AppendField(nil, sip.Contact, a.contact(l.way, l.scheme))
	lines = append(l.appendInterval(lines, "uac"), "Supported: timer\r\n"...)
	r := &dialog.Request{Method: "UPDATE", Via: a.via(l.way), Lines: lines}
	if !l.update { // RFC 4028 §7.4: with the description that holds, so that nothing changes
		r.Method, r.Type, r.Body = "INVITE", l.said.kind, l.said.text
	}
	if offer != nil {
		r.Type, r.Body = typeSDP, offer
	}
	a.rendered = s.Append(a.rendered[:0], r)
	x, err := l.request(a.rendered, user{refresh: l})
	if err != nil {
		s.Timer.Refresh = a.loop.Now() + int64(deferred)
		return
	}
	l.own = x
	l.ahead++
	l.sent(a.rendered)
}

// refreshed takes the response to a request of refresh.
func (l *leg) refreshed(x *transaction.Transaction[user], m *sip.Message) {
	if m.Status() < 200 || l.gone {
		return
	}
	least := l.session.Timer.Least
	v := l.received(m)
	switch {
	case v.Ack && v.Copy:
		l.again()
		return
	case v.Ack:
		l.acknowledge(nil)
	case v.Copy:
		return
	}
	if again := l.prove(x, m); again != nil {
		l.own = again
		return
	}
	t := &l.session.Timer
	switch status := m.Status(); {
	case l.session.Ended: // RFC 3261 §12.2.1.2
		l.silent()
		return
	case status == 491: // the session says when
	case status == 422 && t.Least > least:
		l.refresh()
	default:
		l.own = nil
		if l.media.offer(l.side()) != nil { // an answer, or none: the media go as they can
			l.media.taken(l.side(), body(m))
		}
		if status >= 300 { // RFC 4028 §10 lets such a session end; we do not, because whoever answers is there
			t.Begin(l.agent.loop.Now())
		}
		l.save()
	}
	l.wind()
}
