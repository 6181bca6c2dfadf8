// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phone

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/protocol/phone/sip"
	"github.com/kyozon/kyozon/protocol/phone/sip/target"
	"github.com/kyozon/kyozon/resolve"
)

// byName returns options with a trunk that is known by a name, and whose gateways are asked whether they are there.
func byName(server *servertest.DNS, uri string) string {
	return fmt.Sprintf(", resolvers: [%q], numbers: {own: 0501000xxxx, plan: japan}, trunks: {carrier: {gateways: [%q], network: access, health: 1s}}, "+
		"routes: [{to: own, via: subscribers}, {to: [emergency, 0ab-j], via: carrier}]", server.Addr, uri)
}

// An other carrier is found by its name, in both families; who is found by it is trusted like it. One family that is down
// costs no call.
func TestNames(t *testing.T) {
	t.Parallel()
	b := newBenchOf(t, 1, "")
	iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
		b.t = t
		gateway := newExchange(t, x.Backend, anyPort(x.Backend))
		port := netip.MustParseAddrPort(gateway.Addr().String()).Port()
		server := servertest.NewDNS(t, x.Client, fmt.Sprintf(strings.ReplaceAll(`
			carrier.example.           IN NAPTR 10 10 "s" "SIP+D2T" "" _sip._tcp.carrier.example.
			carrier.example.           IN NAPTR 20 10 "u" "E2U+sip" "!^.*$!sip:x@y!" .
			_sip._tcp.carrier.example. IN SRV 1 1 %d gw.carrier.example.
			gw.carrier.example.        IN A 127.0.0.1
			gw.carrier.example.        IN AAAA ::1
		`, "\t", ""), port), nil)
		caller := b.registered("udp", x.Client, "05010000001")
		b.reload(byName(server, "sip:carrier.example"))
		conn := gateway.take("gateway")
		conn.well = true
		m := conn.asked("")
		if got := string(m.Target()); got != "sip:carrier.example;user=phone" {
			t.Errorf("asked %s", got)
		}
		conn.response(m, 200, "")
		if x.Client != x.Backend {
			return
		}
		r := caller.invite("0312345678")
		m = keep(conn.want("INVITE"))
		isVia(t, m, sip.TCP, b.at[x.Backend])
		if got := string(m.Target()); got != "sip:+81312345678@carrier.example;user=phone" {
			t.Errorf("called %s", got)
		}
		conn.response(m, 486, "")
		conn.want("ACK")
		caller.send(reply(r, caller.want("486"), "ACK"))

		callee := b.registered("udp", x.Client, "05010000002")
		defer callee.unregister()
		conn.from = "<sip:+81312345678@carrier.example;user=phone>"
		r = conn.bring("+815010000002")
		callee.response(keep(callee.want("INVITE")), 486, "")
		callee.want("ACK")
		conn.send(reply(r, conn.want("486"), "ACK"))
	})
}

// What the DNS says is followed; what it said before holds while nobody can say.
func TestNamesChange(t *testing.T) {
	t.Parallel()
	b := &bench{t: t, at: map[ip.Family]netip.AddrPort{ip.V4: netip.MustParseAddrPort("127.0.0.1:5060"), ip.V6: netip.MustParseAddrPort("[::1]:5060")}, dir: t.TempDir()}
	server := servertest.NewDNS(t, ip.V4, "", nil)
	where := func(s *settings) (all []string) {
		for _, g := range s.trunks["carrier"].locate(&s.trunks["carrier"].written[0], s.directory.Load().answers, nil) {
			all = append(all, g.way.Transport.String()+" "+g.way.Remote.String())
		}
		return all
	}
	cfg := b.parse(byName(server, "sip:carrier.example"))
	o := cfg.Services[0].Options.(*Options)
	s := &settings{options: o, plan: o.Compile()}
	if err := s.makeTrunks(o.networks(cfg.Services[0]), nil); err != nil {
		t.Fatal(err)
	}
	s.publish(&target.Answers{})
	for _, test := range []struct {
		name, zone string
		want       []string
	}{
		{"addresses", "carrier.example. IN A 192.0.2.1\ncarrier.example. IN AAAA 2001:db8::1", []string{"UDP [2001:db8::1]:5060", "UDP 192.0.2.1:5060"}},
		{"services", "_sip._udp.carrier.example. IN SRV 2 0 5070 b.example.\n_sip._udp.carrier.example. IN SRV 1 0 5071 a.example.\n" +
			"a.example. IN A 192.0.2.2\nb.example. IN AAAA 2001:db8::2", []string{"UDP 192.0.2.2:5071", "UDP [2001:db8::2]:5070"}},
		{"nobody can say", "", []string{"UDP 192.0.2.2:5071", "UDP [2001:db8::2]:5070"}},
		{"nobody is there", "example. IN SOA ns. root. 1 1 1 1 1", nil},
	} {
		if test.zone == "" {
			server = servertest.NewDNS(t, ip.V4, "", func(w dns.ResponseWriter, q *dns.Msg) {
				w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure))
			})
		} else {
			server = servertest.NewDNS(t, ip.V4, test.zone, nil)
		}
		r := resolve.New(resolve.Options{Servers: []netip.AddrPort{server.Addr}, Deadline: patience})
		s.publish(s.ask(context.Background(), r, s.directory.Load().answers))
		r.Close()
		if diff := cmp.Diff(test.want, where(s)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

// Nobody gets the place of a gateway that is written with its address by what the DNS says of him.
func TestNamesTake(t *testing.T) {
	t.Parallel()
	b := &bench{t: t, at: map[ip.Family]netip.AddrPort{ip.V4: netip.MustParseAddrPort("127.0.0.1:5060"), ip.V6: netip.MustParseAddrPort("[::1]:5060")}, dir: t.TempDir()}
	server := servertest.NewDNS(t, ip.V4, "carrier.example. IN A 192.0.2.1", nil)
	options := byName(server, "sip:carrier.example")
	options = strings.Replace(options, "trunks: {", `trunks: {pstn: {gateways: ["192.0.2.1:5060"], network: access}, `, 1)
	cfg := b.parse(options)
	o := cfg.Services[0].Options.(*Options)
	named := o.networks(cfg.Services[0])
	s := &settings{options: o, plan: o.Compile(), networks: map[netip.AddrPort]*network{b.at[ip.V4]: named["access"]}}
	if err := s.makeTrunks(named, nil); err != nil {
		t.Fatal(err)
	}
	s.publish(&target.Answers{})
	r := resolve.New(resolve.Options{Servers: []netip.AddrPort{server.Addr}, Deadline: patience})
	defer r.Close()
	s.publish(s.ask(context.Background(), r, s.directory.Load().answers))
	for _, w := range []string{"192.0.2.1:5060", "192.0.2.1:40000"} {
		way := s.sorted[1].locate(&s.sorted[1].written[0], s.directory.Load().answers, nil)[0].way
		way.Transport, way.Remote = sip.TCP, netip.MustParseAddrPort(w)
		if g := s.gatewayOf(way); g == nil || g.trunk.name != "pstn" {
			t.Errorf("%s is %v", w, g)
		}
	}
}
