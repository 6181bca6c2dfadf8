// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/protocol/mail/smtp"
	"github.com/kyozon/kyozon/relay"
)

const (
	maxAttempts = 3 // backends that are tried for one command of a client
	lingerTime  = 2 * time.Second

	// Backends answer within the time that their clients give them by RFC 5321 §4.5.3.2, less some for our own client,
	// who waits as long for us.
	greetTime = 60 * time.Second
	replyTime = 4 * time.Minute
	blockTime = 3 * time.Minute                // §4.5.3.2.5
	finalTime = 9*time.Minute + 30*time.Second // §4.5.3.2.6

	// holdTime is how long a backend is held for a client that says nothing: many have a process for each connection.
	holdTime = 5 * time.Second

	// remindTime is how often a backend that must be held is told that we are still there.
	remindTime = time.Minute
)

// link is a session's connection to a backend, and its handler.
//
//	dialled ─▶ greeting ─▶ hello ─▶ (upgrading ─▶ hello) ─▶ (telling ─▶ hello) ─▶ ready
//	ready ─┬─▶ resetting, repeating, asking ─▶ ready
//	       └─▶ starting ─▶ sending ─▶ ending ─▶ ready
type link struct {
	session *session // nil when it has left
	flow    *backend.Flow
	out     smtp.Client
	has     smtp.Keywords // lies in words
	words   []byte
	counts  metrics.Counts

	phase   phase
	opening bool // it has never been ready
	helo    bool // the backend knows only HELO
	told    bool // who the client is
	kept    *way // the backend is only asked, and messages for it are kept; nil if it gets them
	authed  bool // the client has logged in: only this connection will do
	stale   bool // the backend still has a transaction that was given up
	said    int  // lines of the envelope that the backend has accepted

	at    int64 // of the file of the message: what comes next
	start bool  // and begins a line
}

type phase uint8

const (
	greeting phase = iota
	hello
	upgrading
	telling
	ready
	resetting
	repeating
	asking
	starting
	sending
	ending
)

// dialled is called when a backend has been reached, or none can be.
func (l *link) dialled(f *backend.Flow, err error) {
	s := l.session
	if s == nil { // the client has gone
		if err == nil {
			f.Conn.Close()
			f.End(metrics.Counts{}, metrics.ClientReset)
		}
		return
	}
	if err != nil {
		l.session, s.link = nil, nil
		s.undialled(err)
		return
	}
	l.flow, l.kept = f, s.table.keeps[f.Pool.Spec.Name]
	f.Counts, f.Cut = func() metrics.Counts { return l.counts }, s.cut
	l.out.Sent(smtp.Other)
	f.Conn.SetHandler(l)
	f.Conn.SetTimeout(greetTime)
}

// Data implements relay.Handler.
func (l *link) Data(_ *relay.Conn, p []byte) (used int) {
	for l.session != nil {
		r, v, n, refusal := l.out.Next(p[used:])
		if refusal != 0 {
			l.lost(metrics.ServerFault)
			break
		}
		if n == 0 {
			return used
		}
		used += n
		l.counts.ToClient += uint64(n)
		if v != smtp.Noop { // a reminder
			l.heard(r)
		}
	}
	return len(p)
}

// Event implements relay.Handler.
func (l *link) Event(_ *relay.Conn, e relay.Event) {
	switch {
	case e == relay.Drained:
		if l.phase == sending {
			l.feed()
		}
	case e == relay.Ended:
		l.lost(metrics.ServerReset)
	case l.phase != ready:
		l.lost(metrics.ServerTimeout)
	case l.authed:
		l.write(smtp.Noop, "NOOP\r\n")
		l.flow.Conn.SetTimeout(remindTime)
	default:
		l.quit(metrics.Fine)
	}
}

// Closed implements relay.Handler.
func (l *link) Closed(*relay.Conn, error) { l.lost(metrics.ServerReset) }

// write sends a command.
func (l *link) write(v smtp.Verb, line string) {
	l.out.Sent(v)
	l.send([]byte(line))
}

func (l *link) send(p []byte) {
	l.counts.ToServer += uint64(len(p))
	l.flow.Conn.Write(p)
}

// become waits for the reply that a phase is about.
func (l *link) become(p phase, d time.Duration) {
	l.phase = p
	l.flow.Conn.SetTimeout(d)
}

// rest waits for what the client wants next.
func (l *link) rest() { l.become(ready, l.session.front.all.hold) }

// heard goes on with a reply.
func (l *link) heard(r smtp.Reply) {
	if r.Code == 421 && l.phase != ending { // it closes the connection: another may do. RFC 5321 §3.8
		l.lost(metrics.ServerReset)
		return
	}
	switch l.phase {
	case greeting:
		l.welcome(r)
	case hello:
		l.met(r)
	case upgrading:
		l.agreed(r)
	case telling:
		l.accepted(r)
	case resetting:
		l.stale = false
		l.idle()
	case repeating:
		l.repeated(r)
	case asking:
		l.answered(r)
	case starting, sending, ending:
		l.delivering(r)
	case ready:
		l.lost(metrics.ServerFault)
	}
}

