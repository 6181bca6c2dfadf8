// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/journal"
	"github.com/kyozon/kyozon/protocol/mail/outcome"
	"github.com/kyozon/kyozon/protocol/mail/queue"
	"github.com/kyozon/kyozon/protocol/mail/smtp"
	"github.com/kyozon/kyozon/relay"
)

// A session of which the messages are kept differs from another in this: its servers may speak LMTP, are told addresses
// only, and get nothing but questions; the message goes to the disk. RFC 5321 §2.1: with its 250 the edge answers for it.

const (
	noRoomReply = "452 4.3.1 No room for the message now\r\n"
	noDiskReply = "451 4.3.0 The message cannot be kept now\r\n"
	crowdReply  = "452 4.5.3 Too many recipients for one message\r\n"
	loopReply   = "554 5.4.6 The message goes round in circles\r\n"
)

// offers is what clients are offered where messages are kept, of what a server offers: we take chunks, and report.
// A server that a message goes on from would have to report too, and is told nothing of it.
func (w *way) offers(k smtp.Keywords) smtp.Keywords {
	return smtp.Keywords{Pipelining: true, EightBit: k.EightBit, Chunking: true, DSN: !w.smtp, Enhanced: k.Enhanced, HasSize: true, Size: k.Size}
}

// spoken is a line of the client as a server is told it: without parameters that it may not know.
func (l *link) spoken(line []byte) []byte {
	if l.kept == nil {
		return line
	}
	c, _ := smtp.ParseCommand(bytes.TrimSuffix(line, []byte("\r\n"))) // it was read once
	out := l.session.scratch()
	switch c.Verb {
	case smtp.Mail:
		out = append(out, "MAIL FROM:<"...)
	case smtp.Rcpt:
		out = append(out, "RCPT TO:<"...)
	default:
		return line
	}
	out = append(append(out, c.Path...), '>')
	if eightBit(&c) {
		out = append(out, " BODY=8BITMIME"...)
	}
	return append(out, "\r\n"...)
}

// eightBit says whether c is for a message of eight bits. RFC 6152 §2.
func eightBit(c *smtp.Command) bool {
	return strings.EqualFold(string(parameter(c, "BODY")), "8BITMIME")
}

// parameter returns the value of a parameter of MAIL or RCPT; nil if there is none.
func parameter(c *smtp.Command, name string) []byte {
	for p := range bytes.FieldsSeq(c.Rest) {
		if n, value, ok := bytes.Cut(p, []byte("=")); ok && strings.EqualFold(string(n), name) {
			return value
		}
	}
	return nil
}

// unasked answers what is wanted though no server can be reached, if the operator has said so. It returns false if he has
// not.
func (s *session) unasked() bool {
	w := s.table.keeps[s.table.route.Choose(ip.Key(s.conn.Remote().Addr())).Spec.Name]
	if w == nil || len(w.unasked) == 0 {
		return false
	}
	c, _ := smtp.ParseCommand(bytes.TrimSuffix(s.line, []byte("\r\n"))) // it was read once
	switch {
	case s.want == keywords:
		s.offer(w.offers(smtp.Keywords{}))
	case s.want == command && s.asked.Verb == smtp.Mail:
		s.accept(w)
		s.say("250 2.1.0 No server can be asked now\r\n")
	case s.want == command && s.asked.Verb == smtp.Rcpt && w.takes(c.Path):
		s.accept(w)
		s.say("250 2.1.5 Kept until a server can be asked\r\n")
	default:
		return false
	}
	return true
}

// takes says whether a recipient is taken without a server.
func (w *way) takes(path []byte) bool {
	domain := path[bytes.LastIndexByte(path, '@')+1:]
	return slices.ContainsFunc(w.unasked, func(d string) bool { return d == anyDomain || strings.EqualFold(d, string(domain)) })
}

// stores keeps the message if that is how it is to go, and says whether it is.
func (s *session) stores() bool {
	w := s.kept
	if w == nil {
		return false
	}
	h := s.front.all.queues.current()
	if h == nil {
		s.unstored(noDiskReply)
		return true
	}
	b, m := s.body, s.queued(w)
	head := append(s.trace(time.Now()), b.head...)
	draft, err := h.queue.Draft(m, b.size+int64(len(head)))
	if err != nil {
		s.unstored(noRoomReply)
		return true
	}
	s.want = nothing // what becomes of a link meanwhile changes nothing
	s.begin()
	st := &storing{session: s, holding: h, body: b, loop: s.conn.Loop(), draft: draft, message: m, delivery: s.delivery}
	s.delivery, s.body = outcome.Delivery{}, nil
	s.front.all.busy.Add(1)
	draft.Write(head, nil)
	st.next()
	return true
}

