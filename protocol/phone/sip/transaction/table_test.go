// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package transaction

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// request writes one of ours.
func request(method, branch string, more ...string) []byte {
	lines := append([]string{method + " sip:b@[2001:db8::2] SIP/2.0", "Via: SIP/2.0/UDP [2001:db8::1]:5060;branch=" + branch,
		"Max-Forwards: 70", "From: <sip:a@example.jp>;tag=a", "To: <sip:b@example.jp>", "Call-ID: c-" + branch, "CSeq: 7 " + method}, more...)
	return []byte(strings.Join(lines, "\r\n") + "\r\nContent-Length: 0\r\n\r\n")
}

func parse(t testing.TB, b []byte) *sip.Message {
	t.Helper()
	m := new(sip.Message)
	if err := m.Parse(b, nil); err != nil {
		t.Fatalf("%v in %q", err, b)
	}
	if err := m.Check(); err != nil {
		t.Fatalf("%v in %q", err, b)
	}
	return m
}

func answer(m *sip.Message, w sip.Way, status int) []byte {
	a := sip.Answer{Status: status, Tag: []byte("b")}
	return a.Append(nil, m, w.Remote)
}

var (
	wayTo2 = netip.MustParseAddrPort("[2001:db8::2]:5060")
	wayTo1 = netip.MustParseAddrPort("[2001:db8::1]:5060")
)

// side is one end of a network that a test plays: its table, and what it has sent and not yet lost.
type side struct {
	Table[string]
	sent []string // what it would have sent
	told []string
}

func newSide(now int64) *side {
	s := &side{}
	s.Send = func(_ sip.Way, b []byte) { s.sent = append(s.sent, string(b)) }
	s.Told = func(t *Transaction[string]) { s.told = append(s.told, t.User) }
	s.Open(now)
	return s
}

// take returns what was sent since, each as its first word, or its status.
func (s *side) take() string {
	var all []string
	for _, b := range s.sent {
		words := strings.Fields(b)
		if words[0] == "SIP/2.0" {
			words = words[1:]
		}
		all = append(all, words[0])
	}
	s.sent = nil
	return strings.Join(all, " ")
}

func (s *side) until(now int64) {
	s.Advance(now)
}

func want(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Fatalf("%s: got %q, want %q", what, got, want)
	}
}

// TestLossy: over a network that loses and repeats, INVITE and BYE end at both sides, with an answer or with a timeout, and
// nothing stays behind.
func TestLossy(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		loss := r.Float64()
		now := int64(1e12)
		client, server := newSide(now), newSide(now)
		method, status := []string{"INVITE", "BYE"}[seed%2], []int{200, 486, 603}[seed%3]
		there, back := sip.Way{Local: wayTo1, Remote: wayTo2}, sip.Way{Local: wayTo2, Remote: wayTo1}
		if _, err := client.Ask(request(method, "z9hG4bKx"), there, "call", now); err != nil {
			t.Fatal(err)
		}
		finals, fresh := 0, 0
		for range 60_000 / 10 {
			now += 10 * ms
			for _, b := range lose(r, loss, &client.sent) {
				m := parse(t, []byte(b))
				if x, v := server.Request(m, back, now); v == Fresh {
					fresh++
					x.User = "call"
					server.Answer(x, answer(m, back, status), status, now)
				}
			}
			for _, b := range lose(r, loss, &server.sent) {
				m := parse(t, []byte(b))
				if _, pass := client.Response(m, now); pass && m.Status() >= 200 {
					finals++
				}
			}
			client.until(now)
			server.until(now)
		}
		for range 8000 { // the server may have begun late
			now += 10 * ms
			client.until(now)
			server.until(now)
		}
		if finals+len(client.told) == 0 || fresh == 0 && finals > 0 {
			t.Errorf("seed %d, loss %.2f: %d final answers, told %v", seed, loss, finals, client.told)
		}
		clients, _ := client.Len()
		if _, servers := server.Len(); clients+servers > 0 || len(server.prefixes) > 0 {
			t.Errorf("seed %d: %d clients and %d servers are left", seed, clients, servers)
		}
	}
}

func lose(r *rand.Rand, loss float64, sent *[]string) (arrived []string) {
	for _, b := range *sent {
		for r.Float64() > loss { // and sometimes twice
			arrived = append(arrived, b)
			if r.IntN(4) > 0 {
				break
			}
		}
	}
	*sent = nil
	return arrived
}

