// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package target

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kyozon/kyozon/ip"
	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// zone is a DNS: a line has a name, a type and the data.
type zone map[string][]string

func newZone(lines ...string) zone {
	z := zone{}
	for _, l := range lines {
		name, rest, _ := strings.Cut(l, " ")
		typ, data, _ := strings.Cut(rest, " ")
		z[name+" "+typ] = append(z[name+" "+typ], data)
	}
	return z
}

// resolve asks until nothing is missing, and returns what was asked and where to go.
func (z zone) resolve(t *testing.T, uri string, r Reach) (asked, targets string, err error) {
	t.Helper()
	u, bad := sip.ParseURI([]byte(uri))
	if bad != nil {
		t.Fatal(bad)
	}
	a := &Answers{map[string][]Naptr{}, map[string][]Srv{}, map[Question][]netip.Addr{}}
	var questions []string
	for range 10 {
		found, missing, err := Locate(&u, r, a)
		if missing == nil {
			var all []string
			for _, f := range found {
				all = append(all, fmt.Sprint(f.Transport, " ", f.Addr))
			}
			return strings.Join(questions, ", "), strings.Join(all, ", "), err
		}
		for _, q := range missing {
			questions = append(questions, z.answer(q, a))
		}
	}
	t.Fatalf("%s: asks without end: %v", uri, questions)
	return "", "", nil
}

func (z zone) answer(q Question, a *Answers) string {
	switch q.Type {
	case NAPTR:
		a.Naptr[q.Name] = nil
		for _, data := range z[q.Name+" NAPTR"] {
			var n Naptr
			_, _ = fmt.Sscan(data, &n.Order, &n.Preference, &n.Service, &n.Replacement)
			a.Naptr[q.Name] = append(a.Naptr[q.Name], n)
		}
		return q.Name + " NAPTR"
	case SRV:
		a.Srv[q.Name] = nil
		for _, data := range z[q.Name+" SRV"] {
			var s Srv
			_, _ = fmt.Sscan(data, &s.Priority, &s.Weight, &s.Port, &s.Name)
			a.Srv[q.Name] = append(a.Srv[q.Name], s)
		}
		return q.Name + " SRV"
	}
	typ := map[ip.Family]string{ip.V4: "A", ip.V6: "AAAA"}[q.Family]
	a.Addr[q] = nil
	for _, data := range z[q.Name+" "+typ] {
		a.Addr[q] = append(a.Addr[q], netip.MustParseAddr(data))
	}
	return q.Name + " " + typ
}

