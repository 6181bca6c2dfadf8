// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"bytes"
	"errors"
	"fmt"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/metrics"
	"github.com/kyozon/kyozon/probe"
	"github.com/kyozon/kyozon/protocol/mail/smtp"
	"github.com/kyozon/kyozon/relay"
)

// askTime is how long a backend may take for one answer to an inquiry: Postfix waits 5 s for a PROXY header before it
// gives up.
const askTime = 10 * time.Second

// stranger is a mailbox that no backend of an operator has: RFC 2606 §3.
const stranger = "kyozon-relay-proof@example.com"

var errNoStartTLS = errors.New("it does not offer STARTTLS, and tls.starttls of its pool requires it")

var errMute = errors.New("it has gone, or said nothing, before it was asked")

// inquiry asks a backend, in the name of a client that there is not, as a flow of such a client would: whether it can be
// told who the client is, and whether it relays his mail to strangers. No message is sent. It is the handler of its
// connection.
//
//	dialled ─▶ greeting ─▶ EHLO ─▶ (STARTTLS ─▶ EHLO) ─▶ (XCLIENT ─▶ EHLO) ─▶ MAIL ─▶ RCPT ─▶ done
type inquiry struct {
	told   backend.Told
	helo   string
	relays bool // whether it relays is asked
	passed bool // clients are passed through to it
	secure bool // TLS comes first
	done   func(answer)

	patience time.Duration // for one answer

	flow   *backend.Flow
	out    smtp.Client
	has    smtp.Keywords
	banner []byte
	named  bool // XCLIENT has been accepted
	clear  bool // it does not agree to TLS, and need not
	before bool // something must come before EHLO
	step   func(smtp.Reply)
}

// answer is what an inquiry has found.
type answer struct {
	err     error  // it could not be asked at all
	refuses string // why it cannot be told who the client is; "" if it can
	relayed string // whom it would relay for; "" if it would not

	// believes is who could say for whom he speaks, where clients are passed through; "" if none could.
	believes string

	banner string
	before bool // something must come before EHLO
	has    smtp.Keywords
}

// dialled is called when the backend has been reached, or cannot be.
func (i *inquiry) dialled(f *backend.Flow, err error) {
	if err != nil {
		i.done(answer{err: err})
		return
	}
	i.flow, i.step = f, i.greeted
	f.Cut = func(metrics.Reason) { i.end(answer{err: errMute}) }
	i.out.Sent(smtp.Other)
	if i.secure {
		encrypt(f.Conn, i.encrypted)
		return
	}
	i.listen()
}

func (i *inquiry) listen() {
	i.flow.Conn.SetHandler(i)
	i.flow.Conn.SetTimeout(i.patience)
}

// encrypted goes on in TLS, and begins anew if something has been said already.
func (i *inquiry) encrypted(err error) {
	switch {
	case i.done == nil: // it was cut
		i.flow.Conn.Close()
	case err != nil:
		i.end(answer{err: err})
	case i.banner == nil:
		i.listen()
	default:
		i.has = smtp.Keywords{}
		i.say(smtp.Ehlo, "EHLO "+i.helo, i.met)
		i.listen()
	}
}

// Data implements relay.Handler.
func (i *inquiry) Data(c *relay.Conn, p []byte) (used int) {
	for i.done != nil {
		r, _, n, refusal := i.out.Next(p[used:])
		if refusal != 0 {
			i.end(answer{err: refusal})
			break
		}
		if n == 0 {
			return used
		}
		used += n
		c.SetTimeout(i.patience)
		i.step(r)
	}
	return len(p)
}

// Event implements relay.Handler.
func (i *inquiry) Event(_ *relay.Conn, e relay.Event) {
	if e != relay.Drained {
		i.mute()
	}
}

// Closed implements relay.Handler.
func (i *inquiry) Closed(*relay.Conn, error) { i.mute() }

// mute ends the inquiry with a backend that says nothing more. One that waits for, or does not like, a PROXY header is
// mute from the beginning.
func (i *inquiry) mute() {
	if i.banner == nil {
		i.end(answer{refuses: "it does not greet"})
		return
	}
	i.end(answer{err: errMute})
}

// end leaves, and tells.
func (i *inquiry) end(a answer) {
	done := i.done
	if done == nil {
		return
	}
	i.done = nil
	i.flow.Conn.Write([]byte("QUIT\r\n"))
	i.flow.Conn.SetHandler(leaving{})
	i.flow.Conn.SetTimeout(lingerTime)
	i.flow.End(metrics.Counts{}, metrics.Fine)
	a.banner, a.before, a.has = string(i.banner), i.before, i.has
	done(a)
}

