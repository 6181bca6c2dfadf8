// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sdp

import (
	"bytes"
	"net/netip"

	"github.com/kyozon/kyozon/ip"
)

// Parse reads text, which s keeps. It returns one of the errors of a description.
//
// It is strict in what says where media go, and takes the rest as it is: others will read it.
func (s *Session) Parse(text []byte, l *Limits) error {
	*s = Session{text: text}
	if len(text) > or(l.Text, 16<<10) {
		return ErrLong
	}
	lines := or(l.Lines, 512)
	media := min(or(l.Media, 8), MaxMedia)
	for at, n := 0, 0; at < len(text); n++ {
		value, next := line(text, at)
		if n == lines {
			return ErrLines
		}
		if value.to < value.from || text[value.from-1] != '=' {
			return ErrLine
		}
		kind := text[at]
		if n == 0 && (kind != 'v' || string(s.bytes(value)) != "0") {
			return ErrVersion
		}
		if kind == 'm' && s.count == media {
			return ErrManyMedia
		}
		if err := s.line(kind, value, span{at, next}); err != nil {
			return err
		}
		at = next
	}
	if s.origin.to == 0 {
		return ErrOrigin
	}
	return s.complete()
}

// line returns the value of the line that begins at at, which is before its start if it has no letter and '=', and
// where the next one begins. A LF alone ends a line too: RFC 8866 §5.
func line(text []byte, at int) (value span, next int) {
	end := len(text)
	next = end
	if i := bytes.IndexByte(text[at:], '\n'); i >= 0 {
		end, next = at+i, at+i+1
		if i > 0 && text[end-1] == '\r' {
			end--
		}
	}
	if bytes.IndexByte(text[at:end], '\r') >= 0 || bytes.IndexByte(text[at:end], 0) >= 0 || end < at+2 {
		return span{at + 2, at}, next
	}
	return span{at + 2, end}, next
}

// last returns the m-line that is being read, or nil.
func (s *Session) last() *Media {
	if s.count == 0 {
		return nil
	}
	return &s.media[s.count-1]
}

func (s *Session) line(kind byte, value, whole span) (err error) {
	m := s.last()
	if m != nil {
		m.line.to = whole.to
	}
	switch kind {
	case 'o':
		if s.origin.to != 0 || m != nil || !s.words(value, 6) {
			return ErrOrigin
		}
		s.origin = value
	case 'c':
		c := &s.session
		if m != nil {
			c = &m.connection
		}
		if c.there { // layered encodings; the first address is what the others count from: RFC 8866 §5.7
			return nil
		}
		*c, err = readConnection(s.bytes(value))
	case 'm':
		s.count++
		s.last().line = whole
		err = s.mediaLine(value)
	case 'a':
		err = s.attribute(m, value)
	}
	return err
}

// word returns the first word of p, and what follows the space behind it.
func (s *Session) word(p span) (first, rest span) {
	if i := bytes.IndexByte(s.bytes(p), ' '); i >= 0 {
		return span{p.from, p.from + i}, span{p.from + i + 1, p.to}
	}
	return p, span{p.to, p.to}
}

// words says whether there are n of them in p, with one space between.
func (s *Session) words(p span, n int) bool {
	for range n {
		var first span
		if first, p = s.word(p); first.from == first.to {
			return false
		}
	}
	return p.from == p.to
}

// field returns the first word of p and what follows it, spaces aside.
func field(p []byte) (first, rest []byte) {
	p = bytes.TrimLeft(p, " ")
	if i := bytes.IndexByte(p, ' '); i >= 0 {
		return p[:i], p[i:]
	}
	return p, nil
}

// readConnection reads "IN IP6 2001:db8::1". RFC 8866 §5.7. Brackets are not allowed, and sent nevertheless.
func readConnection(value []byte) (c connection, err error) {
	network, rest := field(value)
	family, rest := field(rest)
	host, rest := field(rest)
	if !bytes.EqualFold(network, []byte("IN")) || len(bytes.TrimLeft(rest, " ")) > 0 {
		return c, ErrConnection
	}
	c.there = true
	switch {
	case bytes.EqualFold(family, []byte("IP4")):
		c.family = ip.V4
	case bytes.EqualFold(family, []byte("IP6")):
		c.family = ip.V6
	default:
		return c, ErrConnection
	}
	host, _, _ = bytes.Cut(host, []byte("/")) // time to live, and how many addresses
	host = bytes.TrimSuffix(bytes.TrimPrefix(host, []byte("[")), []byte("]"))
	addr, fail := netip.ParseAddr(string(host))
	if fail != nil {
		if bytes.IndexByte(host, ':') >= 0 || len(host) == 0 {
			return c, ErrConnection
		}
		c.kind = Name
		if bytes.HasSuffix(host, []byte(".invalid")) {
			c.kind = Unspecified // RFC 6157 §4.1
		}
		return c, nil
	}
	if ip.FamilyOf(addr) != c.family || addr.Zone() != "" {
		return c, ErrConnection
	}
	c.kind = KindOf(addr)
	c.addr = ip.Canonical(addr)
	return c, nil
}

