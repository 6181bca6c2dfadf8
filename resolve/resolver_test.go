// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/miekg/dns"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
)

const patience = time.Minute // of a question, on a machine that has much to do

const zone = `
example.               IN SOA ns.example. root.example. 1 3600 600 86400 60
mx.example.            IN A 192.0.2.25
mx.example.            IN AAAA 2001:db8::25
www.example.           IN CNAME web.example.
web.example.           IN CNAME mx.example.
lost.example.          IN CNAME none.example.
loop.example.          IN CNAME loop.example.
example.               IN MX 10 mx.example.
example.               IN MX 20 Backup.example.
example.               IN TXT "v=spf1 " "mx -all"
silent.example.        IN MX 0 .
_sip._udp.example.     IN SRV 1 2 5060 mx.example.
example.               IN NAPTR 50 50 "s" "SIP+D2U" "" _sip._udp.example.
joke.example.          IN PTR two\032words.example.
`

// TestAsk: each type, by servers of both families, and the three ways to have no answer.
func TestAsk(t *testing.T) {
	t.Parallel()
	const reversed = "5.2.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"
	addrs := func(all ...string) (a Answer) {
		for _, s := range all {
			a.Addrs = append(a.Addrs, netip.MustParseAddr(s))
		}
		return a
	}
	tests := []struct {
		name string
		of   Type
		want Answer
	}{
		{"mx.example", A, addrs("192.0.2.25")},
		{"MX.Example.", AAAA, addrs("2001:db8::25")},
		{"www.example", A, addrs("192.0.2.25")},
		{reversed, PTR, Answer{Names: []string{"mx.example"}}},
		{"example", MX, Answer{Mail: []Mail{{10, "mx.example"}, {20, "backup.example"}}}},
		{"silent.example", MX, Answer{Mail: []Mail{{0, ""}}}},
		{"example", TXT, Answer{Texts: []string{"v=spf1 mx -all"}}},
		{"_sip._udp.example", SRV, Answer{Services: []Service{{1, 2, 5060, "mx.example"}}}},
		{"example", NAPTR, Answer{Pointers: []Pointer{{50, 50, "s", "SIP+D2U", "", "_sip._udp.example"}}}},
		{"mx.example", MX, Answer{Err: ErrNoData}},
		{"joke.example", PTR, Answer{Err: ErrNoData}},
		{"none.example", A, Answer{Err: ErrNoName}},
		{"lost.example", A, Answer{Err: ErrNoName}},
		{"", A, Answer{Err: ErrNoName}},
		{"a..b", A, Answer{Err: ErrNoName}},
		{strings.Repeat("a", 64) + ".example", A, Answer{Err: ErrNoName}},
	}
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		server := servertest.NewDNS(t, f, zone+reversed+". IN PTR MX.example.\n", nil)
		r := New(Options{Servers: []netip.AddrPort{server.Addr}, Deadline: patience})
		defer r.Close()
		for _, test := range tests {
			if diff := cmp.Diff(test.want, ask(r, Question{Name: test.name, Type: test.of}), cmpopts.EquateErrors(),
				cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
				t.Errorf("%s %v (-want +got):\n%s", test.name, test.of, diff)
			}
		}
		if a := ask(r, Question{Name: "loop.example", Type: A}); !errors.Is(a.Err, ErrFailed) {
			t.Errorf("loop: %v, want ErrFailed", a.Err)
		}
	})
}

// TestRefusals: a server that cannot say is no evidence that there is nothing.
func TestRefusals(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		handle func(m *dns.Msg)
	}{
		{"refused", func(m *dns.Msg) { m.Rcode = dns.RcodeRefused }},
		{"server failure", func(m *dns.Msg) { m.Rcode = dns.RcodeServerFailure }},
		{"not implemented", func(m *dns.Msg) { m.Rcode = dns.RcodeNotImplemented }},
		{"referral", func(m *dns.Msg) { m.RecursionAvailable = false }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			server := servertest.NewDNS(t, ip.V6, "", func(w dns.ResponseWriter, q *dns.Msg) {
				m := new(dns.Msg).SetReply(q)
				test.handle(m)
				w.WriteMsg(m)
			})
			r := New(Options{Servers: []netip.AddrPort{server.Addr}, Deadline: patience})
			defer r.Close()
			if a := ask(r, Question{Name: "mx.example", Type: A}); !errors.Is(a.Err, ErrFailed) {
				t.Errorf("%v, want ErrFailed", a.Err)
			}
			if n := r.Counts().Failed; n != 1 {
				t.Errorf("%d failed, want 1", n)
			}
		})
	}
}

