// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/transaction"
)

// bodyOf returns the body of a message as text.
func bodyOf(m *sip.Message) string {
	b, _ := m.Body()
	return string(b)
}

// A subscriber calls another: both hear the other's media as they were said, and see addresses of their own leg alone.
func TestCall(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	each(t, func(t *testing.T, transport string, f ip.Family) {
		b.t = t
		caller, callee := b.registered(transport, f, "05010000001"), b.registered(transport, f, "05010000002")
		defer callee.unregister()
		caller.invite("05010000002", "Subject: lunch")
		invite := keep(callee.want("INVITE"))
		if got, want := string(invite.Target()), strings.Trim(callee.contact(), "<>"); got != want {
			t.Errorf("the callee is called %s, want %s", got, want)
		}
		if strings.Contains(string(invite.Head()), caller.local()) || invite.Has(sip.Authorization) {
			t.Errorf("what is the caller's leg's is shown:\n%s", invite.Head())
		}
		if got := string(invite.Get(sip.PAssertedIdentity)); got != "<sip:05010000001@"+domain+">" || !strings.Contains(string(invite.Head()), "Subject: lunch\r\n") {
			t.Errorf("the callee got\n%s", invite.Head())
		}
		if bodyOf(invite) != caller.offer() {
			t.Errorf("the offer is %q", bodyOf(invite))
		}
		callee.response(invite, 180, "")
		caller.want("180")
		callee.response(invite, 200, callee.offer())
		answer := keep(caller.want("200"))
		if bodyOf(answer) != callee.offer() || strings.Contains(string(answer.Get(sip.Contact)), callee.local()) {
			t.Errorf("the caller got\n%s%s", answer.Head(), bodyOf(answer))
		}
		seq, _ := answer.Sequence()
		caller.send(caller.within(answer, "ACK", seq.Number))
		ack := callee.want("ACK")
		if to, _, _ := sip.ParseAddress(ack.Get(sip.To)); string(to.Tag()) != "tag05010000002" {
			t.Errorf("got To %q", ack.Get(sip.To))
		}

		caller.send(caller.within(answer, "INFO", seq.Number+1))
		info := keep(callee.want("INFO"))
		callee.response(info, 200, "")
		caller.want("200")
		callee.send(callee.within(invite, "INVITE", 100)) // holds
		again := keep(caller.want("INVITE"))
		caller.response(again, 200, caller.offer())
		held := keep(callee.want("200"))
		callee.send(callee.within(invite, "ACK", 100))
		caller.want("ACK")
		_ = held

		callee.send(callee.within(invite, "BYE", 101))
		callee.want("200")
		bye := caller.want("BYE")
		caller.response(bye, 200, "")
		callee.send(callee.within(invite, "INFO", 102))
		callee.want("481")
	})
}

// Calls that come to nothing, each with what the caller hears.
func TestCallFails(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	each(t, func(t *testing.T, transport string, f ip.Family) {
		b.t = t
		caller, callee := b.registered(transport, f, "05010000001"), b.registered(transport, f, "05010000002")
		defer callee.unregister()
		fails := func(called, status string) {
			t.Helper()
			r := caller.invite(called)
			caller.send(reply(r, caller.want(status), "ACK"))
		}
		fails("05099999999", "404")
		fails("05010000009", "480") // not registered

		r := caller.invite("05010000002") // busy
		invite := callee.want("INVITE")
		callee.response(invite, 486, "")
		callee.want("ACK")
		caller.send(reply(r, caller.want("486"), "ACK"))

		r = caller.invite("05010000002") // the caller gives up
		invite = keep(callee.want("INVITE"))
		callee.response(invite, 180, "")
		caller.want("180")
		caller.send(reply(r, nil, "CANCEL"))
		caller.want("200")
		caller.send(reply(r, caller.want("487"), "ACK"))
		cancel := keep(callee.want("CANCEL"))
		callee.response(cancel, 200, "")
		callee.response(invite, 487, "")
		callee.want("ACK")

		r = caller.invite("05010000002") // he gives up as the other answers
		invite = keep(callee.want("INVITE"))
		callee.response(invite, 180, "")
		caller.want("180")
		caller.send(reply(r, nil, "CANCEL"))
		caller.want("200")
		caller.send(reply(r, caller.want("487"), "ACK"))
		callee.want("CANCEL")
		callee.response(invite, 200, callee.offer())
		callee.want("ACK")
		callee.response(keep(callee.want("BYE")), 200, "")
	})
}

