// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package imap is IMAP until a mailbox is open, on both sides of a proxy, in the words of package login.
//
//	Server   what clients say: CAPABILITY, NOOP, ID, STARTTLS, LOGIN, AUTHENTICATE, LOGOUT; all else is refused
//	Client   what we say to a backend: who the client is (ID), then his login in his own tag, so that the backend's
//	         answer can be passed on as it is
//
// A login is read, understood and written anew: no byte of a command goes on as it came, but those of a SASL exchange,
// whose lines are bounded. What a client may call is what the backends can do, without what a proxy cannot carry.
//
// RFC 9051 and RFC 3501 (IMAP), RFC 2971 (ID), RFC 4959 (SASL-IR), RFC 7888 (LITERAL+, LITERAL-), RFC 5530 (response
// codes), RFC 8314 (no passwords in clear).
package imap
