// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package resolve

import (
	"errors"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/miekg/dns"
)

// TestKeep: how long an answer holds.
func TestKeep(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name              string
		answer, authority string // a record on each line
		rcode             int
		want              time.Duration
	}{
		{"the least of all", "x. 60 A 192.0.2.1\nx. 30 A 192.0.2.2", "", 0, 30 * time.Second},
		{"an alias counts", "x. 20 CNAME y.\ny. 60 A 192.0.2.1", "", 0, 20 * time.Second},
		{"not for ever", "x. 999999 A 192.0.2.1", "", 0, longest},
		{"not at all", "x. 0 A 192.0.2.1", "", 0, 0},
		{"nothing: minimum of the SOA", "", ". 900 SOA a. b. 1 1 1 1 40", 3, 40 * time.Second},
		{"nothing: TTL of the SOA", "", ". 25 SOA a. b. 1 1 1 1 40", 3, 25 * time.Second},
		{"nothing, behind an alias", "x. 10 CNAME y.", ". 25 SOA a. b. 1 1 1 1 40", 0, 10 * time.Second},
		{"nothing, without an SOA", "", "", 3, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			m := &dns.Msg{MsgHdr: dns.MsgHdr{Rcode: test.rcode, Authoritative: true}, Answer: records(t, test.answer), Ns: records(t, test.authority)}
			_, keep, err := interpret(m, dns.Question{Name: "x.", Qtype: dns.TypeA, Qclass: dns.ClassINET})
			if err != nil || keep != test.want {
				t.Errorf("kept for %v, %v; want %v", keep, err, test.want)
			}
		})
	}
	if seconds(math.MaxUint32) != 0 {
		t.Error("a TTL with the highest bit set is not 0")
	}
}

func records(t *testing.T, text string) (all []dns.RR) {
	t.Helper()
	for line := range strings.Lines(text) {
		rr, err := dns.NewRR(line)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, rr)
	}
	return all
}

// TestReverse has the examples of RFC 3596 §2.5 and RFC 5782 §2.1.
func TestReverse(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ got, want string }{
		{Reverse(netip.MustParseAddr("4321:0:1:2:3:4:567:89ab")), "b.a.9.8.7.6.5.0.4.0.0.0.3.0.0.0.2.0.0.0.1.0.0.0.0.0.0.0.1.2.3.4.ip6.arpa"},
		{Reverse(netip.MustParseAddr("192.0.2.99")), "99.2.0.192.in-addr.arpa"},
		{Below(netip.MustParseAddr("192.0.2.99"), "bad.example.com"), "99.2.0.192.bad.example.com"},
	} {
		if test.got != test.want {
			t.Errorf("got %s, want %s", test.got, test.want)
		}
	}
}

// TestConf: the servers of resolv.conf, of both families; and those of a file that changes, or is not there.
func TestConf(t *testing.T) {
	t.Parallel()
	text := "# nameserver 192.0.2.9\nsearch example\nnameserver 192.0.2.1\n  nameserver\t2001:db8::1 \nnameserver\n" +
		"nameserver x\noptions timeout:1\nnameserver fe80::1%eth0\nnameserver 192.0.2.4\n"
	got, err := readConf(strings.NewReader(text)), error(nil)
	want := []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:53"), netip.MustParseAddrPort("[2001:db8::1]:53"), netip.MustParseAddrPort("[fe80::1%eth0]:53")}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	file := filepath.Join(t.TempDir(), "resolv.conf")
	synctest.Test(t, func(t *testing.T) {
		s := servers{file: file}
		for _, step := range []struct{ text, want string }{
			{"", "127.0.0.1:53"},
			{"nameserver 192.0.2.1", "192.0.2.1:53"},
			{"nameserver 2001:db8::1", "[2001:db8::1]:53"},
		} {
			if step.text != "" {
				if err = os.WriteFile(file, []byte(step.text), 0o600); err == nil {
					err = os.Chtimes(file, time.Now(), time.Now())
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if got := s.list(); len(got) != 1 || got[0].String() != step.want {
				t.Errorf("%v, want %s", got, step.want)
			}
			time.Sleep(lookAgain)
		}
	})
}

// FuzzRead: whatever a server says, an answer is within its bounds, of the right kind, and about the question.
func FuzzRead(f *testing.F) {
	for _, rr := range []string{"x. 60 A 192.0.2.1", "x. 60 AAAA 2001:db8::1", "x. 60 PTR mx.example.", "x. 60 TXT a b", "x. 60 MX 1 y.",
		"x. 60 SRV 1 2 3 y.", `x. 60 NAPTR 1 2 "s" "t" "" y.`, "x. 60 CNAME y."} {
		r, err := dns.NewRR(rr)
		if err != nil {
			f.Fatal(err)
		}
		m := new(dns.Msg).SetQuestion("x.", r.Header().Rrtype)
		m.Id, m.Response, m.Answer = 7, true, []dns.RR{r, r}
		p, err := m.Pack()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p, uint16(r.Header().Rrtype))
	}
	f.Fuzz(func(t *testing.T, p []byte, of uint16) {
		a, keep, _, err := read(p, 7, dns.Question{Name: "x.", Qtype: of, Qclass: dns.ClassINET})
		n := len(a.Addrs) + len(a.Names) + len(a.Texts) + len(a.Mail) + len(a.Services) + len(a.Pointers)
		switch {
		case err != nil && (n > 0 || a.Err != nil):
			t.Errorf("an answer and the error %v", err)
		case err == nil && a.Err != nil && n > 0, n > mostRecords, keep < 0 || keep > longest:
			t.Errorf("%d records, %v, kept for %v", n, a.Err, keep)
		case a.Err != nil && !errors.Is(a.Err, ErrNoName) && !errors.Is(a.Err, ErrNoData):
			t.Errorf("a message says %v", a.Err)
		}
		for _, addr := range a.Addrs {
			if addr.Is4In6() || addr.Zone() != "" {
				t.Errorf("%v is not canonical", addr)
			}
		}
		for _, name := range a.Names {
			if _, ok := host(name); !ok || name == "" {
				t.Errorf("%q is no host name", name)
			}
		}
	})
}
