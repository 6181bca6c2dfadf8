// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"fmt"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/target"
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

// attend answers OPTIONS, and returns the INVITE when it has come. Nobody else may use d meanwhile.
func (d *device) attend() <-chan *sip.Message {
	d.well = true
	called := make(chan *sip.Message, 1)
	go func() {
		defer close(called)
		called <- keep(d.want("INVITE"))
	}()
	return called
}

// down says whether a gateway is known not to be there.
func (b *bench) down(d *device) bool {
	m := &b.core.dead
	m.Lock()
	defer m.Unlock()
	for at := range m.down {
		if at.Addr == addrOf(d) {
			return true
		}
	}
	return false
}

// A gateway that does not answer OPTIONS well comes after the others, in each family by itself, until it does.
func TestHealth(t *testing.T) {
	t.Parallel()
	b := newBenchOf(t, 1, "")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		one, two := b.newDevice("udp", x.Backend, "one"), newExchange(t, x.Backend, anyPort(x.Backend))
		caller := b.registered("udp", x.Client, "05010000001")
		b.reload(fmt.Sprintf(", numbers: {own: 0501000xxxx, plan: japan}, trunks: {pstn: {gateways: [%q, %q], network: access, health: 3s}}, "+
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
		called := stream.attend()
		last := string(m.Get(sip.CallID))
		for !b.down(one) { // each time the answer to the one before has come
			m = one.asked(last)
			last = string(m.Get(sip.CallID))
			one.response(m, 503, "")
		}
		r := caller.invite("0312345678")
		stream.response(<-called, 486, "")
		stream.want("ACK")
		caller.send(reply(r, caller.want("486"), "ACK"))

		for b.down(one) {
			m = one.asked(last)
			last = string(m.Get(sip.CallID))
			one.response(m, 200, "")
		}
		one.well = true
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
		called := two.attend()
		b.reload(fmt.Sprintf(", numbers: {own: 0501000xxxx, plan: japan}, trunks: {pstn: {gateways: [%q, %q], network: access, health: 2s}}, "+
			"routes: [{to: own, via: subscribers}, {to: [emergency, 0ab-j], via: pstn}]", one.local(), two.local()))
		for last := ""; !b.down(one); {
			last = string(one.asked(last).Get(sip.CallID))
		}
		r := caller.invite("0312345678")
		two.response(<-called, 486, "")
		two.want("ACK")
		caller.send(reply(r, caller.want("486"), "ACK"))
	})
}

// What was down and is no gateway any more is forgotten.
func TestHealthKeep(t *testing.T) {
	t.Parallel()
	gone, here := target.Target{Host: "gone"}, target.Target{Host: "here"}
	m := memory{down: map[target.Target]bool{gone: true, here: true}}
	m.keep(map[target.Target]bool{here: true})
	if m.down[gone] || !m.down[here] {
		t.Errorf("got %v", m.down)
	}
}
