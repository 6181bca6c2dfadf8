// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package phonetest

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/kyozon/kyozon/protocol/phone/sdp"
)

// Description is what a telephone says of its media.
type Description struct {
	Ear       *Ear
	Version   int    // of o=, which has the same name and address all the while
	Direction string // "" is both ways
	Lines     []string
	Secure    bool // SRTP
}

// String writes it. The address of o= is that of the first description, as a telephone keeps it that changes where it hears.
func (d *Description) String() string {
	word := map[bool]string{true: "IP4", false: "IP6"}[d.Ear.Addr.Is4()]
	profile := "RTP/AVP"
	if d.Secure {
		profile = "RTP/SAVP"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "v=0\r\no=%s 7 %d IN %s %v\r\ns=-\r\nc=IN %s %v\r\nt=0 0\r\n", d.Ear.p.Name, d.Version, word, d.Ear.Addr, word, d.Ear.Addr)
	fmt.Fprintf(&b, "m=audio %d %s %d %d\r\na=rtpmap:%d telephone-event/8000\r\na=fmtp:%d 0-15\r\n", d.Ear.ports[RTP], profile, PCMU, Events, Events, Events)
	for _, l := range d.Lines {
		b.WriteString("a=" + l + "\r\n")
	}
	if d.Direction != "" {
		b.WriteString("a=" + d.Direction + "\r\n")
	}
	return b.String()
}

// Told is what a description tells of where the other end is.
type Told struct {
	RTP, RTCP netip.AddrPort // RTCP is where reports go if they have a port of their own
	Mux       bool
	Direction string
	Text      string
}

// Tells reads a description of one medium.
func (p *Telephone) Tells(text string) Told {
	p.t.Helper()
	var s sdp.Session
	if err := s.Parse([]byte(text), &sdp.Limits{}); err != nil || s.Len() != 1 {
		p.t.Fatalf("a description: %v\n%s", err, text)
	}
	m := s.Media(0)
	told := Told{RTP: netip.AddrPortFrom(m.Addr, m.Port), RTCP: netip.AddrPortFrom(m.Addr, m.Port+1), Mux: m.Mux,
		Direction: m.Direction.String(), Text: text}
	if m.RTCP != 0 {
		told.RTCP = netip.AddrPortFrom(m.Addr, m.RTCP)
	}
	return told
}

// Origin returns the name and the numbers of o=.
func (t *Told) Origin() (user, id, version string) {
	for l := range strings.Lines(t.Text) {
		if words := strings.Fields(l); strings.HasPrefix(l, "o=") && len(words) == 6 {
			return words[0][2:], words[1], words[2]
		}
	}
	return "", "", ""
}
