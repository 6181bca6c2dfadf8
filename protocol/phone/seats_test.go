// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"fmt"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// A trunk has so many channels and a subscriber so many calls, until one ends; emergency calls find room.
func TestChannels(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		gateway := b.newDevice("udp", f, "gateway")
		caller, other := b.registered("udp", f, "05010000001"), b.registered("udp", f, "05010000002")
		defer caller.unregister()
		defer other.unregister()
		site := func(channels, calls int) {
			b.subscribers = fmt.Sprintf(", calls: %d", calls)
			b.reload(fmt.Sprintf(", numbers: {own: 0501000xxxx, plan: japan}, trunks: {pstn: {gateways: [%q], network: access, channels: %d}}, "+
				"routes: [{to: own, via: subscribers}, {to: [emergency, 0ab-j], via: pstn}]", gateway.local(), channels))
		}
		site(1, 9)
		caller.invite("0312345678")
		invite := keep(gateway.want("INVITE"))
		gateway.response(invite, 200, gateway.offer())
		answer := keep(caller.want("200"))
		seq, _ := answer.Sequence()
		caller.send(caller.within(answer, "ACK", seq.Number))
		gateway.want("ACK")

		r := other.invite("0312345678")
		m := other.want("503")
		if len(m.Get(sip.RetryAfter)) == 0 {
			t.Error("503 without Retry-After")
		}
		other.send(reply(r, m, "ACK"))
		gateway.from = "<sip:+81312345678@10.0.5.11;user=phone>"
		r = gateway.bring("+815010000002")
		gateway.send(reply(r, gateway.want("503"), "ACK"))
		r = other.invite("119")
		gateway.response(keep(gateway.want("INVITE")), 486, "")
		gateway.want("ACK")
		other.send(reply(r, other.want("486"), "ACK"))

		site(9, 1)
		r = gateway.bring("+815010000001") // who is called has a call
		gateway.send(reply(r, gateway.want("486"), "ACK"))
		r = other.invite("05010000001")
		other.send(reply(r, other.want("486"), "ACK"))

		caller.send(caller.within(answer, "BYE", seq.Number+1))
		caller.want("200")
		gateway.response(keep(gateway.want("BYE")), 200, "")
		site(1, 1)
		r = other.invite("0312345678")
		gateway.response(keep(gateway.want("INVITE")), 486, "")
		gateway.want("ACK")
		other.send(reply(r, other.want("486"), "ACK"))
		b.subscribers = ""
	})
	s := &b.core.seats
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.taken)+len(s.held) > 0 {
		t.Errorf("seats are left: %v, %v", s.taken, s.held)
	}
}

// A rate lets so many calls through in a time, and as many at once as it says.
func TestRate(t *testing.T) {
	t.Parallel()
	s := newSeats()
	at := time.Unix(0, 0)
	r := limit.Rate{Count: 10, Per: time.Second, Burst: 3}
	count := func() (n int) {
		for range 100 {
			if s.calm("pstn", r, at) {
				n++
			}
		}
		return n
	}
	if n := count(); n != 3 {
		t.Errorf("%d at once, want 3", n)
	}
	at = at.Add(200 * time.Millisecond)
	if n := count(); n != 2 {
		t.Errorf("%d after 200 ms, want 2", n)
	}
	at = at.Add(time.Hour)
	if n := count(); n != 3 {
		t.Errorf("%d after an hour, want 3", n)
	}
	if !s.calm("other", r, at) || !s.calm("free", limit.Rate{}, at) {
		t.Error("a trunk takes from another")
	}
}
