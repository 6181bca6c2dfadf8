// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"strings"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/transaction"
)

// sequence returns the number of a message.
func sequence(m *sip.Message) uint32 {
	seq, _ := m.Sequence()
	return seq.Number
}

// due has every leg whose session is ours to refresh do so now.
func (b *bench) due() {
	b.legs(func(l *leg) {
		if l.session.Timer.Mine {
			l.session.Timer.Refresh = l.agent.loop.Now()
		}
	})
}

// Ends that know nothing of session timers are asked whether they are there: with UPDATE who knows it, the other with the
// description that he has been given. What the ends ask each other afterwards has numbers that follow.
func TestRefresh(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	each(t, func(t *testing.T, transport string, f ip.Family) {
		b.t = t
		caller, callee := b.registered(transport, f, "05010000001"), b.registered(transport, f, "05010000002")
		defer callee.unregister()
		heard, came := b.call(caller, callee, nil, []string{"Allow: INVITE, ACK, BYE, UPDATE"})
		if got := string(came.Get(sip.SessionExpires)); got != "1800" || !came.Lists(sip.Supported, "timer") {
			t.Errorf("the callee got Session-Expires %q in\n%s", got, came.Head())
		}
		if got := string(heard.Get(sip.SessionExpires)); got != "1800;refresher=uas" || heard.Has(sip.Require) {
			t.Errorf("the caller got Session-Expires %q in\n%s", got, heard.Head())
		}
		for range 2 {
			b.due()
			update := keep(callee.want("UPDATE"))
			if got := string(update.Get(sip.SessionExpires)); got != "1800;refresher=uac" || len(body(update)) > 0 {
				t.Errorf("got\n%s", update.Head())
			}
			callee.response(update, 200, "")
			again := keep(caller.want("INVITE"))
			if bodyOf(again) != callee.offer() {
				t.Errorf("the caller is described\n%s", bodyOf(again))
			}
			caller.response(again, 200, caller.offer())
			caller.want("ACK")
		}
		caller.send(caller.within(heard, "INFO", sequence(heard)+1))
		info := keep(callee.want("INFO"))
		if got, want := sequence(info), sequence(came)+3; got != want {
			t.Errorf("INFO has the number %d, want %d", got, want)
		}
		callee.response(info, 200, "")
		caller.want("200")
		hangUp(caller, callee, heard, sequence(heard)+2)
	})
}

// Who refreshes his own session refreshes that of the other end with it.
func TestRefreshPasses(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		caller, callee := b.registered("udp", f, "05010000001"), b.registered("udp", f, "05010000002")
		defer callee.unregister()
		heard, came := b.call(caller, callee, []string{"Supported: timer", "Session-Expires: 120"}, []string{"Allow: UPDATE"})
		if got := string(came.Get(sip.SessionExpires)); got != "120" {
			t.Errorf("the callee got Session-Expires %q", got)
		}
		if got := string(heard.Get(sip.SessionExpires)); got != "120;refresher=uac" || !heard.Lists(sip.Require, "timer") {
			t.Errorf("the caller got Session-Expires %q in\n%s", got, heard.Head())
		}
		b.due() // it is the caller's business
		caller.send(strings.Replace(caller.within(heard, "UPDATE", sequence(heard)+1), "Max-F", "Subject: mine\r\nMax-F", 1))
		update := keep(callee.want("UPDATE"))
		if !strings.Contains(string(update.Head()), "Subject: mine") {
			t.Errorf("the edge has sent one too:\n%s", update.Head())
		}
		if got, want := sequence(update), sequence(came)+1; got != want || string(update.Get(sip.SessionExpires)) != "120;refresher=uac" {
			t.Errorf("got number %d, want %d, in\n%s", got, want, update.Head())
		}
		callee.response(update, 200, "")
		caller.want("200")
		hangUp(caller, callee, heard, sequence(heard)+2)
	})
}

// An end that does not answer, or says that it knows nothing of the call, or does not refresh it, ends it for both.
func TestExpiry(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		caller, callee := b.registered("udp", f, "05010000001"), b.registered("udp", f, "05010000002")
		defer callee.unregister()
		ends := func() {
			t.Helper()
			callee.response(keep(callee.want("BYE")), 200, "")
			caller.response(keep(caller.want("BYE")), 200, "")
			b.legs(func(l *leg) { t.Errorf("there is still a leg of %s", l.session.Remote) })
		}
		timer := []string{"Supported: timer", "Session-Expires: 120"}

		b.call(caller, callee, nil, []string{"Allow: UPDATE", "Supported: timer", "Session-Expires: 1800;refresher=uac"})
		b.due()
		caller.response(keep(caller.want("INVITE")), 200, caller.offer())
		caller.want("ACK")
		callee.response(keep(callee.want("UPDATE")), 481, "")
		ends()

		b.call(caller, callee, timer, []string{"Allow: UPDATE"})
		b.legs(func(l *leg) { l.session.Timer.Expire = l.agent.loop.Now() })
		ends()
	})
}

// A refresh that meets a change of the other end is sent again, and a change that meets a refresh is told to wait.
func TestRefreshGlare(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		caller, callee := b.registered("udp", f, "05010000001"), b.registered("udp", f, "05010000002")
		defer callee.unregister()
		heard, _ := b.call(caller, callee, []string{"Allow: UPDATE"}, []string{"Allow: UPDATE"})
		b.due()
		caller.response(keep(caller.want("UPDATE")), 200, "")
		update := keep(callee.want("UPDATE"))
		change := withBody(caller.within(heard, "INVITE", sequence(heard)+1), caller.offer())
		caller.send(change)
		caller.send(reply(change, caller.want("491"), "ACK"))
		callee.response(update, 491, "")
		b.legs(func(l *leg) {
			if s := l.session; s.RetryAt > 0 {
				s.RetryAt = l.agent.loop.Now()
			}
		})
		callee.response(keep(callee.want("UPDATE")), 200, "")
		hangUp(caller, callee, heard, sequence(heard)+2)
	})
}

