// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"bytes"
	"errors"
	"strconv"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/protocol/mail/smtp"
)

// command does what a client asks for.
func (s *session) command(c *smtp.Command) {
	s.hear()
	if c.Verb == smtp.Bdat { // is answered when its chunk has come
		s.take()
		return
	}
	s.wait()
	switch c.Verb {
	case smtp.Helo, smtp.Ehlo:
		s.greeted(c)
	case smtp.Mail:
		s.renew()
		if n := s.limit(); c.Size > n { // RFC 1870 §6.1
			s.refused(tooLarge)
			s.say("552 5.3.4 Larger than the " + strconv.FormatInt(n, 10) + " bytes that a message may have\r\n")
			return
		}
		if !s.table.route.Admit(limit.Requests, s.conn.Remote().Addr(), s.conn.Loop().Now()) {
			s.say("451 4.7.1 Too many messages come from your network, come again later\r\n")
			return
		}
		s.admit(c)
	case smtp.Rcpt, smtp.Auth:
		s.pass(c)
	case smtp.Data:
		s.take()
		s.say("354 Go on, and end with a dot in a line of its own\r\n")
		s.listen(s.table.options.Timeouts.Data)
	case smtp.Rset:
		s.forget()
		s.say("250 2.0.0 Forgotten\r\n")
	case smtp.Vrfy:
		s.say("252 2.1.5 Send, and you will see\r\n") // RFC 5321 §3.5.3
	case smtp.Help:
		s.say("214 2.0.0 See RFC 5321\r\n")
	case smtp.Quit:
		s.conn.Write([]byte("221 2.0.0 Goodbye\r\n"))
		s.close(metrics.Fine)
	case smtp.StartTLS:
		s.startTLS()
	default:
		s.say("250 2.0.0 Ok\r\n")
	}
}

// pass has a backend answer.
func (s *session) pass(c *smtp.Command) {
	s.keep(c)
	s.forward(command)
}

// keep keeps a command until a backend can be asked.
func (s *session) keep(c *smtp.Command) {
	s.line = append(append(s.line[:0], c.Line...), "\r\n"...)
	s.asked = smtp.Command{Verb: c.Verb, Uses: c.Uses}
}

// greeted answers HELO and EHLO. Who has another name than before is another client to a backend.
func (s *session) greeted(c *smtp.Command) {
	s.forget()
	s.renew()
	if l := s.link; l != nil && !bytes.Equal(c.Path, s.helo) && !l.authed {
		l.quit(metrics.Fine)
	}
	s.helo = append(s.helo[:0], c.Path...)
	s.in.Offers = smtp.Keywords{}
	if c.Verb == smtp.Helo {
		s.say("250 " + s.table.options.Name + "\r\n")
		return
	}
	if k, ok := s.table.common(); ok {
		s.offer(k)
		return
	}
	s.forward(keywords)
}

// offer answers EHLO with what the backends offer and can be carried.
func (s *session) offer(k smtp.Keywords) {
	t := s.table
	k.StartTLS = t.terms != nil && !s.in.Secure
	k.HasAuth = k.HasAuth && t.dialect.login && (s.in.Secure || t.options.AuthInClear)
	if most := int64(t.options.MessageSize); k.Size == 0 || k.Size > most {
		k.Size = most
	}
	k.Xclient = nil
	s.in.Offers = k
	s.answer(250, smtp.AppendKeywords(s.scratch(), t.options.Name, k))
}

// limit is how large a message may be.
func (s *session) limit() int64 {
	if n := s.in.Offers.Size; n > 0 {
		return n
	}
	return int64(s.table.options.MessageSize)
}

// startTLS goes on encrypted: what was said in clear is forgotten. RFC 3207 §4.2.
func (s *session) startTLS() {
	s.leave(metrics.Fine)
	s.say("220 2.0.0 Go on\r\n")
	s.visitors.end() // until the handshake is done
	s.table.shake(s.conn, func() {
		s.visitors.here.Add(1)
		s.in.Secured()
		s.in.Repair = bool(s.table.options.LineEnds)
		s.helo = s.helo[:0]
		s.conn.SetHandler(s)
		s.conn.SetTimeout(s.table.options.Timeouts.Command)
	})
}