// All devices of a subscriber ring; the first that answers has the call.
func TestFork(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	each(t, func(t *testing.T, transport string, f ip.Family) {
		b.t = t
		caller := b.registered(transport, f, "05010000001")
		one, two := b.registered(transport, f, "05010000002"), b.registered(transport, f, "05010000002")
		defer one.unregister()
		caller.invite("05010000002")
		first, second := keep(one.want("INVITE")), keep(two.want("INVITE"))
		one.response(first, 180, "")
		two.response(second, 180, "")
		caller.want("180")
		caller.want("180")
		two.response(second, 200, two.offer())
		answer := keep(caller.want("200"))
		one.response(keep(one.want("CANCEL")), 200, "")
		one.response(first, 487, "")
		one.want("ACK")
		seq, _ := answer.Sequence()
		caller.send(caller.within(answer, "ACK", seq.Number))
		two.want("ACK")
		caller.send(caller.within(answer, "BYE", seq.Number+1))
		caller.want("200")
		two.response(keep(two.want("BYE")), 200, "")
	})
}

// A device that is reached over both families is called over that in which the caller offers media, if he does, and once.
func TestNear(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	b.relayed("")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		caller, bound := b.registered("udp", x.Client, "05010000001"), make(map[ip.Family]*device)
		for _, f := range []ip.Family{ip.V4, ip.V6} {
			d := b.newDevice("udp", f, "05010000002")
			if status := d.register("Contact: " + d.contact() + `;+sip.instance="<urn:uuid:00000000-0000-1000-8000-000a95a0e128>"`); status != 200 {
				t.Fatalf("it cannot register: %d", status)
			}
			bound[f] = d
		}
		defer bound[x.Backend].unregister()
		caller.silent = x.Client == x.Backend // then his signalling tells
		caller.body = bound[x.Backend].offer()
		r := caller.invite("05010000002")
		near := bound[x.Backend]
		near.response(keep(near.want("INVITE")), 486, "")
		near.want("ACK")
		caller.send(reply(r, caller.want("486"), "ACK"))
	})
}

// Who is called and wants no call at all speaks for all his devices.
func TestDecline(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	each(t, func(t *testing.T, transport string, f ip.Family) {
		b.t = t
		caller := b.registered(transport, f, "05010000001")
		one, two := b.registered(transport, f, "05010000002"), b.registered(transport, f, "05010000002")
		defer one.unregister()
		r := caller.invite("05010000002")
		first, second := keep(one.want("INVITE")), keep(two.want("INVITE"))
		one.response(first, 180, "")
		caller.want("180")
		two.response(second, 603, "")
		two.want("ACK")
		caller.send(reply(r, caller.want("603"), "ACK"))
		one.response(keep(one.want("CANCEL")), 200, "")
		one.response(first, 487, "")
		one.want("ACK")
	})
}

// A device that answers an offer in the other family could not be heard: the call ends, rather than be silent.
func TestAnswerOfOtherFamily(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		caller, callee := b.registered("udp", f, "05010000001"), b.registered("udp", f, "05010000002")
		defer callee.unregister()
		other := b.newDevice("udp", map[ip.Family]ip.Family{ip.V4: ip.V6, ip.V6: ip.V4}[f], "other")
		r := caller.invite("05010000002")
		callee.response(keep(callee.want("INVITE")), 200, other.offer())
		caller.send(reply(r, caller.want("488"), "ACK"))
		callee.want("ACK")
		callee.response(keep(callee.want("BYE")), 200, "")
	})
}

// Ends of different families cannot send each other media: until they are relayed, the caller is told so.
func TestCrossings(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		caller, callee := b.registered("udp", x.Client, "05010000001"), b.registered("udp", x.Backend, "05010000002")
		defer callee.unregister()
		r := caller.invite("05010000002")
		if x.Client == x.Backend {
			callee.response(callee.want("INVITE"), 486, "")
			callee.want("ACK")
			caller.send(reply(r, caller.want("486"), "ACK"))
			return
		}
		m := caller.want("488")
		if w := string(m.Get(sip.Warning)); !strings.HasPrefix(w, "301 ") {
			t.Errorf("got Warning %q", w)
		}
		caller.send(reply(r, m, "ACK"))
	})
}

// What is lost on the way is sent again: the answer to the caller by us until he acknowledges it, and our ACK whenever the
// answer of the callee comes again.
func TestLost(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		b.each(func(a *agent) { a.table.Timers = unhurried() })
		caller, callee := b.registered("udp", f, "05010000001"), b.registered("udp", f, "05010000002")
		defer callee.unregister()
		invite := caller.invite("05010000002")
		came := keep(callee.want("INVITE"))
		caller.copies, callee.copies = true, true
		caller.send(invite) // lost, thinks the caller: nobody rings twice
		caller.want("100")
		b.each(func(a *agent) { a.table.Timers = transaction.Timers{} }) // from now on copies are waited for
		callee.response(came, 200, callee.offer())
		answer := keep(caller.want("200"))
		caller.want("200") // not acknowledged
		callee.response(came, 200, callee.offer())
		seq, _ := answer.Sequence()
		caller.send(caller.within(answer, "ACK", seq.Number))
		callee.want("ACK")
		callee.response(came, 200, callee.offer()) // it has lost the ACK
		callee.want("ACK")
		callee.send(callee.within(came, "BYE", 7))
		callee.want("200")
		caller.response(keep(caller.want("BYE")), 200, "")
	})
}

