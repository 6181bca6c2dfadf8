// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"bytes"
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/kyozon/kyozon/service"
)

// TestWriteTelephony: calls with their ends, and where subscribers are reached, whatever telephones write.
func TestWriteTelephony(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 27, 12, 0, 0, 0, time.UTC)
	answered := now.Add(-3 * time.Minute)
	calls := []service.Call{
		{Service: "phone", ID: "k3x", State: "answered", Start: answered.Add(-time.Hour), Answer: &answered, From: "05010000001", To: "0312345678",
			Withheld: true, Caller: service.CallLeg{Network: "access6", Family: "ipv6", Peer: "05010000001"},
			Called: &service.CallLeg{Network: "core", Family: "ipv4", Peer: "pstn"}, Media: "family"},
		{Service: "phone", ID: "k3y", State: "calling", Start: now.Add(-time.Second), From: "05010000002", To: "05010000001",
			Caller: service.CallLeg{Network: "access4", Family: "ipv4", Peer: "05010000002"}},
	}
	one := service.Registration{Service: "phone", Name: "05010000001", Contact: "sip:05010000001@[2001:db8::1]", Network: "access6", Family: "ipv6",
		Transport: "UDP", Address: netip.MustParseAddrPort("[2001:db8::1]:5060"), Expires: now.Add(time.Hour), Agent: "bare\x1b[31msip",
		Instance: "<urn:uuid:1>"}
	why := service.Explanation{Call: calls[0], Dialled: "1840312345678", Number: []string{"0312345678 is 0ab-j", "routes[1]: via pstn"},
		Branches: []service.Branch{{State: "answered", Called: *calls[0].Called, Steps: []string{"the caller says \x1b[31m", "media are relayed"}},
			{State: "waiting"}}}
	var b bytes.Buffer
	style := Style{Now: now}
	all := []service.Registration{one}
	if err := errors.Join(WriteCalls(&b, calls, style), WriteCalls(&b, nil, style), WriteRegistrations(&b, all, style), WriteRegistrations(&b, nil, style),
		WriteSubscriber(&b, all, style), WriteSubscriber(&b, nil, style), WriteExplanation(&b, &why, style)); err != nil {
		t.Fatal(err)
	}
	golden(t, "telephony.txt", b.Bytes())
}