// mediaLine reads "audio 49170/2 RTP/AVP 0". RFC 8866 §5.14.
func (s *Session) mediaLine(value span) error {
	m := s.last()
	var port, rest span
	m.name, rest = s.word(value)
	port, rest = s.word(rest)
	m.proto, rest = s.word(rest)
	if m.name.from == m.name.to || m.proto.from == m.proto.to || rest.from == rest.to {
		return ErrMediaLine
	}
	first, many, two := bytes.Cut(s.bytes(port), []byte("/"))
	n, ok := number(first, 65535)
	m.Port, m.Ports = uint16(n), 1
	if two && ok {
		m.Ports, ok = number(many, 255)
	}
	if !ok {
		return ErrMediaLine
	}
	m.Transport = transport(s.bytes(m.proto))
	return nil
}

// transport reads the protocol of an m-line. RFC 8866 §8.2.2 has where they are listed.
func transport(proto []byte) Transport {
	begins := func(with string) bool {
		return len(proto) >= len(with) && bytes.EqualFold(proto[:len(with)], []byte(with))
	}
	switch {
	case bytes.EqualFold(proto, []byte("udptl")), bytes.EqualFold(proto, []byte("UDP/TLS/UDPTL")):
		return UDPTL
	case begins("RTP/"), begins("UDP/TLS/RTP/"):
		return RTP
	}
	return Other
}

// number reads a decimal up to limit.
func number(p []byte, limit int) (n int, ok bool) {
	if len(p) == 0 || len(p) > 5 {
		return 0, false
	}
	for _, c := range p {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int(c-'0')
	}
	return n, n <= limit
}

// attribute reads an a= of m, or of the session if m is nil.
func (s *Session) attribute(m *Media, value span) error {
	name, arg, _ := bytes.Cut(s.bytes(value), []byte(":"))
	for d := SendRecv; d <= Inactive; d++ {
		if string(name) == directions[d] {
			if m != nil {
				m.way = d
			} else {
				s.way = d
			}
		}
	}
	switch what := attributeOf(name); {
	case what == ice:
		s.iceThere = s.iceThere || string(name) == "candidate"
	case what == group && m == nil && isANAT(arg):
		s.grouped = true
	case m == nil:
	case what == rtcp:
		port, _, _ := bytes.Cut(arg, []byte(" "))
		n, ok := number(port, 65535)
		if !ok || n == 0 {
			return ErrRTCP
		}
		m.RTCP = uint16(n)
	case string(name) == "rtcp-mux":
		m.Mux = true
	case string(name) == "mid":
		m.mid = span{value.to - len(arg), value.to}
	}
	return nil
}

// complete gives each m-line what it takes from the session.
func (s *Session) complete() error {
	for i := range s.media[:s.count] {
		m := &s.media[i]
		c := &m.connection
		if !c.there {
			c = &s.session
		}
		if !c.there && m.Port != 0 {
			return ErrNoAddress
		}
		m.Family, m.Addr, m.Kind = c.family, c.addr, c.kind
		for _, d := range [...]Direction{SendRecv, s.way, m.way} {
			if d != Unsaid {
				m.Direction = d
			}
		}
	}
	if s.grouped {
		s.prefer()
	}
	return nil
}

// prefer passes over all m-lines of an ANAT group but the first that it names and that lives. They are one stream in
// several families, the preferred one first: RFC 4091 §4, §5.
func (s *Session) prefer() {
	for at := 0; at < len(s.text); {
		value, next := line(s.text, at)
		if s.count > 0 && at >= s.media[0].line.from {
			return
		}
		if _, arg, ok := bytes.Cut(s.bytes(value), []byte("group:")); ok && s.text[at] == 'a' && isANAT(arg) {
			taken := false
			for id := range bytes.FieldsSeq(arg[len("ANAT"):]) {
				if m := s.byMid(id); m != nil && m.Port != 0 {
					m.Passed = taken
					taken = true
				}
			}
		}
		at = next
	}
}

func isANAT(arg []byte) bool { return bytes.HasPrefix(arg, []byte("ANAT ")) }

func (s *Session) byMid(id []byte) *Media {
	for i := range s.media[:s.count] {
		if m := &s.media[i]; m.mid.to > 0 && bytes.Equal(s.bytes(m.mid), id) {
			return m
		}
	}
	return nil
}