func (i *inquiry) say(v smtp.Verb, line string, next func(smtp.Reply)) {
	i.out.Sent(v)
	i.step = next
	i.flow.Conn.Write([]byte(line + "\r\n"))
}

func (i *inquiry) greeted(r smtp.Reply) {
	if r.Code != 220 { // who gets no PROXY header but wants one may say so
		i.end(answer{refuses: said("no service", r).Error()})
		return
	}
	i.banner = likeness(r.Raw)
	i.say(smtp.Ehlo, "EHLO "+i.helo, i.met)
}

// likeness is what of a greeting stays the same while a server does: without digits, which are often the time.
func likeness(greeting []byte) []byte {
	return bytes.Map(func(r rune) rune {
		if '0' <= r && r <= '9' {
			return -1
		}
		return r
	}, greeting)
}

func said(what string, r smtp.Reply) error { return fmt.Errorf("%s: %q", what, bytes.TrimSpace(r.Raw)) }

func (i *inquiry) met(r smtp.Reply) {
	i.before = r.Code == 503 // of EHLO, before which nothing comes: Exim says so after it has waited for a PROXY header
	if r.Code == 250 {
		i.has = smtp.ParseKeywords(smtp.Reply{Code: r.Code, Raw: bytes.Clone(r.Raw)})
	}
	if i.upgrades() {
		return
	}
	switch {
	case i.passed && len(i.has.Xclient) > 0:
		i.end(answer{believes: seenBy(i.flow)})
	case i.told.Handover != backend.HandoverXclient || i.named:
		i.ask()
	case len(i.has.Xclient) == 0:
		i.end(answer{refuses: "it does not offer XCLIENT to this machine"})
	default:
		x := smtp.AppendXclient(nil, i.has.Xclient, smtp.Identity{Client: i.flow.Carried(), Dialled: i.flow.Dialled(), Helo: []byte(i.helo)})
		i.say(smtp.Xclient, string(bytes.TrimSpace(x)), func(r smtp.Reply) {
			if r.Code != 220 {
				i.end(answer{refuses: said("it refuses XCLIENT with "+i.flow.Carried().Addr().String(), r).Error()})
				return
			}
			i.named = true
			i.say(smtp.Ehlo, "EHLO "+i.helo, i.met)
		})
	}
}

// upgrades says whether TLS comes first, as for a flow: see link.upgrade. Who is passed through will ask for it if it is
// offered.
func (i *inquiry) upgrades() bool {
	if i.passed {
		if i.flow.Conn.TLS() != nil || !i.has.StartTLS {
			return false
		}
		i.say(smtp.StartTLS, "STARTTLS", func(r smtp.Reply) {
			if r.Code != 220 {
				i.end(answer{err: said("it refuses STARTTLS", r)})
				return
			}
			encrypt(i.flow.Conn, i.encrypted)
		})
		return true
	}
	t := i.flow.Pool.Spec.TLS
	if !t.Asks() || i.flow.Conn.TLS() != nil || t.Start == probe.Offered && (i.clear || !i.has.StartTLS) {
		return false
	}
	if !i.has.StartTLS {
		i.end(answer{err: errNoStartTLS})
		return true
	}
	i.say(smtp.StartTLS, "STARTTLS", func(r smtp.Reply) {
		if r.Code != 220 {
			if i.clear = t.Start == probe.Offered; i.clear {
				i.say(smtp.Ehlo, "EHLO "+i.helo, i.met)
				return
			}
			i.end(answer{err: said("it refuses STARTTLS", r)})
			return
		}
		i.flow.StartTLS(askTime, i.encrypted)
	})
	return true
}

// ask asks whether mail of the client would be relayed. Who may not send at all is not relayed for.
func (i *inquiry) ask() {
	if !i.relays {
		i.end(answer{})
		return
	}
	i.say(smtp.Mail, "MAIL FROM:<>", func(r smtp.Reply) {
		if r.Code/100 != 2 {
			i.end(answer{})
			return
		}
		i.say(smtp.Rcpt, "RCPT TO:<"+stranger+">", func(r smtp.Reply) {
			a := answer{}
			if r.Code/100 == 2 {
				a.relayed = seenBy(i.flow)
			}
			i.end(a)
		})
	})
}

// seenBy is the address that the backend of a flow takes for the client's.
func seenBy(f *backend.Flow) string {
	switch {
	case f.Backend.Told().Handover != backend.HandoverNone:
		return f.Carried().Addr().String()
	case f.Source.IsValid():
		return f.Source.String()
	}
	return f.Conn.Local().Addr().String()
}