// TestInvite: an INVITE that fails is acknowledged by the table, one that succeeds by its user.
func TestInvite(t *testing.T) {
	t.Parallel()
	w := sip.Way{Local: wayTo1, Remote: wayTo2}
	c := newSide(0)
	x, err := c.Ask(request("INVITE", "z9hG4bK1", "Route: <sip:p;lr>"), w, "one", 0)
	if err != nil {
		t.Fatal(err)
	}
	asked := parse(t, x.Request())
	if _, pass := c.Response(parse(t, answer(asked, w, 486)), 0); !pass {
		t.Error("486 is not passed")
	}
	if _, pass := c.Response(parse(t, []byte(strings.Replace(string(answer(asked, w, 486)), "tag=b", "tag=z", 1))), 0); pass {
		t.Error("486 is passed again")
	}
	if c.sent[1] != c.sent[2] {
		t.Errorf("ACK %q, and then %q", c.sent[1], c.sent[2])
	}
	want(t, "sent", c.take(), "INVITE ACK ACK")
	if x.first == nil {
		t.Fatal("no ACK")
	}
	ack := parse(t, x.first)
	for _, k := range []sip.Kind{sip.Via, sip.Route, sip.From, sip.CallID} {
		want(t, k.String(), string(ack.Get(k)), string(asked.Get(k)))
	}
	want(t, "To", string(ack.Get(sip.To)), "<sip:b@example.jp>;tag=b")
	want(t, "CSeq", string(ack.Get(sip.CSeq)), "7 ACK")
	want(t, "target", string(ack.Target()), string(asked.Target()))

	if _, err = c.Ask(request("INVITE", "z9hG4bK1"), w, "again", 0); !errors.Is(err, ErrBranch) {
		t.Errorf("a branch twice: %v", err)
	}
	if _, err = c.Ask(request("INVITE", "1"), w, "old", 0); !errors.Is(err, ErrBranch) {
		t.Errorf("a branch without the cookie: %v", err)
	}
	y, _ := c.Ask(request("INVITE", "z9hG4bK2"), w, "two", 0)
	for range 2 {
		if got, pass := c.Response(parse(t, answer(parse(t, y.Request()), w, 200)), 0); got != y || !pass {
			t.Error("200 is not passed")
		}
	}
	want(t, "sent", c.take(), "INVITE")
	if got, pass := c.Response(parse(t, answer(parse(t, request("BYE", "z9hG4bK2")), w, 200)), 0); got != nil || pass {
		t.Error("the answer of another method is taken")
	}
}

// TestCancel: CANCEL waits for a provisional answer, goes once, on the way of its INVITE, and its own end is nobody's.
func TestCancel(t *testing.T) {
	t.Parallel()
	w := sip.Way{Local: wayTo1, Remote: wayTo2}
	c := newSide(0)
	x, _ := c.Ask(request("INVITE", "z9hG4bK1", "Route: <sip:p;lr>", "X: y"), w, "one", 0)
	asked := parse(t, x.Request())
	c.Cancel(x, 0)
	want(t, "before an answer", c.take(), "INVITE")
	for range 2 {
		if _, pass := c.Response(parse(t, answer(asked, w, 180)), 0); !pass {
			t.Error("180 is not passed")
		}
		c.Cancel(x, 0)
	}
	text := c.sent[0]
	want(t, "after it", c.take(), "CANCEL")
	cancel := parse(t, []byte(text))
	for _, k := range []sip.Kind{sip.Via, sip.Route, sip.From, sip.To, sip.CallID} {
		want(t, k.String(), string(cancel.Get(k)), string(asked.Get(k)))
	}
	want(t, "CSeq", string(cancel.Get(sip.CSeq)), "7 CANCEL")
	if got, pass := c.Response(parse(t, answer(cancel, w, 200)), 0); got == x || pass {
		t.Error("the answer of CANCEL is passed")
	}
	if got, pass := c.Response(parse(t, answer(asked, w, 487)), 0); got != x || !pass {
		t.Error("the answer of INVITE is not passed")
	}
	want(t, "at the end", c.take(), "ACK")

	y, _ := c.Ask(request("INVITE", "z9hG4bK2"), w, "two", 0)
	c.Response(parse(t, answer(parse(t, y.Request()), w, 180)), 0)
	c.Cancel(y, 0)
	z, _ := c.Ask(request("INVITE", "z9hG4bK3"), w, "three", 0)
	c.Response(parse(t, answer(parse(t, z.Request()), w, 200)), 0)
	c.Cancel(z, 0)
	c.take()
	c.until(99_000 * ms)
	if got := fmt.Sprint(c.told); got != "[two]" {
		t.Errorf("told %s: CANCEL and what was answered are nobody's, silence after CANCEL is", got)
	}
	if n, _ := c.Len(); n != 0 {
		t.Errorf("%d left", n)
	}
	own, _ := c.Ask(request("INVITE", "z9hG4bK5"), w, "own", 100_000*ms)
	c.Response(parse(t, answer(parse(t, own.Request()), w, 180)), 100_000*ms)
	c.Cancelled(own, 100_000*ms)
	c.Response(parse(t, answer(parse(t, own.Request()), w, 180)), 100_000*ms)
	c.Cancel(own, 100_000*ms)
	c.until(199_000 * ms)
	want(t, "one of the user's own", c.take()+" "+fmt.Sprint(c.told), "INVITE [two own]")
	bye, _ := c.Ask(request("BYE", "z9hG4bK4"), w, "", 0)
	c.Response(parse(t, answer(parse(t, bye.Request()), w, 100)), 0)
	c.Cancel(bye, 0)
	want(t, "of another request", c.take(), "BYE")
}

