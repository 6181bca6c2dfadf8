// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"strings"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// numbers are those of the bench's subscribers, and routes without a trunk.
const numbers = ", numbers: {own: 0501000xxxx, plan: japan}, routes: [{to: own, via: subscribers}, {to: emergency, via: subscribers}," +
	" {to: premium, deny: No Premium Numbers}]"

// A call goes where the number plan has it: however the number is written, and whatever stands before it.
func TestNumbers(t *testing.T) {
	t.Parallel()
	b := newBench(t, numbers)
	each(t, func(t *testing.T, transport string, f ip.Family) {
		b.t = t
		caller, callee := b.registered(transport, f, "05010000001"), b.registered(transport, f, "05010000002")
		defer callee.unregister()
		const shown, hidden = "<sip:05010000001@" + domain + ">", anonymous
		for _, test := range []struct {
			dialled, line             string
			from, asserted, privacies string
		}{
			{"05010000002", "Subject: x", shown, shown, ""},
			{"+815010000002", "Subject: x", shown, shown, ""},
			{"050-1000-0002;x=y", "Subject: x", shown, shown, ""},
			{"18405010000002", "Privacy: none", hidden, "", "id"},
			{"18605010000002", "Privacy: id", shown, shown, "none"},
			{"05010000002", "Privacy: id", hidden, "", "id"},
			{"05010000002", "Privacy: none", shown, shown, "none"},
		} {
			r := caller.invite(test.dialled, test.line)
			m := callee.want("INVITE")
			from, _, _ := strings.Cut(string(m.Get(sip.From)), ";tag=")
			if from != test.from || string(m.Get(sip.PAssertedIdentity)) != test.asserted || string(m.Get(sip.Privacy)) != test.privacies {
				t.Errorf("%s, %s: got\n%s", test.dialled, test.line, m.Head())
			}
			if to := string(m.Get(sip.To)); to != "<sip:05010000002@"+domain+">" {
				t.Errorf("%s: got To %q", test.dialled, to)
			}
			callee.response(m, 486, "")
			callee.want("ACK")
			caller.send(reply(r, caller.want("486"), "ACK"))
		}
		for _, test := range []struct{ dialled, status, phrase string }{
			{"0501000000", "484", "Address Incomplete"},
			{"0990123456", "403", "No Premium Numbers"},
			{"0312345678", "404", "Not Found"},
			{"05010009999", "404", "Not Found"},
			{"110", "404", "Not Found"},
			{"alice", "404", "Not Found"},
			{"05010000008", "480", "Temporarily Unavailable"},
		} {
			r := caller.invite(test.dialled)
			m := caller.want(test.status)
			if string(m.Phrase()) != test.phrase {
				t.Errorf("%s: got %s, want %s", test.dialled, m.Phrase(), test.phrase)
			}
			caller.send(reply(r, m, "ACK"))
		}
	})
}

// Who calls anonymously is not shown, and is himself: 186 shows him.
func TestAnonymous(t *testing.T) {
	t.Parallel()
	b := newBench(t, numbers)
	each(t, func(t *testing.T, transport string, f ip.Family) {
		b.t = t
		caller, callee := b.registered(transport, f, "05010000001"), b.registered(transport, f, "05010000002")
		defer callee.unregister()
		caller.from = anonymous
		for prefix, want := range map[string]string{"": anonymous, "186": "<sip:05010000001@" + domain + ">"} {
			r := caller.invite(prefix + "05010000002")
			m := callee.want("INVITE")
			if from, _, _ := strings.Cut(string(m.Get(sip.From)), ";tag="); from != want || m.Has(sip.PAssertedIdentity) != (prefix == "186") {
				t.Errorf("%q: got\n%s", prefix, m.Head())
			}
			callee.response(m, 486, "")
			callee.want("ACK")
			caller.send(reply(r, caller.want("486"), "ACK"))
		}
	})
}