// What refers to a request by its number means the same on both legs.
func TestPrack(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	each(t, func(t *testing.T, transport string, f ip.Family) {
		b.t = t
		caller, callee := b.registered(transport, f, "05010000001"), b.registered(transport, f, "05010000002")
		defer callee.unregister()
		caller.invite("05010000002", "Supported: 100rel", "Require: 100rel")
		invite := keep(callee.want("INVITE"))
		if !invite.Lists(sip.Require, "100rel") {
			t.Errorf("got\n%s", invite.Head())
		}
		callee.response(invite, 183, callee.offer(), "Require: 100rel", "RSeq: 5")
		early := keep(caller.want("183"))
		seq, _ := early.Sequence()
		if string(early.Get(sip.RSeq)) != "5" || bodyOf(early) != callee.offer() {
			t.Errorf("got\n%s", early.Head())
		}
		prack := caller.within(early, "PRACK", seq.Number+1)
		caller.send(strings.Replace(prack, "Max-Forwards", "RAck: 5 "+index(int(seq.Number))+" INVITE\r\nMax-Forwards", 1))
		got := keep(callee.want("PRACK"))
		theirs, _ := invite.Sequence()
		if want := "5 " + index(int(theirs.Number)) + " INVITE"; string(got.Get(sip.RAck)) != want {
			t.Errorf("got RAck %q, want %q", got.Get(sip.RAck), want)
		}
		callee.response(got, 200, "")
		caller.want("200")
		callee.response(invite, 200, "")
		answer := keep(caller.want("200"))
		caller.send(caller.within(answer, "ACK", seq.Number))
		callee.want("ACK")
		caller.send(caller.within(answer, "BYE", seq.Number+2))
		caller.want("200")
		callee.response(keep(callee.want("BYE")), 200, "")
	})
}

// Two who change the call at once are both told to wait, and a change that is taken back ends.
func TestGlare(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	each(t, func(t *testing.T, transport string, f ip.Family) {
		b.t = t
		caller, callee := b.registered(transport, f, "05010000001"), b.registered(transport, f, "05010000002")
		defer callee.unregister()
		caller.invite("05010000002")
		invite := keep(callee.want("INVITE"))
		callee.response(invite, 200, callee.offer())
		answer := keep(caller.want("200"))
		seq, _ := answer.Sequence()
		caller.send(caller.within(answer, "ACK", seq.Number))
		callee.want("ACK")

		mine := withBody(caller.within(answer, "INVITE", seq.Number+1), caller.offer())
		caller.send(mine)
		changed := keep(callee.want("INVITE"))
		theirs := withBody(callee.within(invite, "INVITE", 100), callee.offer())
		callee.send(theirs)
		callee.send(reply(theirs, callee.want("491"), "ACK"))

		callee.response(changed, 180, "")
		caller.want("180")
		caller.send(reply(mine, nil, "CANCEL"))
		caller.want("200")
		callee.response(keep(callee.want("CANCEL")), 200, "")
		callee.response(changed, 487, "")
		callee.want("ACK")
		caller.send(reply(mine, caller.want("487"), "ACK"))

		caller.send(caller.within(answer, "BYE", seq.Number+2))
		caller.want("200")
		callee.response(keep(callee.want("BYE")), 200, "")
	})
}

// A call that nobody may make: in another's name, without hops, to another domain, or to a device whose connection has ended.
func TestCallRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	each(t, func(t *testing.T, transport string, f ip.Family) {
		b.t = t
		caller := b.registered(transport, f, "05010000001")
		r := strings.Replace(caller.request("INVITE", "sip:05010000002@"+domain, "Contact: "+caller.contact()), "Max-Forwards: 70", "Max-Forwards: 0", 1)
		caller.send(r)
		caller.send(reply(r, caller.want("483"), "ACK"))
		r = caller.request("INVITE", "sip:05010000002@"+domain)
		caller.send(r)
		caller.want("401")
		caller.name = "05010000003"
		r = caller.invite("05010000002")
		caller.send(reply(r, caller.want("403"), "ACK"))

		b.each(func(a *agent) { a.table.Timers = transaction.Timers{T1: 50 * time.Millisecond} }) // what is lost with a connection is a 408
		defer b.each(func(a *agent) { a.table.Timers = unhurried() })
		gone := b.registered("tcp", f, "05010000004")
		gone.conn.Close()
		caller.name = "05010000001"
		for status := "408"; status != "480"; { // until the end of the connection has been seen
			r = caller.invite("05010000004")
			m := caller.hear()
			for m.Status() == 100 {
				m = caller.hear()
			}
			status = index(m.Status())
			caller.send(reply(r, m, "ACK"))
		}
	})
}
