// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package ip

import (
	"net/netip"
	"testing"
)

func TestCanonical(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8::1": "2001:db8::1",
		"fe80::1%eth0": "fe80::1", "::ffff:0:0": "0.0.0.0", "::1": "::1",
	} {
		if got := Canonical(netip.MustParseAddr(in)).String(); got != want {
			t.Errorf("Canonical(%s) = %s, want %s", in, got, want)
		}
	}
	if got := CanonicalPort(netip.MustParseAddrPort("[::ffff:192.0.2.1]:80")).String(); got != "192.0.2.1:80" {
		t.Errorf("got %s", got)
	}
}

func TestCrossings(t *testing.T) {
	t.Parallel()
	want := [4]string{"4→4", "4→6", "6→4", "6→6"}
	for i, c := range Crossings() {
		if c.Index() != i || c.String() != want[i] {
			t.Errorf("crossing %d: index %d, %s, want %s", i, c.Index(), c, want[i])
		}
	}
	if V4.String() != "ipv4" || V6.String() != "ipv6" || FamilyOf(netip.MustParseAddr("::1")) != V6 || FamilyOf(netip.MustParseAddr("127.0.0.1")) != V4 {
		t.Error("families are mixed up")
	}
}

// RFC 6052 §2.4 has the vector of the /96.
func TestEmbed(t *testing.T) {
	t.Parallel()
	p := netip.MustParsePrefix("2001:db8:122:344::/96")
	v4 := netip.MustParseAddr("192.0.2.33")
	got := Embed(p, v4)
	if want := netip.MustParseAddr("2001:db8:122:344::192.0.2.33"); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
	if back, ok := Extract(p, got); !ok || back != v4 {
		t.Errorf("got %v, %v back", back, ok)
	}
	if _, ok := Extract(p, netip.MustParseAddr("2001:db8:122:345::1")); ok {
		t.Error("found an address outside the prefix")
	}
}

func TestKey(t *testing.T) {
	t.Parallel()
	addr := netip.MustParseAddr
	for _, tt := range []struct {
		a, b netip.Addr
		same bool
	}{
		{addr("2001:db8::1"), addr("2001:db8::ffff:ffff:ffff:ffff"), true},
		{addr("2001:db8::1"), addr("2001:db8:0:1::1"), false},
		{addr("192.0.2.1"), addr("192.0.2.2"), false},
		{addr("0.0.0.1"), addr("0:0:0:1::"), false}, // an IPv4 address is not the /64 with the same bits
	} {
		if got := Key(tt.a) == Key(tt.b); got != tt.same {
			t.Errorf("keys of %v and %v the same: %v, want %v", tt.a, tt.b, got, tt.same)
		}
		if got := ClientPrefix(tt.a) == ClientPrefix(tt.b); got != tt.same {
			t.Errorf("prefixes of %v and %v the same: %v, want %v", tt.a, tt.b, got, tt.same)
		}
	}
}

func TestPrefixes(t *testing.T) {
	s := NewPrefixes(netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("2001:db8::/32"))
	for a, want := range map[string]bool{"10.1.2.3": true, "11.0.0.1": false, "2001:db8:ffff::1": true, "2001:db9::1": false} {
		a := netip.MustParseAddr(a)
		if got := s.Contains(a); got != want {
			t.Errorf("Contains(%v) = %v", a, got)
		}
		if n := testing.AllocsPerRun(100, func() { s.Contains(a) }); n != 0 {
			t.Errorf("Contains allocates %v times", n)
		}
	}
	if s.IsZero() || !(Prefixes{}).IsZero() || (Prefixes{}).Contains(netip.MustParseAddr("::1")) {
		t.Error("the empty set is not empty")
	}
}
