// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package http1

// Hot path: no allocation per packet.

import (
	"bytes"
	"net/netip"
	"strconv"
	"unsafe"
)

// maxHost is the longest host there is: a name of DNS. RFC 1035 §2.3.4.
const maxHost = 255

// authority is a host and perhaps a port in their one canonical spelling, which is both matched and sent on:
// "shop.example.jp", "shop.example.jp:8080", "[2001:db8::80]:8080".
type authority struct {
	text [maxHost + len(":65535")]byte
	size uint16 // of text
	host uint16 // size of the part before the port
	port uint16 // 0 if not given
}

// set makes a the canonical form of s, as in a Host field. RFC 9110 §7.2, RFC 3986 §3.2.2. Names are in lower case
// and without the dot of the root, IPv6 addresses as in RFC 5952, an empty port is left out.
func (a *authority) set(s []byte) *Error {
	host, port := s, []byte(nil)
	if len(s) > 0 && s[0] == '[' {
		end := bytes.IndexByte(s, ']') + 1
		if end == 0 {
			return ErrHost
		}
		host, port = s[:end], s[end:]
		if !a.setIPv6(host[1 : end-1]) {
			return ErrHost
		}
	} else {
		if end := bytes.IndexByte(s, ':'); end >= 0 {
			host, port = s[:end], s[end:]
		}
		if !a.setName(host) {
			return ErrHost
		}
	}
	a.size, a.port = a.host, 0
	if len(port) > 1 || len(port) == 1 && port[0] != ':' {
		n, ok := number(port[1:])
		if port[0] != ':' || !ok || n == 0 || n > 65535 || len(port) > 6 {
			return ErrHost
		}
		a.port = uint16(n)
		a.size = uint16(len(strconv.AppendUint(append(a.text[:a.host], ':'), uint64(n), 10)))
	}
	return nil
}

// setName sets the host to a name or an IPv4 address. A name has no empty label, so no two dots in a row.
func (a *authority) setName(s []byte) bool {
	if n := len(s); n > 0 && s[n-1] == '.' {
		s = s[:n-1]
	}
	if len(s) == 0 || len(s) > maxHost {
		return false
	}
	before := byte('.')
	for i, c := range s {
		c = hostname[c]
		if c == 0 || c == '.' && before == '.' {
			return false
		}
		a.text[i], before = c, c
	}
	a.host = uint16(len(s))
	return before != '.'
}

// setIPv6 sets the host to an IPv6 address, given without its brackets.
func (a *authority) setIPv6(s []byte) bool {
	if len(s) == 0 || len(s) > len("ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255") {
		return false
	}
	// A string of its own would be an allocation for each request: netip keeps it in an error, which is dropped here.
	addr, err := netip.ParseAddr(unsafe.String(&s[0], len(s)))
	if err != nil || addr.Is4() || addr.Zone() != "" {
		return false
	}
	a.host = uint16(len(append(addr.AppendTo(append(a.text[:0], '[')), ']')))
	return true
}

// name returns the host.
func (a *authority) name() []byte { return a.text[:a.host] }

// all returns host and port.
func (a *authority) all() []byte { return a.text[:a.size] }

// same says whether a and b are one place for a scheme with the given default port.
func (a *authority) same(b *authority, port uint16) bool {
	return string(a.name()) == string(b.name()) && orPort(a.port, port) == orPort(b.port, port)
}

func orPort(port, otherwise uint16) uint16 {
	if port == 0 {
		return otherwise
	}
	return port
}
