// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// A call that a trunk's proxy sends back for the same number is refused at once; one for another number goes on.
func TestLoop(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		caller := b.registered("udp", f, "05010000001")
		proxy := b.newDevice("udp", f, "proxy")
		b.reload(fmt.Sprintf(", numbers: {own: 0501000xxxx, plan: japan}, trunks: {pstn: {gateways: [%q], network: access, onward: [pstn]}}, "+
			"routes: [{to: own, via: subscribers}, {to: [emergency, 0ab-j], via: pstn}]", proxy.local()))
		for _, number := range []string{"81312345678", "81612345678"} {
			r := caller.invite("0312345678")
			invite := keep(proxy.want("INVITE"))
			line, rest, _ := strings.Cut(string(invite.Head())+string(body(invite)), "\r\n")
			line = strings.NewReplacer("81312345678", number, proxy.local(), domain).Replace(line)
			back := line + fmt.Sprintf("\r\nVia: SIP/2.0/UDP %s;rport;branch=z9hG4bK%s\r\n", proxy.local(), number) + rest
			proxy.send(back)
			status := "482"
			if number != "81312345678" {
				proxy.response(keep(proxy.want("INVITE")), 486, "")
				proxy.want("ACK")
				status = "486"
			}
			proxy.send(reply(back, proxy.want(status), "ACK"))
			proxy.response(invite, 486, "")
			proxy.want("ACK")
			caller.send(reply(r, caller.want("486"), "ACK"))
		}
	})
}