// take begins to take a message in.
func (s *session) take() {
	if s.body == nil {
		s.body = &body{spool: s.front.all.spool, loop: s.conn.Loop(), limit: s.limit(), memory: s.memory, resume: s.resumeBody,
			due: s.conn.Loop().Now() + int64(s.table.options.Timeouts.Message)}
		s.memory = nil
		s.digest.Reset()
		s.sought = false
	}
}

func (s *session) resumeBody() {
	if s.want == delivery {
		s.forward(delivery)
		return
	}
	s.resume()
}

// whole is called when a message, or a chunk of one, has come.
func (s *session) whole(last bool) {
	s.wait()
	if !last {
		s.say("250 2.0.0 Go on\r\n")
		return
	}
	s.promise()
	s.forward(delivery)
}

// forward brings what is wanted to a backend, step by step: it is called again when one is done.
func (s *session) forward(w want) {
	s.want = w
	l := s.link
	switch {
	case w == delivery && s.refuseBody():
	case w == delivery && s.body.writing: // its resume comes here
	case w == delivery && s.remembered():
	case w == delivery && s.shown(): // and this when it has been seen
	case w == delivery && s.stores():
	case l == nil:
		s.dial()
	case l.phase != ready: // the link comes here when it is
	case l.stale:
		l.reset()
	case l.said < s.lines:
		l.repeat()
	case w == keywords:
		k := l.has
		s.offer(k)
	case w == delivery:
		l.deliver()
	case l.has.Lacks(&s.asked): // another backend has offered it
		s.say(smtp.Parameter.Reply())
	default:
		l.ask(s.asked.Verb, s.line)
	}
}

// refuseBody refuses a message that could not be taken in.
func (s *session) refuseBody() bool {
	switch b := s.body; {
	case b.tooLarge():
		s.refused(tooLarge)
		s.forget()
		s.say("552 5.3.4 Larger than a message may be\r\n")
	case b.err != nil:
		s.front.all.log.Error("message not taken in", "service", s.table.service, "err", b.err)
		s.refused(noRoom)
		s.forget()
		s.say("452 4.3.1 No room for the message now\r\n")
	default:
		return false
	}
	return true
}

// dial gets a link. It is called again for another backend, as often as maxAttempts says.
func (s *session) dial() {
	s.attempts++
	if s.attempts > maxAttempts && s.unasked() {
		return
	}
	if s.attempts > maxAttempts {
		s.refused(noServer)
		s.giveUp("451 4.4.1 No server can be reached now\r\n")
		return
	}
	l := &link{session: s, opening: true}
	s.link = l
	s.table.route.Dial(s.conn.Loop(), s.client(), false, l.dialled)
}

// undialled answers for want of a backend.
func (s *session) undialled(err error) {
	s.table.route.Refused(s.conn.Loop(), s.client(), err)
	if s.unasked() {
		return
	}
	why, reply := noServer, "451 4.4.1 No server can be reached now\r\n"
	if errors.Is(err, backend.ErrNoStandIn) {
		why, reply = noStandIn, "451 4.3.0 No address stands in for yours now\r\n"
	}
	s.refused(why)
	s.giveUp(reply)
}

// giveUp answers what is wanted with a temporary refusal: the client comes again. What is a refusal of a command that
// had been answered before ends the transaction.
func (s *session) giveUp(reply string) {
	w := s.want
	if w == nothing {
		return
	}
	if w == delivery {
		s.forget()
	}
	if w == keywords { // without a backend nobody knows what can be offered
		s.end("421" + reply[3:])
		return
	}
	s.say(reply)
	s.rest()
}

// rest is called between two transactions.
func (s *session) rest() {
	if s.ending() && s.lines == 0 && !s.over {
		s.end(goingDown)
	}
}
