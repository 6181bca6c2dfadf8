// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"strconv"
	"time"

	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/protocol/mail/smtp"
)

// deliver sends the message: in one chunk if the backend takes chunks, whose end nothing in the message can feign.
// RFC 3030 §2, RFC 5321 §4.1.1.4.
func (l *link) deliver() {
	s := l.session
	l.at, l.start = 0, true
	switch {
	case l.has.Chunking:
		l.out.Sent(smtp.Bdat)
		l.send(append(strconv.AppendInt(append(s.scratch(), "BDAT "...), int64(len(s.body.head))+s.body.size, 10), " LAST\r\n"...))
		l.begin()
	case s.in.Binary(): // another backend has offered it. RFC 3030 §3
		s.forget()
		s.say("451 4.6.1 No server takes binary messages now\r\n")
	default:
		l.write(smtp.Data, "DATA\r\n")
		l.become(starting, replyTime)
	}
}

// begin sends what stands before the message, and begins with the message.
func (l *link) begin() {
	l.become(sending, blockTime)
	l.content(l.session.body.head)
	l.feed()
}

// feed sends as much of the message as the backend takes now.
func (l *link) feed() {
	b := l.session.body
	switch {
	case l.flow.Conn.Full():
		l.flow.Conn.SetTimeout(blockTime)
	case l.at < b.filed:
		l.flow.Conn.SetTimeout(blockTime)
		b.read(l.at, l.piece)
	default:
		l.session.begin()
		l.content(b.memory)
		if !l.has.Chunking {
			l.send(smtp.AppendEnd(l.session.scratch(), l.start))
		}
		l.become(ending, finalTime)
	}
}

// piece is called with a piece of the message that was in the file.
func (l *link) piece(p []byte, err error) {
	switch {
	case l.session == nil || l.phase != sending:
	case err != nil:
		l.session.body.err = err
		s := l.session
		l.drop(metrics.Fine)
		s.forward(delivery)
	default:
		l.at += int64(len(p))
		l.content(p)
		l.feed()
	}
}

// content sends a piece of the message.
func (l *link) content(p []byte) {
	if l.has.Chunking {
		l.send(p)
		return
	}
	out := l.session.scratch()
	for len(p) > 0 {
		n := min(len(p), cap(out)/2)
		var text []byte
		text, l.start = smtp.AppendContent(out, p[:n], l.start)
		l.send(text)
		p = p[n:]
	}
}

// delivering goes on with a reply while the message is delivered. One that comes before the end is the end: the
// backend wants no more of it.
func (l *link) delivering(r smtp.Reply) {
	if l.phase == starting && r.Code == 354 {
		l.out.Sent(smtp.Other)
		l.begin()
		return
	}
	s, good := l.session, r.Code/100 == 2
	if r.Code/100 == 3 || good && l.phase != ending || r.Code == 421 {
		l.lost(metrics.ServerFault)
		return
	}
	l.came(endOf(r.Code))
	if good {
		l.flow.Metrics().Request()
		s.delivery.Taken(r.Raw, time.Now())
	} else if s.delivery.Open() {
		s.delivery.Refused()
	}
	whole := l.phase != sending
	code, raw := r.Code, r.Raw
	l.said, l.stale = 0, l.phase == starting
	l.rest()
	s.forget()
	s.answer(code, raw)
	if !whole && s.link == l {
		l.drop(metrics.Fine)
	}
	s.rest()
}
