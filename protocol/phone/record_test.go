// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// told is what TestRecords looks at.
type told struct {
	To, Class, Route, Peer, EndedBy, Reason string
	Family, Called                          string
	Status, Cause, Tried                    int
	Ring, Answer, Withheld                  bool
}

// Each call that ends or fails is a line, with who ended it and why.
func TestRecords(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	var want []told
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		caller, callee := b.registered("udp", f, "05010000001"), b.registered("udp", f, "05010000002")
		defer callee.unregister()
		one, two := b.newDevice("udp", f, "one"), b.newDevice("udp", f, "two")
		b.reload(withTrunk("global", one, two) + ", cdr: calls.jsonl")

		caller.invite("18405010000002") // answered, and ended by who was called
		invite := keep(callee.want("INVITE"))
		callee.response(invite, 180, "")
		caller.want("180")
		callee.response(invite, 200, callee.offer())
		answer := keep(caller.want("200"))
		seq, _ := answer.Sequence()
		caller.send(caller.within(answer, "ACK", seq.Number))
		callee.want("ACK")
		callee.send(callee.within(invite, "BYE", 7))
		callee.want("200")
		caller.response(keep(caller.want("BYE")), 200, "")
		name := f.String()
		want = append(want, told{To: "05010000002", Class: "own", Route: "routes[0]", Family: name, Called: name, Peer: "05010000002",
			EndedBy: "called", Cause: 16, Ring: true, Answer: true, Withheld: true})

		r := caller.invite("0312345678") // busy, at the second gateway
		invite = keep(one.want("INVITE"))
		one.response(invite, 503, "")
		one.want("ACK")
		two.response(keep(two.want("INVITE")), 486, "")
		two.want("ACK")
		caller.send(reply(r, caller.want("486"), "ACK"))
		want = append(want, told{To: "0312345678", Class: "0ab-j", Route: "routes[1]", Family: name, Called: name, Peer: "pstn",
			EndedBy: "called", Status: 486, Cause: 17, Tried: 1})

		r = caller.invite("05010000002") // given up
		invite = keep(callee.want("INVITE"))
		callee.response(invite, 180, "")
		caller.want("180")
		caller.send(reply(r, nil, "CANCEL"))
		caller.want("200")
		caller.send(reply(r, caller.want("487"), "ACK"))
		callee.response(keep(callee.want("CANCEL")), 200, "")
		callee.response(invite, 487, "")
		callee.want("ACK")
		want = append(want, told{To: "05010000002", Class: "own", Route: "routes[0]", Family: name, Called: name, Peer: "05010000002",
			EndedBy: "caller", Status: 487, Cause: 16, Ring: true})

		r = caller.invite("05010009999") // nobody's
		caller.send(reply(r, caller.want("404"), "ACK"))
		want = append(want, told{To: "05010009999", Class: "own", Route: "routes[0]", Family: name, EndedBy: "edge", Status: 404, Cause: 1})
	})
	b.end() // which writes what is still there
	var got []told
	for _, r := range b.records() {
		one := told{To: r.To, Class: r.Class, Route: r.Route, EndedBy: r.EndedBy, Reason: r.Reason, Status: r.Status, Cause: r.Cause,
			Family: r.Caller.Family, Ring: r.Ring != nil, Answer: r.Answer != nil, Withheld: r.Withheld}
		if r.Called != nil {
			one.Called, one.Peer, one.Tried = r.Called.Family, r.Called.Peer, r.Called.Tried
		}
		if r.From != "05010000001" || r.Caller.Peer != "05010000001" || r.End.Before(r.Start) || r.Caller.Network != "access" {
			t.Errorf("got %+v", r)
		}
		got = append(got, one)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
