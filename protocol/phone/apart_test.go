// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/media/control"
)

// apartRoutes are routes of which that to subscribers says something of media.
func apartRoutes(gateway *device, words string) string {
	return fmt.Sprintf(", numbers: {own: 0501000xxxx, plan: japan}, trunks: {pstn: {gateways: [%q], network: access, channels: 1}}, "+
		"routes: [{to: own, via: subscribers, %s}, {to: emergency, via: pstn}]", gateway.local(), words)
}

// calls is bring of a gateway, and invite of others.
func (d *device) calls(number string) string {
	if d.name == "gateway" {
		return d.bring(number)
	}
	return d.invite(number)
}

// TestApart: a call between telephones of different families is relayed, refused, or goes out by a trunk, as its route says. One that
// comes in by a trunk is relayed in any case: else it would go round.
func TestApart(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	r := b.relayed("")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		caller, callee := b.registered("udp", x.Client, "05010000001"), b.registered("udp", x.Backend, "05010000002")
		defer callee.unregister()
		gateway := b.newDevice("udp", x.Client, "gateway")
		refused := func(by *device, status string) {
			t.Helper()
			invite := by.invite("05010000002")
			by.send(reply(invite, by.want(status), "ACK"))
		}
		declined := func(by, called *device) {
			t.Helper()
			invite := by.calls("05010000002")
			called.response(keep(called.want("INVITE")), 486, "")
			called.want("ACK")
			by.send(reply(invite, by.want("486"), "ACK"))
		}
		same := x.Client == x.Backend

		b.reload(apartRoutes(gateway, "apart: relay"))
		declined(caller, callee)

		b.reload(apartRoutes(gateway, "apart: refuse"))
		for _, silent := range []bool{false, true} {
			if caller.silent = silent; same {
				declined(caller, callee)
			} else {
				refused(caller, "488")
			}
		}
		caller.silent = false

		b.reload(apartRoutes(gateway, "apart: pstn"))
		if same {
			declined(caller, callee)
		} else {
			declined(caller, gateway)
			caller.invite("05010000002")
			out := keep(gateway.want("INVITE"))
			if !strings.HasPrefix(string(out.Target()), "sip:+815010000002@") {
				t.Errorf("it goes out to %s", out.Target())
			}
			if got := b.gauge("kyozon_phone_channels_active", "service=phone", "trunk=pstn"); got != 1 {
				t.Errorf("%d channels are in use", got)
			}
			other := b.registered("udp", x.Client, "05010000003")
			refused(other, "503") // the channel is taken
			gateway.response(out, 200, gateway.offer())
			heard := keep(caller.want("200"))
			acknowledge(caller, gateway, heard, sequence(heard))
			hangUp(caller, gateway, heard, sequence(heard)+1)
			other.unregister()
		}
		declined(gateway, callee)
		r.Await(func(calls map[control.ID][]control.Remote, _ []control.ID) bool { return len(calls) == 0 })
	})
}

// TestOneFamily: calls of a route with a family are of telephones that speak it, and gateways may speak either.
func TestOneFamily(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	b.relayed("")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		caller, callee := b.registered("udp", x.Client, "05010000001"), b.registered("udp", x.Backend, "05010000002")
		defer callee.unregister()
		gateway := b.newDevice("udp", x.Client, "gateway")
		b.reload(apartRoutes(gateway, "family: ipv6"))
		try := func(by *device, called *device, want string) {
			t.Helper()
			invite := by.calls("05010000002")
			if called != nil {
				called.response(keep(called.want("INVITE")), 486, "")
				called.want("ACK")
			}
			by.send(reply(invite, by.want(want), "ACK"))
		}
		switch {
		case x.Client == ip.V4:
			try(caller, nil, "488")
		case x.Backend == ip.V4:
			try(caller, nil, "480")
		default:
			try(caller, callee, "486")
			caller.body = strings.NewReplacer("IP6 ::1", "IP4 192.0.2.77").Replace(caller.offer())
			try(caller, nil, "488") // his media are of the other
			caller.body = ""
		}
		if x.Backend == ip.V4 {
			try(gateway, nil, "480")
		} else {
			try(gateway, callee, "486")
		}
	})
}
