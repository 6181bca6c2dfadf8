// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phonetest

import (
	"fmt"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// SDP is the type of descriptions of media.
const SDP = "application/sdp"

// Call is a call as one of its ends has it.
type Call struct {
	*Telephone
	Family ip.Family // of its signalling
	Invite *Message  // that has begun it, at the called end

	id, local, remote string // Call-ID, and the addresses with their tags
	target            string // where requests go
	number            uint32 // of the last request
	asking            []byte // the INVITE that has no final answer
	asked             string // its Via
}

// Dial calls a number over a family, and proves who calls. What comes then is the caller's to want.
func (p *Telephone) Dial(f ip.Family, number, body string) *Call {
	p.t.Helper()
	c := &Call{Telephone: p, Family: f, id: token(), local: fmt.Sprintf("<sip:%s@%s>;tag=%s", p.Name, p.Domain, token()),
		remote: fmt.Sprintf("<sip:%s@%s>", number, p.Domain), target: "sip:" + number + "@" + p.Domain}
	c.invite(body)
	challenge := p.Want("401")
	c.refused(challenge)
	p.learn(challenge)
	c.invite(body, p.proof("INVITE", c.target))
	return c
}

// Called waits until the telephone is called.
func (p *Telephone) Called() *Call {
	p.t.Helper()
	m := p.Want("INVITE")
	c := &Call{Telephone: p, Family: m.Family, Invite: m, id: string(m.Get(sip.CallID)), local: string(m.Get(sip.To)) + ";tag=" + token(),
		remote: string(m.Get(sip.From))}
	c.learnTarget(m)
	return c
}

func (c *Call) learnTarget(m *Message) {
	m.Values(sip.Contact, func(a *sip.Address) bool {
		c.target = string(a.URI)
		return false
	})
}

// invite sends an INVITE.
func (c *Call) invite(body string, lines ...string) {
	c.t.Helper()
	c.asked = c.via(c.Family)
	c.number++
	c.asking = c.request("INVITE", c.asked, c.number, SDP, body, lines...)
	c.send(c.Family, c.asking)
}

// request writes a request of the call.
func (c *Call) request(method, via string, number uint32, kind, body string, lines ...string) []byte {
	head := []string{"Via: " + via, "From: " + c.local, "To: " + c.remote, "Call-ID: " + c.id, fmt.Sprintf("CSeq: %d %s", number, method)}
	if method == "INVITE" {
		head = append(head, "Contact: "+c.contact(c.Family))
	}
	return write(method, c.target, append(head, lines...), kind, body)
}

// refused acknowledges a failure. RFC 3261 §17.1.1.3.
func (c *Call) refused(m *Message) {
	c.t.Helper()
	remote := c.remote
	c.remote = string(m.Get(sip.To))
	c.send(c.Family, c.request("ACK", c.asked, c.number, "", ""))
	c.remote = remote
}

// Taken waits for a 2xx to an INVITE, and acknowledges it with a body, which may be empty.
func (c *Call) Taken(body string) *Message {
	c.t.Helper()
	m := c.Want("200")
	c.remote = string(m.Get(sip.To))
	c.learnTarget(m)
	c.send(c.Family, c.request("ACK", c.via(c.Family), c.number, SDP, body))
	return m
}

// Refused waits for a failure of an INVITE, and acknowledges it.
func (c *Call) Refused(status string) *Message {
	c.t.Helper()
	m := c.Want(status)
	c.refused(m)
	return m
}

// Invites asks the other end for other media.
func (c *Call) Invites(body string) { c.t.Helper(); c.invite(body) }

// Asks sends a request within the call. Its answer is the caller's to want.
func (c *Call) Asks(method, kind, body string) {
	c.t.Helper()
	c.number++
	c.send(c.Family, c.request(method, c.via(c.Family), c.number, kind, body))
}

// Asked waits for a request of the other end.
func (c *Call) Asked(method string) *Message {
	c.t.Helper()
	m := c.Want(method)
	if method == "INVITE" {
		c.learnTarget(m)
	}
	return m
}

// Answer answers a request of the other end.
func (c *Call) Answer(m *Message, status int, body string) {
	c.t.Helper()
	a := &sip.Answer{Status: status, Dialog: true, Type: SDP, Body: []byte(body), Lines: []byte("Contact: " + c.contact(c.Family) + "\r\n")}
	if local, _, err := sip.ParseAddress([]byte(c.local)); err == nil {
		a.Tag = local.Tag()
	}
	c.reply(m, a)
}

// Cancels gives up, and waits until that is said to be done. RFC 3261 §9.1.
func (c *Call) Cancels() {
	c.t.Helper()
	c.send(c.Family, c.request("CANCEL", c.asked, c.number, "", ""))
	c.Want("200")
	c.Refused("487")
}

// Cancelled waits until the other end has given up, and says so to its INVITE.
func (c *Call) Cancelled() {
	c.t.Helper()
	m := c.Want("CANCEL")
	c.reply(m, &sip.Answer{Status: 200})
	c.Answer(c.Invite, 487, "")
	c.Want("ACK")
}

// HangUp ends a call, of which other is the other end.
func (c *Call) HangUp(other *Call) {
	c.t.Helper()
	c.Asks("BYE", "", "")
	c.Want("200")
	other.Answer(other.Want("BYE"), 200, "")
}
