// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sip

// Hot path: no allocation per packet.

import (
	"bytes"
	"net/netip"
	"strconv"
)

// Hop is one value of a Via.
type Hop struct {
	Transport []byte // UDP, TCP, …
	SentBy    Host
	Branch    []byte
	Received  netip.Addr // the zero Addr if there is none
	AsksPort  bool       // rport is there. RFC 3581 §3
	Port      uint16     // its value, or 0
	Maddr     []byte
	TTL       uint8 // 0 if there is none
}

// cookie begins the branches of those who keep to RFC 3261 §8.1.1.7.
const cookie = "z9hG4bK"

// Modern says whether the branch is unique by itself.
func (h *Hop) Modern() bool { return Modern(h.Branch) }

// Modern says whether a branch is unique by itself. One that is the cookie and nothing more is not.
func Modern(branch []byte) bool {
	return len(branch) > len(cookie) && equalFold(branch[:len(cookie)], "z9hg4bk")
}

// Reliable says whether the hop used a transport that loses nothing.
func (h *Hop) Reliable() bool { return !equalFold(h.Transport, "udp") }

// ParseVia reads the first value of a Via and returns what follows its comma, nil after the last. Where only the version
// or the parameters are wrong, h has what could be read, for an answer. RFC 3261 §20.42.
func ParseVia(b []byte) (h Hop, rest []byte, err *Error) {
	b, rest, ok := cut(b, ',')
	head, params, _ := cut(b, ';')
	protocol, after, ok1 := bytes.Cut(head, []byte{'/'})
	version, after, ok2 := bytes.Cut(after, []byte{'/'})
	after = trim(after)
	space := 0
	for space < len(after) && !isSpace(after[space]) {
		space++
	}
	if !ok1 || !ok2 || !equalFold(trim(protocol), "sip") || !isToken(after[:space]) {
		return Hop{}, rest, ErrVia
	}
	h.Transport = after[:space]
	if h.SentBy, err = ParseHost(trim(after[space:])); err != nil {
		return Hop{}, rest, ErrVia
	}
	ok = ok && string(trim(version)) == "2.0"
	for more := params != nil; more; more = params != nil {
		var p []byte
		p, params, _ = cut(params, ';')
		ok = h.param(p) && ok
	}
	if !ok {
		return h, rest, ErrVia
	}
	return h, rest, nil
}

func (h *Hop) param(p []byte) bool {
	name, value, has := bytes.Cut(p, []byte{'='})
	name, value = trim(name), trim(value)
	var ok bool
	switch {
	case has && !isValue(value), !isToken(name):
		return false
	case equalFold(name, "branch"):
		h.Branch = value
		return isToken(value)
	case equalFold(name, "received"):
		// RFC 5118 §4.5: the brackets are outside the grammar, and some send them.
		if len(value) > 2 && value[0] == '[' && value[len(value)-1] == ']' {
			value = value[1 : len(value)-1]
		}
		h.Received, ok = parseAddr(value)
		return ok
	case equalFold(name, "rport"):
		h.AsksPort = true
		if !has {
			return true
		}
		n, ok := number(value, 65535)
		h.Port = uint16(n)
		return ok && n > 0
	case equalFold(name, "maddr"):
		h.Maddr = value
		return has
	case equalFold(name, "ttl"):
		n, ok := number(value, 255)
		h.TTL = uint8(n)
		return ok
	}
	return true
}

// Outline reads what a request of ours is known by, without the rest: its method, and the branch of its first Via, or nil. It
// returns the error of one that is larger than Parse takes by itself.
func Outline(request []byte) (method, branch []byte, err *Error) {
	line, rest, _ := bytes.Cut(request, []byte("\r\n"))
	method, _, _ = bytes.Cut(line, []byte{' '})
	fields, found := 0, false
	for {
		var ended bool
		line, rest, ended = bytes.Cut(rest, []byte("\r\n"))
		switch {
		case !ended:
			return nil, nil, ErrShort
		case len(line) == 0 && len(request)-len(rest) > defaultHead:
			return nil, nil, ErrLongHead
		case len(line) == 0:
			return method, branch, nil
		case isSpace(line[0]): // of a line that goes on, nothing is a name
			continue
		}
		if fields++; fields > defaultMany {
			return nil, nil, ErrFields
		}
		name, value, _ := bytes.Cut(line, []byte{':'})
		if !found && kindOf(trim(name)) == Via {
			found = true
			value, _, _ = cut(value, ',')
			_, params, _ := cut(value, ';')
			branch, _ = Param(params, "branch")
		}
	}
}

// top is the first value of the first Via.
type top struct {
	read bool
	hop  Hop
	rest []byte
	err  *Error
}

// Top reads the first value of the first Via, like ParseVia.
func (m *Message) Top() (Hop, *Error) {
	t := m.readTop()
	return t.hop, t.err
}

func (m *Message) readTop() *top {
	t := &m.top
	if !t.read {
		t.read = true
		if value := m.Get(Via); value == nil {
			t.hop, t.rest, t.err = Hop{}, nil, ErrMissing
		} else {
			t.hop, t.rest, t.err = ParseVia(value)
		}
	}
	return t
}

// AppendStamped writes the first Via field value b, in which h is the top hop, as it is after the message came from the
// given address: with received whenever that is not what sent-by says, and with the port if rport asks for it.
// RFC 3261 §18.2.1, RFC 3581 §4. What the sender wrote there itself is dropped.
func AppendStamped(dst, b []byte, h *Hop, from netip.AddrPort) []byte {
	top, rest, _ := cut(b, ',')
	head, params, more := cut(top, ';')
	more = more && params != nil
	dst = append(dst, head...)
	for more {
		var p []byte
		p, params, _ = cut(params, ';')
		more = params != nil
		name, _, _ := bytes.Cut(p, []byte{'='})
		if name = trim(name); !equalFold(name, "received") && !equalFold(name, "rport") {
			dst = append(dst, ';')
			dst = append(dst, p...)
		}
	}
	// With rport, received is always there. RFC 3581 §4.
	if h.AsksPort || h.SentBy.Addr != from.Addr() {
		dst = append(dst, ";received="...)
		dst = from.Addr().AppendTo(dst) // without brackets: RFC 5118 §4.5
	}
	if h.AsksPort {
		dst = append(dst, ";rport="...)
		dst = strconv.AppendUint(dst, uint64(from.Port()), 10)
	}
	if rest != nil {
		dst = append(dst, ',')
		dst = append(dst, rest...)
	}
	return dst
}
