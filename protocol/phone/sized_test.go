// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// both returns a telephone over UDP, and who takes connections at the same address and port.
func (b *bench) both(f ip.Family, name string) (*device, *exchangeServer) {
	b.t.Helper()
	for range 100 { // the port may be taken
		d := b.newDevice("udp", f, name)
		l, err := net.Listen(map[ip.Family]string{ip.V4: "tcp4", ip.V6: "tcp6"}[f], d.local())
		if err == nil {
			b.t.Cleanup(func() { l.Close() })
			return d, &exchangeServer{b.t, l}
		}
	}
	b.t.Fatal("no port is free for both")
	return nil, nil
}

// large makes a request of that size, at least.
func large(request string, size int) string {
	return strings.Replace(request, "\r\nContent-Length", "\r\nSubject: "+strings.Repeat("x", size)+"\r\nContent-Length", 1)
}

// tooLarge is what makes a request too large for a datagram, though it fits into one.
func tooLarge(f ip.Family) int { return map[ip.Family]int{ip.V4: 1100, ip.V6: 750}[f] }

// TestLargeWithin: a request within a call that is too large for a datagram goes over TCP to whoever can take it: to a telephone,
// to where a gateway says that it is, to a proxy that has recorded itself. Small ones go over UDP.
func TestLargeWithin(t *testing.T) {
	t.Parallel()
	b := newBenchOf(t, 1, "")
	b.relayed("")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		caller, gateway := b.registered("udp", x.Client, "05010000001"), b.newDevice("udp", x.Backend, "gateway")
		defer caller.unregister()
		b.reload(byTrunk(gateway.local()))
		other, others := b.both(x.Backend, "other")
		proxy, proxies := b.both(x.Backend, "proxy")
		callee, callees := b.both(x.Backend, "05010000002")
		if status := callee.register("Contact: " + callee.contact()); status != 200 {
			t.Fatal(status)
		}
		for _, test := range []struct {
			name, contact, record string
			to                    *device
			by                    *exchangeServer
		}{
			{"a telephone", callee.contact(), "", callee, callees},
			{"where a gateway says", other.contact(), "", other, others},
			{"a proxy", gateway.contact(), "Record-Route: <sip:" + proxy.local() + ";lr>\r\n", proxy, proxies},
		} {
			t.Run(test.name, func(t *testing.T) {
				for _, d := range []*device{caller, gateway, other, proxy, callee} {
					d.t = t
				}
				first, number := gateway, "0312345678"
				if test.to == callee {
					first, number = callee, callee.name
				}
				caller.invite(number)
				first.answersAs(keep(first.want("INVITE")), test.contact, test.record)
				answer := keep(caller.want("200"))
				n := sequence(answer)
				caller.send(caller.within(answer, "ACK", n))
				test.to.want("ACK")
				var conn *device
				for _, method := range []string{"INFO", "MESSAGE", "UPDATE", "INFO"} {
					n++
					caller.send(large(caller.within(answer, method, n), tooLarge(x.Backend)))
					if conn == nil {
						conn = test.by.take(test.to.name)
					}
					r := keep(conn.want(method))
					isVia(t, r, sip.TCP, b.at[x.Backend])
					conn.response(r, 200, "")
					caller.want("200")
				}
				n++
				caller.send(large(withBody(caller.within(answer, "INVITE", n), caller.offer()), tooLarge(x.Backend)))
				again := keep(conn.want("INVITE"))
				isVia(t, again, sip.TCP, b.at[x.Backend])
				conn.answersAs(again, test.contact, "")
				caller.want("200")
				caller.send(caller.within(answer, "ACK", n))
				test.to.want("ACK") // a small one
				hangUp(caller, test.to, answer, n+1)
			})
		}
		callee.unregister()
	})
}

// TestLargeRefused: who takes no connections gets it over UDP, and so from then on.
func TestLargeRefused(t *testing.T) {
	t.Parallel()
	b := newBenchOf(t, 1, "")
	b.relayed("")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		caller, callee := b.registered("udp", x.Client, "05010000001"), b.registered("udp", x.Backend, "05010000002")
		answer, _ := b.call(caller, callee, nil, nil)
		n := sequence(answer)
		for i, size := range []int{tooLarge(x.Backend), tooLarge(x.Backend), 1400} { // the last does not fit into a packet of IPv6
			n++
			caller.send(large(caller.within(answer, "INFO", n), size))
			r := keep(callee.want("INFO"))
			isVia(t, r, sip.UDP, b.at[x.Backend])
			if !b.core.refusing.has(addrOf(callee), now()) {
				t.Errorf("INFO %d: it is not known who has no TCP", i)
			}
			callee.response(r, 200, "")
			caller.want("200")
		}
		hangUp(caller, callee, answer, n+1)
		callee.unregister()
		caller.unregister()
	})
}

// TestLeadsTo: who is told of a transport, or by a name, or behind a NAT, is not sent connections.
func TestLeadsTo(t *testing.T) {
	t.Parallel()
	at := netip.MustParseAddrPort("[2001:db8::1]:5060")
	for hop, want := range map[string]bool{
		"sip:x@[2001:db8::1]:5060": true, "sip:x@[2001:db8::1]": true, "sip:x@[2001:db8::1];transport=udp": false,
		"sip:x@[2001:db8::1]:5062": false, "sip:x@192.0.2.1": false, "sip:x@a.example": false, "sips:x@[2001:db8::1]:5060": false, "tel:110": false,
	} {
		head := "\r\nVia: SIP/2.0/UDP a;branch=z9hG4bKx\r\nFrom: <sip:a@b>;tag=x\r\nTo: <sip:a@b>\r\nCall-ID: x\r\nCSeq: 1 INFO\r\nMax-Forwards: 70\r\n"
		if got := leadsTo([]byte("INFO "+hop+" SIP/2.0"+head+"\r\n"), at); got != want {
			t.Errorf("%s: got %v", hop, got)
		}
		if got := leadsTo([]byte("INFO sip:nobody@example SIP/2.0"+head+"Route: <"+hop+";lr>\r\n\r\n"), at); got != want {
			t.Errorf("Route %s: got %v", hop, got)
		}
	}
}

// TestRefusals: who has no TCP is remembered for a while, and not more of them than there is room for.
func TestRefusals(t *testing.T) {
	t.Parallel()
	var r refusals
	at := func(i int) netip.AddrPort {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{byte(i >> 16), byte(i >> 8), byte(i), 1}), 5060)
	}
	for i := range mostRefusing + 1 {
		r.add(at(i), 1000)
	}
	if len(r.until) != mostRefusing || !r.has(at(0), 1000) || r.has(at(0), 1000+refusedFor) || r.has(at(mostRefusing), 1000) {
		t.Errorf("%d are remembered", len(r.until))
	}
	if r.add(at(0), 1000+refusedFor); len(r.until) != 1 {
		t.Errorf("%d are remembered for ever", len(r.until))
	}
}
