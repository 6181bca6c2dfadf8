// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/protocol/phone/cdr"
	"github.com/kyozon/kyozon/protocol/phone/location"
	"github.com/kyozon/kyozon/protocol/phone/parts"
	"github.com/kyozon/kyozon/protocol/phone/plan"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/dialog"
	"github.com/kyozon/kyozon/protocol/phone/sip/transaction"
)

// call is a call until it is answered: the INVITE of a caller, and ours to all whom he may reach. After that there are
// two legs and nothing else.
type call struct {
	agent    *agent
	network  *network
	invite   []byte          // of the caller
	opened   *dialog.Session // that it has begun, of which each leg of the caller's has a copy
	scheme   sip.Scheme      // of its Request-URI
	update   bool            // the caller knows UPDATE
	x        *transaction.Transaction[user]
	caller   caller
	called   string // address of record, or of a number on a trunk
	trunk    *trunk // that it goes out by, or nil
	peer     string // the name of who is called, or of the trunk
	record   *cdr.Record
	domain   string
	number   plan.Number // that is called, in national form
	terms    terms       // of its media
	branches []*branch
	over     bool // the caller has his final answer

	announcing *announcing // what he hears, or nil
	refused    []byte      // fields of the answer that refuses him
}

// branch is our INVITE to one device: by one binding after another, until one answers.
type branch struct {
	call     *call
	bindings []location.Binding // left to try
	network  *network           // of the one under way
	way      sip.Way
	invite   []byte // as it was sent
	x        *transaction.Transaction[user]
	legs     []*leg           // by the tag that has answered
	heard    bool             // a provisional answer
	cancel   bool             // nobody waits for it
	least    uint32           // seconds that its session must last, at least; 0 if nothing was said
	status   int              // of the failure that has ended it
	said     bool             // by the device, and not by us
	tried    int              // bindings
	proved   int              // how often the INVITE under way was
	proofs   *proofs          // that it was proved by
	at       location.Binding // that is tried
	leg      *cdr.Leg
	media    *media // between the caller and the device that is tried
	freed    bool   // they are not kept for it any more
	waits    bool   // for addresses of media
}

// call begins a call. RFC 3261 §13.3, §16.6.
func (e *exchange) call() {
	m := e.message
	if hops, err := m.Hops(); err != nil || hops == 0 {
		e.answer(&sip.Answer{Status: 483})
		return
	}
	if _, v := inBody(m); v != parts.None && v != parts.Found {
		e.answer(unread(v))
		return
	}
	who := e.who()
	if who == nil {
		return
	}
	opened, v := dialog.Serve(m, "", e.agent.table.Timers)
	if v.Err != nil { // no leg could be made of it
		e.answer(refusal(v))
		return
	}
	e.begin(who)
	to, refusal := e.reach(who)
	if refusal != nil {
		e.turnAway(refusal)
		return
	}
	c := &call{agent: e.agent, network: e.network, x: e.transaction, caller: *who, called: to.address, trunk: to.trunk,
		peer: to.peer, domain: e.settings.options.Domain, record: e.record, number: to.number, terms: to.terms,
		opened: opened, scheme: schemeOf(m.Target()), update: m.Lists(sip.Allow, "update")}
	c.invite = bytes.Clone(m.Text())
	e.transaction.User.call = c
	e.agent.calls[c] = true
	for _, d := range to.devices {
		c.branches = append(c.branches, &branch{call: c, bindings: d.Bindings})
	}
	if to.announce != nil {
		e.announce(c, to.announce)
		return
	}
	for _, b := range slices.Clone(c.branches) {
		b.try()
	}
}

// now is the clock of bindings.
func now() int64 { return time.Now().Unix() }

// party returns the address of record in From or To as our tables have it: without parameters, its user without escapes,
// a global number in national form, the domain as we write it; "" if it is of another domain. RFC 3261 §10.3, step 5.
func (e *exchange) party(k sip.Kind) string { return string(e.appendParty(nil, k)) }

// appendParty writes what party returns.
func (e *exchange) appendParty(dst []byte, k sip.Kind) []byte {
	_, u, err := e.message.Address(k)
	if err != nil || u.Scheme != sip.SIP && u.Scheme != sip.SIPS || !e.settings.options.own(u.Host.Name) {
		return dst
	}
	dst = append(dst, "sip:"...)
	at := len(dst)
	dst = sip.Unescape(dst, u.User)
	if p := e.settings.plan; p != nil && len(dst) > at && dst[at] == '+' {
		if n, _, ok := p.Country().Read(string(dst[at:])); ok {
			dst = append(dst[:at], n.String()...)
		}
	}
	return append(append(dst, '@'), e.settings.options.Domain...)
}

// own says whether a host is our domain, as which no case is another.
func (o *Options) own(host []byte) bool {
	return string(host) == o.Domain || strings.EqualFold(string(host), o.Domain)
}

