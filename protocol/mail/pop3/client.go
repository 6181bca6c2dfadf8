// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package pop3

import (
	"bytes"
	"strconv"

	"github.com/kyozon/kyozon/protocol/mail/login"
)

// Client is our side towards a backend, from its greeting on. It implements login.Client.
//
//	greeting ─▶ (STLS) ─▶ XCLIENT, to say who the client is ─▶ USER, PASS or AUTH ─▶ its answer
//	                   └▶ CAPA, if there is no login
type Client struct {
	Limits   login.Limits
	Identity login.Identity
	Login    *login.Login // nil only asks what the backend can do
	Privacy  login.Privacy

	step   step
	trusts bool // the greeting says that it believes who the client is
	offers []byte
	out    []byte
}

type step uint8

const (
	greeting step = iota
	upgrading
	capability
	listing // the lines of CAPA
	identity
	user    // USER, or AUTH without its first message
	message // PASS, or the exchange
	done
)

// Offers implements login.Client.
func (c *Client) Offers() []byte { return c.offers }

// Next implements login.Client.
func (c *Client) Next(p []byte) (login.Event, int) {
	if len(p) == 0 || c.step == done {
		return login.Event{}, 0
	}
	line, n, refusal := login.NextLine(p, c.Limits.MaxResponse())
	if refusal != 0 {
		return c.fail(login.BadReply), len(p)
	}
	if n == 0 {
		return login.Event{}, 0
	}
	if c.step == listing {
		return c.listed(line), n
	}
	word, _ := split(line)
	switch {
	case string(word) == "+OK" && c.step == upgrading && len(p) > n: // would be believed as if it had been encrypted
		return c.fail(login.Pipelined), n
	case string(word) == "+OK":
		return c.good(line, p[:n]), n
	case string(word) == "-ERR":
		return c.bad(p[:n]), n
	case string(word) == "+" && c.Login != nil && c.Login.Mechanism != nil:
		return c.more(p[:n]), n
	}
	return c.fail(login.BadReply), n
}

func (c *Client) fail(r login.Refusal) login.Event {
	c.step = done
	return login.Event{Kind: login.Failed, Refusal: r}
}

// good takes +OK.
func (c *Client) good(line, raw []byte) login.Event {
	switch c.step {
	case greeting:
		return c.greeted(line)
	case upgrading: // RFC 2595 §4
		return login.Event{Kind: login.Encrypt}
	case capability:
		c.step, c.offers = listing, []byte{}
		return login.Event{}
	case identity:
		return c.begin()
	case user:
		if c.Login.Mechanism == nil {
			c.step = message
			return c.say("PASS ", c.Login.Password)
		}
		return c.fail(login.BadReply) // let in before all was said
	}
	c.step = done
	return login.Event{Kind: login.Accepted, Text: raw}
}

// bad takes -ERR.
func (c *Client) bad(raw []byte) login.Event {
	switch c.step {
	case greeting:
		return c.fail(login.Bye)
	case upgrading:
		if c.Privacy == login.Required {
			return c.fail(login.NoTLS)
		}
		return c.introduce()
	case capability: // a server from before RFC 2449
		c.step, c.offers = done, []byte("USER\r\n")
		return login.Event{Kind: login.Learned}
	case identity:
		return c.fail(login.Untold)
	}
	c.step = done
	return login.Event{Kind: login.Denied, Text: raw}
}

// more takes a challenge. RFC 5034 §4.
func (c *Client) more(raw []byte) login.Event {
	switch c.step {
	case user:
		c.step = message
		return c.say("", c.Login.Message)
	case message:
		return login.Event{Kind: login.Asked, Text: raw}
	}
	return c.fail(login.BadReply)
}

// greeted asks for TLS, if that is to be.
func (c *Client) greeted(line []byte) login.Event {
	c.trusts = bytes.Contains(line, []byte("[XCLIENT]"))
	if c.Privacy != login.Clear {
		c.step = upgrading
		return c.say("STLS", nil)
	}
	return c.introduce()
}

// Secured implements login.Client. There is no second greeting. RFC 2595 §4.
func (c *Client) Secured() login.Event { return c.introduce() }

// introduce says who the client is. A Dovecot that believes it says so in its greeting; it takes a bare address, and would
// take another later: a client is never let through before its login. Who has put that into a greeting in clear has won
// nothing: the server then refuses it in TLS.
func (c *Client) introduce() login.Event {
	switch {
	case c.Login == nil:
		c.step = capability
		return c.say("CAPA", nil)
	case !c.Identity.Told:
		return c.begin()
	case !c.trusts:
		return c.fail(login.Untold)
	}
	c.step = identity
	a := c.Identity.Client
	text := append(a.Addr().AppendTo([]byte("ADDR=")), " PORT="...)
	return c.say("XCLIENT ", strconv.AppendUint(text, uint64(a.Port()), 10))
}

// begin says the client's login.
func (c *Client) begin() login.Event {
	c.step = user
	if c.Login.Mechanism == nil {
		return c.say("USER ", c.Login.User)
	}
	return c.say("AUTH ", c.Login.Mechanism)
}

// listed takes a line of the answer to CAPA. RFC 2449 §5.
func (c *Client) listed(line []byte) login.Event {
	if string(line) == "." {
		c.step = done
		return login.Event{Kind: login.Learned}
	}
	if len(c.offers)+len(line) > c.Limits.MaxResponse() {
		return c.fail(login.BadReply)
	}
	c.offers = append(append(c.offers, line...), "\r\n"...)
	return login.Event{}
}

func (c *Client) say(command string, argument []byte) login.Event {
	c.out = append(append(append(c.out[:0], command...), argument...), "\r\n"...)
	return login.Event{Kind: login.Send, Text: c.out}
}
