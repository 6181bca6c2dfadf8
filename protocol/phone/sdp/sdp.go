// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

// Package sdp reads the descriptions of media that are in SIP, and changes in them what says where media are sent,
// without touching any other byte. It does no I/O; a Session keeps the bytes that it was shown.
//
//	offer of one leg ─▶ Session.Parse ─▶ Policy.Decide: may both ends talk directly?
//	                          │              yes: the bytes go on as they are
//	                          ▼              no:
//	                    Session.Append ─▶ the other leg, with addresses of the relay in that leg's family
//	answer ◀─ Append ◀─ Parse ◀─ answer of the other leg; Check holds it against the offer
//
// What is rewritten is written in one way: every c=, the ports of m=, the address of o=, a=rtcp. What belongs to
// others' addresses goes: ICE, since candidates beside an address that is in none of them only break the call
// (RFC 8839 §4.2.5); altc; source filters; the groups ANAT and BUNDLE, of which each m-line is left on its own. A hold
// that is told by the address 0.0.0.0 or :: becomes one told by direction, which has a form in both families.
//
// RFC 8866 and RFC 4566 (SDP), RFC 3264 (offer and answer), RFC 6157 (both families), RFC 3605 (a=rtcp), RFC 5761
// (rtcp-mux), RFC 8839 (ICE), RFC 9143 (BUNDLE), RFC 4091 (ANAT), RFC 6947 (altc), RFC 5118 (examples).
package sdp

import (
	"bytes"
	"net/netip"
	"strconv"

	"github.com/kyozon/kyozon/ip"
)

// MaxMedia is how many m-lines a description can have.
const MaxMedia = 16

// Limits bound what a peer may send. A zero field means its default.
type Limits struct {
	Text  int // bytes; default 16 KiB
	Lines int // default 512
	Media int // m-lines, at most MaxMedia; default 8
}

func or(n, usual int) int {
	if n == 0 {
		return usual
	}
	return n
}

// Session is a description. The zero value is ready for Parse; it may be used again.
type Session struct {
	text     []byte
	origin   span // the value of o=
	session  connection
	way      Direction // of the session; Unsaid if it has none
	grouped  bool      // there is a group ANAT
	iceThere bool

	count int
	media [MaxMedia]Media
}

// span is a part of the text.
type span struct{ from, to int }

func (s *Session) bytes(p span) []byte { return s.text[p.from:p.to] }

// connection is what a c= says.
type connection struct {
	there  bool
	family ip.Family // as it is written
	addr   netip.Addr
	kind   Kind
}

// Direction is which way media flow, as the one who says it sees it. RFC 8866 §6.7.
type Direction uint8

// The directions.
const (
	Unsaid Direction = iota
	SendRecv
	SendOnly
	RecvOnly
	Inactive
)

// directions is in the order of the constants.
var directions = [...]string{"", "sendrecv", "sendonly", "recvonly", "inactive"}

// String returns the name of the attribute.
func (d Direction) String() string { return directions[d] }

// Transport is how the media of an m-line travel.
type Transport uint8

// The transports.
const (
	Other Transport = iota // over TCP, or unknown: it cannot be relayed
	RTP                    // with RTCP beside it
	UDPTL                  // fax by T.38: opaque datagrams
)

// Media is one m-line and what is below it.
type Media struct {
	Port      uint16    // 0 if it is rejected, or bundled with another
	Ports     int       // more than 1 for layered encodings, which no relay takes
	Family    ip.Family // of the c= that applies, as it is written
	Addr      netip.Addr
	Kind      Kind // of Addr: who could send there
	Direction Direction
	Transport Transport
	RTCP      uint16 // of a=rtcp, or 0
	Mux       bool   // a=rtcp-mux
	Passed    bool   // another m-line of its ANAT group is preferred

	line, name, proto, mid span
	connection             connection
	way                    Direction // said at the m-line itself
}

// Len returns how many m-lines there are.
func (s *Session) Len() int { return s.count }

// Media returns the m-line i.
func (s *Session) Media(i int) *Media { return &s.media[i] }

// Name returns what the media of m-line i are: audio, image. Valid as long as the bytes parsed.
func (s *Session) Name(i int) []byte { return s.bytes(s.media[i].name) }

// ICE says whether there are candidates.
func (s *Session) ICE() bool { return s.iceThere }

// Live says whether media flow, or might.
func (m *Media) Live() bool { return m.Port != 0 && !m.Passed }

// Held says whether the peer wants no media: it says so, or its address does. RFC 3264 §8.4.
func (m *Media) Held() bool {
	return m.Direction == SendOnly || m.Direction == Inactive || m.Kind == Unspecified
}

// Clock returns how many timestamps a second the first format of m-line i has, or 0 if it does not say so. RFC 8866 §6.6.
func (s *Session) Clock(i int) uint32 {
	section := s.bytes(s.media[i].line)
	first, rest, _ := bytes.Cut(section, []byte("\n"))
	words := bytes.Fields(first)
	if len(words) < 4 {
		return 0
	}
	for l := range bytes.Lines(rest) {
		mapped, ok := bytes.CutPrefix(l, []byte("a=rtpmap:"))
		format, encoding, _ := bytes.Cut(mapped, []byte(" "))
		if !ok || !bytes.Equal(format, words[3]) {
			continue
		}
		_, clock, _ := bytes.Cut(bytes.TrimSpace(encoding), []byte("/"))
		clock, _, _ = bytes.Cut(clock, []byte("/"))
		n, _ := strconv.ParseUint(string(clock), 10, 32)
		return uint32(n)
	}
	return 0
}
