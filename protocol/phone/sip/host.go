// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sip

// Hot path: no allocation per packet.

import (
	"bytes"
	"net/netip"
	"strconv"
)

// Host is a name or an address, with a port.
type Host struct {
	Name []byte     // as it came, without brackets
	Addr netip.Addr // canonical; the zero Addr for a name
	Port uint16     // 0 if there is none
}

// Same says whether two hosts are the same: addresses as addresses, names in any case. RFC 5954 §4.2.
func (h *Host) Same(o *Host) bool {
	if h.Port != o.Port || h.Addr != o.Addr {
		return false
	}
	return h.Addr.IsValid() || sameFold(h.Name, o.Name)
}

// ParseHost reads a host and its port. An IPv6 address stands in brackets and has no zone. RFC 3261 §25.1.
func ParseHost(b []byte) (Host, *Error) {
	var h Host
	var rest []byte
	if len(b) > 0 && b[0] == '[' {
		end := bytes.IndexByte(b, ']')
		if end < 0 {
			return Host{}, ErrHost
		}
		h.Name, rest = b[1:end], trim(b[end+1:])
		a, ok := parse6(h.Name)
		if !ok {
			return Host{}, ErrHost
		}
		h.Addr = a
	} else {
		if colon := bytes.IndexByte(b, ':'); colon >= 0 {
			b, rest = b[:colon], b[colon:]
		}
		h.Name = trim(b) // space may stand around the colon of a sent-by: RFC 3261 §25.1, COLON
		if len(h.Name) > 255 || !all(h.Name, hostnames) {
			return Host{}, ErrHost
		}
		h.Addr, _ = parse4(h.Name)
	}
	return h, h.port(rest)
}

func (h *Host) port(b []byte) *Error {
	if len(b) == 0 {
		return nil
	}
	n, ok := number(trim(b[1:]), 65535)
	if b[0] != ':' || !ok || n == 0 {
		return ErrHost
	}
	h.Port = uint16(n)
	return nil
}

// parseAddr reads an address of either family, without brackets.
func parseAddr(b []byte) (netip.Addr, bool) {
	if bytes.IndexByte(b, ':') >= 0 {
		return parse6(b)
	}
	return parse4(b)
}

// parse4 reads four numbers. netip would do it too, with an allocation for each name that is none.
func parse4(b []byte) (netip.Addr, bool) {
	var a [4]byte
	for i := range a {
		part := b
		if i < 3 {
			dot := bytes.IndexByte(b, '.')
			if dot < 0 {
				return netip.Addr{}, false
			}
			part, b = b[:dot], b[dot+1:]
		}
		n, ok := number(part, 255)
		if !ok || len(part) > 1 && part[0] == '0' {
			return netip.Addr{}, false
		}
		a[i] = byte(n)
	}
	return netip.AddrFrom4(a), true
}

// parse6 reads an IPv6 address, which has no zone. One that holds an IPv4 address is that address: RFC 5118 §4.9 shows
// some that send those.
func parse6(b []byte) (netip.Addr, bool) {
	var a [16]byte
	at, gap := 0, -1
	if len(b) >= 2 && b[0] == ':' && b[1] == ':' {
		gap, b = 0, oneMoreColon(b[2:])
	}
	for len(b) > 0 {
		if at == len(a) {
			return netip.Addr{}, false
		}
		n, digits := group(b)
		if digits > 0 && digits < len(b) && b[digits] == '.' {
			v4, ok := parse4(b)
			if !ok || at > 12 {
				return netip.Addr{}, false
			}
			four := v4.As4()
			at += copy(a[at:], four[:])
			break
		}
		if digits == 0 || digits > 4 {
			return netip.Addr{}, false
		}
		a[at], a[at+1] = byte(n>>8), byte(n)
		at += 2
		if b = b[digits:]; len(b) == 0 {
			break
		}
		if b[0] != ':' || len(b) == 1 {
			return netip.Addr{}, false
		}
		if b = b[1:]; b[0] == ':' {
			if gap >= 0 {
				return netip.Addr{}, false
			}
			gap, b = at, oneMoreColon(b[1:])
		}
	}
	if gap < 0 {
		return netip.AddrFrom16(a).Unmap(), at == len(a)
	}
	if at == len(a) {
		return netip.Addr{}, false
	}
	moved := copy(a[len(a)-(at-gap):], a[gap:at])
	clear(a[gap : len(a)-moved])
	return netip.AddrFrom16(a).Unmap(), true
}

// oneMoreColon drops a third colon before an embedded IPv4 address, to which the grammar of RFC 3261 §25.1 leads:
// RFC 5118 §4.10 wants it tolerated, and nowhere else.
func oneMoreColon(b []byte) []byte {
	if len(b) > 1 && b[0] == ':' {
		if _, ok := parse4(b[1:]); ok {
			return b[1:]
		}
	}
	return b
}

// group reads hexadecimal digits, at most five.
func group(b []byte) (n, digits int) {
	for digits < len(b) && digits < 5 {
		d, ok := hex(b[digits])
		if !ok {
			break
		}
		n = n<<4 | int(d)
		digits++
	}
	return n, digits
}

// AppendHost writes an address as a host: one of IPv6 in brackets. Port 0 is left out.
func AppendHost(dst []byte, a netip.Addr, port uint16) []byte {
	if a.Is4() {
		dst = a.AppendTo(dst)
	} else {
		dst = append(dst, '[')
		dst = a.AppendTo(dst) // canonical text, as RFC 5952 §4 has it
		dst = append(dst, ']')
	}
	if port > 0 {
		dst = append(dst, ':')
		dst = strconv.AppendUint(dst, uint64(port), 10)
	}
	return dst
}
