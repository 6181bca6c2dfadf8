// Copyright the kyozon authors.
// SPDX-License-Identifier: Apache-2.0

package dialog

import (
	"bytes"

	"github.com/kyozon/kyozon/protocol/phone/sip"
)

// Side is one of the two.
type Side uint8

const (
	nobody Side = iota
	ours
	theirs
)

// Offer is a description of a session that has no answer yet. RFC 3261 §13.2.1, RFC 3262 §5, RFC 3311 §5.1.
type Offer struct {
	By     Side
	Method string // of the request that it is in, or in whose response
	Seq    uint32
}

// fails forgets an offer whose request failed: what was before holds. RFC 6141 §3.
func (o *Offer) fails(method string, seq uint32) {
	if o.Method == method && o.Seq == seq {
		*o = Offer{}
	}
}

// inRequest counts the body of a request of side by: in ACK and PRACK it answers an offer of the other, else it is an
// offer.
func (s *Session) inRequest(by Side, method string, seq uint32, body bool) (v Verdict) {
	answers := method == "ACK" || method == "PRACK"
	switch {
	case !body:
	case answers && s.Offer.By == other(by):
		s.Offer, v.Answer = Offer{}, true
	case method != "ACK" && s.Offer.By == nobody:
		s.Offer, v.Offer = Offer{by, method, seq}, true
	}
	return v
}

// inResponse counts the body of a reliable response of side by: it answers an offer of the other; to an INVITE without
// one, the first is the offer. What comes besides changes nothing.
func (s *Session) inResponse(by Side, method string, seq uint32, body bool) (v Verdict) {
	invite := &s.Theirs
	if by == theirs {
		invite = &s.Ours
	}
	switch {
	case !body:
	case s.Offer.By == other(by):
		s.Offer, v.Answer = Offer{}, true
	case s.Offer.By == nobody && method == "INVITE" && invite.Offerless:
		invite.Offerless = false
		s.Offer, v.Offer = Offer{by, method, seq}, true
	}
	return v
}

func other(s Side) Side { return ours + theirs - s }

// hasSDP says whether a body describes a session. It may be in one of several parts, with what PSTN gateways add.
func hasSDP(m *sip.Message) bool {
	kind, _, _ := bytes.Cut(m.Get(sip.ContentType), []byte{';'})
	kind = bytes.TrimSpace(kind)
	const multipart = "multipart/"
	return bytes.EqualFold(kind, []byte("application/sdp")) ||
		len(kind) > len(multipart) && bytes.EqualFold(kind[:len(multipart)], []byte(multipart))
}
