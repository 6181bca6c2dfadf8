// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package sdp

import (
	"bytes"
	"net/netip"
	"strconv"
)

// Speech is what an offer takes of who only speaks.
type Speech struct {
	Line int   // the m-line
	Type uint8 // of payload: PCMU or PCMA
}

// The static types of G.711. RFC 3551 §6.
const (
	PCMU = 0
	PCMA = 8
)

// encodings are the names of types.
var encodings = map[uint8]string{PCMU: "PCMU", PCMA: "PCMA"}

// Speech returns the first m-line of an offer that takes speech by G.711 in clear, and by which law the offerer would rather
// hear it; or false.
func (s *Session) Speech() (Speech, bool) {
	for i := range s.count {
		m := &s.media[i]
		if !bytes.EqualFold(s.Name(i), []byte("audio")) || !bytes.EqualFold(s.bytes(m.proto), []byte("RTP/AVP")) ||
			!m.Live() || m.Ports != 1 || m.Held() {
			continue
		}
		for _, format := range s.formats(i) {
			switch string(format) {
			case "0":
				return Speech{i, PCMU}, true
			case "8":
				return Speech{i, PCMA}, true
			}
		}
	}
	return Speech{}, false
}

// formats are the last words of an m-line.
func (s *Session) formats(i int) [][]byte {
	first, _, _ := bytes.Cut(s.bytes(s.media[i].line), []byte("\n"))
	return bytes.Fields(first)[3:] // Parse has seen that there are more
}

// AppendSpeech adds the answer of who speaks from an address: he takes the one m-line, and refuses the others. RFC 3264 §6.
func (s *Session) AppendSpeech(dst []byte, from Speech, at netip.AddrPort, id uint64) []byte {
	family := " IN IP6 "
	if at.Addr().Is4() {
		family = " IN IP4 "
	}
	dst = append(strconv.AppendUint(append(dst, "v=0\r\no=- "...), id, 10), " 1"...)
	dst = at.Addr().AppendTo(append(dst, family...))
	dst = append(dst, "\r\ns=-\r\nc="...)
	dst = at.Addr().AppendTo(append(dst, family[1:]...))
	dst = append(dst, "\r\nt=0 0\r\n"...)
	for i := range s.count {
		dst = append(append(dst, "m="...), s.Name(i)...)
		if i != from.Line {
			dst = append(append(append(dst, " 0 "...), s.bytes(s.media[i].proto)...), ' ')
			dst = append(append(dst, s.formats(i)[0]...), "\r\n"...)
			continue
		}
		dst = strconv.AppendUint(append(dst, ' '), uint64(at.Port()), 10)
		dst = strconv.AppendUint(append(dst, " RTP/AVP "...), uint64(from.Type), 10)
		dst = strconv.AppendUint(append(dst, "\r\na=rtpmap:"...), uint64(from.Type), 10)
		dst = append(append(dst, ' '), encodings[from.Type]...)
		dst = append(dst, "/8000\r\na=ptime:20\r\n"...)
		if s.media[i].Direction == RecvOnly {
			dst = append(dst, "a=sendonly\r\n"...)
		}
	}
	return dst
}
