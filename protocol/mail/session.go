// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"bytes"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/protocol/mail/outcome"
	"github.com/kyozon/kyozon/protocol/mail/policy"
	"github.com/kyozon/kyozon/protocol/mail/smtp"
	"github.com/kyozon/kyozon/relay"
)

// session is a client that speaks SMTP, and the handler of its connection.
//
//	Data ─▶ smtp.Server ─▶ command ─▶ answered here, or want ─▶ forward ─▶ link ─▶ answer
//	                    └▶ text ─▶ body ─ whole ─▶ want ─▶ forward ─▶ link ─▶ answer
type session struct {
	front *front
	table *table
	conn  *relay.Conn
	in    smtp.Server
	helo  []byte // the name that the client has given

	waits  bool // an answer is owed: nothing more is read
	paused bool // something more has come meanwhile
	ended  bool // and it is all
	over   bool

	visitors *visitors // among whom it is counted

	guard  *guard        // nil if nobody looks at who the client is
	visit  *policy.Visit // what is found out about it
	judged bool

	link     *link
	want     want
	asked    smtp.Command // the command that is wanted; its slices are gone
	line     []byte       // as it goes to the backend
	attempts int          // to bring what is wanted to a backend
	envelope []byte       // the commands of the transaction that a backend has accepted
	lines    int          // of the envelope
	kept     *way         // where the message goes if it is kept; nil if a backend gets it at once
	body     *body        // nil while no message comes
	memory   []byte       // of the last body

	digest   outcome.Digest   // of the body
	key      outcome.Key      // of the message
	sought   bool             // it has been looked whether the message is known
	delivery outcome.Delivery // of it, or of the one before
	patience relay.Timer      // of the client, who waits for an answer to it
}

// want is what is to be done when there is a backend.
type want uint8

const (
	nothing  want = iota
	keywords      // the answer to EHLO
	command       // the client's command is asked
	delivery      // the message is delivered
)

// speakSMTP begins with a client.
func speakSMTP(f *front, t *table, c *relay.Conn) {
	s := &session{front: f, table: t, conn: c, visitors: t.visitors}
	s.visitors.begin()
	s.in.Secure, s.in.Repair = c.TLS() != nil, bool(t.options.LineEnds)
	c.SetHandler(s)
	switch {
	case !t.route.Allows(c.Remote().Addr()):
		t.route.Count(metrics.Denied)
		s.end("554 5.7.1 No service for you here\r\n") // RFC 5321 §3.1
	case s.ending():
		s.end(goingDown)
	default:
		s.open()
	}
}

// goingDown is what is said to who must come again. RFC 5321 §3.8.
const goingDown = "421 4.3.2 Service is restarting, come again\r\n"

// scratch is where what is sent is rendered. It is free again when it has been written.
func (s *session) scratch() []byte { return s.front.all.locals[s.conn.Loop().ID()].out[:0] }

// client describes who has connected.
func (s *session) client() backend.Client {
	return backend.Client{Addr: s.conn.Remote(), Dialled: s.conn.Local()}
}

// Data implements relay.Handler.
func (s *session) Data(c *relay.Conn, p []byte) (used int) {
	for !s.over {
		if s.waits || s.body != nil && s.body.full() {
			if used < len(p) {
				s.paused = true
				c.Pause()
			}
			return used
		}
		e, n := s.in.Next(p[used:])
		used += n
		switch e.Kind {
		case smtp.More:
			if n == 0 {
				return used
			}
		case smtp.Asked:
			s.command(&e.Command)
		case smtp.Text:
			s.body.add(e.Text)
			s.digest.Add(e.Text)
			s.listen(s.table.options.Timeouts.Data)
		case smtp.Whole:
			s.whole(e.Last)
		case smtp.Secret:
			s.wait()
			s.line = append(append(s.line[:0], e.Text...), "\r\n"...)
			s.forward(command)
		case smtp.Refused:
			s.refuse(e.Refusal)
		}
	}
	return len(p)
}

// Event implements relay.Handler.
func (s *session) Event(_ *relay.Conn, e relay.Event) {
	switch {
	case e == relay.Drained:
	case e == relay.Timeout && s.dragging():
	case e == relay.Timeout: // RFC 5321 §4.5.3.2.7
		s.table.route.Count(metrics.ClientTimeout)
		s.end("421 4.4.2 Nothing has come for long\r\n")
	case s.waits: // the answer can still be read
		s.ended = true
	default:
		s.close(metrics.ClientReset)
	}
}

// Closed implements relay.Handler.
func (s *session) Closed(*relay.Conn, error) {
	if s.delivery.Taking() {
		s.delivery.Unseen()
	}
	s.close(metrics.ClientReset)
}

// listen waits for more of the client.
func (s *session) listen(d time.Duration) {
	if s.dragging() {
		return
	}
	if s.body != nil {
		d = min(d, time.Duration(s.body.due-s.conn.Loop().Now()))
	}
	s.conn.SetTimeout(d)
}

