// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package sasl finds out who wants to log in, from the first thing that a client says in a SASL exchange. It proves
// nothing: the exchange goes on to the server, which does.
//
//	mechanism, first message in base64 ─▶ User ─▶ whose mailbox it is ─▶ the owner picks his server
//
// A mechanism can be carried if the client names the user before a server says anything of its own. CRAM-MD5 and the
// like begin with a challenge of the server that is not chosen yet, and what is bound to a TLS channel (…-PLUS,
// EXTERNAL) would be bound to ours.
//
// RFC 4422 (SASL), RFC 4616 (PLAIN), RFC 5802 and RFC 7677 (SCRAM), RFC 7628 (OAUTHBEARER).
package sasl

import (
	"bytes"
	"encoding/base64"
)

// MaxUser bounds the bytes of a user's name.
const MaxUser = 512

// Kind is how a mechanism names the user.
type Kind uint8

// The kinds. The zero value is for mechanisms that cannot be carried.
const (
	None Kind = iota
	plain
	login // the server asks for the user's name first, always in the same words
	scram
	bearer // OAUTHBEARER
	xoauth // XOAUTH2, its predecessor
)

// mechanisms are those that can be carried.
var mechanisms = [...]struct {
	name string
	kind Kind
}{
	{"PLAIN", plain}, {"LOGIN", login}, {"SCRAM-SHA-1", scram}, {"SCRAM-SHA-256", scram},
	{"SCRAM-SHA-512", scram}, {"OAUTHBEARER", bearer}, {"XOAUTH2", xoauth},
}

// Lookup returns the kind of a mechanism, whose name is taken in either case; None if it cannot be carried.
func Lookup(name []byte) Kind {
	for i := range mechanisms {
		if bytes.EqualFold(name, []byte(mechanisms[i].name)) {
			return mechanisms[i].kind
		}
	}
	return None
}

// Prompt returns what a client is asked, in base64, before it names the user; "" for mechanisms in which the client
// speaks first.
func (k Kind) Prompt() string {
	if k == login {
		return "VXNlcm5hbWU6" // "Username:"
	}
	return ""
}

// User appends the name of the user whose mailbox a client asks for to dst, out of its first message in base64. ok is
// false if the message is not one of the mechanism, or names nobody.
func (k Kind) User(dst, message []byte) (user []byte, ok bool) {
	decoded := make([]byte, base64.StdEncoding.DecodedLen(len(message)))
	n, err := base64.StdEncoding.Strict().Decode(decoded, message)
	if err != nil || bytes.ContainsAny(message, "\r\n") { // which Decode skips
		return dst, false
	}
	decoded = decoded[:n]
	switch k {
	case plain:
		user, ok = plainUser(decoded)
	case login:
		user, ok = decoded, true
	case scram, bearer:
		user, ok = headed(k, decoded)
	case xoauth:
		user, ok = xoauthUser(decoded)
	}
	if !ok || len(user) == 0 || len(user) > MaxUser || bytes.IndexByte(user, 0) >= 0 {
		return dst, false
	}
	return append(dst, user...), true
}

// plainUser reads a message of PLAIN: whom to act as, NUL, who it is, NUL, the password. Without the first it is the
// second. RFC 4616 §2.
func plainUser(p []byte) ([]byte, bool) {
	parts := bytes.Split(p, []byte{0})
	if len(parts) != 3 || len(parts[1]) == 0 || len(parts[2]) == 0 {
		return nil, false
	}
	if len(parts[0]) > 0 {
		return parts[0], true
	}
	return parts[1], true
}

// headed reads a message that begins with the header of GS2: whom to act as comes before who it is. RFC 5801 §4,
// RFC 5802 §7, RFC 7628 §3.1.
func headed(k Kind, p []byte) ([]byte, bool) {
	flag, rest, ok := bytes.Cut(p, []byte(","))
	if !ok || len(flag) != 1 || flag[0] != 'n' && flag[0] != 'y' { // p=… is bound to a channel
		return nil, false
	}
	name, rest, ok := bytes.Cut(rest, []byte(","))
	if !ok {
		return nil, false
	}
	if len(name) > 0 {
		return named("a=", name)
	}
	if k == bearer {
		return nil, false // its user would be only in the token
	}
	name, _, ok = bytes.Cut(rest, []byte(","))
	if !ok {
		return nil, false
	}
	return named("n=", name)
}

// named returns the name behind the attribute: "=2C" stands for a comma and "=3D" for an equals sign. RFC 5802 §5.1.
func named(attribute string, p []byte) ([]byte, bool) {
	p, ok := bytes.CutPrefix(p, []byte(attribute))
	if !ok {
		return nil, false
	}
	name := make([]byte, 0, len(p))
	for len(p) > 0 {
		switch {
		case p[0] != '=':
			name, p = append(name, p[0]), p[1:]
		case bytes.HasPrefix(p, []byte("=2C")):
			name, p = append(name, ','), p[3:]
		case bytes.HasPrefix(p, []byte("=3D")):
			name, p = append(name, '='), p[3:]
		default:
			return nil, false
		}
	}
	return name, true
}

// xoauthUser reads a message of XOAUTH2: user=…, auth=…, each ended by 0x01, and one more 0x01.
func xoauthUser(p []byte) ([]byte, bool) {
	name, rest, ok := bytes.Cut(p, []byte{1})
	if !ok || len(rest) == 0 {
		return nil, false
	}
	return bytes.CutPrefix(name, []byte("user="))
}