// try sends the INVITE to the next binding that can be called; without one the branch has failed.
func (b *branch) try() {
	c := b.call
	for len(b.bindings) > 0 {
		next := b.bindings[0]
		b.bindings = b.bindings[1:]
		b.network, b.way = c.agent.core.settings.Load().networks[next.Way.Local], next.Way
		if b.network == nil || !c.agent.core.reaches(next.Way) {
			continue // its listen has gone, or its connection
		}
		b.free()
		b.media = c.agent.newMedia(end{network: c.network, signal: c.x.Way.Remote.Addr()},
			end{network: b.network, signal: next.Way.Remote.Addr(), behind: behind(&next)})
		b.media.terms, b.freed = c.terms, false
		status := b.send(&next)
		if status == passed {
			return
		}
		b.status, b.said = status, false
	}
	b.x = nil
	if b.status == 0 {
		b.status = 480
	}
	b.free()
	c.failed()
}

// free lets the media be: a leg that needs them keeps them.
func (b *branch) free() {
	if b.media != nil && !b.freed {
		b.media.drop()
	}
	b.freed = b.media != nil
}

// resume goes on when there are addresses for media, or none.
func (b *branch) resume(to *location.Binding) {
	b.waits = false
	if b.cancel { // nobody waits for the device any more
		b.free()
		return
	}
	if status := b.send(to); status != passed {
		b.status, b.said = status, false
		b.try()
	}
}

// behind says whether a telephone has registered from another address than it says that it has.
func behind(b *location.Binding) bool {
	u, err := sip.ParseURI([]byte(b.Contact))
	return err == nil && u.Host.Addr.IsValid() && u.Host.Addr != b.Way.Remote.Addr()
}

// send writes and sends the INVITE of a branch: that of the caller, with all that belongs to a leg written for this one. It
// returns passed, or the status of what prevents it.
func (b *branch) send(to *location.Binding) int {
	c, a := b.call, b.call.agent
	m := &a.other
	if m.Parse(c.invite, nil) != nil {
		return 503
	}
	e := &a.editor
	e.Edit(m)
	if place, v := inBody(m); v == parts.Found {
		text, status := b.media.pass(control.Caller, place.Of(body(m)), false)
		switch status {
		case passed:
			e.Body(b.body(m, place, text))
		case patient:
			b.waits = true
			next := *to
			b.media.later(func() { b.resume(&next) })
			return passed
		default:
			return status
		}
	} else if b.media.unheard() {
		return unrelayed
	} else if several(m.Get(sip.ContentType)) && !b.confides() {
		e.Body("", nil)
	}
	e.Target([]byte(to.Contact))
	for _, k := range [...]sip.Kind{sip.RecordRoute, sip.Authorization, sip.ProxyAuthorization, sip.ProxyRequire, sip.Path} {
		e.RemoveAll(k)
	}
	e.Replace(sip.Via, a.viaTo(b.way, c.called))
	if to.Path != "" {
		e.Replace(sip.Route, []byte(to.Path)) // RFC 3327 §5.3
	} else {
		e.RemoveAll(sip.Route)
	}
	hops, _ := m.Hops() // checked
	e.Replace(sip.MaxForwards, []byte(index(hops-1)))
	a.froms = a.appendToken(append(b.show(a.froms[:0], e, m), ";tag="...))
	e.Replace(sip.From, a.froms)
	e.Replace(sip.To, []byte("<"+c.called+">"))
	id := a.token()
	e.Replace(sip.CallID, []byte(id))
	e.Replace(sip.Contact, a.contact(b.way, schemeOf(to.Contact)))
	b.askTimer(e, m)
	text, ok := e.Append(a.rendered[:0])
	if a.rendered = text; !ok {
		return 503
	}
	var err error
	b.heard, b.at, b.proved, b.proofs = false, *to, 0, nil
	b.tries(id)
	b.x, err = a.ask(text, course{Way: b.way}, user{branch: b})
	if err != nil {
		return 503
	}
	b.invite = b.x.Request()
	return passed
}

// appendParty writes an address without its tag.
func appendParty(dst []byte, a *sip.Address) []byte {
	if a.Display != nil {
		dst = append(append(dst, a.Display...), ' ')
	}
	return append(append(append(dst, '<'), a.URI...), '>')
}

// response takes a response to the INVITE of a branch, which is in a.message.
func (b *branch) response(x *transaction.Transaction[user], m *sip.Message) {
	c := b.call
	status := m.Status()
	if status < 200 {
		b.heard = true
		if status > 100 {
			c.progress(b, m)
		}
		return
	}
	if status < 300 {
		c.answer(b, m)
		return
	}
	b.x = nil
	early := len(b.legs) > 0
	for _, l := range b.legs {
		l.over()
		l.peer.over()
	}
	b.legs = nil
	b.said = true
	if status == 422 && b.longer(m) || b.prove(x, m) {
		return
	}
	if status >= 600 { // nobody else is to ring. RFC 3261 §16.7, step 5
		b.free()
		c.end(status, byCalled)
		return
	}
	if b.again(status, early) {
		b.failed()
		b.status = status
		b.try()
		return
	}
	b.status = status
	b.free()
	c.failed()
}

// silent is called when nobody has answered the INVITE of a branch.
func (b *branch) silent() {
	b.x, b.status, b.said = nil, 408, false
	b.failed()
	if b.cancel {
		b.free()
		return
	}
	b.try()
}

