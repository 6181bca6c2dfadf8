// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package proxyproto reads and writes PROXY headers, versions 1 and 2: the few bytes at the start of a connection
// by which a proxy tells a server who its client is.
//
//	bytes from a trusted sender ──Parse──▶ Header ──AppendV1, AppendV2──▶ bytes for a backend
//	                                (canonical addresses: no v4-mapped ones)
//
// It does no I/O and, between bytes and Header, allocates nothing. Whoever calls Parse must have checked before that
// the sender is trusted, and must always expect a header from it or never: guessing lets a stranger choose its
// address. A header is written in one piece, before any other byte, and belongs to one client: a connection that
// began with one is not shared. Specification §2.
//
// Two addresses of different families have no place of their own in the protocol. They are written as two IPv6
// addresses, the IPv4 one mapped into ::ffff:0:0/96. That happens here, in the outermost encoding, and Parse undoes
// it, so that nothing else ever sees a mapped address.
//
// "Specification" is the one that HAProxy keeps, https://www.haproxy.org/download/3.4/doc/proxy-protocol.txt, whose
// sections the comments name.
package proxyproto

import (
	"errors"
	"net/netip"

	"github.com/kyozon/kyozon/ip"
)

// The longest headers that Parse accepts, in bytes. A buffer of MaxV2 bytes holds any header.
const (
	MaxV1 = 107  // with CR LF; specification §2.1
	MaxV2 = 4096 // §2.2 allows 65,551, but means a header to fit in one segment; certificates' names need the room
)

var (
	// ErrNone means that the bytes begin neither like version 1 nor like version 2.
	ErrNone = errors.New("proxyproto: no header")

	// ErrMalformed means that the bytes begin like a header, but break its rules.
	ErrMalformed = errors.New("proxyproto: malformed header")

	// ErrTooLong means that a header, or the TLVs of one to be made, exceed the limits of this package.
	ErrTooLong = errors.New("proxyproto: header too long")

	// ErrChecksum means that the header was changed on its way.
	ErrChecksum = errors.New("proxyproto: wrong checksum")
)

// Transport is how the client reached the proxy.
type Transport uint8

// The transports. Version 1 knows only streams.
const (
	Stream   Transport = iota // TCP
	Datagram                  // UDP
)

// String returns "stream" or "datagram".
func (t Transport) String() string {
	if t == Datagram {
		return "datagram"
	}
	return "stream"
}

// Header is what a PROXY header says.
type Header struct {
	Version int // 1 or 2, as parsed; the Append functions ignore it

	// Local says that the header names no client: the addresses are those of the connection that carries it, and
	// the fields below are zero. A proxy asks in its own name so whether a server is well.
	Local bool

	// Unnamed comes with Local and says that there may well be a client, of whom the sender knows or tells no
	// address: UNKNOWN in version 1 (where old proxies' health checks say so too), a PROXY command with another
	// family than IPv4 or IPv6 in version 2. Whoever gives the sender's own address rights should refuse it.
	Unnamed bool

	Transport Transport
	Client    netip.AddrPort // who connected; canonical
	Dest      netip.AddrPort // where the client connected to, which is not where the proxy connects to; canonical
	TLVs      TLVs           // version 2 only
}

// Parse reads the header at the start of p, which may hold more or less than it. It returns the header and its
// length n. n is 0 and err nil if p is the beginning of a header: call again with more bytes, all of them from the
// start. The caller bounds how long that may take (at least 3 seconds, §2).
//
// The TLVs of the header lie in p. Bytes that can no longer become a header are refused as soon as that is so, with
// ErrNone, ErrMalformed, ErrTooLong or ErrChecksum.
func Parse(p []byte) (h Header, n int, err error) {
	switch {
	case begins(p, signatureV2):
		return parseV2(p)
	case begins(p, signatureV1):
		return parseV1(p)
	}
	return Header{}, 0, ErrNone
}

// begins says whether p begins with signature, or might once it is longer.
func begins(p []byte, signature string) bool {
	n := min(len(p), len(signature))
	return string(p[:n]) == signature[:n]
}

// addresses returns the client and the destination as they go into a header: both of one family, IPv4 mapped into
// IPv6 if they differ. named is false if the header names nobody.
func (h *Header) addresses() (client, dest netip.AddrPort, family ip.Family, named bool) {
	if h.Local || !h.Client.IsValid() || !h.Dest.IsValid() {
		return client, dest, 0, false
	}
	client, dest = ip.CanonicalPort(h.Client), ip.CanonicalPort(h.Dest)
	if family = ip.FamilyOf(client.Addr()); family != ip.FamilyOf(dest.Addr()) {
		client, dest, family = mapped(client), mapped(dest), ip.V6
	}
	return client, dest, family, true
}

// mapped returns a as an IPv6 address: an IPv4 one as ::ffff:a.b.c.d. RFC 4291 §2.5.5.2.
func mapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
}
