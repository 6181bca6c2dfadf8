// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sdp

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kyozon/kyozon/ip"
)

// lines joins lines as they are on the wire.
func lines(ls ...string) string { return strings.Join(ls, "\r\n") + "\r\n" }

// parse reads a description that is right.
func parse(t testing.TB, text string) *Session {
	t.Helper()
	s := new(Session)
	if err := s.Parse([]byte(text), &Limits{}); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return s
}

const head = "v=0\r\no=- 1 2 IN IP4 192.0.2.1\r\ns=-\r\n"

// say tells what was understood of the m-lines.
func say(s *Session) (got []string) {
	for i := range s.Len() {
		m := s.Media(i)
		line := fmt.Sprintf("%s %d %v %v %v %v %d", s.Name(i), m.Port, m.Family, m.Addr, m.Kind, m.Direction, m.Transport)
		if m.RTCP != 0 {
			line += fmt.Sprintf(" rtcp %d", m.RTCP)
		}
		for word, is := range map[string]bool{" mux": m.Mux, " passed": m.Passed} {
			if is {
				line += word
			}
		}
		got = append(got, line)
	}
	return got
}

// TestParse reads the examples of RFC 8866 and RFC 5118, and what telephones send.
func TestParse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"RFC 8866 §5", lines("v=0", "o=jdoe 3724394400 3724394405 IN IP4 198.51.100.1", "s=Call to John Smith", "i=SDP Offer #1",
			"u=http://www.jdoe.example.com/home.html", "e=Jane Doe <jane@jdoe.example.com>", "p=+1 617 555-6011",
			"c=IN IP4 198.51.100.1", "t=0 0", "m=audio 49170 RTP/AVP 0", "m=audio 49180 RTP/AVP 0", "m=video 51372 RTP/AVP 99",
			"c=IN IP6 2001:db8::2", "a=rtpmap:99 h263-1998/90000"),
			[]string{"audio 49170 ipv4 198.51.100.1 global sendrecv 1", "audio 49180 ipv4 198.51.100.1 global sendrecv 1",
				"video 51372 ipv6 2001:db8::2 global sendrecv 1"}},
		{"RFC 4566 §5", "v=0\no=jdoe 2890844526 2890842807 IN IP4 10.47.16.5\ns=SDP Seminar\ni=A Seminar\nc=IN IP4 224.2.17.12/127\n" +
			"t=2873397496 2873404696\na=recvonly\nm=audio 49170 RTP/AVP 0\nm=video 51372 RTP/AVP 99\na=rtpmap:99 h263-1998/90000\n",
			[]string{"audio 49170 ipv4 224.2.17.12 multicast recvonly 1", "video 51372 ipv4 224.2.17.12 multicast recvonly 1"}},
		{"RFC 5118 §4.6", lines("v=0", "o=assistant 971731711378798081 0 IN IP6 2001:db8::20", "s=Live video feed for today's meeting",
			"c=IN IP6 2001:db8::20", "t=3338481189 3370017201", "m=audio 6000 RTP/AVP 2", "a=rtpmap:2 G726-32/8000", "m=video 6024 RTP/AVP 107",
			"a=rtpmap:107 H263-1998/90000"),
			[]string{"audio 6000 ipv6 2001:db8::20 global sendrecv 1", "video 6024 ipv6 2001:db8::20 global sendrecv 1"}},
		{"RFC 5118 §4.8", lines("v=0", "o=bob 280744730 28977631 IN IP4 host.example.com", "s=", "t=0 0", "m=audio 22334 RTP/AVP 0",
			"c=IN IP4 192.0.2.1", "m=video 6024 RTP/AVP 107", "c=IN IP6 2001:db8::1", "a=rtpmap:107 H263-1998/90000"),
			[]string{"audio 22334 ipv4 192.0.2.1 global sendrecv 1", "video 6024 ipv6 2001:db8::1 global sendrecv 1"}},
		{"RFC 5118 §4.9", lines("v=0", "o=assistant 971731711378798081 0 IN IP6 ::ffff:192.0.2.2", "s=Call me soon, please!",
			"c=IN IP6 ::ffff:192.0.2.2", "t=3338481189 3370017201", "m=audio 6000 RTP/AVP 2", "a=rtpmap:2 G726-32/8000"),
			[]string{"audio 6000 ipv6 192.0.2.2 mapped sendrecv 1"}},
		{"no end of the last line", head + "c=IN IP4 192.0.2.1\r\nm=audio 1 RTP/AVP 0", []string{"audio 1 ipv4 192.0.2.1 global sendrecv 1"}},
		{"brackets", head + lines("c=IN IP6 [2001:db8::1]", "m=audio 1 RTP/AVP 0"), []string{"audio 1 ipv6 2001:db8::1 global sendrecv 1"}},
		{"held in IPv4", head + lines("c=IN IP4 0.0.0.0", "m=audio 1 RTP/AVP 0"), []string{"audio 1 ipv4 0.0.0.0 unspecified sendrecv 1"}},
		{"held in IPv6", head + lines("c=IN IP6 ::", "m=audio 1 RTP/AVP 0"), []string{"audio 1 ipv6 :: unspecified sendrecv 1"}},
		{"held by name", head + lines("c=IN IP6 hold.invalid", "m=audio 1 RTP/AVP 0"), []string{"audio 1 ipv6 invalid IP unspecified sendrecv 1"}},
		{"a name", head + lines("c=IN IP4 host.example.com", "m=audio 1 RTP/AVP 0"), []string{"audio 1 ipv4 invalid IP name sendrecv 1"}},
		{"behind CLAT", head + lines("c=IN IP4 192.0.0.4", "m=audio 1 RTP/AVP 0"), []string{"audio 1 ipv4 192.0.0.4 clat sendrecv 1"}},
		{"NAT64", head + lines("c=IN IP6 64:ff9b::192.0.2.1", "m=audio 1 RTP/AVP 0"), []string{"audio 1 ipv6 64:ff9b::c000:201 nat64 sendrecv 1"}},
		{"fax", head + lines("c=IN IP4 192.0.2.1", "m=image 4000 udptl t38", "a=T38FaxVersion:0"), []string{"image 4000 ipv4 192.0.2.1 global sendrecv 2"}},
		{"over TCP", head + lines("c=IN IP4 192.0.2.1", "m=message 2855 TCP/MSRP *"), []string{"message 2855 ipv4 192.0.2.1 global sendrecv 0"}},
		{"rejected, without c=", head + lines("m=audio 0 RTP/AVP 0"), []string{"audio 0 unknown invalid IP global sendrecv 1"}},
		{"directions", head + lines("c=IN IP4 192.0.2.1", "a=sendonly", "m=audio 1 RTP/AVP 0", "m=audio 3 RTP/AVP 0", "a=inactive"),
			[]string{"audio 1 ipv4 192.0.2.1 global sendonly 1", "audio 3 ipv4 192.0.2.1 global inactive 1"}},
		{"rtcp", head + lines("c=IN IP4 192.0.2.1", "m=audio 10 RTP/AVP 0", "a=rtcp:53020 IN IP4 192.0.2.9", "a=rtcp-mux"),
			[]string{"audio 10 ipv4 192.0.2.1 global sendrecv 1 rtcp 53020 mux"}},
		{"RFC 4091", head + lines("t=0 0", "a=group:ANAT 1 2", "m=audio 25000 RTP/AVP 0", "c=IN IP6 2001:db8::1", "a=mid:1", "m=audio 22334 RTP/AVP 0",
			"c=IN IP4 192.0.2.1", "a=mid:2"),
			[]string{"audio 25000 ipv6 2001:db8::1 global sendrecv 1", "audio 22334 ipv4 192.0.2.1 global sendrecv 1 passed"}},
		{"several c=", head + lines("m=video 1/2 RTP/AVP 0", "c=IN IP4 224.2.1.1/127", "c=IN IP4 224.2.1.2/127"),
			[]string{"video 1 ipv4 224.2.1.1 multicast sendrecv 1"}},
	} {
		if diff := cmp.Diff(tt.want, say(parse(t, tt.text))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text string
		want error
	}{
		{"", ErrOrigin},
		{"o=- 1 2 IN IP4 192.0.2.1\r\n", ErrVersion},
		{"v=1\r\n", ErrVersion},
		{"v=0\r\ns=-\r\n", ErrOrigin},
		{"v=0\r\no=- 1 IN IP4 192.0.2.1\r\n", ErrOrigin},
		{"v=0\r\no=-  1 2 IN IP4 192.0.2.1\r\n", ErrOrigin},
		{head + "o=- 1 2 IN IP4 192.0.2.1\r\n", ErrOrigin},
		{head + "hello\r\n", ErrLine},
		{head + "\r\n", ErrLine},
		{head + "a=x\ry\r\n", ErrLine},
		{head + "a=\x00\r\n", ErrLine},
		{head + "c=IN IP4 2001:db8::1\r\n", ErrConnection},
		{head + "c=IN IP6 192.0.2.1\r\n", ErrConnection},
		{head + "c=IN IP6 fe80::1%eth0\r\n", ErrConnection},
		{head + "c=IN IP6 2001:db8:::1\r\n", ErrConnection},
		{head + "c=IN IP5 x\r\n", ErrConnection},
		{head + "c=ATM NSAP x\r\n", ErrConnection},
		{head + "c=IN IP4 /127\r\n", ErrConnection},
		{head + "m=audio 1 RTP/AVP 0\r\n", ErrNoAddress},
		{head + "m=audio 65536 RTP/AVP 0\r\n", ErrMediaLine},
		{head + "m=audio -1 RTP/AVP 0\r\n", ErrMediaLine},
		{head + "m=audio 1/x RTP/AVP 0\r\n", ErrMediaLine},
		{head + "m=audio 1 RTP/AVP\r\n", ErrMediaLine},
		{head + "m=audio  1 RTP/AVP 0\r\n", ErrMediaLine},
		{head + "c=IN IP4 192.0.2.1\r\nm=audio 1 RTP/AVP 0\r\na=rtcp:x\r\n", ErrRTCP},
		{head + "c=IN IP4 192.0.2.1\r\n" + strings.Repeat("m=audio 1 RTP/AVP 0\r\n", 9), ErrManyMedia},
		{head + strings.Repeat("a=x\r\n", 510), ErrLines},
		{head + "a=" + strings.Repeat("x", 16<<10), ErrLong},
	} {
		if err := new(Session).Parse([]byte(tt.text), &Limits{}); !errors.Is(err, tt.want) {
			t.Errorf("%.80q: got %v, want %v", tt.text, err, tt.want)
		}
	}
}

