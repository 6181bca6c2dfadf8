// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package proxyproto

import (
	"bytes"
	"net/netip"
	"strconv"
	"unsafe"

	"github.com/kyozon/kyozon/ip"
)

// signatureV1 begins a header of version 1, which is one line of text. Specification §2.1.
const signatureV1 = "PROXY "

// The words that may follow the signature, each with the byte that ends it.
const (
	wordTCP4    = "TCP4 "
	wordTCP6    = "TCP6 "
	wordUnknown = "UNKNOWN"
)

// parseV1 reads a line that begins like signatureV1.
func parseV1(p []byte) (h Header, n int, err error) {
	line, n, err := lineV1(p)
	if err != nil {
		return Header{}, 0, err
	}
	rest := p[min(len(p), len(signatureV1)):]
	if n > 0 {
		rest = line[len(signatureV1):]
	}
	switch {
	case begins(rest, wordTCP4):
		return namedV1(rest, n, ip.V4)
	case begins(rest, wordTCP6):
		return namedV1(rest, n, ip.V6)
	case begins(rest, wordUnknown):
		return unknownV1(rest, n)
	}
	return Header{}, 0, ErrMalformed
}

// lineV1 returns the line at the start of p without its end, and its length with it: 0 if it has not ended yet. A CR
// or LF alone ends no line and belongs in none. §2.1.
func lineV1(p []byte) (line []byte, n int, err error) {
	p = p[:min(len(p), MaxV1)]
	switch i := bytes.IndexAny(p, "\r\n"); {
	case i < 0 && len(p) == MaxV1:
		return nil, 0, ErrTooLong
	case i < 0:
		return nil, 0, nil
	case p[i] == '\n':
		return nil, 0, ErrMalformed
	case i+1 == MaxV1:
		return nil, 0, ErrTooLong
	case i+1 == len(p):
		return nil, 0, nil
	case p[i+1] != '\n':
		return nil, 0, ErrMalformed
	default:
		return p[:i], i + 2, nil
	}
}

// unknownV1 reads what follows the signature of a line that names nobody. n is the length of the line, 0 if it has
// not ended. §2.1: "the receiver must ignore anything presented before the CRLF is found".
func unknownV1(rest []byte, n int) (Header, int, error) {
	if len(rest) > len(wordUnknown) && rest[len(wordUnknown)] != ' ' && rest[len(wordUnknown)] != '\r' {
		return Header{}, 0, ErrMalformed
	}
	if n == 0 {
		return Header{}, 0, nil
	}
	if len(rest) < len(wordUnknown) {
		return Header{}, 0, ErrMalformed
	}
	return Header{Version: 1, Local: true, Unnamed: true}, n, nil
}

// namedV1 reads what follows the signature of a line with two addresses of family. n is the length of the line, 0 if
// it has not ended.
func namedV1(rest []byte, n int, family ip.Family) (Header, int, error) {
	fields := rest[min(len(rest), len(wordTCP4)):]
	for _, c := range fields {
		if !addressByte(c) && (n > 0 || c != '\r') {
			return Header{}, 0, ErrMalformed
		}
	}
	if n == 0 {
		return Header{}, 0, nil
	}
	client, fields, ok1 := bytes.Cut(fields, []byte{' '})
	dest, fields, ok2 := bytes.Cut(fields, []byte{' '})
	clientPort, destPort, ok3 := bytes.Cut(fields, []byte{' '})
	if !ok1 || !ok2 || !ok3 {
		return Header{}, 0, ErrMalformed
	}
	h := Header{Version: 1}
	if h.Client, ok1 = endpointV1(client, clientPort, family); !ok1 {
		return Header{}, 0, ErrMalformed
	}
	if h.Dest, ok1 = endpointV1(dest, destPort, family); !ok1 {
		return Header{}, 0, ErrMalformed
	}
	return h, n, nil
}

// addressByte says whether c may be in an address or port, or between them.
func addressByte(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F' || c == '.' || c == ':' || c == ' '
}

// endpointV1 reads an address and a port. Where family is IPv6 it accepts mapped IPv4, which stands there when the
// families differ, and plain IPv4 too, against §2.1, because nginx writes that.
func endpointV1(addr, port []byte, family ip.Family) (netip.AddrPort, bool) {
	if len(addr) == 0 {
		return netip.AddrPort{}, false
	}
	// ParseAddr keeps its argument only in the error, which ends here, and in a zone, for which % is needed, so the
	// string may lie in the caller's buffer. A copy would be the only allocation.
	a, err := netip.ParseAddr(unsafe.String(&addr[0], len(addr)))
	if err != nil || family == ip.V4 && !a.Is4() {
		return netip.AddrPort{}, false
	}
	n, ok := portV1(port)
	return netip.AddrPortFrom(ip.Canonical(a), n), ok
}

// portV1 reads a decimal number up to 65535 without leading zeros.
func portV1(p []byte) (port uint16, ok bool) {
	if len(p) == 0 || len(p) > 5 || p[0] == '0' && len(p) > 1 {
		return 0, false
	}
	n := 0
	for _, c := range p {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return uint16(n), n <= 0xffff
}

// AppendV1 appends h to b as version 1, at most MaxV1 bytes, and returns the extended buffer. What version 1 cannot
// say is UNKNOWN: a datagram, a missing address, Local. TLVs are left out.
func AppendV1(b []byte, h Header) []byte {
	client, dest, family, named := h.addresses()
	if !named || h.Transport != Stream {
		return append(b, signatureV1+wordUnknown+"\r\n"...)
	}
	b = append(b, signatureV1...)
	if family == ip.V4 {
		b = append(b, wordTCP4...)
	} else {
		b = append(b, wordTCP6...)
	}
	// A mapped address is written ::ffff:192.0.2.1, as HAProxy does, although §2.1 wants hexadecimal digits only:
	// every receiver reads it, and older ones of Postfix take whatever follows ::ffff: for an IPv4 address.
	b = append(client.Addr().AppendTo(b), ' ')
	b = append(dest.Addr().AppendTo(b), ' ')
	b = append(strconv.AppendUint(b, uint64(client.Port()), 10), ' ')
	b = strconv.AppendUint(b, uint64(dest.Port()), 10)
	return append(b, '\r', '\n')
}
