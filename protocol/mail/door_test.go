// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/kyozon/kyozon/backend"
	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/limit"
	"github.com/kyozon/kyozon/protocol/mail/policy"
	"github.com/kyozon/kyozon/resolve"
	"github.com/kyozon/kyozon/service"
)

// guarded sets a policy for clients of both families that asks a server.
func guarded(names netip.AddrPort, change func(*Policy)) func(*Options) {
	return func(o *Options) {
		o.Policy = &Policy{Clients: ClientsAll, Resolvers: []netip.AddrPort{names}}
		change(o.Policy)
	}
}

// outsider is where clients of a test come from: not the address that no list may have (RFC 5782 §5).
func outsider(f ip.Family) netip.Addr {
	if f == ip.V4 {
		return netip.AddrFrom4([4]byte{127, 0, 0, 9})
	}
	return iptest.Loopback(f)
}

// dialFrom connects, and does not wait for the greeting.
func dialFrom(t *testing.T, from netip.Addr, at netip.AddrPort) *client {
	t.Helper()
	conn, err := net.DialTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.TCPAddrFromAddrPort(at))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return newClient(t, conn)
}

// TestDoor: who is refused is refused before a server hears of him; who is only observed is not; and what nobody could find
// out refuses nobody.
func TestDoor(t *testing.T) {
	t.Parallel()
	reversed := func(p *Policy) { p.ReverseName = policy.Enforce }
	tests := []struct {
		name   string
		zone   string // $ stands for the client's reverse name, @ for the type of his address, and % for the address itself
		change func(*Policy)
		helo   string
		want   string // the answer to MAIL
		rule   string // that is counted
	}{
		{"no reverse name", "", reversed, "mx.example.com", "450 4.7.25 ", "reverse-name"},
		{"a reverse name that leads nowhere", "$ PTR mx.example.com.", reversed, "mx.example.com", "450 4.7.25 ", "reverse-name"},
		{"a reverse name that leads back", "$ PTR mx.example.com.\nmx.example.com. @ %", reversed, "mx.example.com", "250 ", ""},
		{"observed", "", func(p *Policy) { p.ReverseName = policy.Observe }, "mx.example.com", "250 ", "reverse-name"},
		{"servers that fail", "fail", func(p *Policy) {
			p.ReverseName, p.DNSBL, p.Zones = policy.Enforce, policy.Enforce, []string{"list.example"}
		}, "mx.example.com", "250 ", "dns-unknown"},
		{"a name that is ours", "", func(p *Policy) { p.Hello = policy.Enforce }, "mx.example", "550 5.7.1 ", "hello"},
		{"a name that is not complete", "", func(p *Policy) { p.Hello = policy.Enforce }, "localhost", "550 5.7.1 ", "hello"},
		{"a name that is complete", "", func(p *Policy) { p.Hello = policy.Enforce }, "mx.example.com", "250 ", ""},
		{"listed", "listed", func(p *Policy) { p.DNSBL, p.Zones = policy.Enforce, []string{"list.example"} }, "mx.example.com", "550 5.7.1 ", "dnsbl"},
		{"exempt", "listed", func(p *Policy) {
			p.DNSBL, p.Zones = policy.Enforce, []string{"list.example"}
			p.Exempt = []netip.Prefix{netip.MustParsePrefix("127.0.0.8/29"), netip.MustParsePrefix("::1/128")}
		}, "mx.example.com", "250 ", ""},
	}
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		client := outsider(c.Client)
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				b := newBench(t)
				mta := servertest.NewMail(t, c.Backend, nil)
				names := servertest.NewDNS(t, c.Backend, "", func(w dns.ResponseWriter, q *dns.Msg) { answerFor(t, w, q, test.zone, client) })
				e := b.serve(t, "smtp", c.Client, to(mta.Addr), guarded(names.Addr, test.change))
				s := dialFrom(t, client, e.at)
				s.want("220 ")
				s.do("EHLO "+test.helo, "250")
				s.do("MAIL FROM:<a@example.com>", test.want)
				refused := !strings.HasPrefix(test.want, "250")
				if refused {
					s.do("MAIL FROM:<a@example.com>", test.want) // and is counted once
					s.do("RCPT TO:<b@example.jp>", "503")
					if got := strings.Join(mta.Commands(), " "); strings.Contains(got, "MAIL") {
						t.Errorf("the server has heard %s", got)
					}
				}
				s.do("QUIT", "221")
				var want []service.Refusal
				if test.rule != "" {
					want = []service.Refusal{{Service: "x", Family: c.Client, Rule: test.rule, Refused: refused, Count: 1}}
				}
				if diff := cmp.Diff(want, e.server.Refusals()); diff != "" {
					t.Errorf("refusals (-want +got):\n%s", diff)
				}
			})
		}
	})
}

