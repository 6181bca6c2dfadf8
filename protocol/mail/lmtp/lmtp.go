// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package lmtp delivers a message to a server of LMTP, which answers for each recipient, or to one of SMTP, which answers
// for all. Like package smtp, on which it stands, it does no I/O and keeps none of the bytes that it is shown.
//
//	bytes of the server ─▶ Client.Next ─▶ Write: lines to send
//	                                      Shake: speak TLS, and then send what Secured returns
//	                                      Content: send the message, and then what End returns
//	                                      Done: Results
//
// Whatever the server does, each recipient has a result in the end: the code that was said, or 0 if nothing was.
//
// RFC 2033 (LMTP), RFC 5321 (SMTP), RFC 2920 (PIPELINING), RFC 3207 (STARTTLS).
package lmtp

import (
	"bytes"

	"github.com/kyozon/kyozon/protocol/mail/smtp"
)

// Message is what is delivered. Its paths stand without their brackets.
type Message struct {
	Sender     []byte
	Recipients [][]byte
	EightBit   bool // BODY=8BITMIME, where the server takes it
}

// Result is what became of a recipient.
type Result struct {
	Code  int
	Reply string
}

// Step is what the owner is to do.
type Step uint8

// The steps.
const (
	More    Step = iota // wait for more bytes
	Write               // send the lines
	Content             // send the message, by smtp.AppendContent, and then what End returns
	Shake               // speak TLS from the next byte on, and then send what Secured returns
	Done                // the results are there. The connection may be used for another message if OK says so
)

// TLS says whether TLS is asked for.
type TLS uint8

// The choices.
const (
	Clear   TLS = iota // it is not: the connection is in clear, or in TLS already
	Offered            // if the server offers it
	Needed             // and if it does not it gets no message
)

// Client is our side of a connection, from the greeting on, for one message after the other.
type Client struct {
	Host  string // who we are
	SMTP  bool   // the server speaks SMTP
	TLS   TLS
	Whose *smtp.Identity // whose the messages are, if the server is to be told by XCLIENT

	in       smtp.Client
	has      smtp.Keywords
	phase    phase
	message  Message
	results  []Result
	asked    int   // recipients that were told to the server
	answered int   // replies to them; behind the message, to those of accepted
	accepted []int // the recipients that the message goes to
	lines    []byte
	name     string // of the server
	named    bool   // whose they are has been said
	begun    bool   // the server has answered to MAIL
	open     bool   // it has a transaction that did not come to its end
	broken   bool
}

type phase uint8

const (
	greeting phase = iota
	hello
	telling
	upgrading
	ready
	resetting
	sender
	recipients
	data
	content
	finals
)

// Open is called when the connection is there. The message is the first to be delivered.
func (c *Client) Open(m Message) {
	c.in.Sent(smtp.Other)
	c.begin(m)
}

// Again delivers another message over the connection, and returns what to send. OK must have said that it may.
func (c *Client) Again(m Message) []byte {
	c.begin(m)
	if c.open {
		c.phase, c.open = resetting, false
		c.in.Sent(smtp.Rset)
		c.lines = append(c.lines[:0], "RSET\r\n"...)
		return c.lines
	}
	return c.mail()
}

func (c *Client) begin(m Message) {
	c.message, c.results, c.accepted = m, make([]Result, len(m.Recipients)), c.accepted[:0]
	c.asked, c.answered, c.begun = 0, 0, false
}

// Name returns what the server calls itself, or "".
func (c *Client) Name() string { return c.name }

// Begun says whether the server has answered to the message at all. If not it is not about the message.
func (c *Client) Begun() bool { return c.begun }

// Results are those of the recipients, in their order.
func (c *Client) Results() []Result { return c.results }

// OK says whether the connection may be used for another message.
func (c *Client) OK() bool { return c.phase == ready && !c.broken }

// Next goes on with what the server has sent, and returns how many bytes are done with and what to do.
func (c *Client) Next(p []byte) (step Step, lines []byte, used int) {
	for !c.broken {
		r, _, n, refusal := c.in.Next(p[used:])
		used += n
		if refusal != 0 {
			return c.fail("the server says what is no answer"), nil, used
		}
		if n == 0 {
			return More, nil, used
		}
		if step, lines := c.heard(r); step != More {
			return step, lines, used
		}
	}
	return Done, nil, len(p)
}

