// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/kyozon/kyozon/ip"
)

// Every address of the file has one family from here on: an IPv4-mapped one (RFC 4291 §2.5.5.2) would be IPv6 to
// some code and IPv4 to other, and is refused instead of guessed at; a zone means something on one machine only.

// addr decodes an address without a port.
func (d *decoder) addr(n *node, into *netip.Addr) {
	a, err := netip.ParseAddr(n.text)
	if err != nil {
		d.fail(n, "%q is not an address; write, for example, 192.0.2.1 or 2001:db8::1", n.text)
		return
	}
	if d.canonical(n, a) {
		*into = a
	}
}

// addrPort decodes an address with a port. The port is not 0: a port that the kernel chooses is known to nobody.
func (d *decoder) addrPort(n *node, into *netip.AddrPort) {
	a, err := netip.ParseAddrPort(n.text)
	switch bare, e := netip.ParseAddr(strings.Trim(n.text, "[]")); {
	case err != nil && e == nil:
		d.fail(n, `%q has no port; write, for example, %s`, n.text, withPort(n.text, bare))
	case err != nil:
		d.fail(n, `%q is not an address with a port; write, for example, 192.0.2.1:80 or "[2001:db8::1]:80"`, n.text)
	case !d.canonical(n, a.Addr()):
	case a.Port() == 0:
		d.fail(n, "port 0 cannot be reached; write a port from 1 to 65535")
	default:
		*into = a
	}
}

// withPort writes an address that has no port, or whose port looks like a part of it, as it is to be written.
func withPort(text string, bare netip.Addr) string {
	if bare.Is4() {
		return netip.AddrPortFrom(bare, 80).String()
	}
	if at := strings.LastIndexByte(text, ':'); at > 0 && len(text)-at > 3 {
		port, err := strconv.ParseUint(text[at+1:], 10, 16) // 2001:db8::1:5060 is an address too, but hardly one that was meant
		if host, bad := netip.ParseAddr(text[:at]); err == nil && bad == nil {
			return strconv.Quote(netip.AddrPortFrom(host, uint16(port)).String())
		}
	}
	return strconv.Quote(netip.AddrPortFrom(bare, 80).String())
}

// prefix decodes a network: an address and a length, with no bit set beyond it.
func (d *decoder) prefix(n *node, into *netip.Prefix) {
	p, err := netip.ParsePrefix(n.text)
	switch {
	case err != nil:
		d.fail(n, "%q is not a network; write, for example, 192.0.2.0/24 or 2001:db8::/32", n.text)
	case !d.canonical(n, p.Addr()):
	case p != p.Masked():
		d.fail(n, "%s has bits set beyond its length; write %s or %s", p, p.Masked(),
			netip.PrefixFrom(p.Addr(), p.Addr().BitLen()))
	default:
		*into = p
	}
}

// canonical reports an address that could be taken for one of the other family, or for another one elsewhere.
func (d *decoder) canonical(n *node, a netip.Addr) bool {
	switch {
	case a.Is4In6():
		d.fail(n, "%s is an IPv4 address written as IPv6; write %s", a, ip.Canonical(a))
	case a.Zone() != "":
		d.fail(n, "%s has a zone, which is known on one machine only; use an address without one", a)
	default:
		return true
	}
	return false
}

// The special-purpose networks that matter here (IANA registries, RFC 6890).
const (
	thisNetwork4 = "0.0.0.0/8"
	loopback4    = "127.0.0.0/8"
	linkLocal4   = "169.254.0.0/16"
	multicast4   = "224.0.0.0/4"
	reserved4    = "240.0.0.0/4"
	subscribers4 = "100.64.0.0/10" // RFC 6598
	benchmark4   = "198.18.0.0/15" // RFC 2544
	wellKnown6   = "64:ff9b::/96"  // RFC 6052 §2.1
)

// in says whether all of p is in one of the networks.
func in(p netip.Prefix, networks ...string) bool {
	for _, text := range networks {
		if n := netip.MustParsePrefix(text); n.Bits() <= p.Bits() && n.Contains(p.Addr()) {
			return true
		}
	}
	return false
}

// host returns the prefix that holds a alone.
func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// isPrivate says whether an IPv4 address or network is known inside one network only: RFC 1918, RFC 6598.
func isPrivate(p netip.Prefix) bool {
	return in(p, "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", subscribers4)
}
