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

// TestReoffer: a telephone that turns out to be behind a NAT when it answers is offered the relay as soon as the call is answered, by UPDATE if
// it knows that, and the caller is told of the relay at once. So neither speaks to where the other is not. What is refused leaves the call.
func TestReoffer(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	r := b.relayed("")
	for _, method := range []string{"INVITE", "UPDATE", "refused"} {
		t.Run(method, func(t *testing.T) {
			iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
				b.t = t
				caller, callee := b.registered("udp", f, "05010000001"), b.registered("udp", f, "05010000002")
				defer callee.unregister()
				word := map[ip.Family]string{ip.V4: "IN IP4 ", ip.V6: "IN IP6 "}[f]
				describe := func(d *device, version int, at map[ip.Family]string) {
					d.body = fmt.Sprintf("v=0\r\no=%s 5 %d %s\r\ns=-\r\nc=%s\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n", d.name, version, word+at[f], word+at[f])
				}
				describe(caller, 1, map[ip.Family]string{ip.V4: "203.0.113.1", ip.V6: "2001:db8:9::1"})
				describe(callee, 1, map[ip.Family]string{ip.V4: "10.0.0.5", ip.V6: "fd00::5"})
				var knows []string
				if method == "UPDATE" {
					knows = []string{"Allow: INVITE, ACK, BYE, UPDATE"}
				}
				caller.invite("05010000002")
				came := keep(callee.want("INVITE"))
				if bodyOf(came) != caller.body {
					t.Errorf("the offer is not direct:\n%s", bodyOf(came))
				}
				callee.response(came, 200, callee.body, knows...)
				heard := keep(caller.want("200"))
				wantMedia(t, "the answer", heard, f)
				caller.send(caller.within(heard, "ACK", sequence(heard)))
				callee.want("ACK")

				ask := "INVITE"
				if method == "UPDATE" {
					ask = method
				}
				again := keep(callee.want(ask))
				wantMedia(t, "what is offered then", again, f)
				if o := strings.Split(bodyOf(again), "\r\n")[1]; o != strings.Replace(strings.Split(caller.body, "\r\n")[1], " 5 1 ", " 5 2 ", 1) {
					t.Errorf("it is of another session: %s", o)
				}
				describe(callee, 2, map[ip.Family]string{ip.V4: "10.0.0.6", ip.V6: "fd00::6"})
				if method == "refused" {
					callee.response(again, 488, "")
				} else {
					callee.response(again, 200, callee.body, knows...)
				}
				if ask == "INVITE" {
					callee.want("ACK")
				}
				at := map[ip.Family]string{ip.V4: "10.0.0.6:4000", ip.V6: "[fd00::6]:4000"}[f]
				if method == "refused" {
					at = map[ip.Family]string{ip.V4: "10.0.0.5:4000", ip.V6: "[fd00::5]:4000"}[f]
				}
				r.Await(func(calls map[control.ID][]control.Remote, _ []control.ID) bool {
					for _, remotes := range calls {
						for _, one := range remotes {
							if one.Side == control.Callee && one.RTP.String() == at && one.Signal == addrOf(callee).Addr() {
								return true
							}
						}
					}
					return false
				})
				hangUp(caller, callee, heard, sequence(heard)+1)
				r.Await(func(calls map[control.ID][]control.Remote, _ []control.ID) bool { return len(calls) == 0 })
			})
		})
	}
}
