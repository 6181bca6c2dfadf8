// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

const isup = "--one\r\nContent-Type: application/isup;version=itu-t92+\r\nContent-Disposition: signal;handling=optional\r\n\r\n\x01\x00\x49\r\n"

// inParts puts a description beside what gateways say to each other.
func inParts(sdp string) string {
	return isup + "--one\r\nContent-Type: application/sdp\r\n\r\n" + sdp + "\r\n--one--\r\n"
}

// withParts puts a body of several parts into a message.
func withParts(message, body string) string {
	return strings.Replace(message, "Content-Length: 0\r\n", fmt.Sprintf("Content-Type: multipart/mixed; boundary=one\r\nContent-Length: %d\r\n", len(body)), 1) + body
}

// answerInParts answers with one.
func (d *device) answerInParts(m *sip.Message, status int, body string) {
	d.t.Helper()
	a := sip.Answer{Status: status, Tag: []byte("tag" + d.name), Dialog: true, Body: []byte(body), Type: "multipart/mixed; boundary=one",
		Lines: []byte("Contact: " + d.contact() + "\r\n")}
	d.send(string(a.Append(nil, m, addrOf(d))))
}

// hidesFrom fails if a message shows the addresses of a family, or of another telephone; it must have ISUP or must not.
func hidesFrom(t *testing.T, m *sip.Message, f ip.Family, with bool) {
	t.Helper()
	got := bodyOf(m)
	other := map[ip.Family]string{ip.V4: "IN IP6", ip.V6: "IN IP4"}[f]
	if strings.Contains(got, other) || !strings.Contains(got, relayAt[f].String()) {
		t.Errorf("got %q, which does not have the addresses of the relay alone", got)
	}
	if kind := string(m.Get(sip.ContentType)); strings.Contains(got, "isup") != with || strings.HasPrefix(kind, "multipart/mixed") != with || with && !strings.HasPrefix(got, isup) {
		t.Errorf("got %s: %q, want ISUP: %v", kind, got, with)
	}
}

// TestParts: between gateways a description is changed where it stands among other parts; a telephone gets it alone.
func TestParts(t *testing.T) {
	t.Parallel()
	b := newBench(t, "")
	b.relayed("")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		one, two := b.newDevice("udp", x.Client, "one"), b.newDevice("udp", x.Backend, "two")
		callee := b.registered("udp", x.Backend, "05010000002")
		defer callee.unregister()
		one.from = "<sip:+81312345678@10.0.5.11;user=phone>"
		b.reload(fmt.Sprintf(", numbers: {own: 0501000xxxx, plan: japan}, trunks: {east: {gateways: [%q], network: access, onward: [west]}, "+
			"west: {gateways: [%q], network: access}}, routes: [{to: own, via: subscribers}, {to: [emergency, 0ab-j], via: west}]", one.local(), two.local()))
		bring := func(called string) {
			one.send(withParts(one.request("INVITE", "sip:"+called+"@"+domain+";user=phone", "Contact: "+one.contact()), inParts(one.offer())))
		}
		for called, d := range map[string]*device{"+81612345678": two, "+815010000002": callee} {
			gateway := d == two
			bring(called)
			invite := keep(d.want("INVITE"))
			hidesFrom(t, invite, x.Backend, gateway)
			d.answerInParts(invite, 200, inParts(d.offer()))
			answer := keep(one.want("200"))
			hidesFrom(t, answer, x.Client, true)
			n := sequence(answer)
			one.send(one.within(answer, "ACK", n))
			d.want("ACK")

			change := withParts(one.within(answer, "INVITE", n+1), inParts(one.offer()))
			one.send(change)
			again := keep(d.want("INVITE"))
			hidesFrom(t, again, x.Backend, gateway)
			d.response(again, 200, d.offer())
			one.want("200")
			one.send(one.within(answer, "ACK", n+1))
			d.want("ACK")

			change = withParts(one.within(answer, "INVITE", n+2), inParts(one.offer())+inParts(one.offer())) // which of them holds?
			one.send(change)
			m := one.want("415")
			if got := string(m.Get(sip.Accept)); got != "application/sdp, multipart/mixed" {
				t.Errorf("got Accept %q", got)
			}
			one.send(reply(change, m, "ACK"))

			one.send(withParts(one.within(answer, "BYE", n+3), isup+"--one--\r\n"))
			one.want("200")
			bye := keep(d.want("BYE"))
			if got := strings.Contains(bodyOf(bye), "isup"); got != gateway {
				t.Errorf("BYE has %q", bodyOf(bye))
			}
			d.response(bye, 200, "")
		}
		alone := withParts(one.request("INVITE", "sip:+815010000002@"+domain+";user=phone", "Contact: "+one.contact()), isup+"--one--\r\n")
		one.send(alone)
		late := keep(callee.want("INVITE")) // without an offer
		if len(body(late)) > 0 || late.Has(sip.ContentType) {
			t.Errorf("got %s%s", late.Head(), body(late))
		}
		callee.response(late, 486, "")
		callee.want("ACK")
		one.send(reply(alone, one.want("486"), "ACK"))
		bad := withParts(one.request("INVITE", "sip:+81612345678@"+domain+";user=phone", "Contact: "+one.contact()), inParts(one.offer())[:200])
		one.send(bad)
		one.send(reply(bad, one.want("415"), "ACK"))
		sealed := strings.Replace(inParts(one.offer()), "application/sdp", "application/pkcs7-mime", 1)
		bad = withParts(one.request("INVITE", "sip:+81612345678@"+domain+";user=phone", "Contact: "+one.contact()), sealed)
		one.send(bad)
		one.send(reply(bad, one.want("493"), "ACK"))
	})
}
