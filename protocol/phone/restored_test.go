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
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// reachableAt is a description at an address that others reach: those of loopback would be relayed.
func reachableAt(f ip.Family, version int) string {
	at := map[ip.Family]string{ip.V4: "IP4 192.0.2.77", ip.V6: "IP6 2001:db8:77::77"}[f]
	return fmt.Sprintf("v=0\r\no=- 77 %d IN %s\r\ns=-\r\nc=IN %[2]s\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n", version, at)
}

// TestTermsRestart: what the route of a call says of its media binds what is offered after the edge was killed too, also where nothing
// was said of media before; and what was decided before is still told. The call goes on when an offer is refused.
func TestTermsRestart(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	r := b.relayed("")
	b.end()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) { // of what is said before, and after
		b.t = t
		options := fmt.Sprintf(", numbers: {own: 0501000xxxx, plan: japan}, trunks: {pstn: {gateways: [%q], network: access}}, routes: ["+
			"{to: %q, via: subscribers, apart: refuse}, {to: %q, via: subscribers, family: %v}, {to: own, via: subscribers}, {to: emergency, via: pstn}]",
			b.newDevice("udp", x.Client, "gateway").local(), "05010000002", "05010000004", x.Client)
		b.write("site.yaml", b.site(options))
		kill := b.process()
		defer func() { kill() }()
		type pair struct {
			caller, callee *device
			heard, came    *sip.Message
			route          string
		}
		var all []*pair
		for i, route := range []string{"apart: refuse", "family: " + x.Client.String(), ""} {
			p := &pair{route: route, caller: b.registered("udp", x.Client, fmt.Sprintf("0501000000%d", 2*i+1)),
				callee: b.registered("udp", x.Client, fmt.Sprintf("0501000000%d", 2*i+2))}
			p.caller.body, p.callee.body = reachableAt(x.Client, 1), reachableAt(x.Client, 1)
			p.heard, p.came = b.call(p.caller, p.callee, nil, nil)
			all = append(all, p)
		}
		quiet := &pair{route: "apart: refuse", caller: b.registered("udp", x.Client, "05010000007"), callee: all[0].callee}
		quiet.caller.silent = true
		quiet.caller.invite("05010000002")
		quiet.came = keep(quiet.callee.want("INVITE"))
		quiet.callee.response(quiet.came, 200, "")
		quiet.heard = keep(quiet.caller.want("200"))
		acknowledge(quiet.caller, quiet.callee, quiet.heard, sequence(quiet.heard))
		kill()
		b.start(options)
		b.up()
		quiet.caller.send(withBody(quiet.caller.within(quiet.heard, "INVITE", sequence(quiet.heard)+1), reachableAt(x.Client, 1)))
		offered := keep(quiet.callee.want("INVITE"))
		quiet.callee.response(offered, 200, reachableAt(x.Client, 1))
		acknowledge(quiet.caller, quiet.callee, quiet.caller.want("200"), sequence(quiet.heard)+1)
		for _, p := range append(all, quiet) {
			b.offersAgain(x, p.caller, p.callee, p.came, p.route)
			hangUp(p.caller, p.callee, p.heard, sequence(p.heard)+8)
		}
		r.Await(func(calls map[control.ID][]control.Remote, _ []control.ID) bool { return len(calls) == 0 })
		for _, p := range all {
			p.callee.unregister()
		}
		b.end()
	})
}

// offersAgain has who was called offer media in the family that is the second of x, in a call that is direct in the first, and looks at
// what becomes of it and is told of it.
func (b *bench) offersAgain(x ip.Crossing, caller, callee *device, came *sip.Message, route string) {
	b.t.Helper()
	callee.send(withBody(callee.within(came, "INVITE", 100), reachableAt(x.Backend, 2)))
	verdict := "direct"
	switch {
	case x.Client == x.Backend:
	case route == "":
		verdict = "relayed"
	default:
		verdict = "refused, as the route has it"
	}
	if strings.HasPrefix(verdict, "refused") {
		callee.want("488")
		callee.send(callee.within(came, "ACK", 100))
	} else {
		offered := keep(caller.want("INVITE"))
		if got := bodyOf(offered); strings.Contains(got, relayAt[x.Client].String()) != (verdict == "relayed") {
			b.t.Errorf("%v with %q: the caller is offered\n%s", x, route, got)
		}
		caller.response(offered, 200, reachableAt(x.Client, 2))
		acknowledge(callee, caller, callee.want("200"), 100)
	}
	e, err := b.edge.ExplainCall(caller.callID)
	if err != nil {
		b.t.Fatal(err)
	}
	steps := strings.Join(e.Branches[0].Steps, "\n")
	for _, want := range []string{"offer of the caller: direct", "offer of the called: " + verdict, "its route: " + route} {
		if want != "its route: " && !strings.Contains(steps, want) {
			b.t.Errorf("%v with %q: nothing about %q in\n%s", x, route, want, steps)
		}
	}
}