// TestTruncated: what does not fit into a datagram comes over TCP.
func TestTruncated(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		var many strings.Builder
		for i := range 40 {
			fmt.Fprintf(&many, "many.example. IN AAAA 2001:db8::%x\n", i+1)
		}
		server := servertest.NewDNS(t, f, many.String(), nil)
		r := New(Options{Servers: []netip.AddrPort{server.Addr}, Deadline: patience})
		defer r.Close()
		a := ask(r, Question{Name: "many.example", Type: AAAA})
		if a.Err != nil || len(a.Addrs) != mostRecords || server.Asked("many.example", dns.TypeAAAA) != 2 {
			t.Errorf("%d addresses, %v, asked %d times; want %d after 2", len(a.Addrs), a.Err,
				server.Asked("many.example", dns.TypeAAAA), mostRecords)
		}
	})
}

// TestWrong: who guesses is not believed; if he goes on, the question goes over TCP, where he has no say.
func TestWrong(t *testing.T) {
	t.Parallel()
	for _, wrong := range []struct {
		name    string
		times   int
		overTCP bool
	}{{"a few", 3, false}, {"many", mostWrong, true}} {
		t.Run(wrong.name, func(t *testing.T) {
			t.Parallel()
			var tcp bool
			server := servertest.NewDNS(t, ip.V6, "", func(w dns.ResponseWriter, q *dns.Msg) {
				m := new(dns.Msg).SetReply(q)
				m.Authoritative = true
				if w.LocalAddr().Network() == "udp" {
					for i := range wrong.times {
						lie := m.Copy()
						lie.Answer = []dns.RR{&dns.A{Hdr: header(q), A: []byte{203, 0, 113, 66}}}
						switch i % 3 {
						case 0:
							lie.Id++
						case 1:
							lie.Question[0].Name = "other.example."
						case 2:
							lie.Response = false
						}
						w.WriteMsg(lie)
					}
				} else {
					tcp = true
				}
				m.Answer = []dns.RR{&dns.A{Hdr: header(q), A: []byte{192, 0, 2, 1}}}
				w.WriteMsg(m)
			})
			r := New(Options{Servers: []netip.AddrPort{server.Addr}, Deadline: patience})
			a := ask(r, Question{Name: "mx.example", Type: A})
			r.Close()
			if a.Err != nil || a.Addrs[0] != netip.MustParseAddr("192.0.2.1") || tcp != wrong.overTCP {
				t.Errorf("%v, %v, TCP %t, want %t", a.Addrs, a.Err, tcp, wrong.overTCP)
			}
		})
	}
}

func header(q *dns.Msg) dns.RR_Header {
	return dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}
}

// TestSecond: where the first server is not there, or cannot say, the next one is asked, and remembered. The servers are of
// both families.
func TestSecond(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		unable := servertest.NewDNS(t, c.Client, "", func(w dns.ResponseWriter, q *dns.Msg) {
			w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure))
		})
		able := servertest.NewDNS(t, c.Backend, zone, nil)
		gone := netip.AddrPortFrom(iptest.Loopback(c.Client), 1) // tcpmux: nobody has that any more
		r := New(Options{Servers: []netip.AddrPort{gone, unable.Addr, able.Addr}, Deadline: patience})
		defer r.Close()
		for _, of := range []Type{A, AAAA, MX} {
			if a := ask(r, Question{Name: "mx.example", Type: of}); errors.Is(a.Err, ErrFailed) {
				t.Errorf("%v: %v", of, a.Err)
			}
		}
		if n := unable.Total(); n != 1 {
			t.Errorf("the one that cannot say was asked %d times, want 1", n)
		}
	})
}

