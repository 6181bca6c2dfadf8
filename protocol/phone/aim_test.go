// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// answersAs answers an INVITE with a Contact of another, and fields of its own.
func (d *device) answersAs(m *sip.Message, contact, lines string) {
	d.t.Helper()
	a := sip.Answer{Status: 200, Tag: []byte("tag" + d.name), Body: []byte(d.offer()), Type: "application/sdp",
		Lines: []byte("Contact: " + contact + "\r\n" + lines)}
	d.send(string(a.Append(nil, m, addrOf(d))))
}

// TestAim: within a call a gateway is asked where it says that it is, through the proxies that have recorded themselves; where
// that cannot be, it is asked where it was.
func TestAim(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	b.relayed("")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		gateway, other, proxy := b.newDevice("udp", x.Backend, "gateway"), b.newDevice("udp", x.Backend, "other"), b.newDevice("udp", x.Backend, "proxy")
		stranger := b.newDevice("udp", map[ip.Family]ip.Family{ip.V4: ip.V6, ip.V6: ip.V4}[x.Backend], "stranger")
		caller := b.registered("udp", x.Client, "05010000001")
		defer caller.unregister()
		port := addrOf(other).Port()
		server := servertest.NewDNS(t, x.Client, fmt.Sprintf(strings.ReplaceAll(`
			gw.example.           IN %[2]s %[3]v
			sip.example.          IN NAPTR 10 10 "s" "SIP+D2U" "" _sip._udp.sip.example.
			_sip._udp.sip.example. IN SRV 1 1 %[1]d one.example.
			one.example.          IN %[2]s %[3]v
		`, "\t", ""), port, map[ip.Family]string{ip.V4: "A", ip.V6: "AAAA"}[x.Backend], iptest.Loopback(x.Backend)), nil)
		b.reload(fmt.Sprintf(", resolvers: [%q], numbers: {own: 0501000xxxx, plan: japan}, trunks: {pstn: {gateways: [%q], network: access}}, "+
			"routes: [{to: own, via: subscribers}, {to: [emergency, 0ab-j], via: pstn}]", server.Addr, gateway.local()))
		loose, strict := "<sip:"+proxy.local()+";lr>", "<sip:"+proxy.local()+">"
		for _, test := range []struct {
			name, contact, record string
			to                    *device
			target, route         string
		}{
			{"elsewhere", other.contact(), "", other, strings.Trim(other.contact(), "<>"), ""},
			{"where it was", gateway.contact(), "", gateway, strings.Trim(gateway.contact(), "<>"), ""},
			{"through a proxy", other.contact(), loose, proxy, strings.Trim(other.contact(), "<>"), loose},
			{"through a proxy of RFC 2543", other.contact(), strict, proxy, strings.Trim(strict, "<>"), other.contact()},
			{"in the other family", stranger.contact(), "", stranger, strings.Trim(stranger.contact(), "<>"), ""},
			{"at the edge itself", "<sip:x@" + b.at[x.Backend].String() + ">", "", gateway, "sip:x@" + b.at[x.Backend].String(), ""},
			{"nowhere", "<sip:x@0.0.0.0>", "", gateway, "sip:x@0.0.0.0", ""},
			{"by a name and a port", fmt.Sprintf("<sip:x@gw.example:%d>", port), "", other, fmt.Sprintf("sip:x@gw.example:%d", port), ""},
			{"by a name alone", "<sip:x@sip.example>", "", other, "sip:x@sip.example", ""},
			{"by a name of nobody", "<sip:x@none.example>", "", gateway, "sip:x@none.example", ""},
		} {
			t.Run(test.name, func(t *testing.T) {
				for _, d := range []*device{caller, gateway, other, proxy, stranger} {
					d.t = t
				}
				caller.invite("0312345678")
				invite := keep(gateway.want("INVITE"))
				lines := ""
				if test.record != "" {
					lines = "Record-Route: " + test.record + "\r\n"
				}
				gateway.answersAs(invite, test.contact, lines)
				answer := keep(caller.want("200"))
				b.until(func() bool { // it may have to be looked up
					ready := true
					b.legs(func(l *leg) { ready = ready && (l.near || l.way.Remote == addrOf(test.to)) })
					return ready
				})
				n := sequence(answer)
				caller.send(caller.within(answer, "ACK", n))
				if ack := test.to.want("ACK"); string(ack.Target()) != test.target || string(ack.Get(sip.Route)) != test.route {
					t.Errorf("got\n%s", ack.Head())
				}
				caller.send(caller.within(answer, "INFO", n+1))
				info := keep(test.to.want("INFO"))
				if string(info.Target()) != test.target || string(info.Get(sip.Route)) != test.route {
					t.Errorf("got\n%s", info.Head())
				}
				test.to.response(info, 200, "")
				caller.want("200")
				hangUp(caller, test.to, answer, n+2)
			})
		}
	})
}

