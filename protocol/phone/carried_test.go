// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"fmt"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/media/control"
	"github.com/kyozon/kyozon/protocol/phone/cdr"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// flowOf is what controltest says of one direction of so many parts of a call.
func flowOf(parts uint64) cdr.Flow {
	return cdr.Flow{Packets: 99 * parts, Bytes: 17028 * parts, Lost: parts, Jitter: 3, MOS: float64(float32(4.4)), Strangers: 2 * parts}
}

// TestRelayedInParts: a call that is relayed for two parts of its life, and ends without, has in its record what was carried in both, and why;
// also if the edge is another after the first part, and if the call ends before the relay has told of the second.
func TestRelayedInParts(t *testing.T) {
	t.Parallel()
	const options = ", cdr: calls.jsonl"
	b := newBench(t, options)
	r := b.relayed(options)
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		caller, callee := b.registered("udp", x.Client, "05010000001"), b.registered("udp", x.Backend, "05010000002")
		apart, together := reachableAt(x.Client, 1), reachableAt(x.Backend, 2)
		if x.Client == x.Backend {
			apart = caller.offer() // on loopback, where others do not reach it
		}
		caller.body, callee.body = apart, reachableAt(x.Backend, 1)
		heard, _ := b.call(caller, callee, nil, nil)
		seq := sequence(heard)
		moves := func(to string) {
			t.Helper()
			seq++
			caller.send(withBody(caller.within(heard, "INVITE", seq), to))
			callee.response(keep(callee.want("INVITE")), 200, callee.body)
			acknowledge(caller, callee, caller.want("200"), seq)
		}
		of := []string{"service=phone", "client_family=" + x.Client.String(), "backend_family=" + x.Backend.String()}
		counts := func(n int64) {
			t.Helper()
			b.until(func() bool { return b.gauge("kyozon_phone_media_packets_total", append(of, "to=caller")...) == n })
		}
		moves(together)
		counts(99)
		b.legs(func(*leg) {}) // it is saved
		b.end()
		b.start(options)
		b.up()
		moves(apart)
		resume := r.Pause()
		moves(together)
		hangUp(caller, callee, heard, seq+1)
		resume()
		r.Await(func(calls map[control.ID][]control.Remote, _ []control.ID) bool { return len(calls) == 0 })
		counts(99)
		callee.unregister()
		b.end()
		if got := b.gauge("kyozon_phone_media_calls_total", append(of, "path=direct")...); x.Client == x.Backend && got != 1 {
			t.Errorf("%d direct calls", got)
		}
		b.start(options)
		b.up() // or the next call is refused
	})
	b.t = t
	all := b.records()
	for _, one := range all {
		why := "other family"
		if one.Caller.Family == one.Called.Family {
			why = "no address"
		}
		m := one.Media
		if m == nil || m.Path != "direct" || m.Relayed != why {
			t.Errorf("%+v: media %+v", one, m)
			continue
		}
		if want := flowOf(2); m.ToCaller != want || m.ToCalled != want {
			t.Errorf("got %+v and %+v, want %+v", m.ToCaller, m.ToCalled, want)
		}
	}
	if len(all) != 4 {
		t.Errorf("%d records, want 4", len(all))
	}
}

// TestForkedMedia: as soon as one telephone has answered the relay has nothing left of the others, whatever they have said before, and
// though they have not heard yet that it is over. One that answers all the same is told so. The same when the caller gives up.
func TestForkedMedia(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	r := b.relayed("")
	left := func(n int) {
		r.Await(func(calls map[control.ID][]control.Remote, _ []control.ID) bool { return len(calls) == n })
	}
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		caller := b.registered("udp", x.Client, "05010000001")
		var all []*device
		for range 4 {
			all = append(all, b.registered("udp", x.Backend, "05010000002"))
		}
		defer all[0].unregister()
		rings := func() (invite string, came []*sip.Message) {
			t.Helper()
			invite = caller.invite("05010000002")
			for _, d := range all {
				came = append(came, keep(d.want("INVITE")))
			}
			all[0].response(came[0], 180, "")
			caller.want("180")
			all[1].response(came[1], 183, all[1].offer())
			caller.want("183")
			left(4)
			return invite, came
		}
		late := func(came []*sip.Message) {
			t.Helper()
			for i, d := range all[:3] {
				if i < 2 { // the third has said nothing, and cannot be told yet
					d.response(keep(d.want("CANCEL")), 200, "")
				}
				d.response(came[i], 200, d.offer())
				d.want("ACK")
				d.response(keep(d.want("BYE")), 200, "")
			}
		}
		_, came := rings()
		all[3].response(came[3], 200, all[3].offer())
		heard := keep(caller.want("200"))
		left(1)
		acknowledge(caller, all[3], heard, sequence(heard))
		late(came)
		left(1)
		hangUp(caller, all[3], heard, sequence(heard)+1)
		left(0)

		invite, came := rings()
		caller.send(reply(invite, nil, "CANCEL"))
		caller.want("200")
		caller.send(reply(invite, caller.want("487"), "ACK"))
		left(0)
		late(came)
		all[3].response(came[3], 486, "")
		all[3].want("ACK")
	})
}

// TestFailedOver: a call that one gateway has not taken, and the next has refused, leaves nothing at the relay.
func TestFailedOver(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	r := b.relayed("")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		caller, one, two := b.registered("udp", x.Client, "05010000001"), b.newDevice("udp", x.Backend, "one"), b.newDevice("udp", x.Backend, "two")
		defer caller.unregister()
		b.reload(fmt.Sprintf(", numbers: {own: 0501000xxxx, plan: japan}, trunks: {pstn: {gateways: [%q, %q], network: access}}, "+
			"routes: [{to: own, via: subscribers}, {to: [emergency, 0ab-j], via: pstn}]", one.local(), two.local()))
		invite := caller.invite("0312345678")
		one.response(keep(one.want("INVITE")), 503, "")
		one.want("ACK")
		two.response(keep(two.want("INVITE")), 486, "")
		two.want("ACK")
		caller.send(reply(invite, caller.want("486"), "ACK"))
		r.Await(func(calls map[control.ID][]control.Remote, closed []control.ID) bool {
			return len(calls) == 0 && len(closed) > 0
		})
	})
}