// TestLocate is RFC 3263 §4 line by line, in both families as RFC 7984 has it.
func TestLocate(t *testing.T) {
	t.Parallel()
	z := newZone("n.example NAPTR 50 50 SIPS+D2T _sips._tcp.n.example.", "n.example NAPTR 90 50 SIP+D2T _sip._tcp.n.example", "n.example NAPTR 100 50 SIP+D2U _sip._udp.N.example",
		"_sip._tcp.n.example SRV 0 1 5060 s1.example", "_sip._tcp.n.example SRV 1 1 5070 s2.example", "_sip._udp.n.example SRV 0 0 5060 s1.example",
		"_sips._tcp.n.example SRV 0 0 5061 s1.example", "s1.example A 192.0.2.1", "s1.example AAAA 2001:db8::1", "s2.example AAAA 2001:db8::2",
		"_sip._udp.u.example SRV 0 0 5080 s1.example", "a.example A 192.0.2.9", "off.example A 192.0.2.8", "_sip._udp.off.example SRV 0 0 0 .",
		"odd.example NAPTR 1 1 SIP+D2S x.example", "odd.example AAAA 2001:db8::3", "twice.example AAAA 2001:db8::4", "twice.example AAAA 2001:db8::4", "twice.example AAAA 192.0.2.4")
	both := Reach{Families: []ip.Family{ip.V6, ip.V4}, Transports: []sip.Transport{sip.UDP, sip.TCP, sip.TLS}}
	only4, noTLS, noTCP := both, both, both
	only4.Families = []ip.Family{ip.V4}
	noTLS.Transports = []sip.Transport{sip.UDP, sip.TCP}
	noTCP.Transports = []sip.Transport{sip.UDP}
	s1 := "s1.example AAAA, s1.example A"
	srv := "_sip._udp.a.example SRV, _sip._tcp.a.example SRV, _sips._tcp.a.example SRV"
	for _, test := range []struct {
		name, uri   string
		reach       Reach
		asked, want string
		err         error
	}{
		{"address", "sip:192.0.2.1", both, "", "UDP 192.0.2.1:5060", nil},
		{"address and port", "sip:a@[2001:db8::1]:5070;transport=tcp", both, "", "TCP [2001:db8::1]:5070", nil},
		{"address, sips", "sips:[2001:db8::1]", both, "", "TLS [2001:db8::1]:5061", nil},
		{"address of a family that we lack", "sip:[2001:db8::1]", only4, "", "", ErrNone},
		{"maddr", "sip:n.example;maddr=192.0.2.7", both, "", "UDP 192.0.2.7:5060", nil},
		{"port", "sip:a.example:5070", both, "a.example AAAA, a.example A", "UDP 192.0.2.9:5070", nil},
		{"port, one family", "sip:a.example:5070", only4, "a.example A", "UDP 192.0.2.9:5070", nil},
		{"transport", "sip:u.example;transport=udp", both, "_sip._udp.u.example SRV, " + s1, "UDP [2001:db8::1]:5080, UDP 192.0.2.1:5080", nil},
		{"transport without SRV", "sip:a.example;transport=tcp", both, "_sip._tcp.a.example SRV, a.example AAAA, a.example A", "TCP 192.0.2.9:5060", nil},
		{"NAPTR", "sip:N.example.", both, "n.example NAPTR, _sips._tcp.n.example SRV, _sip._tcp.n.example SRV, _sip._udp.n.example SRV, s1.example AAAA, s1.example A, s2.example AAAA, s2.example A",
			"TLS [2001:db8::1]:5061, TLS 192.0.2.1:5061, TCP [2001:db8::1]:5060, TCP 192.0.2.1:5060, TCP [2001:db8::2]:5070, UDP [2001:db8::1]:5060, UDP 192.0.2.1:5060", nil},
		{"NAPTR of what we have", "sip:n.example", noTCP, "n.example NAPTR, _sip._udp.n.example SRV, " + s1, "UDP [2001:db8::1]:5060, UDP 192.0.2.1:5060", nil},
		{"sips takes TLS alone", "sips:n.example", both, "n.example NAPTR, _sips._tcp.n.example SRV, " + s1, "TLS [2001:db8::1]:5061, TLS 192.0.2.1:5061", nil},
		{"sips over TCP is TLS", "sips:a.example;transport=tcp", both, "_sips._tcp.a.example SRV, a.example AAAA, a.example A", "TLS 192.0.2.9:5061", nil},
		{"addresses twice, and of the wrong family", "sip:twice.example:5060", both, "twice.example AAAA, twice.example A", "UDP [2001:db8::4]:5060", nil},
		{"sips without TLS", "sips:n.example", noTLS, "", "", ErrTransport},
		{"sips over UDP", "sips:n.example;transport=udp", both, "", "", ErrTransport},
		{"unknown transport", "sip:n.example;transport=sctp", both, "", "", ErrTransport},
		{"neither NAPTR nor SRV", "sip:a.example", both, "a.example NAPTR, " + srv + ", a.example AAAA, a.example A", "UDP 192.0.2.9:5060", nil},
		{"NAPTR of others alone", "sip:odd.example", noTCP, "odd.example NAPTR, _sip._udp.odd.example SRV, odd.example AAAA, odd.example A", "UDP [2001:db8::3]:5060", nil},
		{"SRV says no", "sip:off.example", noTCP, "off.example NAPTR, _sip._udp.off.example SRV", "", ErrNone},
		{"nothing", "sip:none.example:5060", both, "none.example AAAA, none.example A", "", ErrNone},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			asked, got, err := z.resolve(t, test.uri, test.reach)
			if asked != test.asked || got != test.want || !errors.Is(err, test.err) {
				t.Errorf("\nasked %s\nwant  %s\ngot   %s\nwant  %s\nerror %v, want %v", asked, test.asked, got, test.want, err, test.err)
			}
		})
	}
}

