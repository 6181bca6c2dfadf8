// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/internal/phonetest"
	"github.com/kyozon/kyozon/ip"
)

// TestMedia has telephones of each families call each other, each in a namespace that has no more than its families, and hear what is said: tones,
// digits, reports, and what is encrypted; before the answer, on hold and after it, when an end moves to another port or another family, when
// it gives up, and when two telephones ring. The media are direct where both ends have named one family, and relayed where they have not.
//
// With KYOZON_SOAK=1 all is done several times, with more packets.
func TestMedia(t *testing.T) {
	l := upMedia(t)
	rounds := 1
	if os.Getenv("KYOZON_SOAK") != "" {
		rounds = 5
	}
	for range rounds {
		for _, caller := range kinds() {
			for _, called := range kinds() {
				if !t.Run(fmt.Sprintf("%v→%v", caller, called), func(t *testing.T) { combine(t, l, [2]families{caller, called}) }) {
					return // a call may be left, which others would be taken for
				}
			}
		}
	}
}

// combine has two kinds of telephones do all that they can.
func combine(t *testing.T, l *Lab, kinds [2]families) {
	c := &combination{t: t, lab: l, kinds: kinds}
	for i, k := range kinds {
		c.phones[i] = l.telephone(t, k, i+1)
	}
	c.talk()
	c.secret()
	c.multiplexed()
	c.cancelled()
	c.forked()
	for _, p := range c.phones {
		p.Register(0)
	}
}

// combination is two kinds of telephones.
type combination struct {
	t      *testing.T
	lab    *Lab
	kinds  [2]families
	phones [2]*phonetest.Telephone
}

// packets is how many packets of a tone are said each time: half a second, or ten with KYOZON_SOAK.
func packets() int {
	if os.Getenv("KYOZON_SOAK") != "" {
		return 500
	}
	return 25
}

// ring has one telephone call another, which then rings. How media go at first follows from what the caller offers: the family that it
// signals over; a telephone that has it is reached over it.
func (c *combination) ring(lines []string, secure bool) *pair {
	c.t.Helper()
	from := c.kinds[0][0]
	p := &pair{t: c.t, lab: c.lab, caller: &end{tone: callerTone}, called: &end{tone: calledTone}}
	p.caller.Call = &phonetest.Call{Telephone: c.phones[0]} // that listens
	p.caller.say.Lines, p.caller.say.Secure = lines, secure
	p.called.say.Lines, p.called.say.Secure = lines, secure
	p.caller.listen(from)
	p.caller.Call = c.phones[0].Dial(from, calledNumber, p.caller.describe())
	p.called.Call = c.phones[1].Called()
	p.called.listen(p.called.Family)
	p.called.learn(c.t, p.called.Invite)
	return p
}

// shares says whether the callee has the family that the caller offers.
func (c *combination) shares() bool {
	return slices.Contains(c.kinds[1], c.kinds[0][0])
}

// answer has the callee answer.
func (p *pair) answer() {
	p.t.Helper()
	p.called.Answer(p.called.Invite, 200, p.called.describe())
	p.caller.learn(p.t, p.caller.Taken(""))
	p.called.Want("ACK")
}

// over ends a call, looks at what was heard of addresses, and at the record.
func (c *combination) over(p *pair, what string) {
	c.t.Helper()
	p.called.HangUp(p.caller.Call)
	idle(c.t, c.lab)
	unmixed(c.t, map[*phonetest.Telephone]families{c.phones[0]: c.kinds[0], c.phones[1]: c.kinds[1]})
	c.t.Logf("%s: %s", what, strings.Join(p.words, "; "))
}