// TestCache: what is known is not asked again until its time is over, and nobody asks what is being asked.
func TestCache(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		r := New(Options{Servers: []netip.AddrPort{{}}})
		defer r.Close()
		answer, keep := Answer{Names: []string{"mx.example"}}, 10*time.Second
		var failed error
		r.exchange = func(context.Context, netip.AddrPort, dns.Question) (Answer, time.Duration, error) {
			asked++
			time.Sleep(time.Second) // of the bubble
			return answer, keep, failed
		}
		step := func(name string, times, want int, questions ...Question) {
			t.Helper()
			answers := make(chan Answer, times*len(questions))
			asked = 0
			for range times {
				for _, q := range questions {
					r.Ask(q, func(a Answer) { answers <- a })
				}
			}
			synctest.Wait()
			for range times * len(questions) {
				<-answers
			}
			if asked != want {
				t.Errorf("%s: asked %d times, want %d", name, asked, want)
			}
		}
		q := Question{Name: "1.example", Type: PTR}
		step("together", 5, 1, q)
		step("known", 5, 0, q, Question{Name: "1.EXAMPLE.", Type: PTR})
		step("another type", 1, 1, Question{Name: "1.example", Type: A})
		step("under one name", 3, 1, Question{Name: "2.example", Type: A, As: "Both"}, Question{Name: "3.example", Type: A, As: "both"})
		time.Sleep(keep)
		step("forgotten", 1, 1, q)
		time.Sleep(keep)
		keep, answer = 0, Answer{Err: ErrNoName}
		step("without an SOA", 1, 1, q)
		step("without an SOA again", 1, 1, q)
		failed = errNoService
		step("failure", 1, rounds-1, q)
		step("failure known", 3, 0, q)
		time.Sleep(failure)
		step("failure forgotten", 1, rounds-1, q)
		if got, want := r.Counts(), (Counts{Asked: 8, Known: 13, Failed: 2}); got != want {
			t.Errorf("counts %+v, want %+v", got, want)
		}
	})
}

// TestBounds: so many questions at once, so many answers in memory, so long for each.
func TestBounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := New(Options{Servers: make([]netip.AddrPort, 2), InFlight: 3, Size: 10, Deadline: 4 * time.Second})
		r.exchange = func(ctx context.Context, _ netip.AddrPort, _ dns.Question) (Answer, time.Duration, error) {
			<-ctx.Done()
			return Answer{}, 0, ctx.Err()
		}
		begin := time.Now()
		answers := make(chan Answer, 4)
		for i := range 4 {
			r.Ask(Question{Name: fmt.Sprint(i), Type: A}, func(a Answer) { answers <- a })
		}
		if a := <-answers; !errors.Is(a.Err, errBusy) || r.Counts().Busy != 1 {
			t.Errorf("the fourth gets %v, want %v", a.Err, errBusy)
		}
		for range 3 {
			if a := <-answers; !errors.Is(a.Err, ErrFailed) || time.Since(begin) != 4*time.Second {
				t.Errorf("%v after %v, want ErrFailed after 4 s", a.Err, time.Since(begin))
			}
		}
		r.exchange = func(_ context.Context, _ netip.AddrPort, q dns.Question) (Answer, time.Duration, error) {
			return Answer{Err: ErrNoName}, time.Minute, nil
		}
		for i := range 100 {
			ask(r, Question{Name: fmt.Sprint("x", i), Type: A})
		}
		if n := len(r.cache.entries); n != 10 {
			t.Errorf("%d answers remembered, want 10", n)
		}
		r.exchange = func(ctx context.Context, _ netip.AddrPort, _ dns.Question) (Answer, time.Duration, error) {
			<-ctx.Done()
			return Answer{}, 0, ctx.Err()
		}
		r.Ask(Question{Name: "last", Type: A}, func(a Answer) { answers <- a })
		r.Close()
		if a := <-answers; !errors.Is(a.Err, ErrFailed) {
			t.Errorf("closed while asking: %v", a.Err)
		}
		if a := ask(r, Question{Name: "late", Type: A}); !errors.Is(a.Err, errClosed) {
			t.Errorf("asked when closed: %v", a.Err)
		}
	})
}