// answerFor is a DNS server that has a client's reverse name, or a list that has the client, or that fails.
func answerFor(t *testing.T, w dns.ResponseWriter, q *dns.Msg, zone string, client netip.Addr) {
	m := new(dns.Msg).SetReply(q)
	m.Authoritative = true
	kind := map[ip.Family]string{ip.V4: "A", ip.V6: "AAAA"}[ip.FamilyOf(client)]
	switch zone {
	case "fail":
		m.Rcode = dns.RcodeServerFailure
		w.WriteMsg(m)
		return
	case "listed":
		zone = resolve.Below(client, "list.example") + ". A 127.0.0.2"
	}
	m.Rcode = dns.RcodeNameError
	for line := range strings.Lines(strings.NewReplacer("$", resolve.Reverse(client)+".", "@", kind, "%", client.String()).Replace(zone)) {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Error(err)
		} else if rr.Header().Name == q.Question[0].Name {
			m.Rcode = dns.RcodeSuccess
			if rr.Header().Rrtype == q.Question[0].Qtype {
				m.Answer = append(m.Answer, rr)
			}
		}
	}
	w.WriteMsg(m)
}

// TestWaiting: who talks before he is greeted is refused, or greeted all the same if that is only observed. Who has waited
// need not wait again, also after a reload.
func TestWaiting(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		t.Parallel()
		names := servertest.NewDNS(t, c.Backend, "", nil).Addr
		mta := servertest.NewMail(t, c.Backend, nil)
		early := func(m policy.Mode, d time.Duration) func(*Options) {
			return guarded(names, func(p *Policy) { p.Early, p.Delay = m, d })
		}
		b := newBench(t)
		e := b.serve(t, "smtp", c.Client, to(mta.Addr), early(policy.Enforce, time.Hour))
		s := dialFrom(t, outsider(c.Client), e.at)
		s.do("EHLO mx.example.com", "554 5.5.1 ")
		s.ends()
		gone := dialFrom(t, outsider(c.Client), e.at)
		gone.conn.Close()

		b.build(t, service.Listen{Name: "smtp", Addr: tcpAddr(e.at)}, to(mta.Addr), early(policy.Observe, time.Second))
		s = dialFrom(t, outsider(c.Client), e.at)
		s.say("EHLO mx.example.com")
		s.want("220 ")
		s.want("250")
		s.do("MAIL FROM:<a@example.com>", "250")
		s.do("QUIT", "221")
		want := []service.Refusal{{Service: "x", Family: c.Client, Rule: "early", Refused: true, Count: 1}, {Service: "x", Family: c.Client, Rule: "early", Count: 1}}
		if diff := cmp.Diff(want, e.server.Refusals()); diff != "" {
			t.Errorf("refusals (-want +got):\n%s", diff)
		}

		b.build(t, service.Listen{Name: "smtp", Addr: tcpAddr(e.at)}, to(mta.Addr), early(policy.Enforce, time.Millisecond))
		dialFrom(t, outsider(c.Client), e.at).want("220 ")
		b.build(t, service.Listen{Name: "smtp", Addr: tcpAddr(e.at)}, to(mta.Addr), early(policy.Enforce, time.Hour))
		dialFrom(t, outsider(c.Client), e.at).want("220 ")
	})
}

