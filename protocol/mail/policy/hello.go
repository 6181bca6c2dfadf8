// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"net/netip"
	"strings"

	"github.com/kyozon/kyozon/ip"
)

// hello says what is wrong with the name that a client gives, or "". A name that is a name is believed: that it does not
// lead to the client's address is no reason to refuse (RFC 5321 §4.1.4).
func (p *Policy) hello(name string, client netip.Addr) string {
	switch {
	case strings.HasPrefix(name, "["):
		return literal(name, client)
	case strings.EqualFold(strings.TrimSuffix(name, "."), p.Name):
		return "The name that you give is mine"
	case !qualified(name): // RFC 5321 §2.3.5
		return "The name that you give is not that of a host, with its domain"
	}
	return ""
}

// literal says what is wrong with an address in brackets. One of the other family may be the client's too. RFC 5321
// §4.1.3.
func literal(name string, client netip.Addr) string {
	text, closed := strings.CutSuffix(name[1:], "]")
	six := len(text) >= 5 && strings.EqualFold(text[:5], "IPv6:")
	if six {
		text = text[5:]
	}
	a, err := netip.ParseAddr(text)
	switch {
	case !closed, err != nil, six == a.Is4():
		return "The address that you give is none"
	case ip.FamilyOf(ip.Canonical(a)) == ip.FamilyOf(client) && ip.Canonical(a) != client:
		return "The address that you give is not yours"
	}
	return ""
}

// qualified says whether a name can be that of a host: labels of letters, digits, hyphens, and underscores, which there
// are; at least two of them; and not an address without its brackets.
func qualified(name string) bool {
	labels := strings.Split(strings.TrimSuffix(name, "."), ".")
	if len(labels) < 2 || len(name) > 255 {
		return false
	}
	for _, l := range labels {
		if l == "" || len(l) > 63 || strings.HasPrefix(l, "-") || strings.HasSuffix(l, "-") {
			return false
		}
		for _, c := range []byte(l) {
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') {
				return false
			}
		}
	}
	return strings.Trim(labels[len(labels)-1], "0123456789") != ""
}