// talk is a long call: early media, the answer, digits, reports, hold and resume, other ports, another family.
func (c *combination) talk() {
	p := c.ring(nil, false)
	p.called.Answer(p.called.Invite, 183, p.called.describe())
	p.caller.learn(c.t, p.caller.Want("183"))
	p.direct(c.shares())
	p.voices(packets())
	p.answer()
	p.direct(c.shares())
	p.path(c.shares())
	p.voices(packets())
	p.digits("1590#*", p.caller, p.called)
	p.digits("2846AD", p.called, p.caller)
	p.info("5", p.caller, p.called)
	p.info("7", p.called, p.caller)
	p.reports(phonetest.RTCP)
	p.hold(p.caller, p.called, "sendonly", "recvonly")
	p.hold(p.called, p.caller, "inactive", "inactive")
	for _, e := range p.ways() { // elsewhere in its family
		e[0].listen(e[0].family())
		p.offers(e[0], e[1])
		p.direct(c.shares())
		p.voices(packets())
	}
	for i, e := range p.ways() {
		if len(c.kinds[i]) == 2 {
			p.moves(e[0], e[1], len(c.kinds[1-i]) == 2)
		}
	}
	c.over(p, "talk")
}

// ways are the two ways between the ends.
func (p *pair) ways() [][2]*end { return [][2]*end{{p.caller, p.called}, {p.called, p.caller}} }

// offers has an end offer what it says now, and the other answer with what it says.
func (p *pair) offers(e, other *end) {
	p.t.Helper()
	e.Invites(e.describe())
	m := other.Asked("INVITE")
	other.learn(p.t, m)
	other.Answer(m, 200, other.describe())
	e.learn(p.t, e.Taken(""))
	other.Want("ACK")
}

// moves has an end go to its other family and back. The relay comes in where the families are not the same any more, and leaves where they
// are; so it is when the other end follows, if it can.
func (p *pair) moves(e, other *end, follows bool) {
	p.t.Helper()
	home := e.family()
	away := ip.V4 + ip.V6 - home
	to := func(who, whom *end, f ip.Family) {
		was := who.told.RTP
		who.listen(f)
		p.offers(who, whom)
		same := who.family() == whom.family()
		p.direct(same)
		p.path(same)
		p.voices(packets())
		if same {
			idle(p.t, p.lab)
		}
		p.words = append(p.words, fmt.Sprintf("from %v to %v", was, who.told.RTP))
	}
	to(e, other, away)
	if follows && other.family() == home {
		to(other, e, away)
		to(other, e, home)
	}
	to(e, other, home)
}

// hold has an end hold and resume. Who is held says nothing.
func (p *pair) hold(e, other *end, direction, answer string) {
	p.t.Helper()
	e.say.Direction, other.say.Direction = direction, answer
	p.offers(e, other)
	if e.told.Direction != answer || other.told.Direction != direction {
		p.t.Errorf("hold by %s: told of %s and %s", direction, other.told.Direction, e.told.Direction)
	}
	if direction == "sendonly" {
		p.speaks(e, other, packets())
	}
	e.say.Direction, other.say.Direction = "", ""
	p.offers(e, other)
	p.voices(packets())
}

// digits has an end press keys.
func (p *pair) digits(keys string, from, to *end) {
	p.t.Helper()
	p.opens(from, to)
	var heard []phonetest.Packet
	for _, key := range []byte(keys) {
		heard = append(heard, p.carried(from, to, phonetest.RTP, from.ear.Voice.Digit(key))...)
	}
	if got := phonetest.Digits(heard); got != keys {
		p.t.Errorf("%s was pressed, and %s heard", keys, got)
	}
	p.words = append(p.words, "pressed "+phonetest.Digits(heard))
}

// info has an end send a key by SIP.
func (p *pair) info(key string, from, to *end) {
	p.t.Helper()
	const relay = "application/dtmf-relay"
	body := "Signal=" + key + "\r\nDuration=160\r\n"
	from.Asks("INFO", relay, body)
	m := to.Asked("INFO")
	if m.Body() != body {
		p.t.Errorf("INFO has %q, want %q", m.Body(), body)
	}
	to.Answer(m, 200, "")
	from.Want("200")
	p.words = append(p.words, "INFO "+key)
}