// TestServer: copies of a request are answered by the table, whatever the user does.
func TestServer(t *testing.T) {
	t.Parallel()
	w := sip.Way{Local: wayTo2, Remote: wayTo1}
	s := newSide(0)
	m := parse(t, request("INVITE", "z9hG4bK1"))
	x, v := s.Request(m, w, 0)
	if v != Fresh {
		t.Fatalf("verdict %v", v)
	}
	s.Request(m, w, 0)
	want(t, "before 200 ms", s.take(), "")
	s.until(300 * ms)
	s.Request(m, w, 300*ms)
	want(t, "after", s.take(), "100 100")
	s.Answer(x, answer(m, w, 180), 180, 300*ms)
	s.Request(m, w, 300*ms)
	want(t, "ringing", s.take(), "180 180")

	cancel := parse(t, request("CANCEL", "z9hG4bK1"))
	cancel2 := parse(t, []byte(strings.ReplaceAll(string(request("CANCEL", "z9hG4bK1")), "[2001:db8::1]", "[2001:DB8:0::1]")))
	other := parse(t, []byte(strings.ReplaceAll(string(request("CANCEL", "z9hG4bK1")), "[2001:db8::1]", "[2001:db8::3]")))
	for i, test := range []struct {
		m *sip.Message
		v Verdict
		s string
	}{{cancel, Stop, "200"}, {cancel2, Stop, "200"}, {other, Done, "481"}, {parse(t, request("CANCEL", "z9hG4bK2")), Done, "481"}} {
		if _, v = s.Request(test.m, w, 300*ms); v != test.v {
			t.Errorf("CANCEL %d: verdict %v", i, v)
		}
		if got := s.sent[0]; test.v == Stop && !strings.Contains(got, "To: <sip:b@example.jp>;tag=b\r\n") {
			t.Errorf("CANCEL %d: not with the tag of the INVITE: %q", i, got)
		}
		want(t, "CANCEL", s.take(), test.s)
	}
	s.Answer(x, answer(m, w, 487), 487, 300*ms)
	if _, v = s.Request(cancel, w, 300*ms); v != Done {
		t.Errorf("CANCEL of one that is answered: verdict %v", v)
	}
	want(t, "answered", s.take(), "487 200")
	if _, v = s.Request(parse(t, request("ACK", "z9hG4bK1")), w, 300*ms); v != Done {
		t.Errorf("ACK: verdict %v", v)
	}
	if _, v = s.Request(parse(t, request("ACK", "z9hG4bKother")), w, 300*ms); v != Acked {
		t.Errorf("ACK of a 2xx: verdict %v", v)
	}
	s.until(99_000 * ms)
	if _, n := s.Len(); n > 0 || len(s.told) > 0 {
		t.Errorf("%d left, told %v", n, s.told)
	}
}

