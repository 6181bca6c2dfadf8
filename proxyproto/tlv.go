// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package proxyproto

import (
	"encoding/binary"
	"iter"
)

// Type says what a TLV holds. Specification §2.2.
type Type uint8

// The registered types.
const (
	TypeALPN      Type = 0x01 // §2.2.1: the protocol that TLS agreed on
	TypeAuthority Type = 0x02 // §2.2.2: the host name the client asked for (SNI), UTF-8
	TypeCRC32C    Type = 0x03 // §2.2.3: see TLVs.AddChecksum
	TypeNoop      Type = 0x04 // §2.2.4: padding
	TypeUniqueID  Type = 0x05 // §2.2.5: opaque, at most 128 bytes
	TypeSSL       Type = 0x20 // §2.2.6: see SSL
	TypeNetNS     Type = 0x30 // §2.2.7: name of a network namespace
)

// The types that stand in SSL.TLVs, all text. §2.2.6.
const (
	TypeSSLVersion Type = 0x21 // "TLSv1.3"
	TypeSSLName    Type = 0x22 // common name of the client's certificate, UTF-8
	TypeSSLCipher  Type = 0x23 // "ECDHE-RSA-AES128-GCM-SHA256"
	TypeSSLSign    Type = 0x24 // how the proxy's certificate is signed: "SHA256"
	TypeSSLKey     Type = 0x25 // the key of the proxy's certificate: "RSA2048"
)

const (
	// MaxTLVs is the greatest length of all TLVs of a header, in bytes.
	MaxTLVs = MaxV2 - fixedV2 - addressesV6

	// MaxUniqueID is the greatest length of a unique ID, in bytes. §2.2.5.
	MaxUniqueID = 128

	headTLV = 3 // type and length
	headSSL = 5 // flags and verify
	sizeCRC = 4
)

// TLVs are the type-length-value records that may follow the addresses, in the form in which they are sent: reading
// them allocates nothing. Those of a parsed header lie in the bytes given to Parse, and are complete and of the
// lengths that the specification asks for. The zero value is empty; build others with the Add methods.
type TLVs []byte

// All ranges over the records in order. The values lie in t.
func (t TLVs) All() iter.Seq2[Type, []byte] {
	return func(yield func(Type, []byte) bool) {
		for len(t) > 0 {
			typ, value, rest, ok := t.next()
			if !ok || !yield(typ, value) {
				return
			}
			t = rest
		}
	}
}

// next splits off the first record. ok is false if t is too short for it.
func (t TLVs) next() (typ Type, value []byte, rest TLVs, ok bool) {
	if len(t) < headTLV {
		return 0, nil, nil, false
	}
	end := headTLV + int(binary.BigEndian.Uint16(t[1:]))
	if len(t) < end {
		return 0, nil, nil, false
	}
	return Type(t[0]), t[headTLV:end:end], t[end:], true
}

// Get returns the value of the first record of the type. It lies in t.
func (t TLVs) Get(typ Type) (value []byte, ok bool) {
	for i, v := range t.All() {
		if i == typ {
			return v, true
		}
	}
	return nil, false
}

// SSL returns the record of TypeSSL, if there is one.
func (t TLVs) SSL() (s SSL, ok bool) {
	value, ok := t.Get(TypeSSL)
	if !ok || len(value) < headSSL {
		return SSL{}, false
	}
	return SSL{SSLFlags(value[0]), binary.BigEndian.Uint32(value[1:]), TLVs(value[headSSL:])}, true
}

// valid says whether t consists of whole records, each of a length that its type may have. Of the checksum there may
// be one: with two, neither could be checked as §2.2.3 says.
func (t TLVs) valid() bool {
	sums := 0
	for len(t) > 0 {
		typ, value, rest, ok := t.next()
		if !ok {
			return false
		}
		switch typ {
		case TypeCRC32C:
			sums++
			ok = len(value) == sizeCRC && sums == 1
		case TypeUniqueID:
			ok = len(value) <= MaxUniqueID
		case TypeSSL:
			ok = len(value) >= headSSL && TLVs(value[headSSL:]).whole()
		}
		if !ok {
			return false
		}
		t = rest
	}
	return true
}

// whole says whether t consists of whole records.
func (t TLVs) whole() bool {
	for len(t) > 0 {
		_, _, rest, ok := t.next()
		if !ok {
			return false
		}
		t = rest
	}
	return true
}

// checksumAt returns the offset in t of the checksum's 4 bytes, or -1. t must be valid.
func (t TLVs) checksumAt() int {
	for at := 0; at < len(t); {
		typ, value, _, ok := t[at:].next()
		if !ok {
			break
		}
		if typ == TypeCRC32C {
			return at + headTLV
		}
		at += headTLV + len(value)
	}
	return -1
}

// Add appends a record and returns the result, which may share memory with t as append's does. It returns ErrTooLong
// if the records would exceed MaxTLVs, and ErrMalformed for a value that its type cannot have; t is then unchanged.
func (t TLVs) Add(typ Type, value []byte) (TLVs, error) {
	if len(value) > MaxTLVs || len(t)+headTLV+len(value) > MaxTLVs {
		return t, ErrTooLong
	}
	added := append(t, byte(typ), byte(len(value)>>8), byte(len(value)))
	added = append(added, value...)
	if !added.valid() {
		return t, ErrMalformed
	}
	return added, nil
}

// AddChecksum appends room for a checksum of the whole header, which AppendV2 fills. Errors are those of Add.
func (t TLVs) AddChecksum() (TLVs, error) { return t.Add(TypeCRC32C, make([]byte, sizeCRC)) }

// AddSSL appends s. Errors are those of Add.
func (t TLVs) AddSSL(s SSL) (TLVs, error) {
	value := binary.BigEndian.AppendUint32([]byte{byte(s.Flags)}, s.Verify)
	return t.Add(TypeSSL, append(value, s.TLVs...))
}

// SSL says how the client spoke TLS with the proxy. §2.2.6.
type SSL struct {
	Flags  SSLFlags
	Verify uint32 // 0 if the client showed a certificate and it was found good
	TLVs   TLVs   // of the types TypeSSLVersion to TypeSSLKey
}

// SSLFlags are the bits of SSL.Flags.
type SSLFlags uint8

// The flags. §2.2.6.
const (
	SSLUsed            SSLFlags = 1 << iota // the client used TLS
	SSLCertificateConn                      // it showed a certificate on this connection
	SSLCertificateSess                      // it showed one at least once in this TLS session
)
