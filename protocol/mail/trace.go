// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package mail

import (
	"bytes"
	"net/netip"
	"time"
)

// mostHops is how many servers a message may have come by: RFC 5321 §6.3.
const mostHops = 100

// trace is the line that says how a message has come: who answers for it must write one. RFC 5321 §4.4, RFC 3848.
func (s *session) trace(now time.Time) []byte {
	with := "SMTP"
	if s.in.Offers.Pipelining { // by EHLO
		with = "ESMTP"
		if s.in.Secure {
			with = "ESMTPS"
		}
	}
	line := append([]byte("Received: from "), words(s.helo)...)
	line = append(line, " ("...)
	if name := s.name(); name != nil {
		line = append(append(line, words(name)...), ' ')
	}
	line = append(append(line, "["...), literal(s.conn.Remote().Addr())...)
	line = append(line, "])\r\n\tby "...)
	line = append(append(append(append(line, s.table.options.Name...), " with "...), with...), ";\r\n\t"...)
	return append(now.AppendFormat(line, "Mon, 02 Jan 2006 15:04:05 -0700"), "\r\n"...)
}

// literal is an address as it stands between brackets. RFC 5321 §4.1.3.
func literal(a netip.Addr) string {
	if a.Is6() {
		return "IPv6:" + a.String()
	}
	return a.String()
}

// words are what a client says of itself, as it can stand in a header.
func words(p []byte) []byte {
	return bytes.Map(func(r rune) rune {
		switch {
		case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '.', r == '-', r == '_', r == ':', r == '[', r == ']':
			return r
		}
		return '?'
	}, p)
}

// circles says whether the message that begins so has come by too many servers. RFC 5321 §6.3.
func circles(text []byte) bool {
	n := 0
	for line := range bytes.Lines(text) {
		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			break
		}
		if len(line) > len("received:") && bytes.EqualFold(line[:len("received:")], []byte("received:")) {
			n++
		}
	}
	return n > mostHops
}