// TestMerged: an INVITE that comes by two ways is one call; after it, and within it, there may be others.
func TestMerged(t *testing.T) {
	t.Parallel()
	s := newSide(0)
	w := sip.Way{Remote: wayTo1}
	text := func(branch, old, other string) *sip.Message {
		return parse(t, []byte(strings.NewReplacer("c-"+branch, "c", old, other).Replace(string(request("INVITE", branch)))))
	}
	for i, test := range []struct {
		m    *sip.Message
		want Verdict
		sent string
	}{
		{text("z9hG4bK1", "", ""), Fresh, ""},
		{text("z9hG4bK2", "", ""), Done, "482"},
		{text("z9hG4bK3", "tag=a", "tag=z"), Fresh, ""},
		{text("z9hG4bK4", "CSeq: 7", "CSeq: 8"), Fresh, ""},
		{text("z9hG4bK5", "<sip:b@example.jp>", "<sip:b@example.jp>;tag=b"), Fresh, ""},
		{text("z9hG4bK6", "<sip:b@example.jp>", "<sip:b@example.jp>;tag=b"), Fresh, ""},
	} {
		x, v := s.Request(test.m, w, 0)
		if v != test.want {
			t.Errorf("%d: verdict %v, want %v", i, v, test.want)
		}
		want(t, fmt.Sprint(i), s.take(), test.sent)
		if x != nil {
			s.Answer(x, answer(test.m, w, 486), 486, 0)
			s.take()
		}
	}
	s.until(99_000 * ms)
	if _, v := s.Request(text("z9hG4bK7", "", ""), w, 99_000*ms); v != Fresh || s.merged.count != 1 {
		t.Errorf("when it is over: verdict %v, %d held", v, s.merged.count)
	}
}

// TestSentBy: the same branch of two clients is two transactions; a name has no case, an address no spelling.
func TestSentBy(t *testing.T) {
	t.Parallel()
	s := newSide(0)
	for _, test := range []struct {
		sentBy string
		want   Verdict
	}{
		{"[2001:db8::1]:5060", Fresh}, {"[2001:DB8:0::1]:5060", Done}, {"[2001:db8::1]:5061", Fresh}, {"[2001:db8::1]", Fresh},
		{"ua.example", Fresh}, {"UA.example", Done}, {"ub.example", Fresh}, {"192.0.2.1:5060", Fresh}, {"[::ffff:192.0.2.1]:5060", Done},
	} {
		m := parse(t, []byte(strings.Replace(string(request("OPTIONS", "z9hG4bK1")), "[2001:db8::1]:5060", test.sentBy, 1)))
		if _, v := s.Request(m, sip.Way{Remote: wayTo1}, 0); v != test.want {
			t.Errorf("%s: verdict %v, want %v", test.sentBy, v, test.want)
		}
	}
}

// TestOldClients: transactions of clients of RFC 2543 are told apart by all that they have. RFC 3261 §17.2.3.
func TestOldClients(t *testing.T) {
	t.Parallel()
	w := sip.Way{Local: wayTo2, Remote: wayTo1}
	s := newSide(0)
	text := string(request("INVITE", "1"))
	m := parse(t, []byte(text))
	x, v := s.Request(m, w, 0)
	if v != Fresh {
		t.Fatalf("verdict %v", v)
	}
	// Within a dialog, where no other rule tells them apart.
	within := strings.ReplaceAll(text, "To: <sip:b@example.jp>", "To: <sip:b@example.jp>;tag=b")
	within = strings.ReplaceAll(within, "Call-ID: c", "Call-ID: w")
	for _, change := range [][2]string{{"CSeq", "CSeq"}, {"tag=a", "tag=z"}, {"CSeq: 7", "CSeq: 8"}, {"Call-ID: w", "Call-ID: d"}, {"INVITE sip:b@", "INVITE sip:c@"},
		{"db8::1]:5060", "db8::1]:5061"}} {
		m := parse(t, []byte(strings.NewReplacer(change[0], change[1]).Replace(within)))
		for _, want := range []Verdict{Fresh, Done} {
			if _, v := s.Request(m, w, 0); v != want {
				t.Errorf("with %s: verdict %v, want %v", change[1], v, want)
			}
		}
	}
	if _, v := s.Request(m, w, 0); v != Done {
		t.Errorf("the same again: verdict %v", v)
	}
	s.Answer(x, answer(m, w, 486), 486, 0)
	ack := strings.ReplaceAll(strings.ReplaceAll(text, "INVITE", "ACK"), "To: <sip:b@example.jp>", "To: <sip:b@example.jp>;tag=b")
	if _, v := s.Request(parse(t, []byte(strings.ReplaceAll(ack, "tag=b", "tag=c"))), w, 0); v != Acked || x.State() != Completed {
		t.Errorf("ACK of another answer: verdict %v, state %v", v, x.State())
	}
	if _, v := s.Request(parse(t, []byte(ack)), w, 0); v != Done || x.State() != Confirmed {
		t.Errorf("ACK: verdict %v, state %v", v, x.State())
	}
}