// phone is what a telephone with ICE offers.
func phone() string {
	return lines("v=0", "o=alice 2890844526 2890844526 IN IP4 10.0.0.9", "s=-", "c=IN IP4 10.0.0.9", "b=AS:64", "t=0 0",
		"a=group:BUNDLE a v", "a=ice-options:trickle", "m=audio 49170 RTP/AVP 0 101", "i=voice", "a=mid:a", "a=rtcp:53020 IN IP4 10.0.0.9",
		"a=rtpmap:101 telephone-event/8000", "a=x-unknown:kept  as it is", "a=candidate:1 1 UDP 2130706431 10.0.0.9 49170 typ host",
		"a=ice-ufrag:8hhY", "a=ice-pwd:asd88fgpdd777uzjYhagZg", "a=end-of-candidates", "a=altc:1 IP6 2001:db8::9 45678", "a=source-filter: incl IN IP4 10.0.0.9 10.0.0.8", "m=video 0 RTP/AVP 99", "a=bundle-only")
}

func endpoint(s string) Endpoint { return Endpoint{Addr: netip.MustParseAddrPort(s)} }

// rewritten returns what Append makes of a description, and proves that it can be read again.
func rewritten(t *testing.T, text string, r Rewrite) string {
	t.Helper()
	s := parse(t, text)
	for len(r.Media) < s.Len() {
		r.Media = append(r.Media, Endpoint{})
	}
	got, err := s.Append([]byte("before"), &r)
	if err != nil {
		t.Fatal(err)
	}
	again, ok := strings.CutPrefix(string(got), "before")
	if !ok {
		t.Fatalf("what was there is lost: %q", got)
	}
	parse(t, again)
	return again
}