// TestAimFails: what cannot be sent where a gateway says that it is has failed, and who has asked is told so; he can hang up.
func TestAimFails(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		gateway, caller := b.newDevice("udp", f, "gateway"), b.registered("udp", f, "05010000001")
		b.reload(withTrunk("global", gateway, b.newDevice("udp", f, "second")))
		closed, err := servertest.FreeAddr(f)
		if err != nil {
			t.Fatal(err)
		}
		caller.invite("0312345678")
		gateway.answersAs(keep(gateway.want("INVITE")), "<sip:x@"+closed.String()+";transport=tcp>", "")
		answer := keep(caller.want("200"))
		n := sequence(answer)
		caller.send(caller.within(answer, "ACK", n))
		caller.send(caller.within(answer, "INFO", n+1))
		caller.want("503")
		caller.send(caller.within(answer, "BYE", n+2))
		caller.want("200")
		b.legs(func(l *leg) { t.Errorf("there is still a leg of %s", l.session.Remote) })
	})
}

// TestAimAgain: a gateway that says in a call that it is elsewhere is asked there from then on.
func TestAimAgain(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		b.t = t
		gateway, other := b.newDevice("udp", f, "gateway"), b.newDevice("udp", f, "other")
		callee := b.registered("udp", f, "05010000002")
		defer callee.unregister()
		trunk := withTrunk("global", gateway, b.newDevice("udp", f, "second"))
		b.reload(trunk)
		gateway.from = "<sip:+81312345678@10.0.5.11;user=phone>"
		gateway.bring("+815010000002")
		came := keep(callee.want("INVITE"))
		callee.response(came, 200, callee.offer())
		answer := keep(gateway.want("200"))
		gateway.send(gateway.within(answer, "ACK", sequence(answer)))
		callee.want("ACK")
		change := withBody(strings.Replace(gateway.within(answer, "INVITE", sequence(answer)+1), gateway.contact(), other.contact(), 1), gateway.offer())
		gateway.send(change)
		callee.response(keep(callee.want("INVITE")), 200, callee.offer())
		gateway.want("200")
		gateway.send(gateway.within(answer, "ACK", sequence(answer)+1))
		callee.want("ACK")
		callee.send(callee.within(came, "INFO", 1))
		other.response(keep(other.want("INFO")), 200, "")
		callee.want("200")
		b.end()
		b.start(trunk) // from then on also for the process that takes the call up
		callee.send(callee.within(came, "INFO", 2))
		other.response(keep(other.want("INFO")), 200, "")
		callee.want("200")
		callee.send(callee.within(came, "BYE", 51))
		callee.want("200")
		other.response(keep(other.want("BYE")), 200, "")
	})
}

// TestLeads: where requests of a call may not go.
func TestLeads(t *testing.T) {
	t.Parallel()
	s := &settings{networks: map[netip.AddrPort]*network{netip.MustParseAddrPort("198.51.100.1:5060"): {}}}
	s.publish(nil)
	for to, want := range map[string]bool{"203.0.113.9:5060": true, "10.0.0.9:5060": false, "198.51.100.1:5060": false, "224.0.1.75:5060": false, "0.0.0.0:5060": false} {
		from := sip.Way{Remote: netip.MustParseAddrPort("203.0.113.1:5060")}
		if got := s.leads(from, sip.Way{Remote: netip.MustParseAddrPort(to)}); got != want {
			t.Errorf("%s: got %v", to, got)
		}
	}
	inside := sip.Way{Remote: netip.MustParseAddrPort("10.0.0.1:5060")}
	if !s.leads(inside, sip.Way{Remote: netip.MustParseAddrPort("10.0.0.9:5060")}) || s.leads(inside, sip.Way{Transport: sip.TLS, Remote: netip.MustParseAddrPort("10.0.0.9:5061")}) {
		t.Error("within a private network")
	}
}
