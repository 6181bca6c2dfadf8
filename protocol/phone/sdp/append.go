// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sdp

import (
	"bytes"
	"net/netip"
	"strconv"
)

// Endpoint is where media of one m-line are to be sent. The zero value rejects the m-line.
type Endpoint struct {
	Addr netip.AddrPort
	RTCP uint16 // 0 is the port after Addr's
}

// Rewrite is what a description is to say.
type Rewrite struct {
	Addr  netip.Addr // of the session: in o=, and in the c= of m-lines that nothing is sent to
	Media []Endpoint // by m-line

	// ID and Version are for o=, unless ID is 0. Within a dialog the version grows by one when anything changes, and the rest
	// stays. RFC 3264 §8.
	ID, Version uint64

	// Origin, if there is one, is the o= of what was said before: but for its version it stays, whatever Addr and ID are.
	Origin []byte
}

// Origin returns the value of o=. Valid as long as the bytes parsed.
func (s *Session) Origin() []byte { return s.bytes(s.origin) }

// Version returns the version in o=. RFC 8866 §5.2: it is a number, of any length; one that is longer than ours is 0.
func (s *Session) Version() uint64 {
	_, rest := s.word(s.origin)
	_, rest = s.word(rest)
	word, _ := s.word(rest)
	n, _ := strconv.ParseUint(string(s.bytes(word)), 10, 63)
	return n
}

// AppendOrigin adds s with the Origin and the Version of r, and all the rest as it is.
func (s *Session) AppendOrigin(dst []byte, r *Rewrite) []byte {
	e := editor{s: s, r: r, dst: dst}
	e.origin(s.origin)
	e.copyTo(len(s.text))
	return e.dst
}

// Append adds s as r wants it. It returns ErrEndpoints and dst as it was if there is not an endpoint for each m-line, or
// no address for the session.
func (s *Session) Append(dst []byte, r *Rewrite) ([]byte, error) {
	if len(r.Media) != s.count || !r.Addr.IsValid() {
		return dst, ErrEndpoints
	}
	e := editor{s: s, r: r, dst: dst, at: -1}
	for at := 0; at < len(s.text); {
		value, next := line(s.text, at)
		e.line(s.text[at], value, span{at, next})
		at = next
	}
	e.leave(len(s.text))
	e.copyTo(len(s.text))
	return e.dst, nil
}

// editor is a walk through a description. What is not changed is copied in one piece.
type editor struct {
	s       *Session
	r       *Rewrite
	dst     []byte
	copied  int  // of the text
	at      int  // the m-line, or -1
	pending bool // its c= is not there yet
	told    bool // its direction, and RTCP, were seen
	control bool
}

func (e *editor) copyTo(to int) {
	e.dst = append(e.dst, e.s.text[e.copied:to]...)
	e.copied = to
}

// replace copies what is before p, and leaves it to the caller to write what stands for it.
func (e *editor) replace(p span) {
	e.copyTo(p.from)
	e.copied = p.to
}

// ends returns what ends lines of this description.
func (e *editor) ends() string {
	if bytes.Contains(e.s.text, []byte("\r\n")) {
		return "\r\n"
	}
	return "\n"
}

func (e *editor) line(kind byte, value, whole span) {
	if e.pending && kind != 'c' && kind != 'i' {
		e.addConnection(whole.from)
	}
	switch kind {
	case 'o':
		e.origin(value)
	case 'c':
		e.pending = false
		e.replace(value)
		e.connection(e.addr())
	case 'm':
		e.leave(whole.from)
		e.at++
		e.enter(value)
	case 'a':
		e.attribute(value, whole)
	}
}

// origin writes the address of o=, and its numbers if they are ours. RFC 8866 §5.2.
func (e *editor) origin(value span) {
	if e.r.Origin != nil {
		e.replace(value)
		e.keepOrigin()
		return
	}
	user, rest := e.s.word(value)
	if e.r.ID != 0 {
		e.replace(span{user.to + 1, value.to})
		e.dst = strconv.AppendUint(e.dst, e.r.ID, 10)
		e.dst = append(e.dst, ' ')
		e.dst = strconv.AppendUint(e.dst, e.r.Version, 10)
		e.dst = append(e.dst, ' ')
	} else {
		_, rest = e.s.word(rest)
		_, rest = e.s.word(rest)
		e.replace(rest)
	}
	e.connection(e.r.Addr)
}