func TestAppend(t *testing.T) {
	t.Parallel()
	const relay4, relay6 = "203.0.113.11:20000", "[2001:db8:100:50::7]:20000"
	audio := func(ls ...string) string {
		return head + lines(append([]string{"c=IN IP4 192.0.2.1", "t=0 0", "m=audio 10 RTP/AVP 0"}, ls...)...)
	}
	other := func(addr string, ls ...string) string {
		kind := "IP4"
		if strings.Contains(addr, ":") {
			kind = "IP6"
		}
		at := "IN " + kind + " " + addr
		return "v=0\r\no=- 1 2 " + at + "\r\ns=-\r\n" + lines(append([]string{"c=" + at, "t=0 0", "m=audio 20000 RTP/AVP 0"}, ls...)...)
	}
	for _, tt := range []struct {
		name, text string
		r          Rewrite
		want       string
	}{
		{"a telephone", phone(), Rewrite{Addr: netip.MustParseAddr("2001:db8:100:50::7"), Media: []Endpoint{endpoint(relay6)}, ID: 77, Version: 3},
			lines("v=0", "o=alice 77 3 IN IP6 2001:db8:100:50::7", "s=-", "c=IN IP6 2001:db8:100:50::7", "b=AS:64", "t=0 0",
				"m=audio 20000 RTP/AVP 0 101", "i=voice", "a=mid:a", "a=rtcp:20001 IN IP6 2001:db8:100:50::7",
				"a=rtpmap:101 telephone-event/8000", "a=x-unknown:kept  as it is", "m=video 0 RTP/AVP 99")},
		{"in its own family", audio("a=ptime:20"), Rewrite{Addr: netip.MustParseAddr("203.0.113.11"), Media: []Endpoint{endpoint(relay4)}},
			other("203.0.113.11", "a=ptime:20")},
		{"across", audio(), Rewrite{Addr: netip.MustParseAddr("2001:db8::7"), Media: []Endpoint{endpoint("[2001:db8::7]:20000")}}, other("2001:db8::7")},
		{"hold by address", strings.Replace(audio(), "192.0.2.1\r\nt=", "0.0.0.0\r\nt=", 1),
			Rewrite{Addr: netip.MustParseAddr("2001:db8::7"), Media: []Endpoint{endpoint("[2001:db8::7]:20000")}}, other("2001:db8::7", "a=sendonly")},
		{"hold by address and direction", strings.Replace(audio("a=recvonly", "a=ptime:20"), "192.0.2.1\r\nt=", "0.0.0.0\r\nt=", 1),
			Rewrite{Addr: netip.MustParseAddr("2001:db8::7"), Media: []Endpoint{endpoint("[2001:db8::7]:20000")}},
			other("2001:db8::7", "a=inactive", "a=ptime:20")},
		{"hold by direction", audio("a=sendonly"), Rewrite{Addr: netip.MustParseAddr("2001:db8::7"), Media: []Endpoint{endpoint("[2001:db8::7]:20000")}},
			other("2001:db8::7", "a=sendonly")},
		{"rtcp elsewhere", audio("a=ptime:20"),
			Rewrite{Addr: netip.MustParseAddr("203.0.113.11"), Media: []Endpoint{{netip.MustParseAddrPort(relay4), 30001}}},
			other("203.0.113.11", "a=ptime:20", "a=rtcp:30001 IN IP4 203.0.113.11")},
		{"another address for one m-line", audio("i=a", "b=AS:1") + "m=audio 12 RTP/AVP 0\r\n",
			Rewrite{Addr: netip.MustParseAddr("203.0.113.12"), Media: []Endpoint{endpoint(relay4), endpoint("203.0.113.12:20000")}},
			other("203.0.113.12", "i=a", "c=IN IP4 203.0.113.11", "b=AS:1") + "m=audio 20000 RTP/AVP 0\r\n"},
		{"another address for the last", audio() + "m=audio 12 RTP/AVP 0",
			Rewrite{Addr: netip.MustParseAddr("203.0.113.11"), Media: []Endpoint{endpoint(relay4), endpoint("203.0.113.12:20002")}},
			other("203.0.113.11") + "m=audio 20002 RTP/AVP 0\r\nc=IN IP4 203.0.113.12\r\n"},
		{"c= of the m-line", head + lines("t=0 0", "m=audio 10 RTP/AVP 0", "c=IN IP4 224.2.1.1/127", "m=image 12 udptl t38", "c=IN IP6 2001:db8::9"),
			Rewrite{Addr: netip.MustParseAddr("203.0.113.11"), Media: []Endpoint{endpoint(relay4), {}}},
			lines("v=0", "o=- 1 2 IN IP4 203.0.113.11", "s=-", "t=0 0", "m=audio 20000 RTP/AVP 0", "c=IN IP4 203.0.113.11", "m=image 0 udptl t38",
				"c=IN IP4 203.0.113.11")},
		{"ANAT", head + lines("a=group:ANAT 1 2", "m=audio 25000 RTP/AVP 0", "c=IN IP6 2001:db8::1", "a=mid:1", "m=audio 22334 RTP/AVP 0",
			"c=IN IP4 192.0.2.1", "a=mid:2"),
			Rewrite{Addr: netip.MustParseAddr("203.0.113.11"), Media: []Endpoint{endpoint(relay4), endpoint("203.0.113.11:20002")}},
			lines("v=0", "o=- 1 2 IN IP4 203.0.113.11", "s=-", "m=audio 20000 RTP/AVP 0", "c=IN IP4 203.0.113.11", "a=mid:1", "m=audio 0 RTP/AVP 0",
				"c=IN IP4 203.0.113.11", "a=mid:2")},
		{"layers become one", audio("a=ptime:20")[:len(head)] + lines("c=IN IP4 192.0.2.1", "t=0 0", "m=audio 10/2 RTP/AVP 0"),
			Rewrite{Addr: netip.MustParseAddr("203.0.113.11"), Media: []Endpoint{endpoint(relay4)}}, other("203.0.113.11")},
		{"LF", "v=0\no=- 1 2 IN IP4 192.0.2.1\ns=-\nc=IN IP6 ::\nm=audio 1 RTP/AVP 0\n",
			Rewrite{Addr: netip.MustParseAddr("2001:db8::7"), Media: []Endpoint{endpoint("[2001:db8::7]:9")}},
			"v=0\no=- 1 2 IN IP6 2001:db8::7\ns=-\nc=IN IP6 2001:db8::7\nm=audio 9 RTP/AVP 0\na=sendonly\n"},
	} {
		if diff := cmp.Diff(tt.want, rewritten(t, tt.text, tt.r)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
	for _, r := range []Rewrite{{}, {Addr: netip.MustParseAddr("::1")}, {Media: make([]Endpoint, 2)}} {
		if _, err := parse(t, phone()).Append(nil, &r); !errors.Is(err, ErrEndpoints) {
			t.Errorf("%v: %v", r, err)
		}
	}
}

func TestSameFamily(t *testing.T) {
	t.Parallel()
	m4 := func(ls ...string) string { return head + "c=IN IP4 192.0.2.1\r\n" + lines(ls...) }
	m6 := func(ls ...string) string { return head + "c=IN IP6 2001:db8::1\r\n" + lines(ls...) }
	const audio, off, video = "m=audio 10 RTP/AVP 0", "m=audio 0 RTP/AVP 0", "m=video 10 RTP/AVP 99"
	for _, tt := range []struct {
		name, offer, answer string
		want                bool
	}{
		{"4, 4", m4(audio), m4(audio), true},
		{"6, 6", m6(audio), m6(audio), true},
		{"4, 6", m4(audio), m6(audio), false},
		{"6, 4", m6(audio), m4(audio), false},
		{"rejected in another family", m6(audio), m4(off), true},
		{"held in another family", m6(audio), head + "c=IN IP4 0.0.0.0\r\n" + lines(audio), true},
		{"each m-line its own", m4(audio, video, "c=IN IP6 2001:db8::1"), m6(audio, "c=IN IP4 192.0.2.1", video), true},
		{"each m-line the other", m4(audio, video, "c=IN IP6 2001:db8::1"), m4(audio, video), false},
		{"too few", m4(audio, video), m4(audio), true},
	} {
		if got := SameFamily(parse(t, tt.offer), parse(t, tt.answer)); got != tt.want {
			t.Errorf("%s: got %v", tt.name, got)
		}
	}
}

func TestDecide(t *testing.T) {
	t.Parallel()
	p := Policy{
		NAT64: []netip.Prefix{netip.MustParsePrefix("2001:db8:64::/96")},
		Ours:  ip.NewPrefixes(netip.MustParsePrefix("203.0.113.11/32"), netip.MustParsePrefix("2001:db8:100:50::/64")),
	}
	leg := func(network, source, at string) Leg {
		l := Leg{Network: network, Source: netip.MustParseAddr(source)}
		if at != "" {
			l.Media = parse(t, head+"c=IN "+at+"\r\nm=audio 10 RTP/AVP 0\r\n")
		}
		return l
	}
	for _, tt := range []struct {
		name string
		a, b Leg
		want Path
	}{
		{"4, 4", leg("access4", "100.64.0.1", "IP4 100.64.0.1"), leg("access4", "100.64.0.2", "IP4 100.64.0.2"), Direct},
		{"6, 6", leg("access6", "2001:db8:1::1", "IP6 2001:db8:1::1"), leg("access6", "2001:db8:2::1", "IP6 2001:db8:2::1"), Direct},
		{"6, not answered yet", leg("access6", "2001:db8:1::1", "IP6 2001:db8:1::1"), leg("access6", "2001:db8:2::1", ""), Direct},
		{"no offer yet", leg("access6", "2001:db8:1::1", ""), leg("access6", "2001:db8:2::1", ""), Direct},
		{"4, 6", leg("access4", "100.64.0.1", "IP4 100.64.0.1"), leg("access6", "2001:db8:2::1", "IP6 2001:db8:2::1"), OtherNetwork},
		{"one family, two networks", leg("access4", "100.64.0.1", "IP4 100.64.0.1"), leg("core", "10.0.5.11", "IP4 10.0.5.11"), OtherNetwork},
		{"two families in one", leg("lab", "192.0.2.1", "IP4 192.0.2.1"), leg("lab", "2001:db8::1", ""), OtherFamily},
		{"two families in one, answered", leg("lab", "192.0.2.1", "IP4 192.0.2.1"), leg("lab", "192.0.2.2", "IP6 2001:db8::1"), OtherFamily},
		{"media elsewhere", leg("access6", "2001:db8:1::1", "IP6 2001:db8:9::1"), leg("access6", "2001:db8:2::1", "IP6 2001:db8:2::1"), Direct},
		{"behind NAT", leg("access4", "192.0.2.1", "IP4 192.168.1.2"), leg("access4", "192.0.2.2", "IP4 192.0.2.2"), BehindNAT},
		{"CLAT", leg("access6", "2001:db8:1::1", "IP4 192.0.0.4"), leg("access6", "2001:db8:2::1", "IP6 2001:db8:2::1"), Translated},
		{"NAT64", leg("access6", "2001:db8:1::1", "IP6 64:ff9b::1.2.3.4"), leg("access6", "2001:db8:2::1", ""), Translated},
		{"NAT64 of the network", leg("access6", "2001:db8:1::1", "IP6 2001:db8:64::1.2.3.4"), leg("access6", "2001:db8:2::1", ""), Translated},
		{"mapped", leg("access4", "192.0.2.1", "IP6 ::ffff:192.0.2.1"), leg("access4", "192.0.2.2", ""), Translated},
		{"name", leg("access4", "192.0.2.1", "IP4 host.example"), leg("access4", "192.0.2.2", ""), NoAddress},
		{"link", leg("access6", "2001:db8::1", "IP6 fe80::1"), leg("access6", "2001:db8:2::1", ""), NoAddress},
		{"held", leg("access4", "192.0.2.1", "IP4 0.0.0.0"), leg("access4", "192.0.2.2", "IP4 192.0.2.2"), Direct},
		{"at us", leg("access4", "192.0.2.1", "IP4 203.0.113.11"), leg("core", "10.0.5.11", ""), Loop},
		{"at us in IPv6", leg("access6", "2001:db8:1::1", "IP6 2001:db8:100:50::77"), leg("access6", "2001:db8:2::1", ""), Loop},
	} {
		if got := p.Decide(tt.a, tt.b); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
		if got := p.Decide(tt.b, tt.a); got != tt.want {
			t.Errorf("%s, the other way: got %v, want %v", tt.name, got, tt.want)
		}
	}
}