// A session that is shorter than an end stands: the caller is told, a callee is asked again.
func TestBrief(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		caller, callee := b.registered("udp", f, "05010000001"), b.registered("udp", f, "05010000002")
		defer callee.unregister()
		r := caller.invite("05010000002", "Supported: timer", "Session-Expires: 30")
		m := caller.want("422")
		if got := string(m.Get(sip.MinSE)); got != "90" {
			t.Errorf("got Min-SE %q", got)
		}
		caller.send(reply(r, m, "ACK"))
		r = caller.invite("05010000002")
		callee.response(callee.want("INVITE"), 422, "", "Min-SE: 3600")
		callee.want("ACK")
		came := callee.want("INVITE")
		if got := string(came.Get(sip.SessionExpires)) + " " + string(came.Get(sip.MinSE)); got != "3600 3600" {
			t.Errorf("got %s", got)
		}
		callee.response(came, 422, "", "Min-SE: 7200")
		callee.want("ACK")
		caller.send(reply(r, caller.want("422"), "ACK"))
	})
}

// A reliable provisional response goes to the caller again until he acknowledges it. If he never does, the call has failed.
func TestNoPrack(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	b.each(func(a *agent) { a.table.Timers = transaction.Timers{} })
	each(t, func(t *testing.T, transport string, f ip.Family) {
		b.t = t
		caller, callee := b.registered(transport, f, "05010000001"), b.registered(transport, f, "05010000002")
		defer callee.unregister()
		r := caller.invite("05010000002", "Supported: 100rel")
		invite := keep(callee.want("INVITE"))
		callee.response(invite, 183, callee.offer(), "Require: 100rel", "RSeq: 5")
		caller.copies = true
		for range 2 {
			if m := caller.want("183"); string(m.Get(sip.RSeq)) != "5" {
				t.Errorf("got\n%s", m.Head())
			}
		}
		caller.copies = false
		b.legs(func(l *leg) {
			if p := &l.session.Prov; p.Waits() {
				p.End = l.agent.loop.Now()
			}
		})
		m := caller.want("504")
		caller.send(reply(r, m, "ACK"))
		callee.response(keep(callee.want("CANCEL")), 200, "")
		callee.response(invite, 487, "")
		callee.want("ACK")
		b.legs(func(l *leg) { t.Errorf("there is still a leg of %s", l.session.Remote) })
	})
}

// Who answers without saying where he is cannot be told anything: the call has failed.
func TestNoContact(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	each(t, func(t *testing.T, transport string, f ip.Family) {
		b.t = t
		caller, callee := b.registered(transport, f, "05010000001"), b.registered(transport, f, "05010000002")
		defer callee.unregister()
		r := caller.invite("05010000002")
		a := sip.Answer{Status: 200, Tag: []byte("x"), Dialog: true, Body: []byte(callee.offer()), Type: "application/sdp"}
		callee.send(string(a.Append(nil, keep(callee.want("INVITE")), addrOf(callee))))
		callee.want("ACK")
		callee.response(keep(callee.want("BYE")), 200, "")
		caller.send(reply(r, caller.want("502"), "ACK"))
	})
}

// Who calls without an offer answers that of the callee in his ACK.
func TestOfferless(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	each(t, func(t *testing.T, transport string, f ip.Family) {
		b.t = t
		caller, callee := b.registered(transport, f, "05010000001"), b.registered(transport, f, "05010000002")
		defer callee.unregister()
		caller.silent = true
		caller.invite("05010000002")
		invite := keep(callee.want("INVITE"))
		if len(body(invite)) > 0 {
			t.Errorf("the callee got\n%s", body(invite))
		}
		callee.response(invite, 200, callee.offer())
		heard := keep(caller.want("200"))
		if bodyOf(heard) != callee.offer() {
			t.Errorf("the offer is %q", bodyOf(heard))
		}
		caller.send(withBody(caller.within(heard, "ACK", sequence(heard)), caller.offer()))
		if m := callee.want("ACK"); bodyOf(m) != caller.offer() {
			t.Errorf("the answer is %q", bodyOf(m))
		}
		hangUp(caller, callee, heard, sequence(heard)+1)
	})
}

// What goes from leg to leg has one hop less each time, and ends where there is none.
func TestHops(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		caller, callee := b.registered("udp", f, "05010000001"), b.registered("udp", f, "05010000002")
		defer callee.unregister()
		heard, came := b.call(caller, callee, nil, nil)
		if got := string(came.Get(sip.MaxForwards)); got != "69" {
			t.Errorf("INVITE has Max-Forwards %s", got)
		}
		with := func(n string, seq uint32) string {
			return strings.Replace(caller.within(heard, "INFO", seq), "Max-Forwards: 70", "Max-Forwards: "+n, 1)
		}
		for _, test := range []struct{ sent, want string }{{"9", "8"}, {"1", "0"}} {
			caller.send(with(test.sent, sequence(heard)+1))
			m := callee.want("INFO")
			if got := string(m.Get(sip.MaxForwards)); got != test.want {
				t.Errorf("INFO has Max-Forwards %s, want %s", got, test.want)
			}
			callee.response(m, 200, "")
			caller.want("200")
		}
		caller.send(with("0", sequence(heard)+3))
		caller.want("483")
		hangUp(caller, callee, heard, sequence(heard)+4)
	})
}
