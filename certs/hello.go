// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
)

// MaxHello is the longest ClientHello that ParseHello reads, in bytes and with the headers of its records. With a
// post-quantum key share and a session ticket a hello has about 2 KiB.
const MaxHello = 16 << 10

var (
	// ErrNotTLS means that the bytes do not begin like TLS.
	ErrNotTLS = errors.New("certs: not TLS")

	// ErrMalformed means that the bytes begin like TLS, but are not a ClientHello by its rules.
	ErrMalformed = errors.New("certs: malformed ClientHello")

	// ErrHelloTooLong means that the ClientHello has more than MaxHello bytes.
	ErrHelloTooLong = errors.New("certs: ClientHello too long")

	// ErrName means that the server name is not one a host can have, or is an address. RFC 6066 §3.
	ErrName = errors.New("certs: server name is not a host name")
)

// Hello is what a client says first, as far as it is needed to choose a backend.
type Hello struct {
	ServerName string   // in lower case; "" if the client asks for none
	ALPN       []string // protocols, most wanted first
	Versions   []uint16 // of TLS, most wanted first as crypto/tls numbers them, with those that mean nothing (RFC 8701)

	// ECH says that the client offers Encrypted Client Hello: ServerName is then that of the server that can decrypt
	// the real one. Clients also pretend to offer it (RFC 9849 §6.2), which is made not to be told apart.
	ECH bool
}

// Numbers that ParseHello knows.
const (
	recordHead      = 5 // type, version, length
	recordHandshake = 22
	maxRecord       = 1 << 14 // RFC 8446 §5.1

	messageHead     = 4 // type, length
	typeClientHello = 1

	extensionServerName = 0      // RFC 6066 §3
	extensionALPN       = 16     // RFC 7301 §3.1
	extensionVersions   = 43     // RFC 8446 §4.2.1
	extensionECH        = 0xfe0d // RFC 9849 §5

	nameTypeHost = 0
)

// ParseHello reads the ClientHello at the start of what a client sends, which may be spread over several records. It
// returns the hello and n, the length of the records that hold it. n is 0 and err nil if p is the beginning of one:
// call again with more bytes, all of them from the start; MaxHello of them are always enough. Nothing in the result
// lies in p. Bytes that can no longer become a hello are refused with one of this package's errors.
//
// It allocates what it returns, and nothing else. Extensions that it does not return it does not check.
func ParseHello(p []byte) (h Hello, n int, err error) {
	length, n, err := measure(p)
	if n == 0 || err != nil {
		return Hello{}, 0, err
	}
	if n == recordHead+length {
		h, err = parseMessage(p[recordHead:n])
	} else {
		h, err = parseFragments(p[:n], length)
	}
	if err != nil {
		return Hello{}, 0, err
	}
	return h, n, nil
}

// measure walks over the records of a hello. It returns the length of the message in them, with its head, and n, that
// of the records; n is 0 as long as some are missing.
func measure(p []byte) (length, n int, err error) {
	var head [messageHead]byte
	have, promised := 0, 0 // bytes of the message: in p, and by the lengths of the records so far
	for at := 0; at+recordHead <= MaxHello; {
		size, err := recordLength(p[at:])
		if err != nil && at > 0 {
			return 0, 0, ErrMalformed // it did begin like TLS
		}
		if size == 0 || err != nil {
			return 0, 0, err
		}
		part := p[at+recordHead : min(len(p), at+recordHead+size)]
		copy(head[min(have, messageHead):], part)
		have, promised, at = have+len(part), promised+size, at+recordHead+size
		if have > 0 && head[0] != typeClientHello {
			return 0, 0, ErrMalformed
		}
		if have >= messageHead {
			length = messageHead + int(binary.BigEndian.Uint32(head[:])&0xffffff)
		}
		switch {
		case at > MaxHello || recordHead+length > MaxHello:
			return 0, 0, ErrHelloTooLong
		case length > 0 && promised > length:
			return 0, 0, ErrMalformed // RFC 8446 §5.1: nothing may follow it in its record
		case len(p) < at:
			return 0, 0, nil
		case promised == length:
			return length, at, nil
		}
	}
	return 0, 0, ErrHelloTooLong
}

// recordLength returns the length of the record at the start of p, without its head, or 0 if the head is incomplete.
// RFC 8446 §5.1.
func recordLength(p []byte) (int, error) {
	switch {
	case len(p) > 0 && p[0] != recordHandshake, len(p) > 1 && p[1] != 3:
		return 0, ErrNotTLS
	case len(p) < recordHead:
		return 0, nil
	}
	size := int(binary.BigEndian.Uint16(p[3:]))
	if size == 0 || size > maxRecord {
		return 0, ErrMalformed
	}
	return size, nil
}

// parseFragments joins the records in p to one message of the given length, and reads it.
func parseFragments(p []byte, length int) (Hello, error) {
	var space [MaxHello]byte // on the stack: hardly any client sends its hello in pieces
	message := space[:0]
	for len(p) > 0 {
		end := recordHead + int(binary.BigEndian.Uint16(p[3:]))
		message = append(message, p[recordHead:end]...)
		p = p[end:]
	}
	return parseMessage(message[:length])
}

// parseMessage reads a whole ClientHello. RFC 8446 §4.1.2.
func parseMessage(message []byte) (h Hello, err error) {
	c := cursor{rest: message[messageHead:]}
	legacy := uint16(c.number(2))
	c.take(32) // random
	session, suites, compression := c.vector(1), c.vector(2), c.vector(1)
	var extensions cursor
	if len(c.rest) > 0 { // TLS 1.2 and before may have none
		extensions.rest = c.vector(2)
	}
	if c.short || len(c.rest) > 0 || len(session) > 32 || len(suites) == 0 || len(suites)%2 != 0 || len(compression) == 0 {
		return Hello{}, ErrMalformed
	}
	for len(extensions.rest) > 0 {
		typ, body := extensions.number(2), extensions.vector(2)
		if extensions.short {
			return Hello{}, ErrMalformed
		}
		if err := h.extension(typ, body); err != nil {
			return Hello{}, err
		}
	}
	if h.Versions == nil {
		h.Versions = versionsUpTo(legacy)
	}
	return h, nil
}

// extension reads one extension. What it sets is never empty afterwards, so that it sees one that comes again, which
// RFC 8446 §4.2 forbids: two readers might not take the same of two.
func (h *Hello) extension(typ int, body []byte) (err error) {
	c := cursor{rest: body}
	again := false
	switch typ {
	case extensionServerName:
		again = h.ServerName != ""
		h.ServerName, err = c.serverName()
	case extensionALPN:
		again = h.ALPN != nil
		h.ALPN = c.protocols()
	case extensionVersions:
		again = h.Versions != nil
		h.Versions = c.versions()
	case extensionECH:
		again = h.ECH
		h.ECH = true
		return malformedIf(again)
	default:
		return nil
	}
	if err != nil {
		return err
	}
	return malformedIf(again || c.short || len(c.rest) > 0)
}

func malformedIf(bad bool) error {
	if bad {
		return ErrMalformed
	}
	return nil
}

// versionsUpTo returns the versions that a client offers that says only which it likes best. From TLS 1.3 on it would
// say more. RFC 8446 §4.2.1.
func versionsUpTo(legacy uint16) []uint16 {
	all := [...]uint16{tls.VersionTLS12, tls.VersionTLS11, tls.VersionTLS10}
	for i, v := range all {
		if v <= legacy {
			return append([]uint16(nil), all[i:]...)
		}
	}
	return nil
}
