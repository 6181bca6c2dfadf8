// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// withTrunk returns options with a trunk that has two gateways.
func withTrunk(form string, one, two *device) string {
	return fmt.Sprintf(", numbers: {own: 0501000xxxx, plan: japan}, trunks: {pstn: {gateways: [%q, %q], network: access, numbers: %s}}, "+
		"routes: [{to: own, via: subscribers}, {to: [emergency, 0ab-j], via: pstn}]", one.local(), two.local(), form)
}

// shows fails unless an INVITE has what is said.
func shows(t *testing.T, m *sip.Message, target, to, from, asserted, privacy string) {
	t.Helper()
	party, _, _ := strings.Cut(string(m.Get(sip.From)), ";tag=")
	got := []string{string(m.Target()), string(m.Get(sip.To)), party, string(m.Get(sip.PAssertedIdentity)), string(m.Get(sip.Privacy))}
	want := []string{target, to, from, asserted, privacy}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %q, want %q, in\n%s", got[i], want[i], m.Head())
		}
	}
}

// A call to another network goes to a gateway that takes it, where media can go there directly.
func TestTrunk(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		caller := b.registered("udp", x.Client, "05010000001")
		one, two := b.newDevice("udp", x.Backend, "one"), b.newDevice("udp", x.Backend, "two")
		b.reload(withTrunk("global", one, two))
		r := caller.invite("0312345678")
		if x.Client != x.Backend {
			caller.send(reply(r, caller.want("488"), "ACK"))
			return
		}
		const me = "<sip:+815010000001@" + domain + ";user=phone>"
		invite := keep(one.want("INVITE"))
		shows(t, invite, "sip:+81312345678@"+one.local()+";user=phone", "<sip:+81312345678@"+domain+";user=phone>", me, me, "")
		one.response(invite, 100, "")
		one.response(invite, 503, "")
		one.want("ACK")
		invite = keep(two.want("INVITE"))
		two.response(invite, 200, two.offer())
		answer := keep(caller.want("200"))
		seq, _ := answer.Sequence()
		caller.send(caller.within(answer, "ACK", seq.Number))
		two.want("ACK")
		caller.send(caller.within(answer, "BYE", seq.Number+1))
		caller.want("200")
		two.response(keep(two.want("BYE")), 200, "")

		r = caller.invite("184110") // the first gateway rests, and is asked after the other
		invite = keep(two.want("INVITE"))
		shows(t, invite, "sip:110@"+two.local()+";user=phone", "<sip:110@"+domain+";user=phone>", anonymous, me, "id")
		two.response(invite, 408, "")
		two.want("ACK")
		one.response(keep(one.want("INVITE")), 486, "")
		one.want("ACK")
		caller.send(reply(r, caller.want("486"), "ACK"))

		r = caller.invite("0312345678") // now the second rests
		invite = keep(one.want("INVITE"))
		one.response(invite, 180, "")
		caller.want("180")
		one.response(invite, 503, "") // somebody has rung: nobody else is asked
		one.want("ACK")
		caller.send(reply(r, caller.want("503"), "ACK"))

		b.reload(withTrunk("national", one, two))
		r = caller.invite("0312345678")
		invite = keep(one.want("INVITE"))
		const here = "<sip:05010000001@" + domain + ";user=phone>"
		shows(t, invite, "sip:0312345678@"+one.local()+";user=phone", "<sip:0312345678@"+domain+";user=phone>", here, here, "")
		one.response(invite, 486, "")
		one.want("ACK")
		caller.send(reply(r, caller.want("486"), "ACK"))
	})
}

// bring sends a call from a gateway.
func (d *device) bring(called string, lines ...string) string {
	d.t.Helper()
	r := withBody(d.request("INVITE", "sip:"+called+"@"+domain+";user=phone", append(lines, "Contact: "+d.contact())...), d.offer())
	d.send(r)
	return r
}

// A gateway calls without a password, is believed, and reaches subscribers alone.
func TestFromTrunk(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	b.more = "    limits: {requests: {rate: 30/h}}\n"
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		callee := b.registered("udp", f, "05010000002")
		defer callee.unregister()
		one, two := b.newDevice("udp", f, "one"), b.newDevice("udp", f, "two")
		b.reload(withTrunk("global", one, two))
		one.from = `"A" <sip:+81312345678@10.0.5.11;user=phone>`
		target, to := strings.Trim(callee.contact(), "<>"), "<sip:05010000002@"+domain+">"
		for _, test := range []struct{ line, from, asserted, privacy string }{
			{"Subject: x", `"A" <sip:0312345678@` + domain + ">", "<sip:0312345678@" + domain + ">", ""},
			{"P-Asserted-Identity: <tel:+81398765432>", `"A" <sip:0398765432@` + domain + ">", "<sip:0398765432@" + domain + ">", ""},
			{"Privacy: id", anonymous, "", "id"},
		} {
			r := one.bring("+815010000002", test.line)
			invite := keep(callee.want("INVITE"))
			shows(t, invite, target, to, test.from, test.asserted, test.privacy)
			callee.response(invite, 486, "")
			callee.want("ACK")
			one.send(reply(r, one.want("486"), "ACK"))
		}
		for range 30 { // more than a client may ask
			r := one.bring("0398765432")
			one.send(reply(r, one.want("404"), "ACK"))
		}
		stranger := b.newDevice("udp", f, "05010000003")
		r := stranger.bring("+815010000002")
		stranger.send(reply(r, stranger.want("401"), "ACK"))
	})
}

