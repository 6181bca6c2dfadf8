// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/ip/iptest"
	"github.com/kyozon/kyozon/resolve"
)

// visit looks at a client, with a loop that is this goroutine.
func visit(p *Policy, client netip.Addr, r *resolve.Resolver) *Visit {
	posted := make(chan func(), 16)
	v := p.Begin(client, r.Ask, func(fn func()) { posted <- fn })
	settled := false
	v.Settle(func() { settled = true })
	for !settled {
		(<-posted)()
	}
	return v
}

// resolver asks one server.
func resolver(t *testing.T, at netip.AddrPort) *resolve.Resolver {
	t.Helper()
	r := resolve.New(resolve.Options{Servers: []netip.AddrPort{at}, Deadline: time.Minute})
	t.Cleanup(r.Close)
	return r
}

// TestReverse: what is found out about reverse names, by DNS servers of both families. What a server cannot say refuses
// nobody.
func TestReverse(t *testing.T) {
	t.Parallel()
	many := func(n int, last string) (names string) {
		for i := range n - 1 {
			names += fmt.Sprintf("$PTR n%d.example.\n", i)
		}
		return names + "$PTR " + last + "\n"
	}
	tests := []struct {
		name   string
		zone   string // $ is the client's reverse name, with IN
		want   Reverse
		named  string
		failed bool
	}{
		{"confirmed", "$PTR mx.example.\nmx.example. IN AAAA 2001:db8:1:2::25\nmx.example. IN A 192.0.2.25", Confirmed, "mx.example", false},
		{"confirmed by one of two", "$PTR a.example.\n$PTR mx.example.\nmx.example. IN AAAA 2001:db8:1:2::25\nmx.example. IN A 192.0.2.25", Confirmed, "mx.example", false},
		{"no name", "", Missing, "", false},
		{"no usable name", "$PTR a\\032b.example.", Missing, "", false},
		{"name without an address", "$PTR mx.example.", Astray, "mx.example", false},
		{"name with another address", "$PTR mx.example.\nmx.example. IN AAAA 2001:db8:1:2::26\nmx.example. IN A 192.0.2.26", Astray, "mx.example", false},
		{"many names", many(mostNames, "mx.example.") + "mx.example. IN AAAA 2001:db8:1:2::25\nmx.example. IN A 192.0.2.25", Confirmed, "mx.example", false},
		{"reverse names fail", "$PTR fail.reverse.", Unknown, "", true},
		{"addresses fail", "$PTR fail.example.", Unknown, "", true},
		{"one fails, one leads astray", "$PTR fail.example.\n$PTR a.example.", Unknown, "", true},
		{"one fails, one confirms", "$PTR fail.example.\n$PTR mx.example.\nmx.example. IN AAAA 2001:db8:1:2::25\nmx.example. IN A 192.0.2.25", Confirmed, "mx.example", true},
	}
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		client := map[ip.Family]netip.Addr{ip.V4: client4, ip.V6: client6}[c.Client]
		for _, test := range tests {
			t.Run(test.name, func(t *testing.T) {
				inner := servertest.NewDNS(t, c.Backend, strings.ReplaceAll(test.zone, "$", resolve.Reverse(client)+". IN "), nil)
				server := servertest.NewDNS(t, c.Backend, "", func(w dns.ResponseWriter, q *dns.Msg) {
					name := q.Question[0].Name
					if strings.HasPrefix(name, "fail.") || strings.Contains(test.zone, "fail.reverse.") {
						w.WriteMsg(new(dns.Msg).SetRcode(q, dns.RcodeServerFailure))
						return
					}
					inner.ServeDNS(w, q)
				})
				p := every(Enforce)
				p.Lists = nil
				v := visit(p, client, resolver(t, server.Addr))
				if v.Facts.Reverse != test.want || v.Facts.Name != test.named || v.Failed() != test.failed {
					t.Errorf("%v %q, failed %t", v.Facts.Reverse, v.Facts.Name, v.Failed())
				}
				if _, refused := Refusal(p.Judge(&v.Facts)); refused != (test.want == Missing || test.want == Astray) {
					t.Errorf("refused: %t", refused)
				}
			})
		}
	})
}

