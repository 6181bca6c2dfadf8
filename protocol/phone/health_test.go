// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"fmt"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// asked waits until a gateway is asked by OPTIONS once more than before.
func (d *device) asked(last string) *sip.Message {
	d.t.Helper()
	for {
		if m := keep(d.want("OPTIONS")); string(m.Get(sip.CallID)) != last { // not the same one again
			return m
		}
	}
}

// A gateway that does not answer OPTIONS comes after the others, in each family by itself, until it does.
func TestHealth(t *testing.T) {
	t.Parallel()
	b := newBenchOf(t, 1, "")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		one, two := b.newDevice("udp", x.Backend, "one"), newExchange(t, x.Backend, anyPort(x.Backend))
		caller := b.registered("udp", x.Client, "05010000001")
		b.reload(fmt.Sprintf(", numbers: {own: 0501000xxxx, plan: japan}, trunks: {pstn: {gateways: [%q, %q], network: access, health: 1s}}, "+
			"routes: [{to: own, via: subscribers}, {to: [emergency, 0ab-j], via: pstn}]", one.local(), two.uri()))
		stream := two.take("two")
		m := stream.asked("")
		stream.response(m, 404, "")
		m = one.asked("")
		isVia(t, m, sip.UDP, b.at[x.Backend])
		one.response(m, 503, "")
		if x.Client != x.Backend {
			return
		}
		r := caller.invite("0312345678")
		invite := keep(stream.hear())
		for !invite.Is("INVITE") {
			stream.response(invite, 200, "")
			invite = keep(stream.hear())
		}
		stream.response(invite, 486, "")
		stream.want("ACK")
		caller.send(reply(r, caller.want("486"), "ACK"))

		one.response(one.asked(string(m.Get(sip.CallID))), 200, "")
		r = caller.invite("0312345678")
		one.response(keep(one.want("INVITE")), 486, "")
		one.want("ACK")
		caller.send(reply(r, caller.want("486"), "ACK"))
	})
}

// Who says nothing to OPTIONS is down when its time is over, before the transaction is.
func TestHealthSilence(t *testing.T) {
	t.Parallel()
	b := newBenchOf(t, 1, "")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		one, two := b.newDevice("udp", f, "one"), b.newDevice("udp", f, "two")
		caller := b.registered("udp", f, "05010000001")
		b.reload(fmt.Sprintf(", numbers: {own: 0501000xxxx, plan: japan}, trunks: {pstn: {gateways: [%q, %q], network: access, health: 1s}}, "+
			"routes: [{to: own, via: subscribers}, {to: [emergency, 0ab-j], via: pstn}]", one.local(), two.local()))
		two.response(two.asked(""), 200, "")
		last := ""
		for range 3 { // when the third comes, the first has had its time
			last = string(one.asked(last).Get(sip.CallID))
		}
		r := caller.invite("0312345678")
		for {
			m := keep(two.hear())
			if m.Is("INVITE") {
				two.response(m, 486, "")
				break
			}
			two.response(m, 200, "")
		}
		two.want("ACK")
		caller.send(reply(r, caller.want("486"), "ACK"))
	})
}