// reports has both ends send reports from the port that they share with the media, or from that of their own.
func (p *pair) reports(port int) {
	p.t.Helper()
	for _, e := range p.ways() {
		p.opens(e[0], e[1])
		report := e[0].ear.Voice.Report()
		heard := p.carried(e[0], e[1], port, [][]byte{report, append(bytes.Clone(report), 0x81, 202, 0, 1, 1, 2, 3, 4)})
		for _, one := range heard {
			if one.At != port {
				p.t.Errorf("a report came to port %d, want %d", one.At, port)
			}
		}
		p.words = append(p.words, fmt.Sprintf("%d reports", len(heard)))
	}
}

// secret is a call that is encrypted from end to end: the keys and the packets go through as they are. RFC 4568.
func (c *combination) secret() {
	const key = "crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"
	p := c.ring([]string{key}, true)
	p.answer()
	for _, e := range p.ways() {
		if told := e[0].told.Text; !strings.Contains(told, "a="+key+"\r\n") || !strings.Contains(told, " RTP/SAVP ") {
			c.t.Errorf("%v is told\n%s", e[0].ear.Addr, told)
		}
		p.opens(e[0], e[1])
		var said [][]byte
		for range packets() {
			b := make([]byte, 170) // 160 of payload, 10 that prove it
			for i := range b {
				b[i] = byte(rand.Uint32())
			}
			said = append(said, e[0].ear.Voice.Secret(b))
		}
		heard := p.carried(e[0], e[1], phonetest.RTP, said)
		p.words = append(p.words, fmt.Sprintf("%d encrypted packets unchanged", len(heard)))
	}
	c.over(p, "secret")
}

// multiplexed is a call in which reports come to the port of the media, and one in which the callee does not want that. RFC 5761 §5.1.1.
func (c *combination) multiplexed() {
	p := c.ring([]string{"rtcp-mux"}, false)
	p.answer()
	for _, e := range p.ways() {
		if e[0].told.RTCP = e[0].told.RTP; !e[0].told.Mux {
			c.t.Errorf("%v is told\n%s", e[0].ear.Addr, e[0].told.Text)
		}
	}
	p.reports(phonetest.RTP)
	p.voices(packets())
	c.over(p, "rtcp-mux")

	p = c.ring([]string{"rtcp-mux"}, false)
	p.called.say.Lines = nil
	p.answer()
	if p.caller.told.Mux {
		c.t.Error("the caller is told of rtcp-mux")
	}
	p.reports(phonetest.RTCP)
	c.over(p, "rtcp-mux refused")
}

// cancelled is a call that the caller gives up when he has heard early media.
func (c *combination) cancelled() {
	p := c.ring(nil, false)
	p.called.Answer(p.called.Invite, 183, p.called.describe())
	p.caller.learn(c.t, p.caller.Want("183"))
	p.voices(packets())
	p.caller.Cancels()
	p.called.Cancelled()
	idle(c.t, c.lab)
	c.t.Logf("cancelled: %s", strings.Join(p.words, "; "))
}

// forked is a call for which two telephones of different families ring, and both are heard before one answers.
func (c *combination) forked() {
	k := families{ip.V4}
	if c.kinds[1][0] == ip.V4 {
		k = families{ip.V6}
	}
	third := c.lab.telephone(c.t, k, 2)
	p := c.ring(nil, false)
	q := &pair{t: c.t, lab: c.lab, caller: &end{Call: p.caller.Call, ear: p.caller.ear, tone: callerTone}, called: &end{Call: third.Called(), tone: calledTone}}
	q.called.listen(q.called.Family)
	q.called.learn(c.t, q.called.Invite)
	for _, one := range []*pair{p, q} {
		one.called.Answer(one.called.Invite, 183, one.called.describe())
		one.caller.learn(c.t, one.caller.Want("183"))
		one.direct(one.caller.family() == one.called.family())
		one.voices(packets())
	}
	p.answer()
	q.called.Cancelled()
	p.voices(packets())
	c.over(p, "forked")
	unmixed(c.t, map[*phonetest.Telephone]families{c.phones[0]: c.kinds[0], third: k})
	third.Register(0)
}
