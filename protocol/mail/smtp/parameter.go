// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package smtp

import "bytes"

// parameters reads those of MAIL and RCPT, notes which extensions they belong to, and refuses one that comes twice.
// RFC 5321 §4.1.1.11.
func (c *Command) parameters() Refusal {
	var seen uint16
	for rest := c.Rest; len(rest) > 0; {
		var p []byte
		p, rest = word(rest)
		name, value, valued := bytes.Cut(p, []byte("="))
		if bytes.IndexByte(value, '=') >= 0 && !bytes.EqualFold(name, []byte("AUTH")) {
			return Parameter
		}
		bit := c.parameter(name, value, valued)
		if bit == 0 || seen&bit != 0 {
			return Parameter
		}
		seen |= bit
	}
	return 0
}

// parameter returns a bit for each name that is known and has a right value, else 0.
func (c *Command) parameter(name, value []byte, valued bool) uint16 {
	is := func(v Verb, s string) bool { return c.Verb == v && bytes.EqualFold(name, []byte(s)) }
	some := valued && len(value) > 0
	switch {
	case is(Mail, "SIZE"): // RFC 1870 §3
		n, ok := number(value)
		c.Size = n
		c.Uses.HasSize = true
		return when(ok, 1)
	case is(Mail, "BODY"): // RFC 6152 §2, RFC 3030 §3
		return c.body(value)
	case is(Mail, "SMTPUTF8"): // RFC 6531 §3.4
		c.UTF8, c.Uses.SMTPUTF8 = true, true
		return when(!valued, 4)
	case is(Mail, "AUTH"): // RFC 4954 §5
		c.Uses.HasAuth = true
		return when(some, 8)
	case is(Mail, "RET"): // RFC 3461 §4.3
		c.Uses.DSN = true
		return when(bytes.EqualFold(value, []byte("FULL")) || bytes.EqualFold(value, []byte("HDRS")), 16)
	case is(Mail, "ENVID"): // RFC 3461 §4.4
		c.Uses.DSN = true
		return when(some && len(value) <= 100, 32)
	case is(Rcpt, "NOTIFY"): // RFC 3461 §4.1
		c.Uses.DSN = true
		return when(notify(value), 64)
	case is(Rcpt, "ORCPT"): // RFC 3461 §4.2
		c.Uses.DSN = true
		return when(bytes.IndexByte(value, ';') > 0 && len(value) <= 500, 128)
	default:
		return 0
	}
}

func when(ok bool, bit uint16) uint16 {
	if ok {
		return bit
	}
	return 0
}

func (c *Command) body(value []byte) uint16 {
	switch {
	case bytes.EqualFold(value, []byte("7BIT")), bytes.EqualFold(value, []byte("8BITMIME")):
		c.Uses.EightBit = true
	case bytes.EqualFold(value, []byte("BINARYMIME")):
		c.Uses.Binary = true
	default:
		return 0
	}
	return 2
}

// notify says whether v is NEVER, or a list of the others. RFC 3461 §4.1.
func notify(v []byte) bool {
	if bytes.EqualFold(v, []byte("NEVER")) {
		return true
	}
	for more := true; more; {
		var one []byte
		one, v, more = bytes.Cut(v, []byte(","))
		if !bytes.EqualFold(one, []byte("SUCCESS")) && !bytes.EqualFold(one, []byte("FAILURE")) &&
			!bytes.EqualFold(one, []byte("DELAY")) {
			return false
		}
	}
	return true
}
