// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/service"
)

// TestExplainCall: a call under way says why it goes where it goes, to each device, and why its media go as they do, offer by
// offer; by its ID and by the Call-ID of either leg.
func TestExplainCall(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	b.relayed("")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		caller, callee := b.registered("udp", x.Client, "05010000001"), b.registered("udp", x.Backend, "05010000002")
		defer callee.unregister()
		gateway := b.newDevice("udp", x.Client, "gateway")
		b.reload(apartRoutes(gateway, "apart: relay"))
		why := "an end names no address that the other could send to" // they are on loopback
		if x.Client != x.Backend {
			why = "the ends speak different address families"
		}
		has := func(key, state string, want ...string) *service.Explanation {
			t.Helper()
			e, err := b.edge.ExplainCall(key)
			if err != nil {
				t.Fatal(err)
			}
			if len(e.Branches) != 1 || e.Branches[0].State != state || e.Dialled != "05010000002" {
				t.Fatalf("got %+v", e)
			}
			text := strings.Join(append(e.Number, e.Branches[0].Steps...), "\n")
			for _, w := range want {
				if !strings.Contains(text, w) {
					t.Errorf("%s: nothing about %q in\n%s", state, w, text)
				}
			}
			return e
		}
		caller.invite("05010000002")
		came := keep(callee.want("INVITE"))
		offer := "offer of the caller: relayed: " + why
		e := has(caller.callID, "calling", "routes[0]: to own, for everybody: via subscribers", "caller: in network access, signals from "+addrOf(caller).Addr().String(),
			"audio at "+addrOf(caller).Addr().String()+" port 4000 over "+x.Client.String()+", an address that is local", offer, "the last offer is not answered yet",
			"the relay hears the called at "+strings.TrimSuffix(netip.AddrPortFrom(relayAt[x.Backend], 0).String(), "0"))
		callee.response(came, 180, "")
		caller.want("180")
		has(e.Call.ID, "ringing")
		callee.response(came, 200, callee.offer())
		heard := keep(caller.want("200"))
		acknowledge(caller, callee, heard, sequence(heard))
		hold := strings.Replace(callee.offer(), "m=audio 4000 RTP/AVP 0\r\n", "m=audio 4000 RTP/AVP 0\r\na=sendonly\r\n", 1)
		callee.send(withBody(callee.within(came, "INVITE", 100), hold))
		again := keep(caller.want("INVITE"))
		caller.response(again, 200, caller.offer())
		acknowledge(callee, caller, callee.want("200"), 100)
		has(e.Branches[0].Called.CallID, "answered", offer, "offer of the called: relayed: "+why, ", on hold", "media are relayed",
			"from the caller, in stream 1, the relay has had 99 packets, 1 were lost, jitter 3ms, MOS 4.4; 2 packets of strangers were dropped")
		hangUp(caller, callee, heard, sequence(heard)+1)
		if _, err := b.edge.ExplainCall(e.Call.ID); !errors.Is(err, service.ErrNoCall) {
			t.Errorf("of a call that is over: %v", err)
		}
		if x.Client == x.Backend {
			return
		}
		b.reload(apartRoutes(gateway, "apart: pstn"))
		invite := caller.invite("05010000002")
		out := keep(gateway.want("INVITE"))
		e, err := b.edge.ExplainCall(caller.callID)
		if err != nil || len(e.Branches) != 1 || e.Branches[0].Called.Peer != "pstn" || !strings.Contains(e.Branches[0].Steps[0], "trunk pstn, gateway "+gateway.local()) {
			t.Errorf("got %+v, %v", e, err)
		}
		if text := strings.Join(e.Branches[0].Steps, "\n"); !strings.Contains(text, "its route: out by pstn, not to the telephones: "+why) {
			t.Errorf("nothing about why it goes out in\n%s", text)
		}
		gateway.response(out, 486, "")
		gateway.want("ACK")
		caller.send(reply(invite, caller.want("486"), "ACK"))
	})
}