// TestLists: rbldnsd, of either family, lists clients of either.
func TestLists(t *testing.T) {
	t.Parallel()
	iptest.EachCrossing(t, func(t *testing.T, c ip.Crossing) {
		r := resolver(t, startList(t, c.Backend))
		for _, test := range []struct {
			client4, client6 string
			lists            []string
			want, why        string
			failed           bool
		}{
			{"192.0.2.66", "2001:db8:bad:1::1", []string{"list.example"}, "list.example", "Sends spam, see https://list.example/", false},
			{"192.0.2.66", "2001:db8:bad:1::1", []string{"none.example", "list.example"}, "list.example", "Sends spam, see https://list.example/", true},
			{"192.0.2.67", "2001:db8:1::1", []string{"list.example"}, "", "", false},
			{"192.0.2.66", "2001:db8:bad:1::1", []string{"everybody.example"}, "", "", true},
			{"192.0.2.66", "2001:db8:bad:1::1", []string{"parked.example", "error.example"}, "", "", false},
		} {
			client := netip.MustParseAddr(test.client6)
			if c.Client == ip.V4 {
				client = netip.MustParseAddr(test.client4)
			}
			p := every(Enforce)
			p.Modes[ReverseName] = Off
			p.Lists = test.lists
			v := visit(p, client, r)
			if v.Facts.List != test.want || v.Facts.Why != test.why || v.Failed() != test.failed {
				t.Errorf("%v at %v: %+v, failed %t", client, test.lists, v.Facts, v.Failed())
			}
		}
	})
}

// startList runs rbldnsd with a list that is well, one that has everybody, one that was given up, and one that answers with
// an error. It answers REFUSED for zones that it has not.
func startList(t *testing.T, f ip.Family) netip.AddrPort {
	t.Helper()
	binary, dir := servertest.Find(t, "rbldnsd"), servertest.Readable(t)
	at, err := servertest.FreeAddr(f)
	if err != nil {
		t.Fatal(err)
	}
	arguments := []string{"-n", "-f", "-b", fmt.Sprintf("%v/%d", at.Addr(), at.Port()), "-w", dir}
	for name, text := range map[string][2]string{ // what is said of the addresses of both families
		"list":      {":2:Sends spam, see https://list.example/\n192.0.2.66\n127.0.0.2\n", ":2:Sends spam, see https://list.example/\n2001:db8:bad::/48\n0:0:0:0:0:ffff:7f00:2\n"},
		"everybody": {":2:All\n0.0.0.0/0\n", ":2:All\n::/0\n"},
		"parked":    {":203.0.113.1:For sale\n0.0.0.0/0\n", ":203.0.113.1:For sale\n::/0\n"},
		"error":     {":127.255.255.254:No open resolvers\n0.0.0.0/0\n", ":127.255.255.254:No open resolvers\n::/0\n"},
	} {
		for i, kind := range []string{"ip4trie", "ip6trie"} {
			file := name + "." + kind
			if err := os.WriteFile(filepath.Join(dir, file), []byte(text[i]), 0o644); err != nil {
				t.Fatal(err)
			}
			arguments = append(arguments, name+".example:"+kind+":"+file)
		}
	}
	servertest.Run(t, exec.Command(binary, arguments...), "started")
	return at
}

// TestShared: the addresses of one /64 are asked for once, and what is found out of one is believed of all.
func TestShared(t *testing.T) {
	t.Parallel()
	first, second, other := netip.MustParseAddr("2001:db8:bad:1::1"), netip.MustParseAddr("2001:db8:bad:1:2:3:4:5"), netip.MustParseAddr("2001:db8:bad:2::1")
	zone := "list.example. IN SOA a. b. 1 1 1 1 60\n"
	server := servertest.NewDNS(t, ip.V6, zone+resolve.Below(first, "list.example.")+" IN A 127.0.0.2\n", nil)
	r := resolver(t, server.Addr)
	p := &Policy{Lists: []string{"list.example"}}
	p.Modes[Listed] = Enforce
	for _, test := range []struct {
		client netip.Addr
		listed bool
		asked  int // in all
	}{{first, true, 3}, {second, true, 3}, {other, false, 4}, {second, true, 4}} {
		v := visit(p, test.client, r)
		if (v.Facts.List != "") != test.listed || server.Total() != test.asked {
			t.Errorf("%v: listed %q after %d questions, want %t after %d", test.client, v.Facts.List, server.Total(), test.listed, test.asked)
		}
	}
}

// TestSilence: a resolver that never answers, that is not there, or that has too much to do, refuses nobody.
func TestSilence(t *testing.T) {
	t.Parallel()
	iptest.EachFamily(t, func(t *testing.T, f ip.Family) {
		silent := servertest.NewDNS(t, f, "", func(dns.ResponseWriter, *dns.Msg) {})
		for name, o := range map[string]resolve.Options{
			"silent":    {Servers: []netip.AddrPort{silent.Addr}, Deadline: 50 * time.Millisecond},
			"not there": {Servers: []netip.AddrPort{netip.AddrPortFrom(iptest.Loopback(f), 1)}},
			"busy":      {Servers: []netip.AddrPort{silent.Addr}, InFlight: -1},
		} {
			r := resolve.New(o)
			v := visit(every(Enforce), client6, r)
			r.Close()
			if diff := cmp.Diff(Facts{Client: client6}, v.Facts, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || !v.Failed() {
				t.Errorf("%s: failed %t, facts (-want +got):\n%s", name, v.Failed(), diff)
			}
		}
	})
}