// However often somebody has asked, an emergency call is carried.
func TestEmergency(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t, b.more = t, ""
		one, two := b.newDevice("udp", f, "one"), b.newDevice("udp", f, "two")
		caller := b.newDevice("udp", f, "05010000001")
		b.more = "    limits: {requests: {rate: 2/h}}\n"
		b.reload(withTrunk("global", one, two))
		for status := 0; status != 503; {
			status = caller.ask("OPTIONS", "sip:"+domain)
		}
		r := caller.invite("119")
		invite := keep(one.want("INVITE"))
		one.response(invite, 486, "")
		one.want("ACK")
		caller.send(reply(r, caller.want("486"), "ACK"))
	})
}

// A call from one trunk goes on to those that are named, and to no other.
func TestOnward(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		one, two := b.newDevice("udp", x.Client, "one"), b.newDevice("udp", x.Backend, "two")
		site := func(onward string) string {
			return fmt.Sprintf(", numbers: {plan: japan}, trunks: {east: {gateways: [%q], network: access%s}, west: {gateways: [%q], network: access}}, "+
				"routes: [{to: [emergency, 0ab-j], via: west}, {to: \"03[1-9]xxxxxxx\", via: east}]", one.local(), onward, two.local())
		}
		one.from = "<sip:+81312345678@10.0.5.11;user=phone>"
		b.reload(site(""))
		r := one.bring("+81612345678")
		one.send(reply(r, one.want("404"), "ACK"))

		b.reload(site(", onward: [west]"))
		r = one.bring("+81612345678", "P-Asserted-Identity: <tel:+81312345678>", "Privacy: id")
		if x.Client != x.Backend {
			one.send(reply(r, one.want("488"), "ACK"))
			return
		}
		const who = "<sip:+81312345678@" + domain + ";user=phone>"
		invite := keep(two.want("INVITE"))
		shows(t, invite, "sip:+81612345678@"+two.local()+";user=phone", "<sip:+81612345678@"+domain+";user=phone>", anonymous, who, "id")
		two.response(invite, 200, two.offer())
		answer := keep(one.want("200"))
		seq, _ := answer.Sequence()
		one.send(one.within(answer, "ACK", seq.Number))
		two.want("ACK")
		two.send(two.within(invite, "BYE", 1))
		two.want("200")
		one.response(keep(one.want("BYE")), 200, "")
		r = one.bring("+81312345678") // to where it comes from
		one.send(reply(r, one.want("404"), "ACK"))
	})
}

// Calls are spread over gateways by their weights.
func TestWeights(t *testing.T) {
	t.Parallel()
	written := []Gateway{{Weight: 3}, {}}
	first := 0
	for range 10_000 {
		all := spreadOut(written)
		if len(all) != 2 || all[0].Weight == all[1].Weight {
			t.Fatal("a gateway is lost")
		}
		if all[0].Weight == 3 {
			first++
		}
	}
	if first < 7_200 || first > 7_800 { // 7,500, give or take seven times the root of 1,875
		t.Errorf("the one with three parts of four is first %d times of 10,000", first)
	}
}

// What a trunk is not to be told, and what it is not believed.
func TestProfile(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		gateway := b.newDevice("udp", f, "gateway")
		caller := b.registered("udp", f, "05010000001")
		defer caller.unregister()
		b.reload(fmt.Sprintf(", numbers: {own: 0501000xxxx, plan: japan}, trunks: {pstn: {gateways: [%q], network: access, plain: true, foreign: true, "+
			"without: [100rel]}}, routes: [{to: own, via: subscribers}, {to: [emergency, 0ab-j], via: pstn}]", gateway.local()))
		const me = "<sip:+815010000001@" + domain + ">"
		for called, want := range map[string][3]string{"0312345678": {me, me, ""}, "1840312345678": {anonymous, "", "id"}} {
			r := caller.invite(called, "Supported: replaces, 100rel")
			invite := keep(gateway.want("INVITE"))
			shows(t, invite, "sip:+81312345678@"+gateway.local(), "<sip:+81312345678@"+domain+">", want[0], want[1], want[2])
			if invite.Lists(sip.Supported, "100rel") || !invite.Lists(sip.Supported, "replaces") || !invite.Lists(sip.Supported, "timer") {
				t.Errorf("got\n%s", invite.Head())
			}
			gateway.response(invite, 486, "")
			gateway.want("ACK")
			caller.send(reply(r, caller.want("486"), "ACK"))
		}
		gateway.from = "<sip:+81312345678@10.0.5.11>"
		r := gateway.bring("+815010000001", "P-Asserted-Identity: <tel:+81398765432>")
		invite := keep(caller.want("INVITE"))
		if got := string(invite.Get(sip.PAssertedIdentity)); got != "<sip:0312345678@"+domain+">" {
			t.Errorf("got P-Asserted-Identity %s", got)
		}
		caller.response(invite, 486, "")
		caller.want("ACK")
		gateway.send(reply(r, gateway.want("486"), "ACK"))
	})
}
