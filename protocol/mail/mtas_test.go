// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

// mta is a mail server of a test, of whatever make.
type mta interface {
	Messages(t testing.TB) []string
}

// maker starts one. trusted is a client that it relays for, "" for nobody.
type maker func(t *testing.T, f ip.Family, trusted string) (mta, netip.AddrPort)

func eximLight(t *testing.T, f ip.Family, trusted string) (mta, netip.AddrPort) {
	e := servertest.NewExim(t, f, "light", "", trusted)
	return e, e.Addr
}

// eximProxy waits for a PROXY header from this machine.
func eximProxy(t *testing.T, f ip.Family, trusted string) (mta, netip.AddrPort) {
	e := servertest.NewExim(t, f, "heavy", "hosts_proxy = <; 127.0.0.1 ; ::1", trusted)
	return e, e.Addr
}

// openSMTPD is Debian's without more: it does not know a word by which it could be told who a client is.
func openSMTPD(t *testing.T, f ip.Family, trusted string) (mta, netip.AddrPort) {
	o := servertest.NewOpenSMTPD(t, f, "", relayFor(trusted))
	return o, o.Addr
}

// openSMTPDProxy waits for a PROXY header at its listener.
func openSMTPDProxy(t *testing.T, f ip.Family, trusted string) (mta, netip.AddrPort) {
	o := servertest.NewOpenSMTPD(t, f, "proxy-v2", relayFor(trusted))
	return o, o.Addr
}

func relayFor(trusted string) string {
	if trusted == "" {
		return ""
	}
	return "action \"out\" relay\nmatch from src { " + trusted + " } for any action \"out\""
}

func qmail(t *testing.T, f ip.Family, trusted string) (mta, netip.AddrPort) {
	var all []netip.Prefix
	if trusted != "" {
		a := netip.MustParseAddr(trusted)
		all = append(all, netip.PrefixFrom(a, a.BitLen()))
	}
	q := servertest.NewQmail(t, f, all...)
	return q, q.Addr
}

// bring sends a message through an edge that must be open, and returns it as it was delivered.
func (b *bench) bring(t *testing.T, e *edge, m mta) string {
	t.Helper()
	b.waitFor("the proof", func() bool { return e.server.Shut("x") == "" })
	c := dial(t, e.at)
	c.do("EHLO client.example", "250")
	c.do("MAIL FROM:<a@example.com>", "250")
	c.do("RCPT TO:<b@"+servertest.PostfixDomain+">", "250")
	c.do("RCPT TO:<b@example.org>", "55")
	c.do("DATA", "354")
	c.say("Subject: hello", "", "..a dot", ".")
	c.want("250")
	c.do("QUIT", "221")
	b.waitFor("the message", func() bool { return len(m.Messages(t)) > 0 })
	got := m.Messages(t)[0]
	if !strings.Contains(got, "\n.a dot\n") || !strings.Contains(got, "Subject: hello") {
		t.Errorf("got %s", got)
	}
	return got
}

// TestServersToldByHeader: servers that take a PROXY header, and no XCLIENT, are found out, at every crossing, and see the
// client's own address. One that trusts that client with relaying keeps the service shut.
//
// Exim greets without a header too, after 3 seconds, and then takes no command; OpenSMTPD never says a word.
func TestServersToldByHeader(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]maker{"exim heavy": eximProxy, "opensmtpd": openSMTPDProxy} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.mute = 4 * time.Second
			open, trusting, mtas := make(map[ip.Crossing]*edge), make(map[ip.Crossing]*edge), make(map[ip.Crossing]mta)
			nobody := map[ip.Family]string{ip.V4: "192.0.2.1", ip.V6: "2001:db8::1"}
			for _, x := range ip.Crossings() { // all are asked at once
				m, at := start(t, x.Backend, "")
				spec := to(at)
				spec.Handover = backend.HandoverAuto
				open[x], mtas[x] = b.serve(t, "smtp", x.Client, spec, require), m
				_, at = start(t, x.Backend, nobody[x.Client])
				spec = to(at)
				spec.Handover = backend.HandoverProxyV2
				trusting[x] = b.serve(t, "smtp", x.Client, spec, require)
			}
			iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
				e := open[x]
				if got, want := b.bring(t, e, mtas[x]), iptest.Loopback(x.Client).String(); !strings.Contains(got, want) {
					t.Errorf("got %s\nwant %s", got, want)
				}
				if told := e.pool.Backends()[0].Told(); told.Handover != backend.HandoverProxyV2 || told.Carry != backend.CarryClient {
					t.Errorf("told by %v", told)
				}
				b.waitFor("a finding", func() bool {
					return strings.Contains(trusting[x].server.Shut("x"), "from "+nobody[x.Client]+"; take that address out")
				})
			})
		})
	}
}

// TestServersToldByNobody: servers that know a client by the address of his connection alone get no mail by handover: auto,
// which says why; with source: client they see the stand-in, or the client's own address, and so nothing was changed on
// them. The embedding at 4→6 needs a route on the machine, which the labs have: there the server sees the edge.
func TestServersToldByNobody(t *testing.T) {
	t.Parallel()
	standIn := netip.MustParseAddr("127.64.0.17")
	for name, start := range map[string]maker{"exim light": eximLight, "opensmtpd": openSMTPD, "qmail": qmail} {
		t.Run(name, func(t *testing.T) {
			iptest.EachCrossing(t, func(t *testing.T, x ip.Crossing) {
				t.Parallel()
				b := newBench(t)
				b.standIns = standIns(standIn)
				m, at := start(t, x.Backend, "")
				spec := to(at)
				spec.Handover = backend.HandoverAuto
				e := b.serve(t, "smtp", x.Client, spec, require)
				b.waitFor("a finding", func() bool { return strings.Contains(e.server.Shut("x"), "it does not offer XCLIENT") })
				c := dial(t, e.at)
				c.do("HELO client.example", "250")
				c.do("MAIL FROM:<>", "451 4.4.1")

				seen := map[ip.Crossing]netip.Addr{{Client: ip.V6, Backend: ip.V4}: standIn, {Client: ip.V4, Backend: ip.V6}: netip.IPv6Loopback()}[x]
				if spec.Source = backend.SourceClient; x.Client == x.Backend {
					seen = iptest.Loopback(x.Client)
				} else if x.Client == ip.V4 {
					spec.Source, spec.Handover = backend.SourceEdge, backend.HandoverNone
				}
				e = b.serve(t, "smtp", x.Client, spec, require)
				if got := b.bring(t, e, m); !strings.Contains(got, seen.String()) {
					t.Errorf("got %s\nwant %v", got, seen)
				}

				_, spec.Servers[0].Addr = start(t, x.Backend, seen.String())
				e = b.serve(t, "smtp", x.Client, spec, require)
				b.waitFor("a finding", func() bool {
					return strings.Contains(e.server.Shut("x"), "from "+seen.String()+"; take that address out")
				})
			})
		})
	}
}
