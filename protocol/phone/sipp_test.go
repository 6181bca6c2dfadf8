// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// dialogues are calls from a subscriber to a gateway.
func dialogues() map[string]servertest.Dialogue {
	const begin = `
		caller INVITE sdp | Subject: lunch
		called 180 INVITE
		called 200 INVITE sdp
		caller ACK
	`
	const end = `
		caller BYE
		called 200 BYE
	`
	return map[string]servertest.Dialogue{
		"call": begin + end,
		"the other hangs up": begin + `
			called BYE | Reason: Q.850;cause=31
			caller 200 BYE
		`,
		"refused": `
			caller INVITE sdp
			called 180 INVITE
			called 486 INVITE
			caller ACK
		`,
		"given up": `
			caller INVITE sdp
			called 180 INVITE
			caller CANCEL
			called 200 CANCEL
			called 487 INVITE
			caller ACK
		`,
		"hold": begin + `
			caller INVITE hold
			called 200 INVITE held
			caller ACK
			called INVITE hold
			caller 200 INVITE held
			called ACK
			caller UPDATE sdp
			called 200 UPDATE sdp
		` + end,
		"early media": `
			caller INVITE sdp
			called 183 INVITE sdp
			called 200 INVITE sdp
			caller ACK
		` + end,
		"reliable provisional": `
			caller INVITE sdp | Supported: 100rel
			called 183 INVITE sdp | Require: 100rel | RSeq: 17
			caller PRACK | RAck: 17 2 INVITE
			called 200 PRACK
			called 200 INVITE sdp
			caller ACK
		` + end,
		"late offer": `
			caller INVITE
			called 200 INVITE sdp
			caller ACK sdp
		` + end,
		"digits": begin + `
			caller INFO dtmf
			called 200 INFO
			called INFO dtmf
			caller 200 INFO
		` + end,
		"transfer": begin + `
			called REFER | Refer-To: <sip:0312345678@voip.example.jp>
			caller 202 REFER
			caller NOTIFY frag | Event: refer
			called 200 NOTIFY
		` + end,
	}
}

// What SIPp says at one end of a call, it hears at the other.
func TestSIPp(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		gateway, caller := free(t, x.Backend), free(t, x.Client)
		b := newBench(t, fmt.Sprintf(", numbers: {own: 0501000xxxx, plan: japan}, trunks: {pstn: {gateways: [%q], network: access}}, "+
			"routes: [{to: own, via: subscribers}, {to: [emergency, 0ab-j], via: pstn}]", gateway))
		for name, d := range dialogues() {
			b.t = t
			p := servertest.Party{Name: "05010000001", Called: "0312345678", Domain: domain, Password: "secret"}
			if x.Client != x.Backend { // media would have to be relayed
				d = refused
			}
			t.Log(name)
			wait := func() {}
			if x.Client == x.Backend {
				wait = speak(t, d, "called", p, gateway, b.at[x.Backend])
			}
			speak(t, d, "caller", p, caller, b.at[x.Client])()
			wait()
		}
	})
}

// refused is what a caller hears whose media cannot reach the other end.
const refused = `
	caller INVITE sdp
	called 488 INVITE
	caller ACK
`

// free returns an address at which a SIPp can be.
func free(t *testing.T, f ip.Family) netip.AddrPort {
	t.Helper()
	at, err := servertest.FreeAddr(f)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// speak has a SIPp be one end of a dialogue.
func speak(t *testing.T, d servertest.Dialogue, who string, p servertest.Party, local, remote netip.AddrPort) (wait func()) {
	t.Helper()
	scenario, err := d.Scenario(who, p)
	if err != nil {
		t.Fatal(err)
	}
	return servertest.SIPp{Scenario: scenario, Local: local, Remote: remote, Transport: "udp", Target: p.Called + "@" + p.Domain}.Start(t)
}