// fail ends the delivery: who has no result gets none, for the reason given.
func (c *Client) fail(reason string) Step {
	c.broken = true
	for i := range c.results {
		if c.results[i].Code == 0 && c.results[i].Reply == "" {
			c.results[i].Reply = reason
		}
	}
	return Done
}

// Lost says that the connection is gone, or that the owner gives it up.
func (c *Client) Lost(reason string) {
	if c.phase != ready {
		c.fail(reason)
	}
	c.broken = true
}

// all gives those without a result the reply.
func (c *Client) all(r smtp.Reply) Step {
	for i := range c.results {
		if c.results[i].Code == 0 {
			c.results[i] = result(r)
		}
	}
	return Done
}

func result(r smtp.Reply) Result { return Result{r.Code, string(r.Raw)} }

// heard goes on with a reply.
func (c *Client) heard(r smtp.Reply) (Step, []byte) {
	good := r.Code/100 == 2
	if c.phase == sender && r.Code != 421 {
		c.begun = true
	}
	if r.Code == 421 { // the server closes: RFC 5321 §3.8
		c.broken = true
		return c.all(r), nil
	}
	switch c.phase {
	case greeting, hello, telling:
		return c.met(r)
	case upgrading:
		return c.agreed(r)
	case resetting:
		if !good {
			return c.fail("the server does not give a transaction up: " + string(r.Raw)), nil
		}
		return Write, c.mail()
	case sender:
		if c.open = good; !good {
			c.phase = ready
			return c.all(r), nil
		}
		c.phase = recipients
		return c.tell()
	case recipients:
		return c.told(r)
	case data:
		if r.Code/100 < 4 && r.Code != 354 { // the message has not been sent: it cannot have been taken
			return c.fail("the server says that it has what it was not sent"), nil
		}
		if r.Code != 354 {
			c.phase = ready
			return c.all(r), nil
		}
		c.phase = content
		return Content, nil
	case finals:
		return c.ended(r), nil
	default: // nobody has asked: package smtp lets only 421 through
		return c.fail("the server says what nobody has asked"), nil
	}
}

// met greets, and begins when it is greeted back. A server that has no service for us says
// nothing about recipients: they are tried again.
func (c *Client) met(r smtp.Reply) (Step, []byte) {
	if r.Code/100 != 2 {
		return c.fail(string(r.Raw)), nil
	}
	switch {
	case c.phase == hello:
		c.has = smtp.ParseKeywords(smtp.Reply{Code: r.Code, Raw: bytes.Clone(r.Raw)})
		return c.secure()
	case c.phase == telling && r.Code != 220:
		return c.fail("the server refuses XCLIENT: " + string(r.Raw)), nil
	case c.phase == greeting:
		c.name = nameIn(r)
	}
	return Write, c.hello()
}

// hello introduces us. RFC 2033 §4.1: LHLO is EHLO.
func (c *Client) hello() []byte {
	c.phase = hello
	c.in.Sent(smtp.Ehlo)
	verb := "LHLO "
	if c.SMTP {
		verb = "EHLO "
	}
	c.lines = append(append(append(c.lines[:0], verb...), c.Host...), "\r\n"...)
	return c.lines
}

// secure asks for TLS, if that is to be and is not done. RFC 3207 §4.
func (c *Client) secure() (Step, []byte) {
	switch {
	case c.TLS != Clear && c.has.StartTLS:
		c.phase = upgrading
		c.in.Sent(smtp.StartTLS)
		c.lines = append(c.lines[:0], "STARTTLS\r\n"...)
		return Write, c.lines
	case c.TLS == Needed:
		return c.fail("the server does not offer STARTTLS"), nil
	}
	return c.introduce()
}

// agreed goes on with the answer to STARTTLS.
func (c *Client) agreed(r smtp.Reply) (Step, []byte) {
	switch {
	case r.Code == 220:
		return Shake, nil
	case c.TLS == Needed:
		return c.fail("the server refuses STARTTLS: " + string(r.Raw)), nil
	}
	return c.introduce()
}