// unstored refuses a message that was taken in and cannot be kept.
func (s *session) unstored(reply string) {
	s.refused(noRoom)
	s.forget()
	s.say(reply)
	s.rest()
}

// queued is the message as it is kept.
func (s *session) queued(w *way) *queue.Message {
	m := &queue.Message{Service: w.Service, Pool: w.Pool, Client: s.conn.Remote(), Dialled: s.conn.Local(), Helo: bytes.Clone(s.helo),
		Relayed: w.smtp, Arrived: time.Now()}
	for line := range bytes.Lines(s.envelope) {
		c, _ := smtp.ParseCommand(bytes.TrimSuffix(line, []byte("\r\n"))) // it was accepted once
		if c.Verb == smtp.Mail {
			m.Sender, m.EightBit = bytes.Clone(c.Path), eightBit(&c)
			m.Envid = bytes.Clone(parameter(&c, "ENVID"))
			m.Full = strings.EqualFold(string(parameter(&c, "RET")), "FULL")
			continue
		}
		m.Recipients = append(m.Recipients, queue.Recipient{Path: bytes.Clone(c.Path), Orcpt: bytes.Clone(parameter(&c, "ORCPT")),
			Notify: notify(parameter(&c, "NOTIFY"))})
	}
	return m
}

// notify reads a value of NOTIFY. RFC 3461 §4.1.
func notify(value []byte) (n queue.Notify) {
	for word := range bytes.SplitSeq(value, []byte(",")) {
		switch strings.ToUpper(string(word)) {
		case "NEVER":
			n |= queue.Never
		case "SUCCESS":
			n |= queue.Success
		case "FAILURE":
			n |= queue.Failure
		case "DELAY":
			n |= queue.Delay
		}
	}
	return n
}

// storing is a message on its way to the disk. It goes on when its client has gone: then it is known when he comes again.
type storing struct {
	session  *session
	holding  *holding
	body     *body
	loop     *relay.Loop
	draft    *queue.Draft
	message  *queue.Message
	delivery outcome.Delivery
	at       int64 // of the body's file: what comes next
}

// next writes the next piece, when the one before is written, or the last and the envelope.
func (st *storing) next() {
	b := st.body
	if st.at < b.filed {
		b.read(st.at, st.piece)
		return
	}
	if st.at == 0 && circles(b.memory) {
		st.draft.Abandon()
		st.ended(loopReply, nil)
		return
	}
	st.draft.Write(b.memory, nil)
	st.draft.Commit(func(err error) { st.loop.Post(func() { st.done(err) }) })
}

// piece is called with a piece of the body that was in the file.
func (st *storing) piece(p []byte, err error) {
	switch {
	case err != nil:
		st.draft.Abandon()
		st.ended(noDiskReply, err)
	case st.at == 0 && circles(p):
		st.draft.Abandon()
		st.ended(loopReply, nil)
	default:
		st.at += int64(len(p))
		st.draft.Write(p, func() { st.loop.Post(st.next) })
	}
}

// done is called when the message is on disk, or cannot be.
func (st *storing) done(err error) {
	switch {
	case err == nil:
		reply := fmt.Sprintf("250 2.0.0 Kept as %s\r\n", st.holding.id(st.message.ID()))
		st.delivery.Taken([]byte(reply), time.Now())
		st.ended(reply, nil)
	case errors.Is(err, journal.ErrTooLong): // the envelope: the content comes in pieces
		st.ended(crowdReply, err)
	case errors.Is(err, journal.ErrFull):
		st.ended(noRoomReply, err)
	default:
		st.ended(noDiskReply, err)
	}
}

// ended tells the client, if he is still there.
func (st *storing) ended(reply string, err error) {
	s := st.session
	s.front.all.busy.Add(-1)
	if err != nil {
		s.front.all.log.Error("message not kept", "service", st.message.Service, "err", err)
	}
	if !st.delivery.Taking() {
		s.refused(noRoom)
		st.delivery.Refused()
	}
	if cap(st.body.memory) <= bodyReuse {
		s.memory = st.body.memory[:0]
	}
	st.body.close()
	if s.over {
		st.delivery.Unseen()
		return
	}
	s.delivery = st.delivery
	s.forget()
	s.answer(codeOf(reply), []byte(reply))
	s.rest()
}