// keepOrigin writes the o= that was said before, with another version.
func (e *editor) keepOrigin() {
	was := Session{text: e.r.Origin}
	_, rest := was.word(span{0, len(was.text)})
	_, rest = was.word(rest)
	version, _ := was.word(rest)
	e.dst = append(e.dst, was.text[:version.from]...)
	e.dst = strconv.AppendUint(e.dst, e.r.Version, 10)
	e.dst = append(e.dst, was.text[version.to:]...)
}

func (e *editor) connection(a netip.Addr) {
	kind := "IN IP6 "
	if a.Is4() {
		kind = "IN IP4 "
	}
	e.dst = a.AppendTo(append(e.dst, kind...))
}

// endpoint returns that of the m-line, or nil if nothing is sent to it.
func (e *editor) endpoint() *Endpoint {
	if e.at < 0 || !e.s.media[e.at].Live() || e.r.Media[e.at].Addr.Port() == 0 {
		return nil
	}
	return &e.r.Media[e.at]
}

// addr returns the address of a c= here.
func (e *editor) addr() netip.Addr {
	if p := e.endpoint(); p != nil {
		return p.Addr.Addr()
	}
	return e.r.Addr
}

// enter writes the port of an m-line. RFC 8866 §5.14.
func (e *editor) enter(value span) {
	_, rest := e.s.word(value)
	port, _ := e.s.word(rest)
	e.replace(port)
	p := e.endpoint()
	e.told, e.control = false, false
	if p == nil {
		e.dst = append(e.dst, '0')
	} else {
		e.dst = strconv.AppendUint(e.dst, uint64(p.Addr.Port()), 10)
	}
	e.pending = p != nil && !e.s.media[e.at].connection.there && (!e.s.session.there || p.Addr.Addr() != e.r.Addr)
}

// addConnection gives the m-line a c= of its own, since that of the session names another address.
func (e *editor) addConnection(before int) {
	e.pending = false
	e.begin(before)
	e.dst = append(e.dst, "c="...)
	e.connection(e.addr())
	e.dst = append(e.dst, e.ends()...)
}

// begin copies up to before and sees to it that a new line may begin there.
func (e *editor) begin(before int) {
	e.copyTo(before)
	if before > 0 && e.s.text[before-1] != '\n' {
		e.dst = append(e.dst, e.ends()...)
	}
}

// leave ends the lines of an m-line with what they did not say.
func (e *editor) leave(before int) {
	p := e.endpoint()
	if p == nil {
		return
	}
	if e.pending {
		e.addConnection(before)
	}
	m := &e.s.media[e.at]
	if m.Kind == Unspecified && !e.told {
		e.begin(before)
		e.dst = append(append(append(e.dst, "a="...), held(m.Direction).String()...), e.ends()...)
	}
	if m.Transport == RTP && !e.control && p.RTCP != 0 && p.RTCP != p.Addr.Port()+1 {
		e.begin(before)
		e.dst = append(e.dst, "a=rtcp:"...)
		e.control = true
		e.writeRTCP(p)
		e.dst = append(e.dst, e.ends()...)
	}
}

// held is the direction of one that cannot be sent to. RFC 3264 §8.4.
func held(d Direction) Direction {
	if d == RecvOnly || d == Inactive {
		return Inactive
	}
	return SendOnly
}

func (e *editor) writeRTCP(p *Endpoint) {
	port := p.RTCP
	if port == 0 {
		port = p.Addr.Port() + 1
	}
	e.dst = append(strconv.AppendUint(e.dst, uint64(port), 10), ' ')
	e.connection(p.Addr.Addr())
}

func (e *editor) attribute(value, whole span) {
	name, arg, _ := bytes.Cut(e.s.bytes(value), []byte(":"))
	switch attributeOf(name) {
	case ice, alternate:
		e.replace(whole)
	case group:
		if len(arg) == 0 || isANAT(arg) || bytes.HasPrefix(arg, []byte("BUNDLE")) {
			e.replace(whole)
		}
	case direction:
		e.direct(value)
	case rtcp:
		p := e.endpoint()
		if p == nil || e.control {
			e.replace(whole) // names an address that nothing is sent to
			return
		}
		e.control = true
		e.replace(span{value.from + len("rtcp:"), value.to})
		e.writeRTCP(p)
	}
}

// direct writes a direction anew where the address said hold.
func (e *editor) direct(value span) {
	if e.endpoint() == nil || e.s.media[e.at].Kind != Unspecified {
		return
	}
	e.replace(value)
	e.dst = append(e.dst, held(e.s.media[e.at].Direction).String()...)
	e.told = true
}
