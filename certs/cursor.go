// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package certs

import (
	"encoding/binary"
)

// cursor reads a TLS message from front to back. Once it has been asked for more than there is, short is set and all
// it returns is empty, so that one look at short at the end is enough.
type cursor struct {
	rest  []byte
	short bool
}

// take returns the next n bytes.
func (c *cursor) take(n int) []byte {
	if n > len(c.rest) {
		c.rest, c.short = nil, true
		return nil
	}
	p := c.rest[:n]
	c.rest = c.rest[n:]
	return p
}

// number returns the next size bytes as a number.
func (c *cursor) number(size int) (n int) {
	for _, b := range c.take(size) {
		n = n<<8 | int(b)
	}
	return n
}

// vector returns what follows the next size bytes, which hold its length. RFC 8446 §3.4.
func (c *cursor) vector(size int) []byte { return c.take(c.number(size)) }

// serverName reads a list of names, which holds one: host_name is the only type there is, and no type may come
// twice. RFC 6066 §3.
func (c *cursor) serverName() (string, error) {
	list := cursor{rest: c.vector(2)}
	typ, name := list.number(1), list.vector(2)
	if c.short || list.short || len(list.rest) > 0 || typ != nameTypeHost || len(name) == 0 {
		return "", ErrMalformed
	}
	return hostName(name)
}

// protocols reads a list of ALPN protocols, none of which is empty. RFC 7301 §3.1.
func (c *cursor) protocols() []string {
	text := string(c.vector(2)) // one allocation for all names
	count := 0
	for rest := text; rest != ""; count++ {
		length := int(rest[0])
		if length == 0 || length >= len(rest) {
			c.short = true
			return nil
		}
		rest = rest[1+length:]
	}
	if count == 0 {
		c.short = true
		return nil
	}
	names := make([]string, count)
	for i := range names {
		end := 1 + int(text[0])
		names[i], text = text[1:end], text[end:]
	}
	return names
}

// versions reads a list of versions. RFC 8446 §4.2.1.
func (c *cursor) versions() []uint16 {
	list := c.vector(1)
	if len(list) == 0 || len(list)%2 != 0 {
		c.short = true
		return nil
	}
	versions := make([]uint16, 0, len(list)/2)
	for ; len(list) > 0; list = list[2:] {
		versions = append(versions, binary.BigEndian.Uint16(list))
	}
	return versions
}

// hostName returns name in lower case, or ErrName if it is not the name of a host: labels of letters, digits, hyphens
// and underscores (which some have, against RFC 1123 §2.1), without a dot at the end, and no address. RFC 6066 §3.
func hostName(name []byte) (string, error) {
	const maxName, maxLabel = 253, 63 // RFC 1035 §2.3.4
	if len(name) > maxName {
		return "", ErrName
	}
	var space [maxName]byte
	lower := space[:len(name)]
	label, numeric := 0, true // length of the label so far, and whether it has only digits
	for i, b := range name {
		switch {
		case b == '.' && label > 0:
			label, numeric = -1, true
		case '0' <= b && b <= '9':
		case 'a' <= b && b <= 'z' || b == '-' || b == '_':
			numeric = false
		case 'A' <= b && b <= 'Z':
			b += 'a' - 'A'
			numeric = false
		default:
			return "", ErrName
		}
		if label++; label > maxLabel {
			return "", ErrName
		}
		lower[i] = b
	}
	if label == 0 || numeric { // no top-level domain has only digits (RFC 3696 §2), but each IPv4 address ends so
		return "", ErrName
	}
	return string(lower), nil
}