// TestFlood: what strangers can make a table hold is bounded, for one prefix and for all; who finds no place is told when to
// come again; trunks are let in; and when the flood is over, nothing is left.
func TestFlood(t *testing.T) {
	t.Parallel()
	s := newSide(0)
	s.Limits = Limits{Servers: 100, Prefix: 10}
	trunk := netip.MustParseAddr("2001:db8:ffff::1")
	s.Trusted = func(a netip.Addr) bool { return a == trunk }
	send := func(i int, from string) Verdict {
		_, v := s.Request(parse(t, request("INVITE", fmt.Sprint("z9hG4bK", i))), sip.Way{Remote: netip.AddrPortFrom(netip.MustParseAddr(from), 5060)}, 0)
		return v
	}
	fresh := 0
	for i := range 1000 {
		if send(i, fmt.Sprintf("2001:db8::%x", i)) == Fresh {
			fresh++
		}
	}
	if fresh != 10 || s.Refused() != 990 {
		t.Errorf("one /64: %d let in, %d refused", fresh, s.Refused())
	}
	if got := s.sent[0]; !strings.HasPrefix(got, "SIP/2.0 503 ") || !strings.Contains(got, "\r\nRetry-After: 32\r\n") {
		t.Errorf("refused with %q", got)
	}
	for i := 1000; i < 1020; i++ {
		if v := send(i, trunk.String()); v != Fresh {
			t.Errorf("trunk: verdict %v", v)
		}
	}
	for i := 2000; i < 12000; i++ {
		send(i, fmt.Sprintf("2001:db8:%x:%x::1", i/100, i%100))
	}
	if _, n := s.Len(); n != 100 {
		t.Errorf("%d held, want 100", n)
	}
	for x := range s.servers.all {
		s.Answer(x, answer(parse(t, request("INVITE", "z9hG4bK1")), sip.Way{Remote: wayTo1}, 486), 486, 0)
	}
	s.until(99_000 * ms)
	if _, n := s.Len(); n != 0 || len(s.prefixes) != 0 || s.wheel.Len() != 0 {
		t.Errorf("after it: %d held, %d prefixes, %d timers", n, len(s.prefixes), s.wheel.Len())
	}
}

// TestUrgent: what is urgent finds a place where others do not, but not without bound.
func TestUrgent(t *testing.T) {
	t.Parallel()
	s := newSide(0)
	s.Limits = Limits{Servers: 20, Clients: 5, Prefix: 10, Reserve: 3}
	s.Urgent = func(m *sip.Message) bool { return strings.Contains(string(m.Get(sip.Via)), "urgent") }
	came := func(branch, from string) bool {
		_, v := s.Request(parse(t, request("INVITE", branch)), sip.Way{Remote: netip.AddrPortFrom(netip.MustParseAddr(from), 5060)}, 0)
		return v == Fresh
	}
	count := func(branch string, from func(i int) string) (n int) {
		for i := range 100 {
			if came(fmt.Sprint(branch, i), from(i)) {
				n++
			}
		}
		return n
	}
	one := func(int) string { return "2001:db8::1" }
	many := func(i int) string { return fmt.Sprintf("2001:db8:1:%x::1", i) }
	got := []int{count("z9hG4bKa", one), count("z9hG4bKurgent", one), count("z9hG4bKb", many), count("z9hG4bKurgentb", many)}
	if want := []int{10, 3, 7, 3}; !slices.Equal(got, want) {
		t.Errorf("let in %v, want %v", got, want)
	}
	asked := func(branch string) (n int) {
		for i := range 100 {
			if _, err := s.Ask([]byte(request("INVITE", fmt.Sprint(branch, i))), sip.Way{}, "", 0); err == nil {
				n++
			}
		}
		return n
	}
	if a, b := asked("z9hG4bKc"), asked("z9hG4bKurgentc"); a != 5 || b != 3 {
		t.Errorf("asked %d and %d, want 5 and 3", a, b)
	}
}

