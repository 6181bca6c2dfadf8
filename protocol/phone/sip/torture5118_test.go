// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sip

import (
	"net/netip"
	"strings"
	"testing"
)

// torture5118 is RFC 5118 §4, in its order.
var torture5118 = []torture{
	{5118, "4.1", "ipv6-good", 0, 0, 0, "an IPv6 reference", target6("2001:db8::10", 0)},
	{5118, "4.2", "ipv6-bad", 400, 400, 400, "an IPv6 address without brackets", broken(ErrHost)},
	{5118, "4.3", "port-ambiguous", 0, 0, 0, "a port within the brackets is part of the address", target6("2001:db8::10:5070", 0)},
	{5118, "4.4", "port-unambiguous", 0, 0, 0, "a port after them", target6("2001:db8::10", 5070)},
	{5118, "4.5", "via-received-param-with-delim", 0, 0, 0, "received with brackets is read", received6("2001:db8::9:255")},
	{5118, "4.5", "via-received-param-no-delim", 0, 0, 0, "and without, as we write it", received6("2001:db8::9:255")},
	{5118, "4.6", "ipv6-in-sdp", 0, 0, 0, "SDP with IPv6 addresses; Content-Length 251", bodyHas("c=IN IP6 2001:db8::20")},
	{5118, "4.6", "ipv6-in-sdp", 400, 400, 400, "the same as printed: Content-Length 268, which the body does not have", broken(ErrBody)},
	{5118, "4.7", "mult-ip-in-header", 0, 0, 0, "Via of both families", vias6("[2001:db8::9:1]:6050", "192.0.2.1", "[2001:db8::9:255]")},
	{5118, "4.8", "mult-ip-in-sdp", 0, 0, 0, "SDP of both families", bodyHas("c=IN IP4 192.0.2.1", "c=IN IP6 2001:db8::1")},
	{5118, "4.9", "ipv4-mapped-ipv6", 0, 0, 0, "v4-mapped addresses are the IPv4 addresses", vias6("192.0.2.10:19823", "192.0.2.2")},
	{5118, "4.10", "ipv6-bug-abnf-3-colons", 0, 0, 0, "the third colon of the grammar of RFC 3261 is tolerated", target6("2001:db8::192.0.2.1", 0)},
	{5118, "4.10", "ipv6-correct-abnf-2-colons", 0, 0, 0, "two are right, and what we write", target6("2001:db8::192.0.2.1", 0)},
}

func target6(addr string, port uint16) func(*testing.T, *Message) {
	return func(t *testing.T, m *Message) {
		t.Helper()
		u, err := ParseURI(m.Target())
		if err != nil || u.Host.Addr != netip.MustParseAddr(addr) || u.Host.Port != port {
			t.Errorf("%s: address %v, port %d, %v", m.Target(), u.Host.Addr, u.Host.Port, err)
		}
	}
}

func received6(addr string) func(*testing.T, *Message) {
	return func(t *testing.T, m *Message) {
		t.Helper()
		if h, err := m.Top(); err != nil || h.Received != netip.MustParseAddr(addr) {
			t.Errorf("received %v, %v", h.Received, err)
		}
	}
}

func vias6(want ...string) func(*testing.T, *Message) {
	return func(t *testing.T, m *Message) {
		t.Helper()
		var got []string
		for value, i := m.Field(Via, 0); value != nil; value, i = m.Field(Via, i) {
			h, _, err := ParseVia(value)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, string(AppendHost(nil, h.SentBy.Addr, h.SentBy.Port)))
		}
		same(t, "Via", strings.Join(got, " "), strings.Join(want, " "))
	}
}

func bodyHas(want ...string) func(*testing.T, *Message) {
	return func(t *testing.T, m *Message) {
		t.Helper()
		body, err := m.Body()
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range want {
			if !strings.Contains(string(body), w+"\r\n") {
				t.Errorf("no %q in %q", w, body)
			}
		}
	}
}