// Secured says that TLS is spoken, and returns what to send. What the server has said in clear is forgotten. RFC 3207 §4.2.
func (c *Client) Secured() []byte {
	c.TLS, c.has = Clear, smtp.Keywords{}
	return c.hello()
}

// introduce says whose the message is, if that is to be, and begins with it.
func (c *Client) introduce() (Step, []byte) {
	if c.Whose == nil || c.named {
		return Write, c.mail()
	}
	return c.tellWhose()
}

// tellWhose says whose the message is. A server that does not take it would take it for our own, which it may well trust.
// http://www.postfix.org/XCLIENT_README.html: behind it the dialogue begins anew, but for the greeting of a connection.
func (c *Client) tellWhose() (Step, []byte) {
	if len(c.has.Xclient) == 0 {
		return c.fail("the server does not offer XCLIENT to this machine"), nil
	}
	c.phase, c.named = telling, true
	c.in.Sent(smtp.Xclient)
	c.lines = smtp.AppendXclient(c.lines[:0], c.has.Xclient, *c.Whose)
	return Write, c.lines
}

// nameIn returns the name in a greeting. RFC 5321 §4.2.
func nameIn(r smtp.Reply) string {
	for text := range r.Lines {
		name, _, _ := bytes.Cut(text, []byte(" "))
		if len(name) > 255 || bytes.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return ""
		}
		return string(name)
	}
	return ""
}

func (c *Client) mail() []byte {
	c.phase = sender
	c.in.Sent(smtp.Mail)
	c.lines = append(append(append(c.lines[:0], "MAIL FROM:<"...), c.message.Sender...), '>')
	if c.message.EightBit && c.has.EightBit {
		c.lines = append(c.lines, " BODY=8BITMIME"...) // RFC 6152 §2
	}
	c.lines = append(c.lines, "\r\n"...)
	return c.lines
}

// tell names recipients: all at once, if the server lets us (RFC 2033 §5: one of LMTP does), or the next.
func (c *Client) tell() (Step, []byte) {
	c.lines = c.lines[:0]
	for c.asked < len(c.message.Recipients) {
		c.in.Sent(smtp.Rcpt)
		c.lines = append(append(append(c.lines, "RCPT TO:<"...), c.message.Recipients[c.asked]...), ">\r\n"...)
		if c.asked++; !c.has.Pipelining {
			break
		}
	}
	return Write, c.lines
}

// told goes on with the reply to a recipient. The message goes to those that were accepted.
func (c *Client) told(r smtp.Reply) (Step, []byte) {
	if r.Code/100 == 2 {
		c.accepted = append(c.accepted, c.answered)
	} else {
		c.results[c.answered] = result(r)
	}
	c.answered++
	switch {
	case c.answered < c.asked:
		return More, nil
	case c.asked < len(c.message.Recipients):
		return c.tell()
	case len(c.accepted) == 0: // RFC 2033 §4.2: there is nothing to send
		c.phase = ready
		return Done, nil
	}
	c.phase = data
	c.in.Sent(smtp.Data)
	c.lines = append(c.lines[:0], "DATA\r\n"...)
	return Write, c.lines
}

// End returns what ends the message; start says whether it ends with a line, as smtp.AppendContent has it.
func (c *Client) End(start bool) []byte {
	c.phase, c.answered, c.open = finals, 0, false
	replies := 1
	if !c.SMTP {
		replies = len(c.accepted) // RFC 2033 §4.2: one for each, in order
	}
	for range replies {
		c.in.Sent(smtp.Other)
	}
	c.lines = smtp.AppendEnd(c.lines[:0], start)
	return c.lines
}

// ended goes on with a reply to the message.
func (c *Client) ended(r smtp.Reply) Step {
	if r.Code/100 == 3 {
		return c.fail("the server asks for more than the message")
	}
	if c.SMTP {
		c.phase = ready
		return c.all(r)
	}
	c.results[c.accepted[c.answered]] = result(r)
	if c.answered++; c.answered < len(c.accepted) {
		return More
	}
	c.phase = ready
	return Done
}