// TestReply: a reply is the same each time, with a tag, and holds nothing.
func TestReply(t *testing.T) {
	t.Parallel()
	s := newSide(0)
	w := sip.Way{Remote: wayTo1}
	m := parse(t, request("REGISTER", "z9hG4bK1"))
	for range 2 {
		s.Reply(m, w, &sip.Answer{Status: 401})
	}
	s.Reply(parse(t, request("REGISTER", "z9hG4bK2")), w, &sip.Answer{Status: 401})
	s.Reply(parse(t, request("ACK", "z9hG4bK2")), w, &sip.Answer{Status: 401})
	if len(s.sent) != 3 || s.sent[0] != s.sent[1] || s.sent[0] == s.sent[2] {
		t.Fatalf("sent %q", s.sent)
	}
	to, _, _ := sip.ParseAddress(parse(t, []byte(s.sent[0])).Get(sip.To))
	if _, n := s.Len(); n != 0 || len(to.Tag()) < 8 {
		t.Errorf("%d held, tag %q", n, to.Tag())
	}
}

func TestFull(t *testing.T) {
	t.Parallel()
	s := newSide(0)
	s.Limits.Clients = 1
	if _, err := s.Ask(request("OPTIONS", "z9hG4bK1"), sip.Way{}, "", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Ask(request("OPTIONS", "z9hG4bK2"), sip.Way{}, "", 0); !errors.Is(err, ErrFull) {
		t.Errorf("got %v, want %v", err, ErrFull)
	}
	if x, _ := s.clients.find([]byte("OPTIONS z9hG4bK1")); !s.Failed(x) || s.Failed(x) {
		t.Error("a transport error ends a client, once")
	}
	if n, _ := s.Len(); n != 0 {
		t.Errorf("%d left", n)
	}
}

// TestAllocs: copies of messages cost no allocation.
func TestAllocs(t *testing.T) {
	s := newSide(0)
	s.Send = func(sip.Way, []byte) {}
	w := sip.Way{Local: wayTo2, Remote: wayTo1}
	m := parse(t, request("INVITE", "z9hG4bK1"))
	x, _ := s.Request(m, w, 0)
	s.Answer(x, answer(m, w, 180), 180, 0)
	c, _ := s.Ask(request("INVITE", "z9hG4bK2"), w, "", 0)
	r := parse(t, answer(parse(t, c.Request()), w, 180))
	now := int64(0)
	if n := testing.AllocsPerRun(100, func() {
		s.Request(m, w, now)
		s.Response(r, now)
		s.Answer(x, c.last, 180, now)
		now += 10 * ms
		s.Advance(now)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkCall is an INVITE with 180 and 200, at both sides, with all timers.
func BenchmarkCall(b *testing.B) {
	s, c := newSide(0), newSide(0)
	s.Send, c.Send = func(sip.Way, []byte) {}, func(sip.Way, []byte) {}
	s.Trusted = func(netip.Addr) bool { return true }
	w := sip.Way{Local: wayTo2, Remote: wayTo1}
	now := int64(0)
	b.ReportAllocs()
	var m sip.Message
	for i := range b.N {
		text := request("INVITE", fmt.Sprint("z9hG4bK", i))
		_ = m.Parse(text, nil)
		x, _ := s.Request(&m, w, now)
		_, _ = c.Ask(text, w, "", now)
		for _, status := range []int{180, 200} {
			a := answer(&m, w, status)
			s.Answer(x, a, status, now)
			var r sip.Message
			_ = r.Parse(a, nil)
			c.Response(&r, now)
		}
		now += ms
		s.Advance(now)
		c.Advance(now)
	}
}

// TestUnheard: what was asked on a way and not answered is found when the way is lost, and fails without a word.
func TestUnheard(t *testing.T) {
	t.Parallel()
	s := newSide(1)
	w := sip.Way{Transport: sip.TCP, Local: wayTo1, Remote: wayTo2}
	other := w
	other.Transport = sip.TLS
	for branch, way := range map[string]sip.Way{"z9hG4bK1": w, "z9hG4bK2": w, "z9hG4bK3": other} {
		if _, err := s.Ask(request("INVITE", branch), way, branch, 1); err != nil {
			t.Fatal(err)
		}
	}
	ringing := answer(parse(t, request("INVITE", "z9hG4bK2")), w, 180)
	s.Response(parse(t, ringing), 1)
	all := s.Unheard(w)
	if len(all) != 1 || all[0].User != "z9hG4bK1" {
		t.Fatalf("got %d, want the one without an answer", len(all))
	}
	if !s.Failed(all[0]) || len(s.told) > 0 || len(s.Unheard(w)) > 0 {
		t.Error("it goes on")
	}
}
