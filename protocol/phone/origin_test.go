// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// TestOrigin: media that go to and fro between the relay and their own way are one session for both ends: o= stays as it was first
// shown, and its version grows by one. RFC 3264 §8.
func TestOrigin(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	b.relayed("")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		caller, callee := b.registered("udp", x.Client, "05010000001"), b.registered("udp", x.Backend, "05010000002")
		defer callee.unregister()
		version := map[*device]int{caller: 6, callee: 8}
		say := func(d *device, f ip.Family) {
			version[d]++
			at := map[ip.Family]string{ip.V4: "IN IP4 203.0.113." + d.name[10:], ip.V6: "IN IP6 2001:db8:9::" + d.name[10:]}[f]
			d.body = fmt.Sprintf("v=0\r\no=%s 5 %d %s\r\ns=-\r\nc=%s\r\nt=0 0\r\nm=audio 4000 RTP/AVP 0\r\n", d.name, version[d], at, at)
		}
		say(caller, x.Client)
		say(callee, x.Backend)
		first, last := make(map[*device]string), make(map[*device]int)
		look := func(to *device, m *sip.Message, direct bool) {
			t.Helper()
			from := map[*device]*device{caller: callee, callee: caller}[to]
			if got := strings.Contains(bodyOf(m), strings.Split(from.body, "\r\n")[3]); got != direct {
				t.Errorf("%s is told, and direct is %v:\n%s", to.name, direct, bodyOf(m))
			}
			words := strings.Fields(strings.Split(bodyOf(m), "\r\n")[1])
			n, _ := strconv.Atoi(words[2])
			words[2] = "*"
			if o := strings.Join(words, " "); first[to] == "" {
				first[to] = o
			} else if o != first[to] || n != last[to]+1 {
				t.Errorf("%s is told %s, version %d, after %s, version %d", to.name, o, n, first[to], last[to])
			}
			last[to] = n
		}
		heard, came := b.call(caller, callee, nil, nil)
		look(callee, came, x.Client == x.Backend)
		look(caller, heard, x.Client == x.Backend)
		other := ip.V4 + ip.V6 - x.Client
		for i, f := range []ip.Family{other, x.Client, other} {
			say(caller, f)
			say(callee, x.Backend)
			seq := sequence(heard) + uint32(i) + 1
			caller.send(withBody(caller.within(heard, "INVITE", seq), caller.offer()))
			again := keep(callee.want("INVITE"))
			look(callee, again, f == x.Backend)
			callee.response(again, 200, callee.offer())
			answer := keep(caller.want("200"))
			look(caller, answer, f == x.Backend)
			acknowledge(caller, callee, answer, seq)
		}
		hangUp(caller, callee, heard, sequence(heard)+9)
	})
}
