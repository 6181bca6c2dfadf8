// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kyozon/kyozon/internal/servertest"
	"github.com/kyozon/kyozon/ip"
)

func TestMain(m *testing.M) { servertest.Main(m) }

var (
	client4 = netip.MustParseAddr("192.0.2.25")
	client6 = netip.MustParseAddr("2001:db8:1:2::25")
)

// every returns a policy with all rules in one mode.
func every(m Mode) *Policy {
	p := &Policy{Name: "mx6.example.jp", Lists: []string{"list.example"}}
	for r := range p.Modes {
		p.Modes[r] = m
	}
	return p
}

// TestJudge: what each rule says about which facts.
func TestJudge(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name  string
		facts Facts
		rule  Rule
		reply string // begins so; "" if nothing is found
	}{
		{"nothing is known", Facts{}, 0, ""},
		{"all is well", Facts{Hello: "mx.example.com", Reverse: Confirmed, Name: "mx.example.com"}, 0, ""},
		{"early", Facts{Early: true}, Early, "554 5.5.1 "},
		{"missing", Facts{Reverse: Missing}, ReverseName, "450 4.7.25 2001:db8:1:2::25 has no reverse name"},
		{"astray", Facts{Reverse: Astray, Name: "mx.example.com"}, ReverseName, "450 4.7.25 The reverse name of 2001:db8:1:2::25, mx.example.com, does"},
		{"listed", Facts{List: "list.example", Why: "see\r\n250 https://list.example/\x00é"}, Listed,
			"550 5.7.1 2001:db8:1:2::25 is listed at list.example: see250 https://list.example/\r\n"},
		{"listed without a reason", Facts{List: "list.example"}, Listed, "550 5.7.1 2001:db8:1:2::25 is listed at list.example\r\n"},
		{"hello", Facts{Hello: "localhost"}, Hello, "550 5.7.1 "},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			test.facts.Client = client6
			for _, m := range []Mode{Off, Observe, Enforce} {
				all := every(m).Judge(&test.facts)
				refusal, refused := Refusal(all)
				if m == Off || test.reply == "" {
					if len(all) > 0 || refused {
						t.Errorf("%v: %v", m, all)
					}
					continue
				}
				if len(all) != 1 || all[0].Rule != test.rule || !strings.HasPrefix(all[0].Reply, test.reply) || !strings.HasSuffix(all[0].Reply, "\r\n") {
					t.Errorf("%v: %q", m, all)
				}
				if refused != (m == Enforce) || refused && refusal != all[0] {
					t.Errorf("%v: refused %t with %v", m, refused, refusal)
				}
			}
		})
	}
	p := every(Observe)
	p.Modes[ReverseName] = Enforce
	all := p.Judge(&Facts{Client: client6, List: "list.example", Reverse: Missing})
	if f, ok := Refusal(all); len(all) != 2 || !ok || f.Rule != ReverseName {
		t.Errorf("of one that is observed and one that is enforced: %v, %v", all, f)
	}
}

// TestHello: names that cannot be a client's own, and those that can.
func TestHello(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		client netip.Addr
		bad    bool
	}{
		{"mx.example.com", client6, false},
		{"MX.example.com.", client6, false},
		{"my_host.example.com", client6, false},
		{"xn--bcher-kva.example", client6, false},
		{"[IPv6:2001:db8:1:2::25]", client6, false},
		{"[ipv6:2001:db8:1:2:0:0:0:25]", client6, false},
		{"[192.0.2.25]", client4, false},
		{"[192.0.2.25]", client6, false}, // it may have both
		{"[IPv6:2001:db8::26]", client6, true},
		{"[192.0.2.26]", client4, true},
		{"[IPv6:::ffff:192.0.2.26]", client4, true},
		{"[2001:db8:1:2::25]", client6, true},
		{"[IPv6:192.0.2.25]", client6, true},
		{"[IPv6:fe80::1%eth0]", client6, true},
		{"[IPv6:2001:db8:1:2::25", client6, true},
		{"[]", client6, true},
		{"2001:db8:1:2::25", client6, true},
		{"192.0.2.25", client4, true},
		{"MX6.example.jp", client6, true},
		{"mx6.example.jp.", client6, true},
		{"localhost", client6, true},
		{"mx..example.com", client6, true},
		{"-mx.example.com", client6, true},
		{"mx-.example.com", client6, true},
		{"mx.example.com/", client6, true},
		{strings.Repeat("a", 64) + ".example.com", client6, true},
		{".", client6, true},
	}
	for _, test := range tests {
		if why := every(Enforce).hello(test.name, test.client); (why != "") != test.bad {
			t.Errorf("%s from %v: %q", test.name, test.client, why)
		}
	}
}

// FuzzHello: whatever name is given, the reply is one line, and not long.
func FuzzHello(f *testing.F) {
	for _, s := range []string{"mx.example.com", "[IPv6:2001:db8::1]", "[", "a.b.", "1.2.3.4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		for _, x := range every(Enforce).Judge(&Facts{Client: client6, Hello: name, Reverse: Astray, Name: name, List: "list.example", Why: name}) {
			if strings.Count(x.Reply, "\n") != 1 || strings.Count(x.Reply, "\r") != 1 || len(x.Reply) > 512 {
				t.Errorf("%q", x.Reply)
			}
		}
	})
}

// TestConcerns: whose clients are looked at.
func TestConcerns(t *testing.T) {
	t.Parallel()
	p := every(Observe)
	for _, test := range []struct {
		name         string
		families     []ip.Family
		exempt       []netip.Prefix
		want4, want6 bool
	}{
		{"all", nil, nil, true, true},
		{"IPv6", []ip.Family{ip.V6}, nil, false, true},
		{"both", []ip.Family{ip.V6, ip.V4}, nil, true, true},
		{"not all of IPv6", []ip.Family{ip.V6}, []netip.Prefix{netip.MustParsePrefix("2001:db8:1::/48")}, false, false},
	} {
		p.Families, p.Exempt = test.families, ip.NewPrefixes(test.exempt...)
		if got4, got6 := p.Concerns(client4), p.Concerns(client6); got4 != test.want4 || got6 != test.want6 {
			t.Errorf("%s: %t, %t", test.name, got4, got6)
		}
	}
	if (*Policy)(nil).Concerns(client6) || (&Policy{}).Concerns(client6) {
		t.Error("no policy concerns somebody")
	}
}

// TestKnown: who has waited need not wait again that day; neither need who shares his /64. There is an end to memory.
func TestKnown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var k Known
		neighbour := netip.MustParseAddr("2001:db8:1:2:ffff::1")
		if k.Has(client6) {
			t.Error("known at once")
		}
		k.Add(client6)
		time.Sleep(knownFor - time.Nanosecond)
		if !k.Has(client6) || !k.Has(neighbour) || k.Has(client4) {
			t.Error("not known for a day, or too many are")
		}
		time.Sleep(time.Nanosecond)
		if k.Has(client6) {
			t.Error("known for longer than a day")
		}
		for i := range 2 * mostKnown {
			k.Add(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}))
		}
		if len(k.until) != mostKnown {
			t.Errorf("%d are known, want %d", len(k.until), mostKnown)
		}
	})
}

// TestMode: the words of the file.
func TestMode(t *testing.T) {
	t.Parallel()
	for _, m := range []Mode{Off, Observe, Enforce} {
		var got Mode
		if err := got.UnmarshalText([]byte(m.String())); err != nil || got != m {
			t.Errorf("%v: %v, %v", m, got, err)
		}
	}
	if err := new(Mode).UnmarshalText([]byte("on")); err == nil {
		t.Error("on is a mode")
	}
}
