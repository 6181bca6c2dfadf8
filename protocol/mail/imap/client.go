// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package imap

import (
	"bytes"
	"net/netip"
	"strconv"

	"github.com/kyozon/kyozon/protocol/mail/login"
)

// Client is our side towards a backend, from its greeting on. It implements login.Client.
//
//	greeting ─▶ STARTTLS, if it is to be ─▶ CAPABILITY, if it was not told ─▶ ID, to say who the client is ─▶ the client's login ─▶ its answer
type Client struct {
	Limits   login.Limits
	Identity login.Identity
	Login    *login.Login // nil only asks what the backend can do
	Privacy  login.Privacy

	step   step
	offers []byte // what it has said in clear is forgotten
	replay replay
	out    []byte
}

type step uint8

const (
	greeting step = iota
	upgrading
	capability
	identity
	asking // the login
	done
)

// ourTag is that of our own commands.
const ourTag = "kyozon"

// Offers implements login.Client.
func (c *Client) Offers() []byte { return c.offers }

// Next implements login.Client.
func (c *Client) Next(p []byte) (login.Event, int) {
	if len(p) == 0 || c.step == done {
		return login.Event{}, 0
	}
	r, n, refusal := parseResponse(p, c.Limits.MaxResponse())
	if refusal != 0 {
		return c.fail(refusal), len(p)
	}
	if n == 0 {
		return login.Event{}, 0
	}
	if r.is("BYE") && string(r.tag) == "*" {
		return c.fail(login.Bye), n
	}
	if text := r.offers(); text != nil && c.step < asking { // those of after the login are the client's
		c.offers = bytes.Clone(text)
	}
	switch c.step {
	case greeting:
		return c.greeted(&r), n
	case upgrading:
		return c.agreed(&r, len(p) > n), n
	case asking:
		return c.answered(&r), n
	}
	return c.own(&r), n
}

func (c *Client) fail(r login.Refusal) login.Event {
	c.step = done
	return login.Event{Kind: login.Failed, Refusal: r}
}

func (c *Client) greeted(r *response) login.Event {
	switch {
	case string(r.tag) == "*" && r.is("PREAUTH"): // whose mailbox would it be?
		return c.fail(login.Preauth)
	case string(r.tag) != "*" || !r.is("OK"):
		return c.fail(login.BadReply)
	case c.Privacy == login.Clear:
		return c.inquire()
	case c.offers == nil || has(c.offers, "STARTTLS"):
		c.step = upgrading
		return c.say(ourTag + " STARTTLS\r\n")
	}
	return c.refused()
}

// agreed takes the answer to STARTTLS. more: the backend has said something behind it, which would be believed as if it had been
// encrypted. RFC 9051 §6.2.1.
func (c *Client) agreed(r *response, more bool) login.Event {
	switch {
	case string(r.tag) == "*":
		return login.Event{}
	case string(r.tag) != ourTag:
		return c.fail(login.BadReply)
	case !r.is("OK"):
		return c.refused()
	case more:
		return c.fail(login.Pipelined)
	}
	return login.Event{Kind: login.Encrypt}
}

// Secured implements login.Client. What the backend has said in clear it need not have said. RFC 9051 §6.2.1.
func (c *Client) Secured() login.Event {
	c.offers = nil
	return c.inquire()
}

// refused goes on without TLS, if that may be.
func (c *Client) refused() login.Event {
	if c.Privacy == login.Required {
		return c.fail(login.NoTLS)
	}
	return c.inquire()
}

// inquire asks what the backend can do, if it has not said so.
func (c *Client) inquire() login.Event {
	if c.offers == nil {
		c.step = capability
		return c.say(ourTag + " CAPABILITY\r\n")
	}
	return c.introduce()
}

// own takes the answers to our own commands.
func (c *Client) own(r *response) login.Event {
	switch {
	case string(r.tag) == "*":
		return login.Event{}
	case string(r.tag) != ourTag || c.offers == nil:
		return c.fail(login.BadReply)
	case c.step == identity && !r.is("OK"):
		return c.fail(login.Untold)
	case c.step == capability && !r.is("OK"):
		return c.fail(login.BadReply)
	case c.step == capability:
		return c.introduce()
	}
	return c.begin()
}

// introduce says who the client is. Dovecot takes these fields in the first ID of a connection from a trusted network, and
// none later: what the client says of itself behind its login is not believed.
func (c *Client) introduce() login.Event {
	if c.Login == nil {
		c.step = done
		return login.Event{Kind: login.Learned}
	}
	if !c.Identity.Told {
		return c.begin()
	}
	if !has(c.offers, "ID") {
		return c.fail(login.Untold)
	}
	c.step = identity
	c.out = append(c.out[:0], ourTag+` ID ("x-originating-ip" "`...)
	c.out = append(c.appendAddr(c.Identity.Client, `" "x-originating-port" "`), '"')
	if d := c.Identity.Dialled; d.Addr().Is4() == c.Identity.Client.Addr().Is4() { // or it would be of the other family
		c.out = append(c.out, ` "x-connected-ip" "`...)
		c.out = append(c.appendAddr(d, `" "x-connected-port" "`), '"')
	}
	c.out = append(c.out, ")\r\n"...)
	return login.Event{Kind: login.Send, Text: c.out}
}

func (c *Client) appendAddr(a netip.AddrPort, between string) []byte {
	return strconv.AppendUint(append(a.Addr().AppendTo(c.out), between...), uint64(a.Port()), 10)
}

// begin says the client's login.
func (c *Client) begin() login.Event {
	c.step = asking
	c.replay = newReplay(c.Login, c.offers)
	text, _ := c.replay.next()
	return login.Event{Kind: login.Send, Text: text}
}

// answered takes what a backend says to a login.
func (c *Client) answered(r *response) login.Event {
	switch tag := string(r.tag); {
	case r.refers():
		return c.fail(login.Referred)
	case tag == "+":
		text, ok := c.replay.next()
		switch {
		case ok:
			return login.Event{Kind: login.Send, Text: text}
		case c.Login.Mechanism == nil:
			return c.fail(login.BadReply)
		}
		return login.Event{Kind: login.Asked, Text: r.raw}
	case tag == "*":
		return login.Event{Kind: login.Inform, Text: r.raw}
	case tag != string(c.Login.Tag):
		return c.fail(login.BadReply)
	case r.is("OK") && len(c.replay.pieces) == 0:
		c.step = done
		return login.Event{Kind: login.Accepted, Text: r.raw}
	case r.is("NO"), r.is("BAD"):
		c.step = done
		return login.Event{Kind: login.Denied, Text: r.raw}
	}
	return c.fail(login.BadReply)
}

func (c *Client) say(text string) login.Event {
	c.out = append(c.out[:0], text...)
	return login.Event{Kind: login.Send, Text: c.out}
}