// leg shows a response to the leg that it belongs to, which has the caller's as its peer: each tag is another. RFC 3261
// §12.1. It returns nil if there is none and can be none.
func (c *call) leg(b *branch, m *sip.Message) (*leg, dialog.Verdict) {
	to, _, err := m.Address(sip.To)
	if err != nil || to.Tag() == nil {
		return nil, dialog.Verdict{}
	}
	for _, l := range b.legs {
		if l.session.RemoteTag == string(to.Tag()) {
			return l, l.received(m)
		}
	}
	l, v := c.agent.pair(c, b, m)
	if l != nil {
		b.legs = append(b.legs, l)
	}
	return l, v
}

// progress shows the caller a provisional response.
func (c *call) progress(b *branch, m *sip.Message) {
	if c.over {
		return
	}
	if l, v := c.leg(b, m); l != nil && v.Err == nil && !v.Copy {
		c.rings(m)
		l.peer.pass(m, c.x, c.invite)
	}
}

// answer gives the caller the answer of the first who answers, and lets all others be. Who answers later is told that it
// is over. RFC 3261 §16.7, step 10; §13.2.2.4.
func (c *call) answer(b *branch, m *sip.Message) {
	l, v := c.leg(b, m)
	switch {
	case l == nil && !b.cancel:
		b.unreachable(m)
		return
	case l == nil || v.Err != nil:
		return
	case c.over:
		l.acknowledge(nil)
		l.hangUp()
		l.peer.over()
		return
	}
	c.over, l.chosen, l.peer.call = true, true, nil
	l.echo = &echo{agent: c.agent, tag: l.session.RemoteTag, proofs: b.proofs}
	b.x.User = user{echo: l.echo}
	delete(c.agent.calls, c)
	c.answered(b, l)
	b.free()
	l.peer.pass(m, c.x, c.invite)
	l.save()
	for _, other := range c.branches {
		for _, early := range other.legs {
			switch {
			case early == l:
				continue
			case other == b: // if it answers after all, that is the echo's
				early.over()
			}
			early.peer.over()
		}
		if other != b {
			other.abandon()
		}
	}
}

// unreachable ends a branch that was answered by who does not say where it is.
func (b *branch) unreachable(m *sip.Message) {
	if !b.call.agent.turnAway(b.x, b.proofs, m) {
		return
	}
	b.x, b.status, b.said = nil, 502, false
	b.free()
	b.call.failed()
}

// abandon ends a branch that nobody waits for. Its media are let be at once: if the device answers all the same, it is told that it is
// over.
func (b *branch) abandon() {
	b.cancel = true
	b.free()
	for _, l := range b.legs {
		if l.media != nil {
			l.media.drop()
			l.media = nil
		}
	}
	if b.x != nil {
		b.call.agent.table.Cancel(b.x, b.call.agent.loop.Now())
	}
}

// failed answers the caller if no branch is left: with the failure that says most. RFC 3261 §16.7, step 6.
func (c *call) failed() {
	if c.over {
		return
	}
	best, by := 0, byEdge
	for _, b := range c.branches {
		if b.x != nil || b.waits || b.status == 0 {
			return
		}
		if s := b.status; best == 0 || s >= 600 && best < 600 || s < best && best < 600 {
			if best, by = s, byEdge; b.said {
				by = byCalled
			}
		}
	}
	if c.detour() {
		return
	}
	c.unanswered(best, by)
	c.refuse(best)
}

// refuse answers the caller with a failure. What would make him ask elsewhere, or prove himself to somebody else, he does
// not hear.
func (c *call) refuse(status int) {
	c.over = true
	delete(c.agent.calls, c)
	if c.announcing != nil {
		c.announcing.stop()
	}
	answer := &sip.Answer{Status: status, Lines: c.refused}
	switch {
	case status < 400, status == 401, status == 407:
		answer.Status = 480
	case status == 488: // RFC 3261 §20.43
		answer.Lines = []byte(`Warning: 301 kyozon "the ends do not reach each other, and nothing relays their media"` + "\r\n")
	}
	c.reply(answer)
}

// reply answers the INVITE of the caller.
func (c *call) reply(answer *sip.Answer) {
	a := c.agent
	if m := &a.other; m.Parse(c.invite, nil) == nil {
		if answer.Tag == nil {
			answer.Tag = a.table.Tag(m)
		}
		a.rendered = answer.Append(a.rendered[:0], m, c.x.Way.Remote)
		a.table.Answer(c.x, a.rendered, answer.Status, a.loop.Now())
	}
	if answer.Status >= 200 { // a copy is answered by the transaction, which outlives the call
		c.x.User.call = nil
	}
}

// stop is called when the caller has given up. RFC 3261 §9.2.
func (c *call) stop() { c.end(487, byCaller) }

// end ends a call that nobody has answered.
func (c *call) end(status int, by string) {
	if c.over {
		return
	}
	c.unanswered(status, by)
	c.refuse(status)
	for _, b := range c.branches {
		for _, l := range b.legs {
			l.peer.over()
		}
		b.abandon()
	}
}
