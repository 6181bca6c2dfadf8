// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"strings"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// Copies of a 2xx are acknowledged, also when the call has ended; and whoever else answers the INVITE is told that it is over,
// once.
func TestEcho(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		caller, callee := b.registered("udp", x.Client, "05010000001"), b.registered("udp", x.Backend, "05010000002")
		defer callee.unregister()
		caller.silent = true
		caller.invite("05010000002")
		invite := keep(callee.want("INVITE"))
		callee.response(invite, 180, "")
		caller.want("180")
		callee.response(invite, 200, "")
		heard := keep(caller.want("200"))
		seq, _ := heard.Sequence()
		caller.send(caller.within(heard, "ACK", seq.Number))
		ack := string(keep(callee.want("ACK")).Text())
		again := func() {
			callee.copies = true
			defer func() { callee.copies = false }()
			callee.response(invite, 200, "")
			if got := string(callee.want("ACK").Text()); got != ack {
				t.Errorf("%v: got\n%sand first\n%s", x, got, ack)
			}
		}
		again()
		caller.send(caller.within(heard, "BYE", seq.Number+1))
		caller.want("200")
		callee.response(keep(callee.want("BYE")), 200, "")
		again()

		for _, another := range []struct{ tag, contact string }{{"two", "Contact: " + callee.contact() + "\r\n"}, {"three", ""}} {
			answer := sip.Answer{Status: 200, Tag: []byte(another.tag), Dialog: true, Lines: []byte(another.contact)}
			text := string(answer.Append(nil, invite, addrOf(callee)))
			callee.send(text)
			if m := callee.want("ACK"); !strings.HasSuffix(string(m.Get(sip.To)), ";tag="+another.tag) {
				t.Errorf("%v: got\n%s", x, m.Head())
			}
			bye := keep(callee.want("BYE"))
			if !strings.HasSuffix(string(bye.Get(sip.To)), ";tag="+another.tag) {
				t.Errorf("%v: got\n%s", x, bye.Head())
			}
			callee.response(bye, 200, "")
			if another.contact != "" {
				callee.copies = true
				callee.send(text)
				callee.want("ACK")
				callee.copies = false
			}
		}
	})
}
