// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"bytes"
	"context"
	"io"

	"github.com/kyozon/kyozon/protocol/mail/scan"
	"github.com/kyozon/kyozon/protocol/mail/smtp"
)

// engines makes the engines of a service; nil if it has none.
func (b *builder) engines(o *Options, m *memory) *scan.Engines {
	c := o.Scan
	if c == nil {
		return nil
	}
	options := scan.Options{Clamd: c.Clamd, Rspamd: c.Rspamd, Auth: c.Authentication, Time: c.Timeout, Size: int64(c.Largest), Counts: &m.scans}
	if c.Down == DownPass {
		options.Down = scan.Pass
	}
	e := scan.New(options)
	b.scanners = append(b.scanners, e)
	return e
}

// shown has the engines look at the message, once. It says whether the message waits for that.
func (s *session) shown() bool {
	b, e := s.body, s.table.engines
	if e == nil || b.shown {
		return false
	}
	b.shown, b.writing = true, true // keeps the file open
	m := s.message()
	loop := s.conn.Loop()
	go func() {
		v := e.Check(context.Background(), m)
		loop.Post(func() { s.seen(b, v) })
	}()
	return true
}

// message is the message as engines see it.
func (s *session) message() *scan.Message {
	b := s.body
	m := &scan.Message{Client: s.conn.Remote().Addr(), Hello: string(s.helo), Name: string(s.name()), Size: b.size, Text: whole{b.file, b.filed, b.memory}}
	for line := range bytes.Lines(s.envelope) {
		c, _ := smtp.ParseCommand(bytes.TrimRight(line, "\r\n")) // it was accepted once
		if c.Verb == smtp.Mail {
			m.From = string(c.Path)
		} else {
			m.Recipients = append(m.Recipients, string(c.Path))
		}
	}
	return m
}

// seen goes on when the engines have looked.
func (s *session) seen(b *body, v scan.Verdict) {
	b.writing = false
	if b.closed {
		b.close()
		return
	}
	if v.Unasked != nil {
		s.note("unseen", v.Reason.String(), v.Unasked.Error())
	}
	if v.Reply != "" {
		s.note("refused", v.Reason.String(), v.Reply)
		s.forget()
		s.say(v.Reply)
		s.rest()
		return
	}
	b.head = v.Fields
	s.forward(delivery)
}

// whole is a message that is partly in a file.
type whole struct {
	file   io.ReaderAt
	filed  int64
	memory []byte
}

// ReadAt implements io.ReaderAt.
func (w whole) ReadAt(p []byte, at int64) (n int, err error) {
	if at < w.filed {
		n, err = w.file.ReadAt(p[:min(int64(len(p)), w.filed-at)], at)
		if err != nil || n == len(p) {
			return n, err
		}
		at += int64(n)
	}
	rest := copy(p[n:], w.memory[min(at-w.filed, int64(len(w.memory))):])
	if n += rest; n < len(p) {
		err = io.EOF
	}
	return n, err
}