// TestWeights: of one priority each comes first as often as its weight says, and priorities are not mixed. RFC 2782.
func TestWeights(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 1))
	firsts := map[string]int{}
	for range 10_000 {
		all := order([]Srv{{0, 60, 1, "a"}, {1, 100, 1, "z"}, {0, 30, 1, "b"}, {0, 10, 1, "c"}, {0, 0, 1, "d"}}, r.IntN)
		firsts[all[0].Name]++
		if all[4].Name != "z" {
			t.Fatalf("order %v", all)
		}
	}
	for name, want := range map[string]int{"a": 6000, "b": 3000, "c": 1000} {
		if got := firsts[name]; got < want-300 || got > want+300 {
			t.Errorf("%s came first %d times, want about %d", name, got, want)
		}
	}
	if n := firsts["d"]; n == 0 || n > 300 {
		t.Errorf("d, which has weight 0, came first %d times", n)
	}
}

// TestBound: a zone of a stranger does not make us try for ever.
func TestBound(t *testing.T) {
	t.Parallel()
	var lines []string
	for i := range 1000 {
		lines = append(lines, fmt.Sprintf("x.example AAAA 2001:db8::%x", i))
	}
	_, got, err := newZone(lines...).resolve(t, "sip:x.example:5060", Reach{Families: []ip.Family{ip.V6}, Transports: []sip.Transport{sip.UDP}})
	if n := strings.Count(got, "UDP"); n != maxTargets || err != nil {
		t.Errorf("%d targets, %v", n, err)
	}
}

func TestMemory(t *testing.T) {
	t.Parallel()
	var all []Target
	for i, a := range []string{"2001:db8::1", "2001:db8::2", "192.0.2.1", "192.0.2.2"} {
		all = append(all, Target{[]string{"a", "a", "a", "b"}[i], sip.UDP, netip.AddrPortFrom(netip.MustParseAddr(a), 5060)})
	}
	var m Memory
	order := func(now int64) (s string) {
		t := append([]Target(nil), all...)
		m.Order(t, now)
		for _, x := range t {
			a := x.Addr.Addr().String()
			s += a[len(a)-1:]
			if x.Addr.Addr().Is4() {
				s += "v4"
			}
			s += " "
		}
		return s
	}
	check := func(what string, now int64, want string) {
		t.Helper()
		if got := order(now); got != want {
			t.Errorf("%s: got %s, want %s", what, got, want)
		}
	}
	check("nothing known", 1, "1 2 1v4 2v4 ")
	m.Failed(all[0], 1, 0)
	check("one silent: its family is tried after the other", 2, "1v4 2v4 2 1 ")
	m.Answered(all[1])
	check("another of the family answers", 3, "2 1v4 2v4 1 ")
	check("in time it is forgotten", 2+deadFor, "1 2 1v4 2v4 ")
	m.Failed(all[0], 1, time.Hour)
	check("it says when to come again: the family is well", 2, "2 1v4 2v4 1 ")
	check("but not for hours", 2+int64(10*time.Minute), "1 2 1v4 2v4 ")
	for _, x := range all {
		m.Failed(x, 5, 0)
	}
	check("all silent", 6, "1 2 1v4 2v4 ")

	m = Memory{Most: 10}
	for i := range 1000 {
		m.Failed(Target{fmt.Sprint(i), sip.UDP, all[0].Addr}, int64(i), 0)
	}
	if len(m.dead) > 10 || len(m.suspect) > 10 {
		t.Errorf("remembers %d and %d", len(m.dead), len(m.suspect))
	}
}
