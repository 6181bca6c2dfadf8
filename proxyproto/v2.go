// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package proxyproto

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"

	"github.com/kyozon/kyozon/ip"
)

// signatureV2 begins a header of version 2. Specification §2.2:
//
//	 0            12        13         14       16
//	┌────────────┬─────────┬──────────┬────────┬───────────────────┬────────┐
//	│ signature  │ 2 · cmd │ fam · tr │ length │ addresses, ports  │ TLVs … │
//	└────────────┴─────────┴──────────┴────────┴───────────────────┴────────┘
//	                                           └──── length bytes ──────────┘
const signatureV2 = "\r\n\r\n\x00\r\nQUIT\n"

// Places in a header of version 2.
const (
	atCommand = len(signatureV2)
	atFamily  = atCommand + 1
	atLength  = atFamily + 1
	fixedV2   = atLength + 2
)

// Version and command, the byte at atCommand.
const (
	commandLocal = 0x20
	commandProxy = 0x21
)

// Halves of the byte at atFamily.
const (
	familyUnspec, familyInet, familyInet6, familyUnix = 0x00, 0x10, 0x20, 0x30
	transportUnspec, transportStream, transportDgram  = 0x0, 0x1, 0x2
)

// Lengths of two addresses with their ports.
const (
	addressesV4 = 2*4 + 2*2
	addressesV6 = 2*16 + 2*2
)

// parseV2 reads a header that begins like signatureV2.
func parseV2(p []byte) (h Header, n int, err error) {
	if len(p) > atCommand && p[atCommand] != commandLocal && p[atCommand] != commandProxy {
		return Header{}, 0, ErrMalformed
	}
	if len(p) > atFamily && p[atCommand] == commandProxy && !familyKnown(p[atFamily]) {
		return Header{}, 0, ErrMalformed
	}
	if len(p) < fixedV2 {
		return Header{}, 0, nil
	}
	n = fixedV2 + int(binary.BigEndian.Uint16(p[atLength:]))
	if n > MaxV2 {
		return Header{}, 0, ErrTooLong
	}
	addresses := addressesLength(p[atCommand], p[atFamily])
	if n < fixedV2+addresses {
		return Header{}, 0, ErrMalformed
	}
	if len(p) < n {
		return Header{}, 0, nil
	}
	if addresses == 0 {
		return Header{Version: 2, Local: true, Unnamed: p[atCommand] == commandProxy}, n, nil
	}
	h, err = namedV2(p[:n:n], addresses)
	if err != nil {
		return Header{}, 0, err
	}
	return h, n, nil
}

// familyKnown says whether b is a family and transport that §2.2 defines.
func familyKnown(b byte) bool { return b&0xf0 <= familyUnix && b&0x0f <= transportDgram }

// addressesLength returns how many bytes of addresses we read after the fixed part: none for the LOCAL command, whose
// family "is ignored", and for what is neither TCP nor UDP, for which §2.2 has us fall back to unspecified. Where TLVs
// would begin is then not known, so that the rest is skipped as a whole.
func addressesLength(command, family byte) int {
	if command == commandLocal || family&0x0f == transportUnspec {
		return 0
	}
	switch family & 0xf0 {
	case familyInet:
		return addressesV4
	case familyInet6:
		return addressesV6
	}
	return 0
}

// namedV2 reads p, a whole header with the given number of bytes of addresses. In an IPv6 header each address may be
// a mapped IPv4 one, whatever the other is.
func namedV2(p []byte, addresses int) (Header, error) {
	h := Header{Version: 2, TLVs: TLVs(p[fixedV2+addresses:])}
	if p[atFamily]&0x0f == transportDgram {
		h.Transport = Datagram
	}
	a := p[fixedV2:]
	var client, dest netip.Addr
	if addresses == addressesV4 {
		client, dest = netip.AddrFrom4([4]byte(a)), netip.AddrFrom4([4]byte(a[4:]))
	} else {
		client, dest = ip.Canonical(netip.AddrFrom16([16]byte(a))), ip.Canonical(netip.AddrFrom16([16]byte(a[16:])))
	}
	ports := a[addresses-4:]
	h.Client = netip.AddrPortFrom(client, binary.BigEndian.Uint16(ports))
	h.Dest = netip.AddrPortFrom(dest, binary.BigEndian.Uint16(ports[2:]))
	if len(h.TLVs) == 0 {
		h.TLVs = nil
		return h, nil
	}
	return h, checkTLVs(p, h.TLVs)
}

// checkTLVs checks tlvs, which end the whole header p, and the checksum if there is one.
func checkTLVs(p []byte, tlvs TLVs) error {
	if len(tlvs) > MaxTLVs {
		return ErrTooLong
	}
	if !tlvs.valid() {
		return ErrMalformed
	}
	sum := tlvs.checksumAt()
	if sum < 0 {
		return nil
	}
	if hole := len(p) - len(tlvs) + sum; binary.BigEndian.Uint32(p[hole:]) != checksum(p, hole) {
		return ErrChecksum
	}
	return nil
}

// checksum returns the CRC32C of a whole header, the bytes of the checksum, at hole, counted as zeros. §2.2.3, RFC 9260 appendix A.
func checksum(header []byte, hole int) uint32 {
	table := crc32.MakeTable(crc32.Castagnoli)
	register := ^crc32.Update(0, table, header[:hole])
	for range sizeCRC { // Update would move a slice of zeros to the heap
		register = table[byte(register)] ^ register>>8
	}
	return crc32.Update(^register, table, header[hole+sizeCRC:])
}

// AppendV2 appends h to b as version 2, at most MaxV2 bytes, and returns the extended buffer. Local is written as
// LOCAL; Unnamed, or a missing address, as PROXY with no family; both without TLVs. A checksum among the TLVs is
// computed. TLVs that break the rules of TLVs are left out: neither Parse nor Add makes any.
func AppendV2(b []byte, h Header) []byte {
	start := len(b)
	b = append(b, signatureV2...)
	client, dest, family, named := h.addresses()
	if !named {
		command := byte(commandProxy)
		if h.Local && !h.Unnamed {
			command = commandLocal
		}
		return append(b, command, familyUnspec|transportUnspec, 0, 0)
	}
	transport := byte(transportStream)
	if h.Transport == Datagram {
		transport = transportDgram
	}
	tlvs := h.TLVs
	if len(tlvs) > MaxTLVs || !tlvs.valid() {
		tlvs = nil
	}
	if family == ip.V4 {
		c, d := client.Addr().As4(), dest.Addr().As4()
		b = append(b, commandProxy, familyInet|transport)
		b = binary.BigEndian.AppendUint16(b, uint16(addressesV4+len(tlvs)))
		b = append(append(b, c[:]...), d[:]...)
	} else {
		c, d := client.Addr().As16(), dest.Addr().As16()
		b = append(b, commandProxy, familyInet6|transport)
		b = binary.BigEndian.AppendUint16(b, uint16(addressesV6+len(tlvs)))
		b = append(append(b, c[:]...), d[:]...)
	}
	b = binary.BigEndian.AppendUint16(b, client.Port())
	b = binary.BigEndian.AppendUint16(b, dest.Port())
	sum := tlvs.checksumAt()
	if sum >= 0 {
		sum += len(b)
	}
	b = append(b, tlvs...)
	if sum >= 0 {
		binary.BigEndian.PutUint32(b[sum:], checksum(b[start:], sum-start))
	}
	return b
}