// idle is ready for what the client wants, perhaps already now.
func (l *link) idle() {
	l.rest()
	l.opening = false
	if s := l.session; s.want != nothing {
		s.forward(s.want)
	}
}

// reset gives up a transaction at the backend.
func (l *link) reset() {
	l.write(smtp.Rset, "RSET\r\n")
	l.become(resetting, replyTime)
}

// repeat says a line of the envelope that another connection was told before.
func (l *link) repeat() {
	v := smtp.Rcpt
	if l.said == 0 {
		v = smtp.Mail
	}
	l.out.Sent(v)
	l.send(l.spoken(l.session.said(l.said)))
	l.become(repeating, replyTime)
}

// repeated goes on if the answer is that which the client was given.
func (l *link) repeated(r smtp.Reply) {
	if r.Code/100 != 2 {
		s := l.session
		s.forget()
		l.stale = true
		l.rest()
		s.refused(changed)
		s.giveUp("451 4.3.0 A server has changed its mind, come again\r\n")
		return
	}
	l.said++
	l.session.kept = l.kept
	l.idle()
}

// ask asks what the client asks.
func (l *link) ask(v smtp.Verb, line []byte) {
	l.out.Sent(v)
	l.send(l.spoken(line))
	l.become(asking, replyTime)
}

// answered gives the client the backend's answer.
func (l *link) answered(r smtp.Reply) {
	s := l.session
	l.note(s.asked.Verb, r.Code)
	l.rest()
	switch v := s.asked.Verb; {
	case v == smtp.Auth:
		l.authed = l.authed || r.Code == 235 // RFC 4954 §6
	case r.Code/100 == 2:
		s.remember()
	case r.Code/100 == 3: // to neither MAIL nor RCPT
		l.lost(metrics.ServerFault)
		return
	}
	s.answer(r.Code, r.Raw)
}

// note counts an answer to what the client asks. Who may not send a message has it refused.
func (l *link) note(v smtp.Verb, code int) {
	s := l.session
	switch {
	case v == smtp.Auth:
		if t, ok := trialOf(code); ok {
			s.visitors.logins[t].Add(1)
		}
	case v == smtp.Rcpt && code/100 != 3:
		s.tally().recipients[l.flow.Crossing().Index()][endOf(code)].Add(1)
	case v == smtp.Mail && code/100 > 3:
		l.came(endOf(code))
	}
}

// came counts what has become of a message.
func (l *link) came(e end) { l.session.tally().messages[l.flow.Crossing().Index()][e].Add(1) }

// lost is called when the connection is of no more use. What has not been sent whole goes to another backend.
func (l *link) lost(why metrics.Reason) {
	s, final := l.session, l.phase == sending || l.phase == ending
	if s == nil {
		return
	}
	wanted := s.want
	if s.delivery.Open() {
		s.delivery.Lost()
	}
	if final {
		l.came(unknown)
	}
	l.drop(why)
	switch {
	case wanted == nothing && l.authed:
		s.end("421 4.3.0 The server has gone\r\n")
	case wanted == nothing:
	case l.authed:
		s.end("421 4.3.0 The server has gone\r\n")
	case final: // nobody knows what became of it
		s.giveUp("451 4.4.2 The server has not said what became of the message\r\n")
	default:
		s.forward(wanted)
	}
}

// drop ends the flow at once.
func (l *link) drop(why metrics.Reason) {
	l.session.link = nil
	l.session = nil
	l.flow.Conn.Abort()
	l.flow.End(l.counts, why)
}

// quit leaves the backend as it is used to, if nothing is under way.
func (l *link) quit(why metrics.Reason) {
	switch {
	case l.flow == nil: // it is told when it has been dialled
		l.session.link = nil
		l.session = nil
		return
	case l.bereave():
		return
	case l.phase != ready:
		l.drop(why)
		return
	}
	l.session.link = nil
	l.session = nil
	l.send([]byte("QUIT\r\n"))
	l.flow.Conn.SetHandler(leaving{})
	l.flow.Conn.SetTimeout(lingerTime)
	l.flow.End(l.counts, why)
}

// leaving lets a backend close after QUIT: RFC 5321 §4.1.1.10.
type leaving struct{}

// Data implements relay.Handler.
func (leaving) Data(_ *relay.Conn, p []byte) int { return len(p) }

// Event implements relay.Handler.
func (leaving) Event(c *relay.Conn, _ relay.Event) { c.Close() }

// Closed implements relay.Handler.
func (leaving) Closed(*relay.Conn, error) {}
