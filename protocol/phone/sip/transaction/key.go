// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package transaction

// Hot path: no allocation per packet.

import (
	"strconv"

	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// appendServerKey writes what requests of one transaction have in common and those of no other. ACK and CANCEL have the
// key of their INVITE. RFC 3261 §9.2, §17.2.3.
func appendServerKey(dst []byte, m *sip.Message, h *sip.Hop) []byte {
	method := m.Method()
	if m.Is("ACK") || m.Is("CANCEL") {
		dst = append(dst, "INVITE"...)
	} else {
		dst = append(dst, method...)
	}
	dst = append(dst, ' ')
	if !h.Modern() {
		return appendOldKey(dst, m)
	}
	dst = append(dst, h.Branch...)
	dst = append(dst, ' ')
	if h.SentBy.Addr.IsValid() {
		dst = sip.AppendHost(dst, h.SentBy.Addr, 0)
	} else {
		for _, c := range h.SentBy.Name {
			if 'A' <= c && c <= 'Z' {
				c += 'a' - 'A'
			}
			dst = append(dst, c)
		}
	}
	dst = append(dst, ':')
	return strconv.AppendUint(dst, uint64(h.SentBy.Port), 10)
}

// appendOldKey is for clients of RFC 2543, whose branches say nothing. The tag of To is not part of it: an ACK has that of
// the answer, and who has all the rest in common is the same call.
func appendOldKey(dst []byte, m *sip.Message) []byte {
	dst = append(dst, m.Target()...)
	dst = append(dst, ' ')
	from, _, _ := m.Address(sip.From)
	dst = append(dst, from.Tag()...)
	dst = append(dst, ' ')
	dst = append(dst, m.Get(sip.CallID)...)
	dst = append(dst, ' ')
	seq, _ := m.Sequence()
	dst = strconv.AppendUint(dst, uint64(seq.Number), 10)
	dst = append(dst, ' ')
	return append(dst, m.Get(sip.Via)...)
}

// appendClientKey writes what a request of ours and its responses have in common: the branch, and the method in CSeq,
// since CANCEL has the branch of its INVITE. RFC 3261 §17.1.3.
func appendClientKey(dst, method, branch []byte) []byte {
	dst = append(dst, method...)
	dst = append(dst, ' ')
	return append(dst, branch...)
}

// appendACK writes the ACK for a response that is not 2xx to a request of ours. RFC 3261 §17.1.1.3.
func appendACK(dst []byte, request, response *sip.Message) []byte {
	dst = append(dst, "ACK "...)
	dst = append(dst, request.Target()...)
	dst = append(dst, " SIP/2.0\r\n"...)
	for i := range request.Fields() {
		switch k, _, value := request.At(i); k {
		case sip.Via, sip.Route, sip.From, sip.CallID, sip.MaxForwards:
			dst = sip.AppendField(dst, k, value) // a request of ours has one Via
		}
	}
	dst = sip.AppendField(dst, sip.To, response.Get(sip.To))
	dst = append(dst, "CSeq: "...)
	seq, _ := request.Sequence()
	dst = strconv.AppendUint(dst, uint64(seq.Number), 10)
	return append(dst, " ACK\r\nContent-Length: 0\r\n\r\n"...)
}

// appendCancel writes the CANCEL of a request of ours: what says which one it is, and where it goes. RFC 3261 §9.1.
func appendCancel(dst []byte, request *sip.Message) []byte {
	dst = append(dst, "CANCEL "...)
	dst = append(dst, request.Target()...)
	dst = append(dst, " SIP/2.0\r\n"...)
	for i := range request.Fields() {
		switch k, _, value := request.At(i); k {
		case sip.Via, sip.Route, sip.From, sip.To, sip.CallID, sip.MaxForwards:
			dst = sip.AppendField(dst, k, value)
		}
	}
	dst = append(dst, "CSeq: "...)
	seq, _ := request.Sequence()
	dst = strconv.AppendUint(dst, uint64(seq.Number), 10)
	return append(dst, " CANCEL\r\nContent-Length: 0\r\n\r\n"...)
}