// dragging ends the session of a client whose message takes too long to come, and says whether it does.
func (s *session) dragging() bool {
	if s.body == nil || s.conn.Loop().Now() < s.body.due {
		return false
	}
	s.table.route.Count(metrics.ClientTimeout)
	s.refused(slow)
	s.end("421 4.4.2 The message takes too long\r\n")
	return true
}

// wait says that an answer is owed. How long that takes is not the client's fault.
func (s *session) wait() {
	s.waits = true
	s.conn.SetTimeout(0)
}

// say answers with a reply of our own.
func (s *session) say(reply string) { s.answer(codeOf(reply), []byte(reply)) }

// answer gives the client the answer that is owed.
func (s *session) answer(code int, reply []byte) {
	s.conn.Write(reply)
	s.in.Answer(code)
	s.waits, s.want, s.attempts = false, nothing, 0
	if s.ended {
		s.close(metrics.Fine)
		return
	}
	if s.listen(s.table.options.Timeouts.Command); !s.over {
		s.resume()
	}
}

// resume reads on.
func (s *session) resume() {
	if s.paused {
		s.paused = false
		s.conn.Resume()
	}
}

func codeOf(reply string) int {
	return int(reply[0]-'0')*100 + int(reply[1]-'0')*10 + int(reply[2]-'0')
}

// refuse answers what cannot be.
func (s *session) refuse(r smtp.Refusal) {
	if r.Fatal() || r == smtp.Untrusted || r == smtp.TooManyRecipients { // else it is a slip
		s.tally().faults[index(s.table.route.Family)][r].Add(1)
	}
	if r.Fatal() {
		s.table.route.Count(metrics.ClientFault)
		s.end(r.Reply())
		return
	}
	s.conn.Write([]byte(r.Reply()))
	s.listen(s.table.options.Timeouts.Command)
}

// end says a last word and closes.
func (s *session) end(reply string) {
	s.conn.Write([]byte(reply))
	s.finish()
	s.leave(metrics.Fine)
	if !s.part() {
		s.conn.Linger(lingerTime)
	}
}

// close ends the session without a word.
func (s *session) close(r metrics.Reason) {
	s.finish()
	s.leave(r)
	if !s.part() {
		s.conn.Close()
	}
}

// finish says that nothing more is read or said.
func (s *session) finish() {
	if !s.over {
		s.over = true
		s.visitors.end()
	}
}

// leave gives up what the session has.
func (s *session) leave(r metrics.Reason) {
	s.want = nothing
	s.forget()
	if l := s.link; l != nil {
		l.quit(r)
	}
}

// forget ends the transaction.
func (s *session) forget() {
	if l := s.link; l != nil && l.said > 0 {
		l.said, l.stale = 0, true
	}
	if s.lines > 0 {
		s.front.all.busy.Add(-1)
	}
	s.envelope, s.lines, s.kept = s.envelope[:0], 0, nil
	if cap(s.envelope) > bodyReuse {
		s.envelope = nil
	}
	s.conn.Loop().StopTimer(&s.patience)
	if s.body != nil {
		if cap(s.body.memory) <= bodyReuse {
			s.memory = s.body.memory[:0]
		}
		s.body.close()
		s.body = nil
	}
}

// drain says goodbye if nobody follows and nothing is under way; else that is for when it is done.
func (s *session) drain() {
	if s.ending() && !s.waits && s.lines == 0 {
		s.end(goingDown)
	}
}

// ending says that nobody follows at the front.
func (s *session) ending() bool { return s.front.current.Load().ending.Load() }

// cut ends the session because the drain deadline has passed.
func (s *session) cut(metrics.Reason) {
	if s.delivery.Open() {
		s.delivery.Lost()
		s.link.came(unknown)
	}
	s.end(goingDown)
}

// renew looks at what is served now.
func (s *session) renew() {
	t := s.front.current.Load()
	if t == s.table || s.link != nil && s.link.authed {
		return
	}
	s.table = t
	if l := s.link; l != nil && l.flow.Route() != t.route {
		l.quit(metrics.Fine)
	}
}

// remember keeps a line that a backend has accepted.
func (s *session) remember() {
	s.accept(s.link.kept)
	s.link.said = s.lines
}

// accept keeps a line of a transaction whose message goes that way.
func (s *session) accept(w *way) {
	s.kept = w
	s.envelope = append(s.envelope, s.line...)
	if s.lines++; s.lines == 1 {
		s.front.all.busy.Add(1)
	}
}

// said returns a line of the envelope, with its CRLF.
func (s *session) said(n int) []byte {
	p := s.envelope
	for ; n > 0; n-- {
		p = p[bytes.IndexByte(p, '\n')+1:]
	}
	return p[:bytes.IndexByte(p, '\n')+1]
}