// TestPatience: a client whose names are still being looked up waits for the answer to MAIL; one that leaves meanwhile is not
// missed. The edge does not wait for him to stop.
func TestPatience(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		asked, release := make(chan struct{}, 8), make(chan struct{})
		names := servertest.NewDNS(t, f, "", func(w dns.ResponseWriter, q *dns.Msg) {
			asked <- struct{}{}
			<-release
			w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeNameError))
		})
		mta := servertest.NewMail(t, f, nil)
		b := newBench(t)
		e := b.serve(t, "smtp", f, to(mta.Addr), guarded(names.Addr, func(p *Policy) { p.ReverseName = policy.Enforce }))
		s, gone := dial(t, e.at), dial(t, e.at)
		for _, c := range []*client{s, gone} {
			c.do("EHLO mx.example.com", "250")
			c.say("MAIL FROM:<a@example.com>")
		}
		gone.conn.Close()
		<-asked
		close(release)
		s.want("450 4.7.25 ")
	})
}

// TestMessageLimit: a prefix has so many messages.
func TestMessageLimit(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		var r limit.Rules
		r.Rates[limit.Requests] = limit.Rate{Count: 2, Per: time.Hour, Burst: 2}
		r.Wider6 = []limit.Wider{{Bits: 48, Times: 4}, {Bits: 32, Times: 16}}
		b := newBench(t)
		b.limits = limit.NewTable(0).Limits(r)
		mta := servertest.NewMail(t, c.Backend, nil)
		s := dial(t, b.serve(t, "smtp", c.Client, to(mta.Addr), nil).at)
		s.do("EHLO mx.example.com", "250")
		for _, want := range []string{"250 ", "250 ", "451 4.7.1 "} {
			s.do("MAIL FROM:<a@example.com>", want)
			s.do("RSET", "250")
		}
	})
}

// TestUnused: a resolver that no generation uses any more is closed.
func TestUnused(t *testing.T) {
	t.Parallel()
	var r resolvers
	o := resolve.Options{Servers: []netip.AddrPort{netip.AddrPortFrom(iptest.Loopback(ip.V6), 1)}}
	first, key := r.open(o)
	second, _ := r.open(o)
	r.close(key)
	ask := func() error {
		answer := make(chan resolve.Answer, 1)
		second.Ask(resolve.Question{Name: "example", Type: resolve.A}, func(a resolve.Answer) { answer <- a })
		return (<-answer).Err
	}
	before := ask()
	r.close(key)
	if first != second || len(r.all) != 0 || before == nil || second.Counts().Asked != 1 {
		t.Errorf("one for both: %t, %d left, %v", first == second, len(r.all), before)
	}
	if third, _ := r.open(o); third == first {
		t.Error("a resolver that was closed is used again")
	} else {
		r.close(key)
	}
}

// TestNamed: a server that takes XCLIENT learns the reverse name that was confirmed.
func TestNamed(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		from := outsider(c.Client)
		names := servertest.NewDNS(t, c.Backend, "", func(w dns.ResponseWriter, q *dns.Msg) {
			answerFor(t, w, q, "$ PTR host.example.com.\nhost.example.com. @ %", from)
		})
		mta := servertest.NewMail(t, c.Backend, func(m *servertest.Mail) { m.Offers = append(m.Offers, "XCLIENT NAME ADDR") })
		spec := to(mta.Addr)
		spec.Handover = backend.HandoverXclient
		b := newBench(t)
		e := b.serve(t, "smtp", c.Client, spec, guarded(names.Addr, func(p *Policy) { p.ReverseName = policy.Enforce }))
		for range 2 { // what the server offers is known to the second: it is asked when the client is known too
			s := dialFrom(t, from, e.at)
			s.want("220 ")
			s.do("EHLO mx.example.com", "250")
			s.do("MAIL FROM:<a@example.com>", "250")
			s.do("RCPT TO:<b@example.jp>", "250")
			s.do("DATA", "354")
			s.say("hello", ".")
			s.want("250")
			s.do("QUIT", "221")
		}
		if all := mta.Messages(); len(all) != 2 || !strings.HasPrefix(all[1].Xclient, "NAME=host.example.com ADDR=") {
			t.Errorf("told %+v", all)
		}
	})
}
