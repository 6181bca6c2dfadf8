// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sip

import (
	"net/netip"
	"testing"
)

func TestHosts(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "[2001:DB8:0:0::1]:5060": "[2001:db8::1]:5060", "[::]": "[::]", "[::ffff:192.0.2.1]:9": "192.0.2.1:9",
		"[2001:db8:::192.0.2.1]": "[2001:db8::c000:201]", "[:::192.0.2.1]": "[::c000:201]", "[1:2:3:4:5:6:7:8]": "[1:2:3:4:5:6:7:8]",
		"192.0.2.1 : 5060": "192.0.2.1:5060", "[1::]": "[1::]", "[::1:2:3:4:5:6:7]": "[0:1:2:3:4:5:6:7]",
	} {
		h, err := ParseHost([]byte(text))
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := string(AppendHost(nil, h.Addr, h.Port)); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
	for _, text := range []string{"a", "a.example.", "192.0.2.256", "192.0.2", "1.2.3.4.5", "01.2.3.4", "x_y"} {
		if h, err := ParseHost([]byte(text)); err != nil || h.Addr.IsValid() {
			t.Errorf("%s: got %v, %v; want a name", text, h.Addr, err)
		}
	}
	for _, text := range []string{
		"", "[fe80::1%eth0]", "[fe80::1%25eth0]:5060", "[192.0.2.1]", "[2001:db8:::1]", "[::1:::192.0.2.1]", "[1::::192.0.2.1]", "[:::1:192.0.2.1]",
		"[::1", "[::1]5060", "a:0", "a:65536", "a:", "[]", "[1:2:3:4:5:6:7]", "[1:2:3:4:5:6:7:8:9]", "[1::2::3]", "[12345::]", "[:1]", "[1:]", "[1:2:3:4:5:6:7::8]x",
		"[1:2:3:4:5:6:7:8::]", "[1:2:3:4:5:6:7:1.2.3.4]", "a b",
	} {
		if h, err := ParseHost([]byte(text)); err == nil {
			t.Errorf("%s: read as %+v", text, h)
		}
	}
}

// FuzzAddr: our reader and that of netip agree, but for what RFC 5118 wants.
func FuzzAddr(f *testing.F) {
	for _, s := range []string{"::", "1::2", "2001:db8::192.0.2.1", "::ffff:1.2.3.4", "1:2:3:4:5:6:7:8", "192.0.2.1", "fe80::1%e", "01.2.3.4", "1:2:3:4:5:6:7::", ":::1.2.3.4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := parseAddr([]byte(s))
		want, err := netip.ParseAddr(s)
		switch {
		case ok && err != nil && threeColons(s):
		case ok != (err == nil && want.Zone() == ""):
			t.Errorf("%q: %v %v, netip has %v %v", s, got, ok, want, err)
		case ok && got != want.Unmap():
			t.Errorf("%q: %v, netip has %v", s, got, want)
		}
	})
}

func threeColons(s string) bool {
	for i := range len(s) {
		if len(s)-i > 2 && s[i:i+3] == ":::" {
			a, err := netip.ParseAddr(s[:i] + s[i+1:])
			return err == nil && a.Zone() == ""
		}
	}
	return false
}

// TestSame has the examples of RFC 3261 §19.1.4, and addresses as RFC 5954 §4.2 compares them.
func TestSame(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		a, b string
		want bool
	}{
		{"sip:%61lice@atlanta.com;transport=TCP", "sip:alice@AtLanTa.CoM;Transport=tcp", true},
		{"sip:carol@chicago.com", "sip:carol@chicago.com;newparam=5", true},
		{"sip:carol@chicago.com;security=on", "sip:carol@chicago.com;newparam=5", true},
		{"sip:biloxi.com;transport=tcp;method=REGISTER?to=sip:bob%40biloxi.com", "sip:biloxi.com;method=REGISTER;transport=tcp?to=sip:bob%40biloxi.com", true},
		{"sip:alice@atlanta.com?subject=project%20x&priority=urgent", "sip:alice@atlanta.com?priority=urgent&subject=project%20x", true},
		{"SIP:ALICE@AtLanTa.CoM;Transport=udp", "sip:alice@AtLanTa.CoM;Transport=UDP", false},
		{"sip:bob@biloxi.com", "sip:bob@biloxi.com:5060", false},
		{"sip:bob@biloxi.com", "sip:bob@biloxi.com;transport=udp", false},
		{"sip:bob@biloxi.com", "sip:bob@biloxi.com:6000;transport=tcp", false},
		{"sip:carol@chicago.com", "sip:carol@chicago.com?Subject=next%20meeting", false},
		{"sip:bob@phone21.boxesbybob.com", "sip:bob@192.0.2.4", false},
		{"sip:a@b", "sips:a@b", false},
		{"sip:a@b;user=phone", "sip:a@b", false},
		{"sip:a@[2001:db8::1]", "sip:a@[2001:DB8:0:0::1]", true},
		{"sip:a@[::ffff:192.0.2.1]", "sip:a@192.0.2.1", true},
		{"sip:a:x@b", "sip:a:y@b", false},
		{"tel:+81-3-1234-5678", "tel:+81312345678", true},
		{"tel:0312345678;phone-context=+81", "tel:0312345678", false},
		{"tel:0312345678;phone-context=+81", "tel:03-1234-5678;Phone-Context=+81", true},
		{"urn:service:sos", "urn:service:sos", true},
	} {
		a, err := ParseURI([]byte(test.a))
		if err != nil {
			t.Fatal(test.a, err)
		}
		b, err := ParseURI([]byte(test.b))
		if err != nil {
			t.Fatal(test.b, err)
		}
		if a.Same(&b) != test.want || b.Same(&a) != test.want {
			t.Errorf("%s and %s: %v and %v, want %v", test.a, test.b, a.Same(&b), b.Same(&a), test.want)
		}
	}
}

func TestURIsRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "sip:", "sip:@b", "sip::x@b", "sip:a@b@c", "sip:a b@c", "<sip:a@b>", "sip:a@b;", "tel:", "tel:x", "tel:1+2", "1sip:a", ":a", "sip"} {
		if u, err := ParseURI([]byte(text)); err == nil {
			t.Errorf("%q: read as %+v", text, u)
		}
	}
}

func TestDigits(t *testing.T) {
	t.Parallel()
	u, err := ParseURI([]byte("tel:+81-(3)-1234.5678;ext=1"))
	if got := string(u.Digits(nil)); got != "+81312345678" || err != nil {
		t.Errorf("got %s, %v", got, err)
	}
}
