// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package pop3 is POP3 until a mailbox is open, on both sides of a proxy, in the words of package login.
//
//	Server   what clients say: CAPA, STLS, USER and PASS, AUTH, QUIT; all else is refused
//	Client   what we say to a backend: who the client is (XCLIENT, as Dovecot has it), then his login
//
// APOP is refused, and our greeting has no timestamp: the digest is made over that of the server, which is not chosen
// before the user is known.
//
// RFC 1939 (POP3), RFC 2449 (CAPA), RFC 2595 (STLS), RFC 5034 (AUTH), RFC 3206 (response codes), RFC 8314 (no passwords
// in clear).
package pop3

import (
	"bytes"

	"github.com/kyozon/kyozon/protocol/mail/sasl"
)

// ours are the capabilities that are not a backend's to offer: they concern the client's connection to us, or would have
// the client say before its login what we cannot carry (RFC 6856).
var ours = [...]string{"STLS", "SASL", "XCLIENT", "UTF8", "LANG"}

// split returns the first word of a line, and the rest behind one space.
func split(line []byte) (word, rest []byte) {
	word, rest, _ = bytes.Cut(line, []byte(" "))
	return word, rest
}

func is(word []byte, name string) bool { return bytes.EqualFold(word, []byte(name)) }

// appendOffers appends the answer to CAPA: what backends can do, without what cannot be carried, and what we do
// ourselves. A client that may not log in yet is offered no way to. RFC 2449 §5, §6.3, RFC 2595 §4.
func (s *Server) appendOffers(dst []byte) []byte {
	dst = append(dst, "+OK Capability list follows\r\n"...)
	for p := s.known; len(p) > 0; {
		var line []byte
		line, p, _ = bytes.Cut(p, []byte("\r\n"))
		name, rest := split(line)
		switch {
		case is(name, "SASL") && !s.insecure():
			dst = appendMechanisms(dst, rest)
		case isOurs(name), is(name, "USER") && s.insecure():
		default:
			dst = append(append(dst, line...), "\r\n"...)
		}
	}
	if s.StartTLS && !s.Secure && !s.secured {
		dst = append(dst, "STLS\r\n"...)
	}
	return append(dst, ".\r\n"...)
}

func isOurs(name []byte) bool {
	for _, o := range ours {
		if is(name, o) {
			return true
		}
	}
	return false
}

// appendMechanisms appends those of a backend that can be carried.
func appendMechanisms(dst, list []byte) []byte {
	const name = "SASL"
	begin := len(dst)
	dst = append(dst, name...)
	for len(list) > 0 {
		var m []byte
		m, list = split(list)
		if sasl.Lookup(m) != sasl.None {
			dst = append(append(dst, ' '), m...)
		}
	}
	if len(dst) == begin+len(name) {
		return dst[:begin]
	}
	return append(dst, "\r\n"...)
}
