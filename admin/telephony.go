// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"fmt"
	"io"
	"strings"

	"github.com/kyozon/kyozon/service"
)

// WriteCalls writes a line for each call under way.
func WriteCalls(w io.Writer, all []service.Call, style Style) error {
	if len(all) == 0 {
		return say(w, "no call is under way")
	}
	t := newTable(style, "ID", "SERVICE", "STATE", ">AGE", "FROM", "TO", "CALLER", "CALLED", "MEDIA")
	for _, c := range all {
		since := c.Start
		if c.Answer != nil {
			since = *c.Answer
		}
		from, called := c.From, ""
		if c.Withheld {
			from += " (withheld)"
		}
		if c.Called != nil {
			called = callLeg(c.Called)
		}
		t.row(plain(c.ID), plain(c.Service), plain(c.State), number(age(t.now, since)), plain(from), plain(c.To), plain(callLeg(&c.Caller)),
			plain(called), plain(c.Media))
	}
	return t.write(w)
}

// WriteExplanation writes why a call goes as it does. What telephones have written is shown as all else of theirs is.
func WriteExplanation(w io.Writer, x *service.Explanation, style Style) error {
	t := newTable(style)
	c := &x.Call
	say := func(name, text string) { t.row(plain(name), plain(text)) }
	say("call", c.ID+" of "+c.Service+", "+c.State+", from "+c.From+" to "+c.To)
	say("caller", callLeg(&c.Caller)+", "+c.Caller.Address.String())
	for i, step := range x.Number {
		say([]string{"number", ""}[min(i, 1)], step)
	}
	for _, b := range x.Branches {
		to := b.State
		if b.Called.Peer != "" {
			to = callLeg(&b.Called) + ", " + b.Called.Address.String() + ": " + b.State
		}
		say("called", to)
		for i, step := range b.Steps {
			say([]string{"media", ""}[min(i, 1)], step)
		}
	}
	return t.write(w)
}

// callLeg says where one end of a call is, and over which family.
func callLeg(l *service.CallLeg) string {
	return fmt.Sprintf("%s %s %s", l.Peer, l.Network, familyName(l.Family))
}

// WriteRegistrations writes a line for each address at which a subscriber is reached.
func WriteRegistrations(w io.Writer, all []service.Registration, style Style) error {
	if len(all) == 0 {
		return say(w, "nobody is registered")
	}
	t := newTable(style, "SUBSCRIBER", "SERVICE", "NETWORK", "FAMILY", "OVER", "ADDRESS", ">EXPIRES", "USER AGENT")
	for _, r := range all {
		t.row(plain(r.Name), plain(r.Service), plain(r.Network), plain(familyName(r.Family)), plain(strings.ToLower(r.Transport)), plain(r.Address.String()),
			number(until(t.now, r.Expires)), plain(r.Agent))
	}
	return t.write(w)
}

// WriteSubscriber writes all that is known of the registrations of one subscriber.
func WriteSubscriber(w io.Writer, all []service.Registration, style Style) error {
	if len(all) == 0 {
		return say(w, "not registered")
	}
	t := newTable(style)
	for _, r := range all {
		for _, line := range [][2]string{{"subscriber", r.Name + " of " + r.Service}, {"contact", r.Contact},
			{"network", r.Network + ", " + familyName(r.Family) + ", " + strings.ToLower(r.Transport)}, {"address", r.Address.String()},
			{"expires", until(t.now, r.Expires)}, {"user agent", r.Agent}, {"device", r.Instance}, {"path", r.Path}} {
			if line[1] != "" {
				t.row(plain(line[0]), plain(line[1]))
			}
		}
	}
	return t.write(w)
}
