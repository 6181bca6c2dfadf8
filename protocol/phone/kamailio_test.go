// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// Another carrier's proxy stays in the path of each call: what is asked within it goes by the routes that it has recorded.
func TestKamailio(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		carrier, other, caller := free(t, f), free(t, f), free(t, f)
		b := newBench(t, "")
		b.reload(fmt.Sprintf(", cdr: calls.jsonl, numbers: {own: 0501000xxxx, plan: japan}, trunks: {carrier: {gateways: [%q], network: access}}, "+
			"routes: [{to: own, via: subscribers}, {to: [emergency, other-050], via: carrier}]", carrier))
		servertest.NewKamailio(t, carrier, b.at[f], other)
		out := servertest.Party{Name: "05010000001", Called: "05099990001", Domain: domain, Password: "secret"}
		var want, got []string
		for name, d := range dialogues() {
			t.Log(name)
			wait := speak(t, d, "called", out, other, carrier)
			speak(t, d, "caller", out, caller, b.at[f])()
			wait()
			want = append(want, "05010000001 → carrier")
		}

		two := b.telephone("udp", f, "05010000002", high)
		in := servertest.Party{Name: "+815099990001", Called: "+815010000002", Domain: domain}
		wait := speak(t, "caller INVITE sdp\ncalled 180 INVITE\ncalled 200 INVITE\ncaller ACK\ncalled BYE\ncaller 200 BYE", "caller", in, other, carrier)
		if got := two.Event("CALL_INCOMING").Peer; !strings.HasPrefix(got, "sip:05099990001@") {
			t.Errorf("%s calls", got)
		}
		two.Do("accept", "")
		two.Event("CALL_ESTABLISHED")
		two.Do("hangup", "")
		wait()
		want = append(want, "05099990001 → 05010000002")
		for _, r := range b.records() {
			got = append(got, r.From+" → "+r.Called.Peer)
		}
		if strings.Join(got, ", ") != strings.Join(want, ", ") {
			t.Errorf("the records are of %q, want %q", got, want)
		}
	})
}
